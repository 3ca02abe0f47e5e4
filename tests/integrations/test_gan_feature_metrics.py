"""Metrics on features, against SciPy and by hand."""

import math
import sys

import numpy as np
import pytest
import torch

from advloss import InputError, OptionError
from advloss_gan import (
    StackedDigits,
    class_diversity,
    digits,
    feature_metrics,
    inception_metrics,
    stacked_modes,
    train_digit_classifier,
)


def test_frechet_is_the_textbooks():
    linalg = pytest.importorskip("scipy.linalg")
    torch.manual_seed(0)
    first, second = torch.randn(200, 4).double(), (torch.randn(150, 4) @ torch.randn(4, 4) + 1).double()
    means, covariances = zip(*((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (first, second)))
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert feature_metrics(first, second).frechet == pytest.approx(expected, rel=1e-6)
    assert feature_metrics(first, first).frechet == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_by_hand():
    """Each real point reaches 2 or 3; fakes at 0.5 (four times, so that they reach nothing) and one at 100."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[0.5], [0.5], [0.5], [0.5], [100.0]])
    metrics = feature_metrics(fake, real)
    assert metrics.precision == pytest.approx(4 / 5)
    assert metrics.recall == pytest.approx(3 / 4)  # the fake at 100 reaches down to 0.5


def test_collapse_has_precision_without_recall():
    torch.manual_seed(0)
    real, fake = torch.randn(300, 3), 0.01 * torch.randn(300, 3)
    metrics = feature_metrics(fake, real)
    assert metrics.precision > 0.95
    assert metrics.recall < 0.05


def test_features_far_from_the_origin():
    """A shift of both sets changes nothing, whatever squares of features do to a distance in single precision."""
    torch.manual_seed(0)
    real, fake = torch.randn(300, 3), torch.randn(300, 3) * 0.7
    near, far = feature_metrics(fake, real), feature_metrics(fake + 3000, real + 3000)
    assert (far.precision, far.recall) == pytest.approx((near.precision, near.recall), abs=0.01)


@pytest.mark.parametrize(
    "features", [torch.zeros(3, 2), torch.zeros(9), torch.zeros(9, 3), torch.full((9, 2), math.nan)]
)
def test_features_that_cannot_be_compared(features):
    with pytest.raises(InputError, match="fake"):
        feature_metrics(features, torch.randn(9, 2))


def test_diversity_by_hand():
    samples = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 1.0], [9.0, 9.0]])
    assert class_diversity(samples, torch.tensor([0, 0, 1, 1, 2])) == {0: 5.0, 1: 0.0}
    with pytest.raises(InputError, match="one for each"):
        class_diversity(samples, torch.tensor([0]))


def test_modes_of_stacked_digits():
    classifier = train_digit_classifier()
    images, labels = digits()[1].tensors
    assert float((classifier(images).argmax(1) == labels).float().mean()) > 0.97
    torch.manual_seed(0)
    captured, reverse_kl = stacked_modes(StackedDigits().sample(26_000)[0], classifier)
    assert (captured, reverse_kl) == (1000, pytest.approx(0.02, abs=0.005))
    one = StackedDigits().sample(1)[0].expand(50, 3, 8, 8)
    assert stacked_modes(one, classifier) == (1, pytest.approx(math.log(1000)))


def test_inception_without_its_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False, raising=False)
    with pytest.raises(OptionError, match="feature_metrics"):
        inception_metrics([], [])


class Constant(torch.nn.Module):
    """Stands in for the network of 2,048 features, or of 1,008 class logits."""

    num_features = 6

    def forward(self, images):
        return images.double().flatten(1)[:, :6]


def test_few_images_are_warned_about(monkeypatch):
    from torchmetrics.image import fid, inception

    for module, name in ((fid, "FrechetInceptionDistance"), (inception, "InceptionScore")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda real=real, **options: real(feature=Constant(), **options))
    batches = [torch.rand(4, 1, 8, 8) * 2 - 1 for _ in range(3)]
    with pytest.warns(UserWarning, match="FID of 12 samples and 8 real images is too high"):
        metrics = inception_metrics(batches, batches[:2])
    assert metrics.samples == 12
    assert math.isfinite(metrics.fid)
    assert metrics.inception_score >= 1
    with pytest.raises(InputError, match="no images"):
        inception_metrics([], batches)
