"""R1 (Mescheder et al. 2018): the discriminator's slope on real samples."""

from __future__ import annotations

from typing import Any, Literal, final

from torch import Tensor

from advloss import Condition
from advloss_regularizers._zero_centered import ZeroCenteredPenalty


@final
class R1(ZeroCenteredPenalty):
    """``weight / 2 E_real ||grad_x D(x)||^2`` (arXiv:1801.04406).

    ``D`` is the sum over all of a sample's logits and scales, the squared norm the sum over all of its elements: the
    term grows with the resolution, and so must a good weight change (stylegan3 starts from 0.0002 H W / batch size).

    With ``method="finite-difference"`` the term is ``weight / (2 sigma^2) E (D(x) - D(x + sigma eps))^2``, eps normal:
    two forwards and no double backward (Seaweed-APT, arXiv:2501.08316, whose lambda is ``weight / (2 sigma^2)``). Its
    mean over eps is the exact term up to O(sigma^2), so that `weight` means the same. Both forwards draw the same random
    numbers and start from copies of the same buffers, or dropout and spectral norm's power iteration would be taken for
    slope. In half precision the difference drowns in rounding when sigma is small: use 0.1, or float32.

    Args:
        weight: gamma; 10 in the paper. R3GAN has 0.05 (CIFAR-10) to 150 (256 x 256).
        every: lazy regularization, applied by the adversary; 16 in StyleGAN2.
        method: ``"exact"`` needs double backward; ``"finite-difference"`` does not.
        sigma: the finite difference's step, in units of the inputs; 0.01 for images, 0.1 for video in Seaweed-APT.
        inputs: ``"samples"``, or ``"features"`` for the gradient by the inputs of a discriminator's heads
            (squared norms summed over all levels), without a backward through frozen features.

    Raises:
        OptionError: an option outside these.
        CombinationError: ``inputs="features"`` with a discriminator that has no features and heads.
    """

    def __init__(
        self,
        *,
        weight: float = 10.0,
        every: int = 1,
        method: Literal["exact", "finite-difference"] = "exact",
        sigma: float = 0.01,
        inputs: Literal["samples", "features"] = "samples",
    ) -> None:
        super().__init__("real", weight=weight, every=every, method=method, sigma=sigma, inputs=inputs)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        return self.penalty(discriminator, real, condition)
