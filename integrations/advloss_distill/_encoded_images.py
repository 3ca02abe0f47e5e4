"""Images that are encoded when they are drawn: data of which a file of latents would be too large."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from advloss_distill._captioned import CaptionedImages
from advloss_distill._family import Family
from advloss_distill._latent_data import encoded
from advloss_distill._simulation import Conditions


@final
class EncodedImages:
    """The `Data` of a distillation from images and captions; VAE and text encoders work in every iteration.

    Latents travel with their conditions (``"latents"``). They are drawn with torch's random numbers, so that a resumed run
    sees what an uninterrupted one would have seen.

    Args:
        pipeline: the teacher's, on its device.

    Attributes:
        told: conditions of one sample, as an example.

    Raises:
        InputError: no image can be read.
    """

    def __init__(self, family: Family, pipeline: Any, images: CaptionedImages) -> None:
        self.family, self.pipeline, self.images = family, pipeline, images
        _, self.told = encoded(family, pipeline, [next(iter(images))])

    def __len__(self) -> int:
        return len(self.images)

    def conditions(self, count: int) -> Conditions:
        """Of `count` random images."""
        latents, told = encoded(self.family, self.pipeline, self.images.draw(count))
        return {**told, "latents": latents}

    def real(self, condition: Conditions) -> Tensor:
        """The latents of these conditions."""
        return condition["latents"]
