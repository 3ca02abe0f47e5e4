"""What samples and logits say about the generator: collapse, coverage, range, leakage. Nothing is read here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advloss._condition import Condition
from advloss._judge import Judge
from advloss._logits import as_scales
from advloss._loss import Loss

EVERY, MIXED_EVERY = 17, 61
"""Steps from one measurement to the next: primes, so that a script which logs every second or fifth report meets them."""
SAMPLES, VALUES, NEIGHBOURS = 64, 2**14, 5


@torch.no_grad()
def sample_signals(
    real: Tensor, fake: Tensor, condition: Condition | None, fake_condition: Condition | None
) -> dict[str, Tensor]:
    """Compare the first 64 samples of each side by Euclidean distances of their values (at most 16,384 of each).

    - ``spread``: mean distance of two reals, in units of the samples.
    - ``diversity``: mean distance of two fakes over that of two reals; 0 is collapse, 1 as it should be.
    - ``class_diversity``: the same among samples of one class, where conditions are class indices.
    - ``distance``: mean distance of a real and a fake over that of two reals. ``2 distance - 1 - diversity`` is the
      energy distance (Székely & Rizzo 2013), 0 for equal distributions only.
    - ``coverage``: share of reals with a fake nearer than their 5th neighbour among reals (Naeem et al. 2020,
      arXiv:2002.09797, eq. 9); 0.97 for equal distributions and numbers.
    - ``real_low``, ``real_high``, ``fake_low``, ``fake_high``: extreme values of the whole batches.
    """
    signals = {
        f"{side}_{end}": value for side, batch in (("real", real), ("fake", fake)) for end, value in _ends(batch)
    }
    r, f = _vectors(real), _vectors(fake)
    if len(r) < 2 or len(f) < 2:
        return signals
    rr, ff, rf = _distances(r, r), _distances(f, f), _distances(r, f)
    tiny = torch.finfo(rr.dtype).tiny
    spread = _mean_of_pairs(rr, torch.ones_like(rr))
    signals["spread"] = spread
    signals["diversity"] = _mean_of_pairs(ff, torch.ones_like(ff)) / spread.clamp_min(tiny)
    signals["distance"] = rf.mean() / spread.clamp_min(tiny)
    if (classes := _classes(condition)) is not None and (made := _classes(fake_condition)) is not None:
        within = [_mean_of_pairs(d, (c[:, None] == c).to(d.dtype)) for d, c in ((rr, classes), (ff, made))]
        signals["class_diversity"] = within[1] / within[0].clamp_min(tiny)
    if len(r) > NEIGHBOURS:
        reach = rr.kthvalue(NEIGHBOURS + 1, dim=1, keepdim=True).values  # each is its own first neighbour
        signals["coverage"] = (rf <= reach).any(1).to(rr.dtype).mean()
    return signals


@torch.no_grad()
def mixed_accuracy(
    judge: Judge, loss: Any, real: Tensor, fake: Tensor, condition: Condition | None, fake_condition: Condition | None
) -> Tensor:
    """Accuracy on one batch of which half is real: far less than on batches of one kind means that batch norm tells
    the batches apart, and not the samples. One forward, which leaves nothing behind."""
    half = max(1, min(len(real), len(fake)) // 2)
    both = _halves(condition, fake_condition, half)
    logits = judge.snapshot()(_halves(real, fake, half), both)
    accuracy = getattr(loss, "accuracy", None) or functools.partial(Loss.accuracy, loss)
    shares = [share for scale in as_scales(logits) for share in accuracy(*scale.float().split(half))]
    return torch.stack(shares).mean()


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a part of `module` normalizes by its batch while it trains."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in module.modules())


def _ends(batch: Tensor) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    low, high = torch.aminmax(batch)
    return ("low", low), ("high", high)


def _vectors(samples: Tensor) -> Tensor:
    values = samples[:SAMPLES].flatten(1)
    values = values[:, :: -(-values.shape[1] // VALUES)]
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _distances(one: Tensor, other: Tensor) -> Tensor:
    exact = one.shape[1] <= 64  # by matrix products distances that are small beside the samples are lost
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    return torch.cdist(one, other, compute_mode=mode)


def _mean_of_pairs(distances: Tensor, chosen: Tensor) -> Tensor:
    """Over pairs of two different samples; NaN where none is chosen."""
    chosen = chosen.clone().fill_diagonal_(0)
    return (distances * chosen).sum() / chosen.sum()


def _classes(condition: Condition | None) -> Tensor | None:
    """The class indices of the first samples, if there are any."""
    if isinstance(condition, Mapping):
        condition = condition.get("class")
    if isinstance(condition, Tensor) and condition.ndim == 1 and not condition.is_floating_point():
        return condition[:SAMPLES]
    return None


def _halves(one: Any, other: Any, half: int) -> Any:
    """Samples or conditions of a batch of which one half is from `one`, the other from `other`."""
    if one is None:
        return None
    if isinstance(one, Tensor):
        return torch.cat([one[:half], other[:half]])
    return {name: torch.cat([value[:half], other[name][:half]]) for name, value in one.items()}
