"""Real samples moved towards or away from their neighbours: more data than there is, of the same shape."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from advloss import OptionError
from advloss_distill._simulation import Conditions, Data
from advloss_distill._teacher_made import ByClass


@final
class AlongNeighbours:
    """Class-conditional data: ``x + r (x' - x)``, x' one of the nearest samples of x's class, r uniform in [-reach, reach].

    Lines to neighbours stay near the data where it is dense. SMOTE (Chawla et al. 2002, arXiv:1106.1813) goes towards the neighbour
    alone, which takes variety from the data, and the student's samples get closer to training samples for it; both ways give a little
    more. A discriminator cannot learn such data by heart.

    Args:
        data: draws conditions.
        samples, labels: all that there is `(N, ...)`, of classes `(N,)`.
        reach: 0 is the data as it is.
        neighbours: so many are near, by Euclidean distance.

    Raises:
        OptionError: a reach below 0, labels that do not fit the samples, or a class with too few of them.
    """

    def __init__(
        self, data: Data, samples: Tensor, labels: Tensor, *, reach: float = 0.7, neighbours: int = 20
    ) -> None:
        if not 0 <= reach < torch.inf:
            raise OptionError(f"reach={reach}: give 0 or more, of the way to a neighbour")
        if not samples.is_floating_point():
            raise OptionError(
                f"samples are {samples.dtype}: give them as the discriminator takes them, such as float32"
            )
        self._places = ByClass(torch.arange(len(samples), device=samples.device), labels)
        least = int(torch.bincount(labels).min())
        if least < 2:
            raise OptionError("a class has one sample alone, which has no neighbour: give two at least of each")
        if not 1 <= neighbours < least:
            raise OptionError(
                f"neighbours={neighbours}: give 1 to {least - 1}, as the smallest class has {least} samples"
            )
        self.data, self.reach = data, reach
        self._samples = samples
        self._near = _nearest(samples.flatten(1), labels, neighbours)

    def conditions(self, count: int) -> Conditions:
        """As the data draws them."""
        return self.data.conditions(count)

    def real(self, condition: Conditions) -> Tensor:
        """A sample of each condition, moved."""
        chosen = self._places.draw(condition["class_labels"])
        near = self._near[chosen, torch.randint(self._near.shape[1], chosen.shape, device=chosen.device)]
        start, end = self._samples[chosen], self._samples[near]
        shape = (len(start), *[1] * (start.ndim - 1))
        return torch.lerp(start, end, self.reach * (2 * torch.rand(shape, device=start.device) - 1))


def _nearest(vectors: Tensor, labels: Tensor, count: int) -> Tensor:
    """Places `(N, count)` of the nearest of each vector's class, itself left out."""
    near = torch.empty(len(vectors), count, dtype=torch.long, device=vectors.device)
    for label in labels.unique():
        places = torch.nonzero(labels == label).squeeze(1)
        distances = torch.cdist(vectors[places], vectors[places]).fill_diagonal_(torch.inf)
        near[places] = places[distances.topk(count, largest=False).indices]
    return near
