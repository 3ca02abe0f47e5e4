"""A generator backwards: from an image to the latent that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError

Space = Literal["z", "w", "w+"]


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What `invert` found.

    Attributes:
        latent: z or w `(N, features)`, or w+ `(N, layers, features)`.
        samples: what the generator makes of it `(N, ...)`.
        errors: mean squared error of each sample `(N,)`.
        start_errors: the same for the best of the random candidates, from which it started.
    """

    latent: Tensor
    samples: Tensor
    errors: Tensor
    start_errors: Tensor

    @property
    def ratio(self) -> float:
        """Mean error over mean error of the best candidates: 1 when optimizing brought nothing."""
        return float(self.errors.mean() / self.start_errors.mean())


def invert(
    generator: nn.Module,
    images: Tensor,
    *,
    latent_features: int,
    labels: Tensor | None = None,
    space: Space = "z",
    steps: int = 500,
    lr: float = 0.05,
    candidates: int = 1000,
) -> Inversion:
    """Find latents whose samples are nearest to `images` `(N, ...)`, by Adam from the best of random ones.

    The generator stays as it is: its parameters get no gradients. It should be in eval mode.

    Args:
        generator: as `train_gan` trains it.
        latent_features: length of z.
        labels: classes `(N,)`, for a generator that takes them.
        space: ``"z"``, or of a style-based generator (`styles`, `synthesize`) ``"w"`` or ``"w+"``, a style for each
            layer (arXiv:1904.03189): nearer to the images, and farther from what the generator was trained on.
        steps: of Adam, at a rate that falls to zero along a cosine.
        lr: its first rate.
        candidates: random z that are tried for each image.

    Raises:
        OptionError: a space that the generator does not have, or a number below 1.
        InputError: images of another shape than the generator's, or with values that are not finite, or not as many
            labels as images.
    """
    if steps < 1 or candidates < 1:
        raise OptionError(f"steps={steps!r}, candidates={candidates!r}: give whole numbers, 1 or more")
    if not bool(images.isfinite().all()):
        raise InputError("images have values that are not finite; nothing is near to them")
    if labels is not None and labels.shape != images.shape[:1]:
        raise InputError(f"{len(images)} images have labels of shape {tuple(labels.shape)}; give one for each")
    if space not in ("z", "w", "w+"):
        raise OptionError(f"space={space!r}: give 'z', or 'w' or 'w+' for a style-based generator")
    if space != "z" and not (hasattr(generator, "styles") and hasattr(generator, "synthesize")):
        raise OptionError(f"space={space!r}: {type(generator).__name__} has no styles; use space='z'")
    start, start_errors = _best_candidates(generator, images, latent_features, labels, candidates)
    make: Callable[[Tensor], Tensor] = lambda z: generator(z) if labels is None else generator(z, labels)  # noqa: E731
    if space != "z":
        make = generator.synthesize  # type: ignore[assignment]
        with torch.no_grad():
            start = generator.styles(start, labels)  # type: ignore[operator]
            start = start[:, None].repeat(1, generator.layers, 1) if space == "w+" else start
    latent = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    with torch.enable_grad():
        for _ in range(steps):
            error = _errors(make(latent), images).sum()  # a sum: each image is on its own
            (latent.grad,) = torch.autograd.grad(error, [latent])
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        samples = make(latent)
    return Inversion(
        latent=latent.detach(), samples=samples, errors=_errors(samples, images), start_errors=start_errors
    )


@torch.no_grad()
def _best_candidates(
    generator: nn.Module, images: Tensor, latent_features: int, labels: Tensor | None, candidates: int
) -> tuple[Tensor, Tensor]:
    """For each image the nearest of so many random samples, one set for all; with labels, of its class."""
    best = torch.empty(len(images), latent_features, dtype=images.dtype, device=images.device)
    errors = torch.empty(len(images), dtype=images.dtype, device=images.device)
    for label in [None] if labels is None else labels.unique():
        rows = torch.ones_like(errors, dtype=torch.bool) if label is None else labels == label
        latent = torch.randn(candidates, latent_features, dtype=images.dtype, device=images.device)
        samples = generator(latent) if label is None else generator(latent, label.expand(candidates))
        if samples.shape[1:] != images.shape[1:]:
            raise InputError(f"images are {tuple(images.shape)}, and the generator makes {tuple(samples.shape)}")
        squares = torch.cdist(images[rows].flatten(1), samples.flatten(1)).square() / images[0].numel()
        errors[rows], place = squares.min(1)
        best[rows] = latent[place]
    return best, errors


def _errors(samples: Tensor, images: Tensor) -> Tensor:
    return (samples - images).square().flatten(1).mean(1)
