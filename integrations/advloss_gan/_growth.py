"""Progressive growing: coarse images first (Karras et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from advloss import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class Growth:
    """4 x 4 pixels for `steps` steps, then twice the side every `steps` steps, each faded in over half of them.

    As in arXiv:1710.10196, section 2, but for the discriminator: it is whole from the start and sees coarse images
    enlarged, as the generator's stages that do not run yet would leave them. So any discriminator can take part, and
    keeps its optimizer's state.

    Attributes:
        steps: generator steps a stage.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise OptionError(f"Growth: steps={self.steps!r}; give 2 or more steps a stage")

    def check(self, generator: nn.Module) -> None:
        """Raise OptionError unless `generator` can grow: it has `stages` and `grown`."""
        if not (hasattr(generator, "grown") and hasattr(generator, "stages")):
            raise OptionError(f"{type(generator).__name__} cannot grow; use the style-based generator")

    def grow(self, step: int, *generators: nn.Module) -> None:
        """Set how many stages of the generators run in `step`, counted from 0."""
        for generator in generators:
            stage, place = divmod(step, self.steps)
            grown = 1.0 if stage == 0 else stage + min(1.0, 2 * place / self.steps)
            generator.grown = min(grown, float(len(generator.stages)))  # type: ignore[arg-type, assignment]

    @staticmethod
    def coarsen(images: Tensor, generator: nn.Module) -> Tensor:
        """`images` `(N, C, H, W)` as `generator` would show them: fine detail gone that its stages cannot make yet."""
        grown, stages = float(generator.grown), len(generator.stages)  # type: ignore[arg-type]
        factor = 2 ** (stages - math.ceil(grown))
        coarse = avg_pool2d(images, factor)
        if fade := grown % 1:
            coarser = interpolate(avg_pool2d(coarse, 2), scale_factor=2.0, mode="bilinear")
            coarse = coarser.lerp(coarse, fade)
        return interpolate(coarse, scale_factor=float(factor)) if factor > 1 else coarse
