"""DMD2 (arXiv:2405.14867): distribution matching with a GAN head on the network that follows the student."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from advloss import Adversary, OptionError
from advloss_distill._distribution_matching import DistributionMatching
from advloss_distill._fake_score import Denoising, FakeScore
from advloss_distill._head_r1 import r1
from advloss_distill._renoising import Renoising, UniformRenoising
from advloss_distill.methods._setup import Method, NamedLoss, Setup

ADAM = functools.partial(torch.optim.AdamW, lr=1e-5, betas=(0.9, 0.999))


def dmd2(
    setup: Setup,
    *,
    loss: NamedLoss = "losses/non-saturating",
    guidance: float = 1.0,
    discriminator_steps: int = 5,
    adversary_weight: float = 1e-3,
    distillation_weight: float = 1.0,
    denoising_weight: float = 100.0,
    blocks: Sequence[int] | None = None,
    renoise: Sequence[float] | None = None,
    r1_method: str | None = None,
    r1_weight: float = 0.0,
) -> Method:
    """Softplus on a head at the fake score's bottleneck, trained with it; backward simulation; two time scales.

    Args:
        loss: by name, or with options.
        guidance: of the teacher; the paper's scripts have 1.75 (Stable Diffusion 1.5) and 8 (SDXL).
        discriminator_steps: of the fake score for one of the student; 10 and 5 there.
        adversary_weight: of the student's adversarial loss; 1e-3 and 5e-3 there.
        denoising_weight: of `Denoising` beside the discriminator's own loss; 1 to 0.01 there.
        blocks: of the fake score that are judged; None takes the one in the middle.
        renoise: mean and deviation of the noise level's logit; None is uniform, as there.
        r1_method: by which R1 is computed where it has an `r1_weight`, which it has not there; None is ``"head-inputs"``.
    """
    if r1_method is not None and not r1_weight:
        raise OptionError(
            f"r1_method={r1_method!r} computes nothing: R1 of dmd2 has weight 0, as in its paper. Give r1_weight (--r1-weight), "
            "too, or leave both out"
        )
    family = setup.family
    family.renoising = UniformRenoising() if renoise is None else Renoising(*renoise)
    simulation = setup.inputs(backward=True)
    fake = FakeScore(
        family,
        setup.student(),
        setup.example,
        blocks=blocks,
        num_classes=setup.num_classes,
        num_steps=simulation.num_steps,
    )
    adversary = Adversary(
        fake,
        loss=loss,
        regularizers=[Denoising(fake, weight=denoising_weight), *r1(fake, r1_method or "head-inputs", r1_weight)],
        optimizer=setup.optimizer or ADAM,
        scheduler=setup.scheduler,
        max_grad_norm=10.0 * max(1.0, denoising_weight),  # 10 beside a denoising loss of weight 1
        weight=adversary_weight,
    )
    return Method(
        student=setup.student(),
        adversary=adversary,
        simulation=simulation,
        term=DistributionMatching(
            family, setup.teacher, fake.network, told=fake.told, guidance=setup.guidance(guidance)
        ),
        distillation_weight=distillation_weight,
        further={"discriminator_steps": discriminator_steps},
    )
