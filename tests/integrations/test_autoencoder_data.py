"""Crops, folders and the embedded photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advloss import InputError
from advloss_autoencoder import HeldOut, RandomCrops, folder_images, photographs, save_comparison, split


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
    Image.fromarray(np.full((20, 30, 4), 9, np.uint8), "RGBA").save(tmp_path / "deep" / "c.png")
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


def test_a_picture_is_drawn_whole(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    save_comparison(tmp_path / "picture.png", images, {"without": images, "with": images * 0.5}, enlarge=2)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 5 * 32
        assert len(picture.convert("RGB").getcolors(2**24)) > 100
    with pytest.raises(InputError, match="'odd'"):
        save_comparison(tmp_path / "other.png", images, {"odd": images[..., 1:]})
    assert {path.name for path in tmp_path.iterdir()} == {"picture.png"}
