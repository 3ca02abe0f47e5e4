"""Mixtures and mode metrics, against hand-made samples."""

import math

import pytest
import torch

from advloss import InputError
from advloss_gan import GaussianMixture, mode_metrics, ring


def test_ring_lies_on_its_circle():
    mixture = ring()
    assert mixture.centers.shape == (8, 2)
    assert mixture.std == 0.02
    torch.testing.assert_close(mixture.centers.norm(dim=1), torch.full((8,), 2.0))
    gaps = torch.cdist(mixture.centers, mixture.centers).fill_diagonal_(math.inf).min(dim=1).values
    torch.testing.assert_close(gaps, torch.full((8,), 4 * math.sin(math.pi / 8)))


def test_ring_statistics():
    torch.manual_seed(0)
    mixture = ring()
    samples = mixture.sample(20_000)
    distance, nearest = torch.cdist(samples, mixture.centers).min(dim=1)
    shares = torch.bincount(nearest) / len(samples)
    assert float((shares - 1 / 8).abs().max()) < 0.01
    assert float(samples.mean(dim=0).norm()) < 0.05
    assert float(distance.square().mean()) == pytest.approx(2 * 0.02**2, rel=0.03)


def test_batches_are_fresh():
    torch.manual_seed(0)
    batches = ring().batches(5)
    first, second = next(batches), next(batches)
    assert first.shape == second.shape == (5, 2)
    assert not torch.equal(first, second)


def test_real_samples_are_nearly_perfect():
    torch.manual_seed(0)
    metrics = mode_metrics(ring().sample(2500), ring())
    assert (metrics.captured, metrics.modes) == (8, 8)
    assert metrics.quality == pytest.approx(1 - math.exp(-4.5), abs=0.01)  # chi-squared, two degrees of freedom
    assert 0 <= metrics.reverse_kl < 0.01


def test_one_mode_is_collapse():
    mixture = ring()
    metrics = mode_metrics(mixture.centers[3].expand(100, 2), mixture)
    assert (metrics.captured, metrics.quality) == (1, 1.0)
    assert metrics.reverse_kl == pytest.approx(math.log(8))


def test_shares_by_hand():
    """Three of four samples at the first of two modes, one at the second: 3/4 log(3/2) + 1/4 log(1/2)."""
    mixture = GaussianMixture(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), std=1.0)
    samples = torch.tensor([[0.0, 0.0], [0.0, 2.9], [0.0, 3.1], [13.5, 0.0]])
    metrics = mode_metrics(samples, mixture)
    assert (metrics.captured, metrics.quality) == (1, 0.5)
    assert metrics.reverse_kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_small_modes_far_from_the_origin():
    """Where squares of coordinates are a million times those of the distances that count."""
    torch.manual_seed(0)
    mixture = GaussianMixture(torch.tensor([[1000.0, 0.0], [1000.0, 1.0]]), std=0.02)
    metrics = mode_metrics(mixture.sample(2500), mixture)
    assert metrics.quality == pytest.approx(1 - math.exp(-4.5), abs=0.01)


def test_poor_samples_capture_nothing():
    metrics = mode_metrics(torch.zeros(10, 2), ring())
    assert (metrics.captured, metrics.quality) == (0, 0.0)


@pytest.mark.parametrize(
    "samples", [torch.zeros(0, 2), torch.zeros(4, 3), torch.zeros(4), torch.full((4, 2), math.nan)]
)
def test_samples_that_cannot_be_measured(samples):
    with pytest.raises(InputError):
        mode_metrics(samples, ring())
