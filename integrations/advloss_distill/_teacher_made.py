"""Samples of the teacher among the real ones: more data than there is."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from advloss import OptionError
from advloss_distill._simulation import Conditions, Data


@final
class ByClass:
    """Samples `(N, ...)` of classes `(N,)`, drawn at random by class.

    Raises:
        OptionError: there are not as many labels as samples, they are no whole numbers from 0 on, or a class below the
            largest has no sample.
    """

    def __init__(self, samples: Tensor, labels: Tensor) -> None:
        if labels.shape != samples.shape[:1] or not len(labels):
            raise OptionError(
                f"{len(samples)} samples with labels of shape {tuple(labels.shape)}: give one label a sample, and one sample at least"
            )
        if labels.is_floating_point() or int(labels.min()) < 0:
            raise OptionError(f"labels are {labels.dtype}, the least {labels.min()}: give whole numbers from 0 on")
        self.samples = samples
        places = [torch.nonzero(labels == c).squeeze(1) for c in range(int(labels.max()) + 1)]
        empty = [c for c, found in enumerate(places) if len(found) == 0]
        if empty:
            raise OptionError(f"there is no sample of the classes {empty}; give at least one of each")
        self._counts = torch.tensor([len(found) for found in places], device=labels.device)
        self._places = torch.nn.utils.rnn.pad_sequence(places, batch_first=True)

    def draw(self, labels: Tensor) -> Tensor:
        """A random sample of each of `labels` `(M,)`, with torch's global random numbers."""
        choice = (torch.rand(len(labels), device=labels.device) * self._counts[labels]).long()
        return self.samples[self._places[labels, choice]]


@final
class TeacherMade:
    """Class-conditional data with a share of the teacher's samples among the real ones.

    A discriminator learns a small data set by heart, and then pulls the student's samples towards it. The teacher can
    make as many samples as one likes; LADD (arXiv:2403.12015) trains on nothing else.

    Args:
        data: the real samples.
        samples, labels: what the teacher made `(N, ...)`, and for which classes `(N,)`.
        share: of the teacher's samples, 0 to 1; or `(N,)`, one for each place of a batch, which a simulation's `steps` say more about:
            later steps start at the teacher's level, and have more to lose by heart.
    """

    def __init__(self, data: Data, samples: Tensor, labels: Tensor, share: float | Tensor) -> None:
        shares = torch.as_tensor(share)
        if shares.ndim > 1 or not shares.numel() or not bool(((shares >= 0) & (shares <= 1)).all()):
            raise OptionError(
                f"share={share}: give a share of the teacher's samples from 0 to 1, or one for each place"
            )
        self.data, self.share = data, shares.to(labels.device)
        self._made = ByClass(samples, labels)

    def conditions(self, count: int) -> Conditions:
        """As the data draws them."""
        return self.data.conditions(count)

    def real(self, condition: Conditions) -> Tensor:
        """Samples of these conditions, each the teacher's with probability `share`."""
        real, labels = self.data.real(condition), condition["class_labels"]
        if self.share.ndim and len(self.share) != len(labels):
            raise OptionError(f"share has {len(self.share)} places, and the batch {len(labels)}: give one for each")
        chosen = torch.rand(len(labels), device=labels.device) < self.share
        return torch.where(chosen.view(-1, *[1] * (real.ndim - 1)), self._made.draw(labels), real)
