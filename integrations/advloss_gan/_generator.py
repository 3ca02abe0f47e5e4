"""A multilayer perceptron from noise to points."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss import OptionError


@final
class MLPGenerator(nn.Module):
    """`depth` dense layers with ReLU, then one to a sample: the generator of the literature on 2-D mixtures.

    Args:
        latent_features: length of the noise.
        out_features: length of a sample.
        width: features of each hidden layer.
        depth: number of hidden layers.

    Raises:
        OptionError: a number below 1.
    """

    def __init__(self, *, latent_features: int = 16, out_features: int = 2, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        sizes = {"latent_features": latent_features, "out_features": out_features, "width": width, "depth": depth}
        for name, value in sizes.items():
            if value < 1:
                raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")
        layers: list[nn.Module] = []
        for level in range(depth):
            layers += [nn.Linear(width if level else latent_features, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, latent: Tensor) -> Tensor:
        """Samples `(N, out_features)` from noise `(N, latent_features)`."""
        samples: Tensor = self.layers(latent)
        return samples
