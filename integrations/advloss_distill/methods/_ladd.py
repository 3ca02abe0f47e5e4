"""LADD (arXiv:2403.12015): the teacher's own features judge noised latents; no teacher's term."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from advloss import Adversary
from advloss_distill._head_r1 import r1
from advloss_distill._renoising import Renoising
from advloss_distill._teacher_discriminator import TeacherDiscriminator
from advloss_distill.methods._setup import Method, NamedLoss, Setup

HINGE = "losses/hinge"
ADAM = functools.partial(torch.optim.AdamW, lr=1e-4, betas=(0.0, 0.99))


def ladd(
    setup: Setup,
    *,
    loss: NamedLoss = HINGE,
    renoise: Sequence[float] = (1.0, 1.0),
    blocks: Sequence[int] | None = None,
    misaligned: float = 0.0,
    distillation_weight: float = 0.0,
    r1_method: str = "finite-difference",
    r1_weight: float = 1e-5,
) -> Method:
    """Backward simulation (arXiv:2405.14867) takes the place of noised data, unless `setup` says otherwise.

    Args:
        loss: by name, or with options; the relativistic one compares real and fake samples of one condition.
        renoise: mean and deviation of the noise level's logit.
        blocks: of the teacher that are judged; None takes all.
        misaligned: add this share of the real samples, with prompts of others, to the fakes.
        distillation_weight: of `ScoreDistillation` in latent space; the paper leaves it out.
    """
    simulation = setup.inputs(backward=True)
    return Method(
        student=setup.student(),
        adversary=teacher_adversary(
            setup, renoise, blocks, r1_method, r1_weight, num_steps=simulation.num_steps, loss=loss
        ),
        simulation=simulation,
        distillation_weight=distillation_weight,
        further={"misaligned": misaligned},
    )


def teacher_adversary(
    setup: Setup,
    renoise: Sequence[float],
    blocks: Sequence[int] | None,
    r1_method: str,
    r1_weight: float,
    weight: float = 1.0,
    *,
    num_steps: int,
    loss: NamedLoss = HINGE,
) -> Adversary:
    """LADD's: heads after the teacher's blocks. The family draws noise by `renoise` from now on."""
    setup.family.renoising = Renoising(*renoise)
    discriminator = TeacherDiscriminator(
        setup.family,
        setup.teacher,
        setup.example,
        blocks=blocks,
        num_classes=setup.num_classes,
        num_steps=num_steps,
    )
    return Adversary(
        discriminator,
        loss=loss,
        regularizers=r1(discriminator, r1_method, r1_weight, every=4),
        optimizer=setup.optimizer or ADAM,
        scheduler=setup.scheduler,
        weight=weight,
    )
