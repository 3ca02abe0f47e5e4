"""Projection discriminator (Miyato and Koyama 2018)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss import Condition, OptionError
from advloss_discriminators._embedding import embed, project
from advloss_discriminators._layers import spectral_normalize
from advloss_discriminators._options import check_choice, check_optional
from advloss_discriminators._trunks import make_trunk


@final
class ProjectionDiscriminator(nn.Module):
    """``psi(phi(x)) + <e(y), phi(x)>`` with ``phi`` summed over positions (arXiv:1802.05637, eq. 3 and 4).

    ``phi`` is a trunk of SN-GAN, ``psi`` a dense layer, ``e`` a linear embedding. With several conditions
    (a class and a diffusion step, say) their embeddings add up, and `condition` is a mapping.

    Args:
        in_channels: channels of the images.
        width: channels after the first layer; None is the paper's, 64, or 128 for a residual one below 64 x 64.
        resolution: side length of the images: 4 to 7 times a power of two, 8 or more. The depth follows.
        architecture: ``"residual"`` (the paper's) or ``"convolutional"``.
        norm: ``"spectral"`` (on every layer and embedding, the paper's) or ``"none"``, for use with R1.
        num_classes: number of classes, for condition kind ``"class"``.
        condition_features: length of vectors, for condition kind ``"vector"``.
        num_steps: number of step indices, for condition kind ``"time"``.
    """

    dims = 2
    batch_coupled = False

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int | None = None,
        resolution: int = 32,
        architecture: str = "residual",
        norm: str = "spectral",
        num_classes: int | None = None,
        condition_features: int | None = None,
        num_steps: int | None = None,
    ) -> None:
        super().__init__()
        check_choice(("spectral", "none"), norm=norm)
        check_optional(num_classes=num_classes, condition_features=condition_features, num_steps=num_steps)
        self.trunk = make_trunk(architecture, in_channels, width, resolution)
        self.in_channels, self.resolution, self.smallest = in_channels, resolution, resolution
        self.num_classes, self.condition_features, self.num_steps = num_classes, condition_features, num_steps
        self.dense = nn.Linear(self.trunk.features, 1)
        self.embedding = embed(self.trunk.features, num_classes, condition_features, num_steps)
        if self.embedding is None:
            raise OptionError(
                "a projection discriminator needs a condition: give num_classes=, condition_features= or num_steps=; "
                "without one use 'spectral-norm'"
            )
        if norm == "spectral":
            spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)` under `condition`.

        Raises:
            InputError: a condition is missing.
        """
        features = self.trunk(samples).sum((2, 3))
        return self.dense(features).squeeze(1) + project(self.embedding, features, condition)
