"""PSNR, SSIM and high frequencies beside scikit-image and a slow transform."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from advloss import InputError, OptionError
from advloss_superres import (
    Bicubic,
    DegradedPairs,
    enlarge,
    evaluate,
    high_frequency_energy,
    load_metric,
    luma,
    photographs,
    psnr,
    ssim,
    to_bytes,
    to_floats,
)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """What bicubic interpolation makes of a photograph, and the photograph."""
    photograph = photographs()[1][0][:, 40:168, 60:220]
    low, high = DegradedPairs([photograph], Bicubic(2))[0]
    return to_floats(to_bytes(enlarge(low[None], 2))), high[None]


def scikit_luma(image: Tensor, border: int) -> np.ndarray:
    y = rgb2ycbcr(to_bytes(image)[0].permute(1, 2, 0).numpy())[..., 0]
    return y[border : y.shape[0] - border, border : y.shape[1] - border]


@pytest.mark.parametrize("border", [0, 2, 4])
def test_psnr_and_ssim_are_scikit_images(images: tuple[Tensor, Tensor], border: int) -> None:
    first, second = (scikit_luma(image, border) for image in images)
    assert psnr(*images, border) == pytest.approx(peak_signal_noise_ratio(second, first, data_range=255), abs=1e-6)
    expected = structural_similarity(
        first, second, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(*images, border) == pytest.approx(expected, abs=1e-6)


def test_luma_is_scikit_images(images: tuple[Tensor, Tensor]) -> None:
    np.testing.assert_allclose(luma(images[1])[0, 0].numpy(), scikit_luma(images[1], 0), atol=1e-5)
    grey = images[1][:, :1]
    torch.testing.assert_close(luma(grey), luma(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="luma is of 3 channels"):
        luma(torch.zeros(1, 4, 8, 8))


def test_high_frequencies_beside_a_whole_transform(images: tuple[Tensor, Tensor]) -> None:
    """numpy's full spectrum, term by term."""
    image = luma(images[1])[0, 0].numpy()
    height, width = image.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    expected = power[frequency > 0.25].sum() / ((window**2).sum() * height * width)
    assert float(high_frequency_energy(luma(images[1]))) == pytest.approx(expected)


def test_high_frequencies_say_blurred_and_noisy(images: tuple[Tensor, Tensor]) -> None:
    made, original = images
    low = Bicubic(2)(original)[0]
    bicubic = evaluate(lambda x: enlarge(x, 2), [(low, original[0])], border=2)
    noisy = evaluate(lambda x: original + 0.1 * torch.randn(original.shape), [(low, original[0])], border=2)
    itself = evaluate(lambda x: original, [(low, original[0])], border=2)
    assert bicubic.high_frequency < 0.2
    assert noisy.high_frequency > 1.5
    assert itself.high_frequency == pytest.approx(1)
    assert itself.ssim == pytest.approx(1)
    assert bicubic.psnr == pytest.approx(psnr(made, original, 2))
    assert itself.psnr > 100


def test_every_image_counts_alike(images: tuple[Tensor, Tensor]) -> None:
    original = images[1][0]
    flat = torch.zeros(3, 32, 32) + 0.001 * torch.randn(3, 32, 32)
    pairs = [(Bicubic(2)(high[None])[0], high) for high in (original, to_floats(to_bytes(flat * 50)))]
    each = [evaluate(lambda x: enlarge(x, 2), [pair], border=2) for pair in pairs]
    both = evaluate(lambda x: enlarge(x, 2), pairs, border=2, distances={"l2": lambda a, b: (a - b).square().mean()})
    for name in ("psnr", "ssim", "high_frequency"):
        assert getattr(both, name) == pytest.approx(sum(getattr(one, name) for one in each) / 2)
    assert set(both.as_dict()) == {"psnr", "ssim", "high_frequency", "l2"}
    assert both.distances["l2"] > 0


def test_what_cannot_be_compared(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match="there are no pairs"):
        evaluate(lambda x: x, [], border=2)
    with pytest.raises(InputError, match="no batches of a loader"):
        evaluate(lambda x: x, [images], border=2)
    with pytest.raises(InputError, match=r"dtype torch\.uint8"):
        evaluate(lambda x: x, [(images[0][0].byte(), images[1][0])], border=2)
    with pytest.raises(InputError, match="their originals"):
        psnr(images[0], images[1][..., 1:])
    with pytest.raises(InputError, match="leaves nothing"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), border=4)
    with pytest.raises(InputError, match="the window of SSIM"):
        ssim(torch.zeros(1, 3, 10, 10), torch.zeros(1, 3, 10, 10))
    with pytest.raises(InputError, match="a map of shape"):
        evaluate(
            lambda x: enlarge(x, 2),
            [(torch.zeros(3, 8, 8), torch.zeros(3, 16, 16))],
            border=0,
            distances={"map": lambda a, b: a - b},
        )


def test_a_metric_of_pyiqa_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises((OptionError, ValueError), match="pyiqa"):
        load_metric()


def test_metrics_of_pyiqa_see_images_in_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package itself is large; a stand-in keeps its call."""

    class Metric(nn.Module):
        def forward(self, made: Tensor, originals: Tensor) -> Tensor:
            assert float(made.min()) == 0
            assert float(originals.max()) == 1
            return (made - originals).square().flatten(1).mean(1)

    package = ModuleType("pyiqa")
    package.__spec__ = sys.__spec__  # what find_spec looks for
    package.create_metric = {"dists": Metric}.__getitem__  # type: ignore[attr-defined]
    package.create_metric = lambda name: {"dists": Metric}[name]()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    distance = load_metric("dists")
    assert float(distance(torch.full((1, 3, 4, 4), -1.2), torch.ones(1, 3, 4, 4))) == pytest.approx(1)
    with pytest.raises(OptionError, match="pyiqa cannot make 'none'"):
        load_metric("none")
