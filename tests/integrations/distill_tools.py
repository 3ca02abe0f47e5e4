"""A distillation in miniature: a UNet of ten thousand parameters, labelled data, and a judge that tells what it was told."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn

import advloss
from advloss_distill import BackwardSimulation, ClassConditional, Conditions, Diffusion, Distillation, digits

CLASSES = 10
PATHS = ((999,), (999, 499), (999, 749, 499))
COUNTS = {(999,): 6, (999, 499): 3, (999, 749): 4, (999, 749, 499): 2}


def fresh_accelerator() -> Iterator[Accelerator]:
    """One on the CPU; Accelerate's process-wide state is reset around it."""
    reset_accelerate()
    yield Accelerator(cpu=True)
    reset_accelerate()


def reset_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def tiny_unet() -> UNet2DModel:
    """For images `(N, 1, 8, 8)` and labels `(N,)`."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        add_attention=False,
        num_class_embeds=CLASSES,
    )


@functools.cache
def all_digits() -> digits.Digits:
    return digits.Digits()


@functools.cache
def judge_of_digits() -> digits.Classifier:
    """The digits' classifier, trained once for all tests."""
    torch.set_flush_denormal(True)
    try:
        return digits.train_classifier(all_digits())
    finally:
        torch.set_flush_denormal(False)


def zero_snr_scheduler() -> DDIMScheduler:
    return DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")


class Stripes:
    """Images `(N, 1, 8, 8)` of one grey level per label, with a texture of at most `TEXTURE`: noise is no such image."""

    TEXTURE = 0.05

    def conditions(self, count: int) -> Conditions:
        return {"class_labels": torch.randint(CLASSES, (count,))}

    def real(self, condition: Conditions) -> Tensor:
        labels = condition["class_labels"]
        return self.level(labels) + self.TEXTURE * (2 * torch.rand(len(labels), 1, 8, 8) - 1)

    @staticmethod
    def level(labels: Tensor) -> Tensor:
        return (labels / CLASSES * 1.8 - 0.9).view(-1, 1, 1, 1)


class TinyJudge(nn.Module):
    """Logits `(N,)`, projected on class and step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        self.label, self.step = nn.Embedding(CLASSES, 16), nn.Embedding(len(COUNTS), 16)
        self.head = nn.Linear(16, 1)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        features = self.body(samples)
        embedding = self.label(condition["class"]) + self.step(condition["time"])
        return self.head(features).squeeze(1) + (features * embedding).sum(1)


class Recorded(advloss.Adversary):
    """An adversary that keeps what it is given: `turns` of the student, `judged` of the discriminator."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.turns: list[SimpleNamespace] = []
        self.judged: list[SimpleNamespace] = []

    def generator_loss(self, fake: Tensor, real: Any = None, condition: Any = None, **options: Any) -> Tensor:
        self.turns.append(SimpleNamespace(fake=fake, real=real, condition=condition, seen=len(self.judged)))
        return super().generator_loss(fake, real=real, condition=condition, **options)

    def discriminator_step(self, real: Tensor, fake: Tensor, condition: Any = None, **options: Any) -> advloss.Report:
        self.judged.append(SimpleNamespace(fake=fake, real=real, condition=condition))
        return super().discriminator_step(real, fake, condition=condition, **options)


def tiny_adversary() -> Recorded:
    return Recorded(
        TinyJudge(),
        loss="relativistic",
        regularizers={"r1": {"weight": 0.05, "every": 2}},
        augmentations={"instance-noise": {"sigma": 0.1}},
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.99)),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
    )


def tiny_distillation(
    accelerator: Accelerator,
    scheduler: Any = None,
    paths: Any = PATHS,
    counts: Any = COUNTS,
    change: Callable[[nn.Module], object] = lambda teacher: None,
    **options: Any,
) -> Distillation:
    """A student of `scheduler`'s prediction type, with everything that a resumed run must take up again."""
    torch.manual_seed(0)
    denoiser = ClassConditional(Diffusion.from_scheduler(scheduler or zero_snr_scheduler()), clip=1.0)
    teacher = tiny_unet()
    student = copy.deepcopy(teacher)
    change(teacher)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    return Distillation(
        denoiser,
        teacher,
        student,
        tiny_adversary(),
        BackwardSimulation(denoiser.diffusion, paths, counts),
        Stripes(),
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        accelerator=accelerator,
        **options,
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def flat(tree: Any, place: str = "") -> dict[str, Any]:
    """A nested state as one mapping, to be compared entry by entry."""
    if isinstance(tree, dict):
        return {k: v for name, value in tree.items() for k, v in flat(value, f"{place}/{name}").items()}
    if isinstance(tree, (list, tuple)):
        return {k: v for i, value in enumerate(tree) for k, v in flat(value, f"{place}/{i}").items()}
    return {place: tree}


def differences(one: Any, other: Any) -> list[str]:
    """Places where two nested states differ in a bit."""
    one, other = flat(one), flat(other)
    same = {
        name
        for name in one.keys() & other.keys()
        if (torch.equal(one[name], other[name]) if isinstance(one[name], Tensor) else one[name] == other[name])
    }
    return sorted((one.keys() | other.keys()) - same)
