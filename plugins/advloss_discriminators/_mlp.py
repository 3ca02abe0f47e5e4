"""A multilayer perceptron, for vectors and points in the plane."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss import Condition
from advloss_discriminators._embedding import embed, project
from advloss_discriminators._layers import initialize_leaky, spectral_normalize
from advloss_discriminators._options import check_choice, check_optional, check_positive


@final
class MLPDiscriminator(nn.Module):
    """`depth` dense layers with LeakyReLU 0.2, then one to a logit; a condition enters by projection.

    The first discriminators were of this kind (arXiv:1406.2661, section 5). The projection is Miyato and Koyama's
    (arXiv:1802.05637, eq. 3), with the last hidden layer as features.

    Args:
        in_features: length of the samples.
        width: features of each hidden layer.
        depth: number of hidden layers.
        norm: ``"none"``, or ``"spectral"`` on every layer and embedding.
        num_classes: number of classes, for condition kind ``"class"``.
        condition_features: length of vectors, for condition kind ``"vector"``.
        num_steps: number of step indices, for condition kind ``"time"``.
    """

    dims = 0
    batch_coupled = False

    def __init__(
        self,
        *,
        in_features: int = 2,
        width: int = 128,
        depth: int = 3,
        norm: str = "none",
        num_classes: int | None = None,
        condition_features: int | None = None,
        num_steps: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, width=width, depth=depth)
        check_choice(("none", "spectral"), norm=norm)
        check_optional(num_classes=num_classes, condition_features=condition_features, num_steps=num_steps)
        self.in_features = in_features
        self.num_classes, self.condition_features, self.num_steps = num_classes, condition_features, num_steps
        layers: list[nn.Module] = []
        for level in range(depth):
            layers += [nn.Linear(width if level else in_features, width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Linear(width, 1)
        self.apply(initialize_leaky)
        self.embedding = embed(width, num_classes, condition_features, num_steps)
        if norm == "spectral":
            spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_features)`.

        Raises:
            InputError: a condition is missing.
        """
        features = self.layers(samples)
        return self.dense(features).squeeze(1) + project(self.embedding, features, condition)
