"""A multilayer perceptron from noise to points."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss_gan.generators._inputs import check_positive, join


@final
class MLPGenerator(nn.Module):
    """`depth` dense layers with ReLU, then one to a sample: the generator of the literature on 2-D mixtures.

    Args:
        latent_features: length of the noise.
        out_features: length of a sample.
        width: features of each hidden layer.
        depth: number of hidden layers.
        num_classes: number of classes; they enter beside the noise.

    Raises:
        OptionError: a number below 1.
    """

    def __init__(
        self,
        *,
        latent_features: int = 16,
        out_features: int = 2,
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(latent_features=latent_features, out_features=out_features, width=width, depth=depth)
        check_positive(num_classes=num_classes)
        self.latent_features, self.num_classes = latent_features, num_classes
        layers: list[nn.Module] = []
        for level in range(depth):
            layers += [nn.Linear(width if level else latent_features + (num_classes or 0), width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples `(N, out_features)` from noise `(N, latent_features)` and labels `(N,)`."""
        samples: Tensor = self.layers(join(latent, labels, self.latent_features, self.num_classes))
        return samples
