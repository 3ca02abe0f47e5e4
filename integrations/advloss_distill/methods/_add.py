"""ADD (arXiv:2311.17042): a frozen vision transformer judges decoded images, and the teacher's scores are distilled."""

from __future__ import annotations

from advloss import Adversary, FeatureDiscriminator, OptionError
from advloss_distill._head_r1 import r1
from advloss_distill._pixels import ImageEmbedding, Pixels
from advloss_distill._score import ScoreDistillation, Weights
from advloss_distill.methods._ladd import ADAM
from advloss_distill.methods._setup import Augmentations, Method, Named, NamedLoss, Setup, created

DINO: Named = ("timm/dino", {"backbone": "vit_small_patch14_dinov2.lvd142m", "resolution": 518})
UNWANTED = "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"


def add(
    setup: Setup,
    *,
    discriminator: Named = DINO,
    loss: NamedLoss = ("losses/hinge", {"scales": "sum"}),
    score_weights: Weights = "exponential",
    distillation_weight: float = 2.5,
    guidance: float | None = None,
    image_condition: bool = False,
    crop: int | None = None,
    chunk: int | None = None,
    augmentations: Augmentations = (),
    misaligned: float = 0.0,
    r1_method: str = "head-inputs",
    r1_weight: float = 1e-5,
) -> Method:
    """Hinge, summed over heads that are told the pooled prompt; score distillation in pixels; noised real samples.

    Args:
        discriminator: on frozen features of images.
        loss: by name, or with options.
        score_weights: ``"exponential"``, ``"sds"`` or ``"nfsd"``, the paper's final one.
        guidance: of the teacher in the term; default none, and 7.5 for NFSD, as its paper has it.
        image_condition: tell the heads an embedding of the real image, too, by the same backbone.
        crop, chunk: as `Pixels` has them.
        augmentations: of what the discriminator sees, by name, or with their options.
        misaligned: add this share of the real samples, with prompts of others, to the fakes.
    """
    if image_condition and setup.backward_simulation:
        raise OptionError(
            "an image condition is the real image that a student's input was made of, and with backward simulation there is "
            "none: leave out one of the two"
        )
    scale = guidance if guidance is not None else 7.5 if score_weights == "nfsd" else 1.0
    negative = setup.family.nothing(setup.pipeline, UNWANTED) if score_weights == "nfsd" else None
    embed = image_embedding(setup, discriminator) if image_condition else None
    pixels = Pixels(setup.family, setup.vae, crop=crop, chunk=chunk, embed=embed)
    further = embed.channels if embed else 0
    shown = setup.shown(discriminator, pixels, further, misaligned=misaligned, image_condition=image_condition)
    simulation = setup.inputs(backward=False)
    judge = setup.judge(discriminator, 3, crop or setup.family.resolution, simulation.num_steps, further)
    adversary = Adversary(
        judge,
        loss=loss,
        regularizers=r1(judge, r1_method, r1_weight),
        augmentations=list(augmentations),
        optimizer=setup.optimizer or ADAM,
        scheduler=setup.scheduler,
    )
    term = ScoreDistillation(
        setup.family,
        setup.teacher,
        weights=score_weights,
        guidance=setup.guidance(scale),
        negative=negative,
        decode=pixels.pair,
    )
    return Method(
        student=setup.student(),
        adversary=adversary,
        simulation=simulation,
        term=term,
        distillation_weight=distillation_weight,
        further={"shown": shown, "misaligned": misaligned},
    )


def image_embedding(setup: Setup, discriminator: Named) -> ImageEmbedding:
    """By the backbone of `discriminator`."""
    judge = created(discriminator)
    if not isinstance(judge, FeatureDiscriminator):
        raise OptionError(
            f"an image condition is an embedding by the discriminator's frozen features, and {discriminator[0]!r} has none"
        )
    return ImageEmbedding(judge.features).to(next(setup.teacher.parameters()).device)
