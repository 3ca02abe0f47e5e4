"""Penalties on the slope's distance from one, against textbook loops, in float64."""

import pytest
import torch
from torch import nn

from advloss import InputError, OptionError
from advloss_regularizers import Dragan, GradientPenalty

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("make", [GradientPenalty, Dragan])


class Small(nn.Module):
    """Two scales: a map and a logit, shifted by a condition."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.conv = nn.Conv2d(2, 3, 3, padding=1, dtype=DOUBLE)
        self.line = nn.Linear(3, 1, dtype=DOUBLE)
        self.conditions = []

    def forward(self, samples, condition=None):
        self.conditions.append(condition)
        hidden = torch.tanh(self.conv(samples))
        return [hidden.square(), self.line(hidden.sum((2, 3))).squeeze(1)]


def batch(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 2, 4, 4, dtype=DOUBLE, generator=generator) for _ in range(2)]


def points_gradient_penalty(real, fake):
    """One number a sample, the line from fake to real."""
    eps = torch.rand(len(real), 1, 1, 1, dtype=DOUBLE).flatten()
    return [eps[i] * real[i] + (1 - eps[i]) * fake[i] for i in range(len(real))]


def points_dragan(real, fake):
    """One deviation for the batch, one number an element."""
    deviation = (((real - real.mean()) ** 2).sum() / real.numel()) ** 0.5
    noise = torch.rand(real.shape, dtype=DOUBLE)
    return [real[i] + 0.5 * deviation * noise[i] for i in range(len(real))]


POINTS = {GradientPenalty: points_gradient_penalty, Dragan: points_dragan}


def textbook(make, discriminator, real, fake, weight=10.0, target=1.0):
    terms = []
    for point in POINTS[make](real, fake):
        x = point.detach()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(sum(s.sum() for s in discriminator(x)), x, create_graph=True)
        terms.append(((gradient**2).sum() ** 0.5 - target) ** 2)
    return weight * sum(terms) / len(terms)


@BOTH
@pytest.mark.parametrize("count", [1, 3])
def test_value_and_gradient(make, count):
    discriminator, samples = Small(), batch(count)
    results = []
    for loss in (
        lambda: make(weight=4.0, target=0.5)(discriminator, *samples),
        lambda: textbook(make, discriminator, *samples, weight=4.0, target=0.5),
    ):
        torch.manual_seed(5)
        value = loss()
        results.append((value, *torch.autograd.grad(value, [discriminator.conv.weight, discriminator.line.weight])))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@BOTH
def test_lock_step(make):
    players = []
    for loss in (make(), lambda *args: textbook(make, *args)):
        discriminator = Small()
        players.append((discriminator, loss, torch.optim.Adam(discriminator.parameters(), 0.02, betas=(0.0, 0.9))))
    for step in range(5):
        values = []
        for discriminator, loss, optimizer in players:
            torch.manual_seed(step)
            optimizer.zero_grad()
            values.append(loss(discriminator, *batch(seed=step)))
            values[-1].backward()
            optimizer.step()
        torch.testing.assert_close(*values, rtol=1e-10, atol=1e-13)
    for a, b in zip(players[0][0].parameters(), players[1][0].parameters()):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@BOTH
def test_gradient_by_finite_differences(make):
    weight = torch.randn(2, 4, 4, dtype=DOUBLE, requires_grad=True)

    def value(w):
        torch.manual_seed(0)
        return make()(lambda x, c: torch.tanh(x * w).flatten(1).sum(1) ** 2, *batch(2))

    assert torch.autograd.gradcheck(value, (weight,))


@BOTH
def test_the_norm_is_a_sample_s(make):
    """A linear discriminator has one slope everywhere; neither pixels nor the batch enter."""
    weight = torch.full((2, 4, 4), 3.0, dtype=DOUBLE, requires_grad=True)
    value = make()(lambda x, c: (x * weight).sum((1, 2, 3)), *batch(5))
    assert value.item() == pytest.approx(10 * (3 * 32**0.5 - 1) ** 2)


@BOTH
def test_flat_discriminator(make):
    line = nn.Linear(32, 1, dtype=DOUBLE)
    nn.init.zeros_(line.weight)
    value = make()(lambda x, c: line(x.flatten(1)), *batch(1))
    value.backward()
    assert value.item() == pytest.approx(10.0)
    assert line.weight.grad.isfinite().all()


@BOTH
def test_no_gradient_reaches_the_maker_and_the_condition_is_passed_on(make):
    discriminator, maker = Small(), torch.ones((), dtype=DOUBLE, requires_grad=True)
    condition = torch.zeros(3)
    make()(discriminator, *(x * maker for x in batch()), condition).backward()
    assert maker.grad is None
    assert discriminator.conv.weight.grad.abs().sum() > 0
    assert discriminator.conditions == [condition]
    assert make().second_order == "samples"
    assert make().differentiates == frozenset()


@BOTH
def test_half_precision_does_not_overflow(make):
    weight = torch.full((2, 4, 4), 300.0, dtype=torch.float16, requires_grad=True)
    samples = [torch.zeros(1, 2, 4, 4, dtype=torch.float16)] * 2
    value = make()(lambda x, c: x * weight, *samples)
    value.backward()
    assert value.isfinite()
    assert weight.grad.isfinite().all()


def test_gradient_penalty_looks_between():
    real, fake = torch.ones(500, 1, dtype=DOUBLE), torch.zeros(500, 1, dtype=DOUBLE)
    seen = []
    GradientPenalty()(lambda x, c: seen.append(x.detach()) or x, real, fake)
    assert (seen[0] >= 0).all()
    assert (seen[0] <= 1).all()
    assert 0.45 < seen[0].mean() < 0.55
    assert seen[0].std() > 0.25


def test_gradient_penalty_refuses_what_has_no_point_between():
    (real, fake), discriminator = batch(), Small()
    condition, other = torch.zeros(3), torch.zeros(3)
    GradientPenalty()(discriminator, real, fake, condition, condition)
    with pytest.raises(InputError, match="condition of their own"):
        GradientPenalty()(discriminator, real, fake, condition, other)
    with pytest.raises(InputError, match="condition of their own"):
        GradientPenalty()(discriminator, real, fake, None, other)
    with pytest.raises(InputError, match=r"real \(3, 2, 4, 4\), fake \(2, 2, 4, 4\)"):
        GradientPenalty()(discriminator, real, fake[:2])


def test_dragan_couples_its_batch():
    real, fake = batch(2)
    real[1] *= 10

    def value(samples):
        return Dragan(spread=2.0)(lambda x, c: x**3, samples, fake)

    torch.manual_seed(0)
    together = value(real)
    torch.manual_seed(0)
    apart = (value(real[:1]) + value(real[1:])) / 2
    assert not torch.isclose(together, apart)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (GradientPenalty, {"weight": -1.0}),
        (GradientPenalty, {"target": -1.0}),
        (GradientPenalty, {"every": 0}),
        (Dragan, {"weight": -1.0}),
        (Dragan, {"spread": -0.5}),
        (Dragan, {"target": float("nan")}),
    ],
)
def test_bad_options(make, options):
    with pytest.raises(OptionError, match=make.__name__):
        make(**options)
