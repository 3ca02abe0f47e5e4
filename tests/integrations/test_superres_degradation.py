"""Kernels, JPEG and the second-order chain."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import j1
from torch import Tensor

from advloss import InputError, OptionError
from advloss_superres import (
    DegradedCrops,
    DegradedPairs,
    SecondOrder,
    Stage,
    blur_kernel,
    jpeg,
    photographs,
    sinc_kernel,
    to_bytes,
    to_floats,
)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return photographs()[1][0][:, 40:141, 60:205]  # sides that no block divides


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
def test_jpeg_is_pillows(photograph: Tensor, quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(photograph.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()
    made = jpeg(photograph[None].float() / 255, quality)[0] * 255
    lost = float((expected - photograph).abs().mean())
    assert float((made - expected).abs().mean()) < min(1.5, 0.6 * lost)
    assert float((made - photograph).abs().mean()) == pytest.approx(lost, rel=0.2)


def test_jpeg_of_a_batch_is_that_of_each(photograph: Tensor) -> None:
    batch = torch.stack([photograph, photograph.flip(-1)]).float() / 255
    assert torch.equal(jpeg(batch, 50), torch.cat([jpeg(image[None], 50) for image in batch]))
    with pytest.raises(OptionError, match="quality=0"):
        jpeg(batch, 0)


def test_jpeg_of_grey_images_is_pillows(photograph: Tensor) -> None:
    grey = photograph.float().mean(0).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(grey.numpy()).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.array(Image.open(file)).astype(np.float32))
    made = jpeg(grey[None, None].float() / 255, 40)[0, 0] * 255
    assert made.shape == grey.shape
    assert float((made - expected).abs().mean()) < 0.2  # of 255, with libjpeg's transform in whole numbers
    with pytest.raises(InputError, match="JPEG is of 3 channels, or of 1"):
        jpeg(torch.zeros(1, 4, 16, 16), 40)


def test_grey_images_are_degraded(photograph: Tensor) -> None:
    grey = photograph.float().mean(0)[None, None, :48, :64] / 127.5 - 1
    for seed in range(8):
        low = SecondOrder(2)(grey, torch.Generator().manual_seed(seed))
        assert low.shape == (1, 1, 24, 32)
        assert low.isfinite().all()


@pytest.mark.parametrize(("shape", "beta"), [("gaussian", 1.0), ("generalized", 0.7), ("plateau", 1.6)])
def test_kernels_are_the_papers_pixel_by_pixel(shape: str, beta: float) -> None:
    sigma, angle, size = (2.0, 0.8), 0.6, 9
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma)) @ turn.T)
    expected = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            place = np.array([column - 4, row - 4])
            q = place @ inverse @ place
            expected[row, column] = {
                "gaussian": math.exp(-q / 2),
                "generalized": math.exp(-(q**beta) / 2),
                "plateau": 1 / (1 + q**beta),
            }[shape]
    kernel = blur_kernel(size, sigma, angle, shape, beta)  # type: ignore[arg-type]
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=1e-6)


def test_the_sinc_kernel_is_the_papers() -> None:
    size, cutoff = 11, 1.9
    expected = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            r = math.hypot(row - 5, column - 5)
            expected[row, column] = cutoff * j1(cutoff * r) / (2 * math.pi * r) if r else cutoff**2 / (4 * math.pi)
    np.testing.assert_allclose(sinc_kernel(size, cutoff), expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_chain_is_a_function_of_its_seed(photograph: Tensor, scale: int) -> None:
    images = to_floats(photograph[None, :, :96, :144])
    degrade = SecondOrder(scale)

    def at(seed: int) -> Tensor:
        return degrade(images, torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    made = [at(seed) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(low.shape == (1, 3, 96 // scale, 144 // scale) for low in made)
    assert all(torch.equal(low, at(seed)) for seed, low in enumerate(made))
    assert all(torch.equal(to_floats(to_bytes(low)), low) for low in made)
    assert all(not torch.equal(made[0], low) for low in made[1:])
    plain = torch.nn.functional.interpolate(images, scale_factor=1 / scale, mode="area")
    assert all(0.005 < float((low - plain).abs().mean()) < 0.5 for low in made)


def test_images_of_a_batch_are_degraded_each_in_its_own_way(photograph: Tensor) -> None:
    image = to_floats(photograph[None, :, :48, :48])
    low = SecondOrder(2)(image.expand(3, -1, -1, -1), torch.Generator().manual_seed(0))
    assert low.shape == (3, 3, 24, 24)
    assert not torch.equal(low[0], low[1])


def test_every_part_of_the_chain_is_reached(photograph: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from advloss_superres import _second_order

    called: dict[str, int] = {}
    for name in ("jpeg", "blur_kernel", "sinc_kernel"):
        original = getattr(_second_order, name)

        def count(*arguments: object, name: str = name, original: object = original) -> object:
            called[name] = called.get(name, 0) + 1
            return original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(_second_order, name, count)
    for name in ("randn", "poisson"):
        original = getattr(torch, name)

        def count_noise(*arguments: object, name: str = name, original: object = original, **options: object) -> object:
            called[name] = called.get(name, 0) + 1
            return original(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(torch, name, count_noise)
    runs, generator = 60, torch.Generator().manual_seed(0)
    for _ in range(runs):
        SecondOrder(2)(to_floats(photograph[None, :, :16, :16]), generator)
    assert called["jpeg"] == 2 * runs
    assert called["randn"] + called["poisson"] == 2 * runs
    assert 0.35 < called["randn"] / (2 * runs) < 0.65
    assert 1.8 * 0.9 * runs * 0.85 < called["blur_kernel"] < 1.8 * 0.9 * runs * 1.15
    assert 0.98 * runs * 0.75 < called["sinc_kernel"] < 0.98 * runs * 1.25  # 0.8 at the end, 0.1 of 1.8 blurs


def test_a_chain_of_ones_own_stages(photograph: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to nothing happens: no blur, no change of size, no noise, the best JPEG."""
    monkeypatch.setattr("advloss_superres._second_order.LAST_SINC", 0.0)
    mild = Stage(blur=0, resize=(0, 0, 1), noise=(0, 0), poisson=(0, 0), quality=(100, 100))
    image = to_floats(photograph[None, :, :96, :144])
    made = SecondOrder(1, mild, mild)(image, torch.Generator().manual_seed(3))
    wild = SecondOrder(1)(image, torch.Generator().manual_seed(3))
    assert float((made - image).abs().mean()) < min(0.02, 0.5 * float((wild - image).abs().mean()))


def test_it_makes_crops_and_whole_images(photograph: Tensor) -> None:
    low, high = DegradedCrops([photograph], SecondOrder(4), side=32)[0]
    assert (low.shape, high.shape) == ((3, 8, 8), (3, 32, 32))
    first, second = (DegradedPairs([photograph], SecondOrder(4))[0][0] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(InputError, match="which 4 does not divide"):
        SecondOrder(4)(to_floats(photograph[None]))
