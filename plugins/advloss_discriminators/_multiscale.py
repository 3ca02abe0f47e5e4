"""Several discriminators on an image pyramid (Wang et al. 2018, pix2pixHD)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, final

from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d

from advloss import Condition, InputError, OptionError, as_scales
from advloss_discriminators._options import check_positive, parse_wrapped, take_over

Make = Callable[[], nn.Module]
_POOL: dict[int, Callable[..., Tensor]] = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}


@final
class MultiscaleDiscriminator(nn.Module):
    """The same architecture on samples and on their halves, quarters, ...; weights differ (arXiv:1711.11585, 3.2).

    Each level is average pooling of the level before: 3 wide, stride 2, padding 1, which does not count.
    Image conditions are pooled alike; other conditions go to each level as they are. Where the discriminator has
    a `resolution`, each level is built for half that of the level before.

    Args:
        discriminator: a name, a ``(name, options)`` pair, or a callable without arguments that returns a new
            module; called once a scale.
        scales: number of levels, the full resolution among them.
        options: further ones of a discriminator by name.
    """

    def __init__(
        self,
        *,
        discriminator: str | tuple[str, Mapping[str, Any]] | Make = "discriminators/patch",
        scales: int = 3,
        **options: Any,
    ) -> None:
        super().__init__()
        check_positive(scales=scales)
        if callable(discriminator) and not options:
            levels = _from_callable(discriminator, scales)
        else:
            levels = _by_name(*parse_wrapped(discriminator, options), scales)
        self.levels = nn.ModuleList(levels)
        first, last = levels[0], levels[-1]
        if getattr(first, "dims", None) == 0:
            raise OptionError(f"discriminator={discriminator!r} takes vectors, which have no scales; use it alone")
        take_over(self, first)
        smallest = getattr(last, "smallest", None)
        if smallest is not None:
            # A level's side is half that of the level before, rounded up: 2 s - 1 is the least that gives s.
            self.smallest = 2 ** (scales - 1) * (smallest - 1) + 1
        self.batch_coupled = any(getattr(level, "batch_coupled", False) for level in levels)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """Logits of `samples` `(N, in_channels, ...)`, one tensor a level, the finest first.

        Raises:
            InputError: the samples are vectors.
        """
        if samples.dim() - 2 not in _POOL:
            raise InputError(f"samples have shape {tuple(samples.shape)}, which has no scales; give (N, channels, ...)")
        logits: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index:
                condition = _halve_images(condition, samples.dim())
                samples = _halve(samples)
            logits += as_scales(level(samples, condition))
        return logits


def _halve(images: Tensor) -> Tensor:
    return _POOL[images.dim() - 2](images, 3, stride=2, padding=1, count_include_pad=False)


def _halve_images(condition: Condition | None, dim: int) -> Condition | None:
    """`condition` with its image, a tensor of `dim` dimensions, halved."""
    if condition is None:
        return None
    if isinstance(condition, Tensor):
        return _halve(condition) if condition.dim() == dim else condition
    return {kind: _halve(part) if kind == "image" else part for kind, part in condition.items()}


def _from_callable(make: Make, scales: int) -> list[nn.Module]:
    if isinstance(make, nn.Module):
        raise OptionError(f"discriminator is one {type(make).__name__}; give a callable that makes a new one a scale")
    levels = [make() for _ in range(scales)]
    for level in levels:
        if not isinstance(level, nn.Module):
            raise OptionError(f"discriminator={make!r} returned a {type(level).__name__}; return a torch.nn.Module")
    if scales > 1 and any(level is levels[0] for level in levels[1:]):
        raise OptionError(f"discriminator={make!r} returned one module twice; return a new one each time")
    if scales > 1 and getattr(levels[0], "resolution", None) is not None:
        raise OptionError(
            f"discriminator={make!r} fits one resolution only, and each scale has its own; give a (name, options) pair"
        )
    return levels


def _by_name(name: str, options: Mapping[str, Any], scales: int) -> list[nn.Module]:
    from advloss import create_discriminator  # here, as the catalogue is needed only here

    levels = [create_discriminator(name, **options)]
    for _ in range(scales - 1):
        resolution = getattr(levels[-1], "resolution", None)
        changes = {} if resolution is None else {"resolution": (cast(int, resolution) + 1) // 2}
        levels.append(create_discriminator(name, **{**options, **changes}))
    return levels
