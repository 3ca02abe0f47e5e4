"""Any image discriminator at a fraction of the resolution, without losing a pixel (Shi et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, nn
from torch.nn.functional import pad, pixel_unshuffle

from advloss import Condition, InputError, Logits, OptionError
from advloss_discriminators._options import check_positive, parse_wrapped

_TAKES = ("num_classes", "condition_features", "num_steps")


@final
class PixelUnshuffleDiscriminator(nn.Module):
    """Squares of `factor` x `factor` pixels become channels, and a discriminator judges those.

    It costs about a `factor` squared-th of the same discriminator at full resolution and sees `factor` times as far; unlike
    on a smaller image nothing of what is between the pixels is lost (arXiv:1609.05158, equation 4, backwards). Sides
    that `factor` does not divide are continued by their last pixel. Image conditions are treated alike.

    Args:
        discriminator: a name or a ``(name, options)`` pair; its channels are set here, options are those of the smaller
            image.
        factor: how many times smaller the sides become.
        in_channels: channels of the images.
        condition_channels: channels of an image condition of the samples' size; 0 for none.
        options: further ones of the discriminator; a `resolution` that is given here is that of the images.
    """

    dims = 2

    def __init__(
        self,
        *,
        discriminator: str | tuple[str, Mapping[str, Any]] = "discriminators/patch",
        factor: int = 2,
        in_channels: int = 3,
        condition_channels: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        from advloss import create_discriminator  # here, as the catalogue is needed only here

        check_positive(factor=factor, in_channels=in_channels)
        if condition_channels != 0:
            check_positive(condition_channels=condition_channels)
        if "resolution" in options:
            check_positive(resolution=options["resolution"])
            options["resolution"] = -(-options["resolution"] // factor)
        name, inner = parse_wrapped(discriminator, options)
        inner["in_channels"] = in_channels * factor**2
        if condition_channels:
            inner["condition_channels"] = condition_channels * factor**2
        self.discriminator = create_discriminator(name, **inner)
        if getattr(self.discriminator, "dims", 2) != 2:
            raise OptionError(f"discriminator={discriminator!r} takes no images: give one that does, such as 'patch'")
        self.in_channels, self.condition_channels, self.factor = in_channels, condition_channels, factor
        for option in _TAKES:
            if hasattr(self.discriminator, option):
                setattr(self, option, getattr(self.discriminator, option))
        if getattr(self.discriminator, "resolution", None) is not None:
            self.resolution = factor * self.discriminator.resolution  # type: ignore[operator]
            self.smallest = self.resolution
        elif getattr(self.discriminator, "smallest", None) is not None:
            self.smallest = factor * (self.discriminator.smallest - 1) + 1  # type: ignore[operator]
        self.batch_coupled = getattr(self.discriminator, "batch_coupled", False)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Logits:
        """Logits of `samples` `(N, in_channels, H, W)`, as the discriminator gives them.

        Raises:
            InputError: the samples are no images.
        """
        if samples.dim() != 4:
            raise InputError(f"samples have shape {tuple(samples.shape)}; give images (N, channels, height, width)")
        if isinstance(condition, Tensor):
            condition = self._unshuffle(condition) if condition.dim() == 4 else condition
        elif condition is not None:
            condition = {k: self._unshuffle(part) if k == "image" else part for k, part in condition.items()}
        logits: Logits = self.discriminator(self._unshuffle(samples), condition)
        return logits

    def _unshuffle(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        images = pad(images, (0, -width % self.factor, 0, -height % self.factor), mode="replicate")
        return pixel_unshuffle(images, self.factor)
