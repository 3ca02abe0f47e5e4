"""Crops, folders and the embedded photographs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from advloss import InputError, OptionError
from advloss_autoencoder import (
    HeldOut,
    RandomCrops,
    dataset_images,
    folder_images,
    photographs,
    save_comparison,
    split,
)


def ramp(height: int, width: int) -> torch.Tensor:
    """An image whose colours say where a pixel is."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)


def test_crops_are_windows_of_the_image() -> None:
    crops = RandomCrops([ramp(40, 50)], side=16, crops=64)
    assert len(crops) == 64
    mirrored = set()
    for index in range(64):
        window = ((crops[index] + 1) * 127.5).round()
        row, column = window[0, 0, 0], window[1, 0].min()
        assert torch.equal(window[0, :, 0], row + torch.arange(16))
        forward = torch.equal(window[1, 0], column + torch.arange(16))
        assert forward or torch.equal(window[1, 0].flip(0), column + torch.arange(16))
        mirrored.add(forward)
    assert mirrored == {False, True}


def test_small_images_are_enlarged_and_whole_ones_cut() -> None:
    assert RandomCrops([ramp(10, 30)], side=16)[0].shape == (3, 16, 16)
    whole = HeldOut([ramp(41, 50)], multiple=16)[0]
    assert whole.shape == (3, 32, 48)
    assert float(whole.min()) == -1
    assert HeldOut([ramp(5, 50)], multiple=16)[0].shape == (3, 16, 160)


def test_of_large_held_out_images_the_middle_is_measured() -> None:
    window = ((HeldOut([ramp(100, 80)], multiple=16, largest=50)[0] + 1) * 127.5).round()
    assert window.shape == (3, 48, 48)
    assert window[:2, 0, 0].tolist() == [25, 15]


def test_photographs_come_with_the_packages() -> None:
    training, held_out = photographs()
    for image in (*training, *held_out):
        assert image.shape[0] == 3
        assert image.dtype == torch.uint8
        assert min(image.shape[1:]) >= 300
    assert len(training) >= 8
    assert len(held_out) >= 2
    assert not any(a.shape == b.shape and torch.equal(a, b) for a in training for b in held_out)


def test_a_folder_of_any_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.full((20, 30), 9, np.uint8)).save(tmp_path / "deep" / "c.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    images = folder_images(tmp_path)
    assert [int(images[i].max()) for i in range(len(images))] == [7, 9]
    assert images[1].shape == (3, 20, 30)
    training, held_out = split(images, 1)
    assert (len(training), len(held_out)) == (1, 1)
    assert int(held_out[0].max()) == 9
    with pytest.raises(InputError, match="2 of 2 images held out"):
        split(images, 2)
    with pytest.raises(InputError, match="no image in"):
        folder_images(tmp_path / "nowhere")


GREY = np.linspace(0, 255, 20 * 30).reshape(20, 30).round().astype(np.uint8)
COLOUR = np.stack([GREY, GREY.T.reshape(20, 30), 255 - GREY], axis=-1)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("grey.png", Image.fromarray(GREY), np.dstack([GREY] * 3)),
        ("16-bit.png", Image.fromarray(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
        ("palette.png", Image.fromarray(GREY).convert("P"), np.dstack([GREY] * 3)),
        ("black-and-white.png", Image.fromarray(GREY > 99), np.dstack([np.uint8(255) * (GREY > 99)] * 3)),
        ("opaque.png", Image.fromarray(np.dstack([COLOUR, 0 * GREY + 255])), COLOUR),
        ("transparent.png", Image.fromarray(np.dstack([COLOUR, 0 * GREY])), 0 * COLOUR + 255),
        ("grey-and-alpha.png", Image.fromarray(np.dstack([GREY, 0 * GREY + 255])), np.dstack([GREY] * 3)),
        ("colour.tiff", Image.fromarray(COLOUR), COLOUR),
    ],
)
def test_images_of_any_kind_are_read_as_viewers_show_them(
    tmp_path: Path, name: str, image: Image.Image, expected: np.ndarray
) -> None:
    image.save(tmp_path / name)
    (read,) = folder_images(tmp_path)
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read.permute(1, 2, 0).numpy(), expected)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    (read,) = folder_images(tmp_path)
    np.testing.assert_array_equal(read.permute(1, 2, 0).numpy(), np.rot90(COLOUR, -1))


def test_sixteen_bits_are_read_as_viewers_show_them(tmp_path: Path) -> None:
    values = GREY.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", 65535 - values, photometric="miniswhite")
    Image.fromarray(values).save(tmp_path / "b.png", transparency=int(values[0, 0]))
    tifffile.imwrite(tmp_path / "c.tif", np.full((16, 16), 200, np.int16))
    white, hidden, signed = range(3)
    images = folder_images(tmp_path)
    np.testing.assert_array_equal(images[white][0].numpy(), GREY)
    np.testing.assert_array_equal(images[hidden][0].numpy(), np.where(GREY[0, 0] == GREY, 255, GREY))
    with pytest.raises(InputError, match=r"c\.tif cannot be read \(signed and 32-bit integers have no known range"):
        images[signed]


@pytest.mark.parametrize(
    ("name", "words"), [("empty.jpg", "identify"), ("cut.png", ""), ("floats.tif", "8 or 16 bits")]
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, words: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "floats.tif")
    images = folder_images(tmp_path)
    place = [path.name for path in images.paths].index(name)
    with pytest.raises(InputError, match=rf"{name} cannot be read \(.*{words}"):
        images[place]


def test_a_hugging_face_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "photos"
    columns = {"image": [Image.fromarray(COLOUR), Image.fromarray(GREY)], "caption": ["one", "two"]}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "train.parquet")
    images = dataset_images(str(folder))
    assert len(images) == 2
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), COLOUR)
    assert torch.equal(images[1][0], torch.from_numpy(GREY))
    with pytest.raises(InputError, match="no column 'picture'; it has image, caption"):
        dataset_images(str(folder), column="picture")
    with pytest.raises(InputError, match=r"row 0 .* a str is no image"):
        dataset_images(str(folder), column="caption")[0]
    with pytest.raises(InputError, match="split 'test'"):
        dataset_images(str(folder), split="test")
    with pytest.raises(InputError, match="nowhere"):
        dataset_images(str(tmp_path / "nowhere"))


def test_the_package_for_data_sets_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(OptionError, match=r"pip install 'advloss\[autoencoder,datasets\]'"):
        dataset_images("any/name")


def test_a_picture_is_drawn_whole(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    save_comparison(tmp_path / "picture.png", images, {"without": images, "with": images * 0.5}, enlarge=2)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 5 * 32
        assert len(picture.convert("RGB").getcolors(2**24)) > 100
    with pytest.raises(InputError, match="'odd'"):
        save_comparison(tmp_path / "other.png", images, {"odd": images[..., 1:]})
    assert {path.name for path in tmp_path.iterdir()} == {"picture.png"}
