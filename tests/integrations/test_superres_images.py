"""Images, pairs and crops: embedded photographs, folders, and files that cannot be used."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from advloss import InputError, OptionError
from advloss_superres import (
    Bicubic,
    DegradedCrops,
    DegradedPairs,
    FolderImages,
    FolderPairs,
    MultiScale,
    PairedCrops,
    WholePairs,
    describe_skipped,
    enlarge,
    photographs,
    read_image,
    resize,
    split,
    to_bytes,
    to_floats,
)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def save(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, seed).permute(1, 2, 0).numpy()).save(path)


def test_photographs_are_split_by_image() -> None:
    training, held_out = photographs()
    for image in (*training, *held_out):
        assert image.shape[0] == 3
        assert image.dtype == torch.uint8
        assert min(image.shape[1:]) >= 300
    assert len(training) >= 8
    assert len(held_out) >= 3
    assert not any(a.shape == b.shape and torch.equal(a, b) for a in training for b in held_out)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrinking_is_pillows_bicubic(scale: int) -> None:
    image = photographs()[1][0][:, :120, :180]
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
        (180 // scale, 120 // scale), Image.Resampling.BICUBIC
    )
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    difference = to_bytes(Bicubic(scale)(to_floats(image)[None]))[0].int() - expected.int()
    assert int(difference.abs().max()) <= 1
    assert float((difference != 0).float().mean()) < 0.25  # Pillow rounds between the two directions, too
    larger = torch.from_numpy(np.array(pillow.resize((180, 120), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    assert int((to_bytes(enlarge(to_floats(expected)[None], scale))[0].int() - larger.int()).abs().max()) <= 1


def test_shrinking_is_rounded_as_a_file_is() -> None:
    low = Bicubic(2)(to_floats(noise(20, 30))[None])
    assert torch.equal(to_floats(to_bytes(low)), low)
    assert not torch.equal(resize(to_floats(noise(20, 30))[None], (10, 15)), low)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_crop_is_the_same_part_of_both_whole_images(scale: int) -> None:
    """Also near the border of the image, and in all eight positions."""
    image = noise(36, 48)
    low, high = DegradedPairs([image], Bicubic(scale))[0]
    crops = DegradedCrops([image], Bicubic(scale), side=12, crops=40)
    places, side = set(), 12 // scale
    for index in range(len(crops)):
        small, large = crops[index]
        assert small.shape == (3, side, side)
        found = [
            (top, left, k, mirrored)
            for top in range(0, 36 - 11, scale)
            for left in range(0, 48 - 11, scale)
            for k in range(4)
            for mirrored in (False, True)
            if torch.equal(turned(large, k, mirrored), high[:, top : top + 12, left : left + 12])
        ]
        (place,) = found
        top, left, k, mirrored = place
        part = low[:, top // scale : top // scale + side, left // scale : left // scale + side]
        torch.testing.assert_close(turned(small, k, mirrored), part, atol=1e-6, rtol=0)
        places.add(place)
    assert len({place[2:] for place in places}) == 8
    assert len({place[:2] for place in places}) > 10


def turned(image: Tensor, k: int, mirrored: bool) -> Tensor:
    image = torch.rot90(image, k, (-2, -1))
    return image.flip(-1) if mirrored else image


def test_smaller_versions_of_images_come_after_them() -> None:
    images = MultiScale([noise(40, 60), noise(20, 30)], factors=(0.75, 0.5), smallest=12)
    assert [tuple(images[i].shape[1:]) for i in range(len(images))] == [
        (40, 60),
        (20, 30),
        (30, 45),
        (15, 22),
        (20, 30),
        (12, 15),  # no side falls below the smallest
    ]
    assert torch.equal(images[1], noise(20, 30))
    assert torch.equal(images[4], to_bytes(Bicubic(2)(to_floats(noise(40, 60))[None]))[0])


def test_odd_sides_are_cut_for_measuring_and_refused_by_a_degradation() -> None:
    low, high = DegradedPairs([noise(41, 50)], Bicubic(4))[0]
    assert (low.shape, high.shape) == ((3, 10, 12), (3, 40, 48))
    assert torch.equal(to_bytes(high), noise(41, 50)[:, :40, :48])
    with pytest.raises(InputError, match=r"\(41, 50\), which 4 does not divide"):
        Bicubic(4)(to_floats(noise(41, 50))[None])


@pytest.mark.parametrize("scale", [0, 2.5, True])
def test_scales_are_whole_numbers(scale: object) -> None:
    with pytest.raises(OptionError, match="scale="):
        Bicubic(scale)  # type: ignore[arg-type]


def test_crops_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="side=13: give a multiple of the scale 2"):
        DegradedCrops([noise(20, 20)], Bicubic(2), side=13)
    with pytest.raises(InputError, match="no crop of"):
        DegradedCrops([noise(20, 20)], Bicubic(2), side=24)[0]


def test_files_are_read_whatever_they_hold(tmp_path: Path) -> None:
    values = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    opaque = np.stack([values, values, values, np.full_like(values, 255)], -1)
    Image.fromarray(opaque, "RGBA").save(tmp_path / "opaque.png")
    Image.fromarray(np.stack([values, np.full_like(values, 255)], -1), "LA").save(tmp_path / "grey_alpha.png")
    for name in ("grey", "sixteen", "opaque", "grey_alpha"):
        image = read_image(tmp_path / f"{name}.png")
        assert image.shape == (3, 16, 16)
        assert torch.equal(image, torch.from_numpy(values).expand(3, -1, -1)), name


def png16(path: Path, image: np.ndarray, hidden: tuple[int, ...]) -> None:
    """A PNG of 16 bits in which one colour is transparent; Pillow writes none of three channels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = image.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    parts = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(f">{channels}H", *hidden)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def test_sixteen_bits_where_a_zero_is_white(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    tifffile.imwrite(tmp_path / "white.tif", 65535 - values, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "white8.tif", (255 - values // 257).astype(np.uint8), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "black.tif", values, photometric="minisblack")
    for name in ("white", "white8", "black"):
        assert np.array_equal(read_image(tmp_path / f"{name}.tif")[0].numpy(), values // 257), name


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_with_a_transparent_colour(tmp_path: Path, channels: int) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16, 1).repeat(channels, 2) * 256 + 7
    png16(tmp_path / "glass.png", values, (5 * 256 + 7,) * channels)
    png16(tmp_path / "opaque.png", values, (0xFFFF, 0, 0)[:channels])
    with pytest.raises(InputError, match="transparent pixels"):
        read_image(tmp_path / "glass.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png")[0].numpy(), values[..., 0] >> 8)


def test_signed_integers_have_no_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "signed.tif", np.full((16, 16), 200, np.int16))
    with pytest.raises(InputError, match=r"signed\.tif: holds signed or 32-bit integers"):
        read_image(tmp_path / "signed.tif")


def test_files_that_cannot_be_used_are_skipped_counted_and_named(tmp_path: Path) -> None:
    save(tmp_path / "good.png", 40, 50)
    save(tmp_path / "deep" / "good.jpg", 40, 50)
    save(tmp_path / "small.png", 40, 20)
    save(tmp_path / "cut.png", 40, 50)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    glass = np.full((40, 50, 4), 128, np.uint8)
    Image.fromarray(glass, "RGBA").save(tmp_path / "glass.png")
    Image.fromarray(np.zeros((40, 50), np.float32)).save(tmp_path / "floats.tif")
    Image.fromarray(np.full((40, 50), 200, np.int32)).save(tmp_path / "integers.tif")
    (tmp_path / "notes.txt").write_text("no image, and no image's name")
    images = FolderImages(tmp_path, smallest=32)
    assert [path.name for path in images.paths] == ["good.jpg", "good.png"]
    assert [images[i].shape for i in range(len(images))] == [(3, 40, 50)] * 2
    reasons = {skipped.path.name: skipped.reason for skipped in images.skipped}
    assert list(reasons) == ["cut.png", "empty.png", "floats.tif", "glass.png", "integers.tif", "small.png", "text.jpg"]
    assert reasons["small.png"] == "20 x 40, smaller than 32 pixels"
    assert "cannot be read" in reasons["cut.png"]
    assert "transparent" in reasons["glass.png"]
    assert "floats" in reasons["floats.tif"]
    assert "32-bit" in reasons["integers.tif"]
    words = describe_skipped(images.skipped, shown=2)
    assert words.startswith("7 files skipped: ")
    assert "cut.png" in words
    assert "small.png" not in words
    assert describe_skipped([]) == ""


def test_a_folder_without_usable_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable image in"):
        FolderImages(tmp_path / "nowhere")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"1 file skipped: .*text\.jpg: cannot be read"):
        FolderImages(tmp_path)


def test_photographs_held_as_the_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(noise(20, 30).permute(1, 2, 0).numpy()).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "turned.png"), torch.rot90(noise(20, 30), -1, (1, 2)))


def test_pairs_of_two_folders(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    for name, small, large in (
        ("fits", (10, 12), (20, 24)),
        ("odd", (10, 12), (21, 25)),
        ("other", (10, 12), (22, 24)),
        ("tiny", (4, 12), (8, 24)),
        ("deep/fits", (10, 12), (20, 24)),
    ):
        save(low / f"{name}.png", *small, seed=1)
        save(high / f"{name}.png", *large, seed=2)
    save(low / "marked" / "ax2.png", 10, 12)
    save(high / "marked" / "a.png", 20, 24)
    save(low / "alone.png", 10, 12)
    save(high / "missed.png", 20, 24)
    save(low / "fits.jpg", 10, 12)
    save(low / "broken.png", 10, 12)
    save(high / "broken.png", 20, 24)
    (high / "broken.png").write_bytes(b"\x89PNG")
    pairs = FolderPairs(low, high, scale=2, smallest=12)
    names = [path.relative_to(high).as_posix() for _, path in pairs.paths]
    assert names == ["deep/fits.png", "fits.png", "marked/a.png", "odd.png"]
    assert all((a.shape, b.shape) == ((3, 10, 12), (3, 20, 24)) for a, b in (pairs[i] for i in range(len(pairs))))
    assert torch.equal(pairs[3][1], noise(21, 25, seed=2)[:, :20, :24])
    reasons = {skipped.path.relative_to(tmp_path).as_posix(): skipped.reason for skipped in pairs.skipped}
    assert set(reasons) == {
        "high/broken.png",
        "high/missed.png",
        "high/other.png",
        "high/tiny.png",
        "low/alone.png",
        "low/fits.png",
    }
    assert "no partner in" in reasons["low/alone.png"]
    assert "no partner in" in reasons["high/missed.png"]
    assert "24 x 22, its partner 12 x 10, which does not fit scale 2" in reasons["high/other.png"]
    assert "smaller than 12 pixels" in reasons["high/tiny.png"]
    assert "name of fits.jpg" in reasons["low/fits.png"]
    with pytest.raises(InputError, match="no usable pair"):
        FolderPairs(low / "marked", high / "deep", scale=2)


def test_a_name_that_ends_like_a_scale_is_its_own(tmp_path: Path) -> None:
    for folder, side in (("low", 8), ("high", 16)):
        (tmp_path / folder).mkdir()
        for name in ("box2", "texx2", "plain"):
            ending = "x2" if (folder, name) == ("low", "plain") else ""
            Image.new("RGB", (side, side)).save(tmp_path / folder / f"{name}{ending}.png")
    pairs = FolderPairs(tmp_path / "low", tmp_path / "high", scale=2)
    assert [high.stem for _, high in pairs.paths] == ["box2", "plain", "texx2"]
    assert not pairs.skipped


def test_crops_of_pairs_are_at_one_place() -> None:
    high = noise(24, 32)
    low = high[:, ::2, ::2].contiguous()  # so that partners can be told
    crops = PairedCrops([(low, high)], scale=2, side=8, crops=20)
    assert len(crops) == 20
    for index in range(20):
        small, large = crops[index]
        assert small.shape == (3, 4, 4)
        corners = [large[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert any(torch.equal(small, corner) for corner in corners)
    assert torch.equal(WholePairs([(low, high)])[0][1], to_floats(high))


def test_holding_out() -> None:
    images = [noise(4, 4, seed) for seed in range(5)]
    training, held_out = split(images, 2)
    assert (len(training), len(held_out)) == (3, 2)
    assert torch.equal(held_out[1], images[4])
    with pytest.raises(InputError, match="5 of 5 images held out"):
        split(images, 5)
