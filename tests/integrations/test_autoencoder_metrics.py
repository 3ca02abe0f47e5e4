"""Figures against definitions and independent implementations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from autoencoder_tools import kl_model
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from advloss import InputError
from advloss_autoencoder import evaluate, frechet_distance, high_frequency_energy, save_comparison, validate


def wave(cycles: float, amplitude: float = 1.0, side: int = 256) -> Tensor:
    """A grating of so many cycles a pixel."""
    row = amplitude * torch.cos(2 * math.pi * cycles * torch.arange(side, dtype=torch.float64))
    return row.expand(1, 1, side, side)


@pytest.mark.parametrize("transposed", [False, True])
def test_energy_of_a_grating(transposed: bool) -> None:
    """A cosine of amplitude a has power a^2 / 2; it counts above a quarter of the sampling rate."""
    for cycles, expected in ((0.1, 0.0), (0.24, 0.0), (0.27, 2.0), (0.4, 2.0)):
        image = wave(cycles, amplitude=2.0)
        image = image.mT if transposed else image
        assert float(high_frequency_energy(image)) == pytest.approx(expected, abs=2e-2)


def test_energy_is_power_by_parseval() -> None:
    """With no cutoff, of white noise, all its power but the mean's."""
    noise = torch.randn(8, 3, 60, 45, dtype=torch.float64)
    assert float(high_frequency_energy(noise, cutoff=0.0)) == pytest.approx(1.0, rel=0.05)
    share = 1 - math.pi * 0.25**2  # of the frequency plane's unit square, outside the circle
    assert float(high_frequency_energy(noise)) == pytest.approx(share, rel=0.05)


def test_a_blur_lowers_it() -> None:
    image = torch.rand(1, 3, 64, 64)
    blurred = interpolate(avg_pool2d(image, 2), scale_factor=2, mode="bilinear")
    assert float(high_frequency_energy(blurred)) < 0.1 * float(high_frequency_energy(image))


def test_frechet_distance_of_independent_features() -> None:
    """Of normal distributions with diagonal covariances: (m1 - m2)^2 + (s1 - s2)^2, summed."""
    torch.manual_seed(0)
    first = torch.randn(100_000, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor(
        [0.0, 1.0, -1.0]
    )
    second = torch.randn(100_000, 3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 1.5])
    assert frechet_distance(first, second) == pytest.approx(0 + 1 + 1 + 0 + 1 + 1, rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


class Halves(nn.Module):
    """Returns half of each value."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 0.5


def test_figures_of_a_known_error() -> None:
    """Errors of half the values: mean square m / 4, of a peak-to-peak range of 2."""
    images = [torch.rand(3, 32, 48) * 2 - 1 for _ in range(2)]
    figures = evaluate(Halves(), images, lpips=lambda made, given: (made - given).abs().mean())
    psnr = sum(10 * math.log10(4 / float(image.square().mean() / 4)) for image in images) / 2
    assert figures.psnr == pytest.approx(psnr, rel=1e-5)
    assert figures.sharpness == pytest.approx(0.25, rel=1e-5)
    assert figures.lpips == pytest.approx(float(torch.stack([i.abs().mean() / 2 for i in images]).mean()), rel=1e-5)
    assert 0 < figures.ssim < 1
    assert figures.frechet > 0
    assert set(figures.as_dict()) == {"psnr", "ssim", "sharpness", "frechet", "lpips"}


def test_a_perfect_autoencoder() -> None:
    figures = evaluate(nn.Identity(), [torch.rand(3, 32, 32) * 2 - 1])
    assert figures.ssim == pytest.approx(1)
    assert figures.sharpness == pytest.approx(1)
    assert figures.frechet == pytest.approx(0, abs=1e-6)
    assert figures.psnr > 100
    assert figures.lpips is None


def test_the_model_is_left_in_its_mode_and_measured_without_chance() -> None:
    model, images = kl_model().train(), [torch.rand(3, 32, 32) * 2 - 1]
    state = torch.get_rng_state()
    assert evaluate(model, images) == evaluate(model, images)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)  # or validation would change the training that it looks at


class Moody(nn.Module):
    """A stand-in whose parts are in different modes, and that draws and counts in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_every_part_is_left_in_its_mode_after_an_error_too(tmp_path: Path) -> None:
    model = Moody().train()
    model.layers[0].eval()
    image, video = torch.rand(3, 32, 32), torch.rand(3, 5, 32, 32)
    state, numbers = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    validate({"moody": model}, [image], tmp_path / "picture.png", window=32)
    with pytest.raises(InputError, match=r"\(3, H, W\)"):
        evaluate(model, [video])
    with pytest.raises(InputError, match="downsampling divides"):
        evaluate(nn.Sequential(model, nn.AvgPool2d(2)), [image])
    assert [model.training, model.layers[0].training, model.layers[1].training] == [True, False, True]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_models_side_by_side(tmp_path: Path) -> None:
    """The same figures as one by one, and a picture of what all images have."""
    models = {"without": kl_model(), "with": kl_model()}
    images = [torch.rand(3, 32, 64) * 2 - 1, torch.rand(3, 48, 32) * 2 - 1]
    figures = validate(models, images, tmp_path / "picture.png", window=128, enlarge=5)
    assert figures == {name: evaluate(model, images) for name, model in models.items()}
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width == 5 * 32 * 5
    with pytest.raises(InputError, match="no images"):
        validate(models, [], tmp_path / "other.png")


def test_nothing_to_measure() -> None:
    with pytest.raises(InputError, match="no images"):
        evaluate(nn.Identity(), [])
    with pytest.raises(InputError, match=r"\(N, features\)"):
        frechet_distance(torch.rand(1, 3), torch.rand(5, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_and_models_of_any_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    image = torch.rand(3, 32, 32) * 2 - 1
    model = kl_model()
    expected = evaluate(model, [image])
    assert evaluate(model, [image.to(dtype)]).psnr == pytest.approx(expected.psnr, abs=0.05)
    model.to(torch.bfloat16)
    (figures,) = validate({"half": model}, [image.to(dtype)], tmp_path / "picture.png").values()
    assert figures.psnr == pytest.approx(expected.psnr, abs=0.2)


def test_what_cannot_be_validated_is_named(tmp_path: Path) -> None:
    model, image, picture = kl_model(), torch.rand(3, 32, 32), tmp_path / "picture.png"
    for images, words in (
        ([torch.rand(2, 3, 32, 32)], "no batches of a loader"),
        (image, r"has shape \(32, 32\); give each as"),
        ([image.numpy()], "is a ndarray; give each as a tensor"),
        ([(image * 255).byte()], "dtype torch.uint8"),
        ([image[:, :12]], r"sides \(12, 32\).*13 pixels or more"),
    ):
        with pytest.raises(InputError, match=words):
            validate({"model": model}, images, picture)
        with pytest.raises(InputError, match=words):
            evaluate(model, images)
    with pytest.raises(InputError, match="models is a AutoencoderKL; give them by title"):
        validate(model, [image], picture)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"window of 31 pixels.*downsampling divides"):
        validate({"model": model}, [image], picture, window=31)
    with pytest.raises(InputError, match="window=0"):
        validate({"model": model}, [image], picture, window=0)
    assert not list(tmp_path.iterdir())
    assert validate({"model": nn.Sequential(nn.Conv2d(3, 3, 1))}, [torch.rand(3, 13, 14)] * 2, picture)


def test_a_picture_by_its_name_in_a_folder_that_is_made(tmp_path: Path) -> None:
    validate({"model": kl_model()}, [torch.rand(3, 32, 32)], str(tmp_path / "new" / "folder" / "picture.png"))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["picture.png"]


def test_columns_are_as_wide_as_their_titles(tmp_path: Path) -> None:
    """Titles are black on white: between two of them there is white."""
    images = torch.zeros(1, 3, 16, 16)
    made = {"without any adversary": images, "with an adversary": images}
    save_comparison(tmp_path / "picture.png", images, made, enlarge=1.0)
    with Image.open(tmp_path / "picture.png") as picture:
        head = torch.from_numpy(np.array(picture.convert("L"))[:38])
    gaps = [head[:, round(head.shape[1] * part / 5) - 1 :][:, :2] for part in range(1, 5)]
    assert all(int(gap.min()) == 255 for gap in gaps)
    assert int(head.min()) < 100
