"""One iteration of adversarial distillation, on digits."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import relu

from advloss import Adversary
from advloss_distill import ClassConditional, Diffusion, Distillation, NoisedData, digits, score_distillation
from benchmarks._harness import Row, Settings, compare, gradients

TIMESTEPS = (999, 749, 499, 249)


class Ours:
    """`Distillation.step` as `examples/distill_turbo.py --method add` sets it up."""

    def __init__(self, batch: int, device: str) -> None:
        torch.manual_seed(0)
        denoiser = ClassConditional(Diffusion.from_scheduler(digits.teacher_scheduler()), clip=1.0)
        data, teacher = digits.Digits(device), digits.teacher_network()
        student = copy.deepcopy(teacher)
        self.distillation = Distillation(
            denoiser,
            teacher,
            student,
            Adversary.from_recipe(
                "add", backbone="test_vit", pretrained=False, in_channels=1, resolution=32, num_classes=10
            ),
            NoisedData(denoiser.diffusion, TIMESTEPS, batch, data),
            data,
            torch.optim.Adam(student.parameters(), lr=2e-4, betas=(0.0, 0.99), fused=True),
            accelerator=Accelerator(cpu=device == "cpu"),
            distillation_weight=2.5,
        )
        self.losses: dict[str, Tensor] = {}

    def step(self) -> None:
        torch.manual_seed(1)
        progress = self.distillation.step()
        self.losses = {"generator": progress.generator_loss, "discriminator": progress.report.loss}

    def numbers(self) -> Mapping[str, Tensor]:
        held = self.distillation
        heads = held.adversary.discriminator.heads
        return {
            **self.losses,
            "student's gradient": gradients(held.optimizer, held.student.parameters()),
            "heads' gradient": gradients(held.adversary.optimizer, heads.parameters()),
        }


class Textbook(Ours):
    """A student forward for each player; features of both batches in the discriminator's step, of fakes in both."""

    again = True

    def step(self) -> None:
        torch.manual_seed(1)
        held = self.distillation
        denoiser, discriminator = held.denoiser, held.adversary.discriminator
        noise = torch.randn(held.simulation.fresh, 1, 8, 8, device=held.accelerator.device)
        noisy, condition = held.simulation.inputs(noise, held.data.conditions(held.simulation.fresh))
        timesteps = held.simulation.timesteps.to(noisy.device)
        real = held.data.real(condition)
        judged = denoiser.judged(condition, held.simulation.steps.to(noisy.device))
        random = torch.get_rng_state()

        x0 = denoiser.x0(held.student, noisy, timesteps, condition)
        leaves = [feature.detach().requires_grad_() for feature in discriminator.features(real)]
        real_logits = discriminator.heads(leaves, judged)
        fake_logits = discriminator(x0.detach(), judged)
        loss = sum(relu(1 - r).mean() + relu(1 + f).mean() for r, f in zip(real_logits, fake_logits))
        slopes = torch.autograd.grad(sum(r.sum() for r in real_logits), leaves, create_graph=True)
        loss = loss + 1e-5 / 2 * sum(s.square().sum() for s in slopes) / len(real)
        loss.backward()
        held.adversary.optimizer.step()
        held.adversary.optimizer.zero_grad()

        if self.again:
            x0 = denoiser.x0(held.student, noisy, timesteps, condition)
        torch.set_rng_state(random)
        adversarial = -sum(f.mean() for f in discriminator(x0, judged))
        distilled = 2.5 * score_distillation(denoiser, held.teacher, x0, condition)
        (adversarial + distilled).backward()
        held.optimizer.step()
        held.optimizer.zero_grad()
        held.adversary.optimizer.zero_grad()
        held.ema.step(held.student.parameters())
        self.losses = {"generator": adversarial.detach(), "discriminator": loss.detach()}


def rows(settings: Settings) -> Iterator[Row]:
    """The ADD method of the example, at its batch."""
    size: Any = (settings.size(132, 8), settings.device)
    work = f"distillation, ADD on digits, batch {size[0]}"
    against = "a second student forward for the discriminator, features in both players' steps"
    yield compare(work, partial(Ours, *size), against, partial(Textbook, *size), settings, target=0.75)
