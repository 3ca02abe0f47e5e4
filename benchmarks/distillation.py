"""One iteration of adversarial distillation, with the networks and sizes of `examples/distill_turbo.py`."""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import relu, softplus

from advloss import Adversary
from advloss_distill import BackwardSimulation, ClassConditional, Diffusion, Distillation, digits, score_distillation
from benchmarks._harness import Row, Settings, compare, gradients


@functools.cache
def example() -> ModuleType:
    """The script."""
    path = Path(__file__).parents[1] / "examples" / "distill_turbo.py"
    spec = importlib.util.spec_from_file_location("distill_turbo", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ours:
    """`Distillation.step` of the example's ADD method (``--method add``), which judges by frozen features."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.held = self.build(digits.Digits(device), Accelerator(cpu=device == "cpu"))
        self.denoiser, self.student = self.held.denoiser, self.held.student
        self.adversary, self.simulation = self.held.adversary, self.held.simulation
        self.losses: dict[str, Tensor] = {}

    def build(self, data: digits.Digits, accelerator: Accelerator) -> Distillation:
        options = SimpleNamespace(backbone="test_vit", pretrained=False, lr=2e-4, iterations=1000)
        options.distillation_weight = 2.5
        return example().distil_add(digits.teacher_network(), data, options, accelerator)

    def step(self) -> None:
        torch.manual_seed(1)
        progress = self.held.step()
        self.losses = {"generator": progress.generator_loss, "discriminator": progress.report.loss}

    def numbers(self) -> Mapping[str, Tensor]:
        trained = self.adversary.optimizer.param_groups[0]["params"]
        return {
            **self.losses,
            "student's gradient": gradients(self.held.optimizer, self.student.parameters()),
            "discriminator's gradient": gradients(self.adversary.optimizer, trained),
        }

    def batch(self) -> tuple[Tensor, Tensor, Any, Any, Tensor]:
        """Noisy inputs with their timesteps and condition, what the discriminator is told, and real samples."""
        noise = torch.randn(self.simulation.fresh, 1, 8, 8, device=self.held.accelerator.device)
        noisy, condition = self.simulation.inputs(noise, self.held.data.conditions(self.simulation.fresh))
        judged = self.denoiser.judged(condition, self.simulation.steps.to(noisy.device))
        return noisy, self.simulation.timesteps.to(noisy.device), condition, judged, self.held.data.real(condition)

    def update_student(self, loss: Tensor) -> None:
        """Its step."""
        loss.backward()
        self.held.optimizer.step()
        self.held.optimizer.zero_grad()
        self.adversary.discriminator.zero_grad()
        self.held.scheduler.step()
        self.held.ema.step(self.student.parameters())


class Textbook(Ours):
    """A student forward for each player; features of both batches in one player's step, of the fakes in both."""

    def step(self) -> None:
        torch.manual_seed(1)
        noisy, timesteps, condition, judged, real = self.batch()
        discriminator, optimizer, drawn = self.adversary.discriminator, self.adversary.optimizer, torch.get_rng_state()

        made = self.denoiser.x0(self.student, noisy, timesteps, condition).detach()
        leaves = [feature.detach().requires_grad_() for feature in discriminator.features(real)]
        real_logits, fake_logits = discriminator.heads(leaves, judged), discriminator(made, judged)
        loss = sum(relu(1 - r).mean() + relu(1 + f).mean() for r, f in zip(real_logits, fake_logits))
        slopes = torch.autograd.grad(sum(r.sum() for r in real_logits), leaves, create_graph=True)
        loss = loss + 1e-5 / 2 * sum(slope.square().sum() for slope in slopes) / len(real)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        torch.set_rng_state(drawn)
        x0 = self.denoiser.x0(self.student, noisy, timesteps, condition)
        adversarial = -sum(f.mean() for f in discriminator(x0, judged))
        distilled = 2.5 * score_distillation(self.denoiser, self.held.teacher, x0, condition)
        self.update_student(adversarial + distilled)
        self.losses = {"generator": adversarial.detach(), "discriminator": loss.detach()}


class Simulated(Ours):
    """`Distillation.step` as in the example's default: it trains on what the student makes, and rolls it out for nothing.

    Without what costs the same in both loops or next to nothing: the start, moved and teacher-made samples, noise.
    """

    def build(self, data: digits.Digits, accelerator: Accelerator) -> Distillation:
        settings, teacher = example(), digits.teacher_network()
        denoiser = ClassConditional(Diffusion.from_scheduler(digits.teacher_scheduler()), clip=1.0)
        judge = ("dense", {"pixels": 64, "num_classes": 10, "num_steps": len(settings.COUNTS)})
        terms = {name: {"weight": 0.1, "every": 4} for name in ("r1", "r2")}
        simulation = BackwardSimulation(denoiser.diffusion, settings.PATHS, settings.COUNTS)
        held: Distillation = settings.distillation_of(
            denoiser,
            teacher,
            copy.deepcopy(teacher),
            Adversary(judge, "relativistic", terms),
            simulation,
            data,
            options=SimpleNamespace(lr=2e-4, iterations=1000, distillation_weight=0.0),
            accelerator=accelerator,
        )
        simulation.fill(held._x0, (1, 8, 8), data.conditions, accelerator.device)
        return held


class Twice(Simulated):
    """A student forward for each player, and a discriminator that is not frozen in the student's step."""

    def step(self) -> None:
        torch.manual_seed(1)
        noisy, timesteps, condition, judged, real = self.batch()
        with torch.no_grad():
            made = self.denoiser.x0(self.student, noisy, timesteps, condition)
        report = self.adversary.discriminator_step(real, made, judged)
        x0 = self.denoiser.x0(self.student, noisy, timesteps, condition)
        self.simulation.advance(x0, condition)
        discriminator = self.adversary.discriminator
        loss = softplus(discriminator(real, judged) - discriminator(x0, judged)).mean()
        self.update_student(loss)
        self.losses = {"generator": loss.detach(), "discriminator": report.loss}


class RolledOut(Twice):
    """And one for each earlier step of a sample, to come by the inputs (backward simulation, arXiv:2405.14867)."""

    def step(self) -> None:
        noisy, timesteps, condition, _, _ = self.batch()
        with torch.no_grad():
            for depth in (2, 3, 4):
                deep = torch.tensor([len(step) >= depth for step in _steps()])
                chosen = {name: value[deep] for name, value in condition.items()}
                self.denoiser.x0(self.student, noisy[deep], timesteps[deep], chosen)
        super().step()


def _steps() -> list[tuple[int, ...]]:
    """The step of each sample of the batch."""
    counts = sorted(example().COUNTS.items(), key=lambda item: (len(item[0]), item[0]))
    return [step for step, count in counts for _ in range(count)]


def rows(settings: Settings) -> Iterator[Row]:
    """Both methods, at the example's batch of 132."""
    device, twice = settings.device, "a student forward for each player"
    textbook = partial(Textbook, device)
    yield compare("distillation, ADD on digits", partial(Ours, device), twice, textbook, settings, target=0.75)
    work, ours = "distillation, default on digits", partial(Simulated, device)
    yield compare(work, ours, twice, partial(Twice, device), settings, target=0.75)
    yield compare(work, ours, f"{twice}, and roll-outs", partial(RolledOut, device), settings, agreement=None)
