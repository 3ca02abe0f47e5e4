"""Minibatch standard deviation: values of the reference code, uneven batches, derivatives."""

from __future__ import annotations

import pytest
import torch

from advloss import OptionError
from advloss_discriminators import MinibatchStd


@pytest.mark.parametrize(("group_size", "expected"), [(4, 8.94427191), (2, 8.0000000006)])
def test_golden_values(group_size: int, expected: float) -> None:
    features = torch.arange(32, dtype=torch.float64).view(4, 2, 2, 2)
    out = MinibatchStd(group_size=group_size)(features)
    assert out.shape == (4, 3, 2, 2)
    assert torch.equal(out[:, :2], features)
    torch.testing.assert_close(out[:, 2], torch.full((4, 2, 2), expected, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_against_a_loop(count: int, group_size: int) -> None:
    features = torch.randn(count, 3, 2, 2, dtype=torch.float64)
    groups = -(-count // group_size)
    out = MinibatchStd(group_size=group_size)(features)
    for index in range(count):
        members = features[index % groups :: groups]
        assert len(members) <= group_size
        spread = (members.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[index, 3], spread.expand(2, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_derivatives(count: int) -> None:
    features = torch.randn(count, 1, 2, 1, dtype=torch.float64, requires_grad=True)
    layer = MinibatchStd(group_size=2)
    if count == 1:  # the root's own derivative at zero spread: finite, and exactly zero
        (gradient,) = torch.autograd.grad(layer(features)[:, 1].sum(), features, create_graph=True)
        assert torch.equal(gradient, torch.zeros_like(gradient))
        gradient.square().sum().backward()
        assert features.grad is not None
        assert features.grad.isfinite().all()
    else:
        assert torch.autograd.gradcheck(layer, features)
        assert torch.autograd.gradgradcheck(layer, features, atol=1e-4)


def test_other_numbers_of_dimensions() -> None:
    assert MinibatchStd()(torch.randn(4, 3)).shape == (4, 4)
    assert MinibatchStd()(torch.randn(4, 3, 5)).shape == (4, 4, 5)


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="group_size=0"):
        MinibatchStd(group_size=0)
