"""Samples in pixels, through a latent teacher's decoder: where ADD judges and compares them (arXiv:2311.17042)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advloss import OptionError
from advloss_distill._family import Family
from advloss_distill._pipelines import check_vae

Judged = dict[str, Tensor]


@final
class Pixels:
    """What an adversary is shown of latents: images, decoded with a gradient through the frozen decoder.

    The decoder's activations are most of ADD's memory. `crop` decodes a window, the same one of real and fake samples and
    for both players; it sees no latents beyond its border. `chunk` decodes so many samples at a time, and once more in
    backward, and in the precision of the VAE's weights, also under autocast. Images are not clamped: real ones came through the same decoder.

    Args:
        family: scales latents.
        vae: of the teacher's pipeline; it is frozen, and put into eval mode.
        crop: side of the window in pixels; None shows whole images.
        chunk: samples that are decoded at once; None takes all, and keeps their activations.
        embed: from real images as they are shown `(N, 3, H, W)` to vectors `(N, C)` that the discriminator is told beside the text:
            ADD's image condition. The student's inputs must then be noised real samples (`NoisedData`).

    Raises:
        OptionError: there is no VAE, or the window does not fit.
    """

    def __init__(
        self,
        family: Family,
        vae: Any,
        *,
        crop: int | None = None,
        chunk: int | None = None,
        embed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_vae(vae, family.name, "images are made by it: load it, too")
        side = family.shape[-1]
        factor = family.resolution // side
        if crop is not None and (crop < factor or crop % factor or crop > family.resolution):
            raise OptionError(
                f"crop={crop}; a window of {family.resolution} x {family.resolution} pixels has a side of {factor} to "
                f"{family.resolution}, a multiple of {factor}"
            )
        if chunk is not None and chunk < 1:
            raise OptionError(f"chunk={chunk}; give the number of samples that are decoded at once, at least 1")
        self.family, self.vae, self.embed = family, vae.requires_grad_(False).eval(), embed
        self.chunk = chunk
        self.window = None if crop is None or crop == family.resolution else crop // factor
        self._cut = self._window()
        self._shown: tuple[Tensor, Tensor] | None = None

    def __call__(self, fake: Tensor, real: Tensor, judged: Judged) -> tuple[Tensor, Tensor, Judged]:
        """Images of fake and real latents `(N, C, h, w)`, and what the discriminator is told of them."""
        self._shown = None
        images, reals = self.pair(fake, real)
        self._shown = fake, images
        if self.embed is not None:
            vector = self.embed(reals)
            judged = {**judged, "vector": torch.cat([judged["vector"], vector], 1) if "vector" in judged else vector}
        return images, reals, judged

    def pair(self, latents: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Images of two versions of some latents, cut alike; no gradient reaches `others`.

        Of latents that the adversary was just shown it takes those images, once: the decoder is most of the work, too.
        """
        shown, self._shown = self._shown, None
        if shown is None or shown[0] is not latents:
            self._cut = self._window()
            images = self.decode(self._cut(latents))
        else:
            images = shown[1]
        with torch.no_grad():
            return images, self.decode(self._cut(others))

    def decode(self, latents: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` of latents, in their precision."""
        if self.chunk is None or len(latents) <= self.chunk:
            return self._decode(latents)
        parts = latents.split(self.chunk)
        if torch.is_grad_enabled() and latents.requires_grad:
            return torch.cat([checkpoint(self._decode, part, use_reentrant=False) for part in parts])
        return torch.cat([self._decode(part) for part in parts])

    def _decode(self, latents: Tensor) -> Tensor:
        kind = next(self.vae.parameters()).dtype
        with torch.autocast(latents.device.type, enabled=False):  # some VAEs overflow in half precision (SDXL's)
            return self.family.to_images(self.vae, latents.to(kind)).to(latents.dtype)

    def _window(self) -> Callable[[Tensor], Tensor]:
        """From latents to a window of them, drawn anew."""
        if self.window is None:
            return lambda latents: latents
        size = self.window
        top, left = (int(torch.randint(side - size + 1, ())) for side in self.family.shape[-2:])
        return lambda latents: latents[..., top : top + size, left : left + size]


@final
class ImageEmbedding(nn.Module):
    """Images `(N, 3, H, W)` -> `(N, C)`: the mean over the last tokens of a frozen backbone.

    Args:
        features: from images to a list of tokens `(N, C, L)`, for example those of the discriminator ``"dino"``.
    """

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features.requires_grad_(False).eval()
        self.channels = int(features.channels[-1])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """One vector an image."""
        return self.features(images)[-1].mean(-1)
