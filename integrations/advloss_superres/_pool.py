"""A pool of earlier images, so that a discriminator does not forget them (arXiv:1612.07828, section 2.3)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from advloss import OptionError


@final
class ImagePool:
    """Keeps `size` images; half of those that come in are exchanged for one that is kept.

    Its random numbers are its own, and saved with its images.

    Args:
        size: 50 in CycleGAN; 0 passes every image on.
        seed: of the exchanges.
    """

    def __init__(self, size: int = 50, *, seed: int = 0) -> None:
        if size < 0:
            raise OptionError(f"size={size!r}: give a whole number, 0 or more")
        self.size = size
        self._images: list[Tensor] = []
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """`(N, ...)`, as many images, detached: new ones and kept ones."""
        if not self.size:
            return images.detach()
        return torch.stack([self._exchange(image) for image in images.detach()])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if torch.rand((), generator=self._random) < 0.5:
            return image
        place = int(torch.randint(self.size, (), generator=self._random))
        kept, self._images[place] = self._images[place], image.clone()
        return kept

    def state_dict(self) -> dict[str, Any]:
        """The images, and the state of the random numbers."""
        return {"images": [image.clone() for image in self._images], "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        device = self._images[0].device if self._images else None
        self._images = [image.to(device) if device else image.clone() for image in state["images"]]
        self._random.set_state(state["random"])
