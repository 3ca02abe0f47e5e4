"""A discriminator of the catalogue, or of one's own, and nothing else (after GDD, a pure GAN from the diffusion model)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advloss import Adversary, OptionError
from advloss_distill._distill import Shown
from advloss_distill._head_r1 import r1
from advloss_distill._pixels import Pixels
from advloss_distill.methods._ladd import ADAM, HINGE
from advloss_distill.methods._setup import Augmentations, Method, Named, NamedLoss, Setup


def adversarial(
    setup: Setup,
    *,
    discriminator: Named = ("discriminators/projection", {}),
    loss: NamedLoss = HINGE,
    pixels: bool = False,
    crop: int | None = None,
    chunk: int | None = None,
    augmentations: Augmentations = (),
    misaligned: float = 0.0,
    r1_method: str = "finite-difference",
    r1_weight: float = 1e-4,
) -> Method:
    """No teacher's term: the teacher is where the student begins, and is never run.

    Args:
        discriminator: its channels, sizes and conditions follow from the family where the catalogue tells them.
        loss: by name, or with options; hinge has a gradient for fakes however far off they are.
        pixels: judge decoded images in place of latents; `crop` and `chunk` are those of `Pixels`.
        augmentations: of what the discriminator sees, by name, or with their options.
        misaligned: add this share of the real samples, with prompts of others, to the fakes.
        r1_weight: 1e-4 in GDD.
    """
    if (crop or chunk) and not pixels:
        raise OptionError("crop and chunk are about decoded images: give pixels, too, or neither")
    shown: Shown = _as_they_are
    channels, side = setup.family.shape[0], setup.family.shape[-1]
    if pixels:
        shown = Pixels(setup.family, setup.vae, crop=crop, chunk=chunk)
        channels, side = 3, crop or setup.family.resolution
    simulation = setup.inputs(backward=True)
    shown = setup.shown(discriminator, shown, misaligned=misaligned)
    judge = setup.judge(discriminator, channels, side, simulation.num_steps)
    adversary = Adversary(
        judge,
        loss=loss,
        regularizers=r1(judge, r1_method, r1_weight),
        augmentations=list(augmentations),
        optimizer=setup.optimizer or ADAM,
        scheduler=setup.scheduler,
    )
    return Method(
        student=setup.student(),
        adversary=adversary,
        simulation=simulation,
        further={"shown": shown, "misaligned": misaligned},
    )


def _as_they_are(fake: Tensor, real: Tensor, judged: Any) -> tuple[Tensor, Tensor, Any]:
    return fake, real, judged
