"""Images with captions from folders, data sets and shards: what is read, what is skipped, and what is refused."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from distill_tools import differences, fresh_accelerator, weights
from PIL import Image
from pipeline_tools import ENCODERS, tiny_family, tiny_pipeline, tiny_text
from test_distill_families import tiny_run

from advloss import InputError, PluginError
from advloss_distill import (
    CaptionedImages,
    Distillation,
    EncodedImages,
    Renoising,
    encode,
    family_of,
    with_misaligned,
)

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
SIDE = 16


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(file, "PNG")
    return file.getvalue()


def folder(root: Path, broken: bool) -> CaptionedImages:
    (root / "deep").mkdir()
    for name, colour in COLOURS.items():
        path = root / ("deep" if name == "red" else ".") / f"{name}.PNG"
        path.write_bytes(png(colour))
        path.with_suffix(".txt").write_text(f" {name} \n")
    if broken:
        (root / "green.PNG").write_bytes(png(COLOURS["green"])[:40])
    return CaptionedImages.from_folder(root, SIDE)


def dataset(root: Path, broken: bool) -> CaptionedImages:
    datasets = pytest.importorskip("datasets")
    content = [{"bytes": png(colour), "path": f"{name}.png"} for name, colour in COLOURS.items()]
    if broken:
        content[1]["bytes"] = b"no image"
    features = datasets.Features({"picture": datasets.Image(decode=False), "words": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"picture": content, "words": list(COLOURS)}, features=features)
    made.to_parquet(root / "data" / "train.parquet")
    return CaptionedImages.from_dataset(str(root / "data"), SIDE, image_column="picture", caption_column="words")


def shards(root: Path, broken: bool, without: str = "") -> CaptionedImages:
    pytest.importorskip("datasets")
    for i, (name, colour) in enumerate(COLOURS.items()):
        with tarfile.open(root / f"{i:05}.tar", "w") as shard:
            content = b"no image" if broken and name == "green" else png(colour)
            for ending, data in (("png", content), ("txt", name.encode())):
                if (name, ending) != (without, "txt"):
                    entry = tarfile.TarInfo(f"{i:04}.{ending}")
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
    return CaptionedImages.from_shards(str(root / "*.tar"), SIDE)


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package `datasets` puts what it has read."""
    if datasets := pytest.importorskip("datasets"):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


Source = Callable[[Path, bool], CaptionedImages]
SOURCES: list[Source] = [folder, dataset, shards]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("source", SOURCES)
def test_every_image_comes_with_its_caption(source: Source, tmp_path: Path) -> None:
    images = source(tmp_path, False)
    pairs = list(images)
    assert len(images) == len(pairs) == 3
    assert images.account() == ""
    for image, caption in pairs:
        colour = torch.tensor(COLOURS[caption]).view(3, 1, 1) / 127.5 - 1
        torch.testing.assert_close(image, colour.expand(3, SIDE, SIDE))
    assert {caption for _, caption in images.draw(60)} == set(COLOURS)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("source", SOURCES)
def test_what_cannot_be_read_is_skipped_and_named(source: Source, tmp_path: Path) -> None:
    images = source(tmp_path, True)
    assert sorted(caption for _, caption in images) == ["blue", "red"]
    assert images.account().startswith("1 of 3 images could not be read and were skipped (")
    assert {folder: "green.PNG", dataset: "row 1 of", shards: "0001.png"}[source] in images.account()
    assert {caption for _, caption in images.draw(60)} == {"blue", "red"}
    assert len(images.skipped) == 1


def test_where_none_can_be_read_it_ends(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.jpg").touch()
        (tmp_path / f"{name}.txt").write_text(name)
    for ask in (list, lambda images: images.draw(1)):
        with pytest.raises(InputError, match=r"7 of 7 images could not be read .*\.jpg.* and 2 more"):
            ask(CaptionedImages.from_folder(tmp_path, SIDE))


def test_images_are_cut_turned_and_put_on_white(tmp_path: Path) -> None:
    values = np.zeros((40, 20, 4), np.uint8)
    values[10:30, :, 3] = 255
    values[10:20, :, 0] = 255
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side: the top is at the right
    for name, options in (("a", {}), ("b", {"exif": exif})):
        Image.fromarray(values).save(tmp_path / f"{name}.png", **options)
        (tmp_path / f"{name}.txt").write_text(name)
    Image.fromarray(values[..., 3].astype(np.uint16)).save(tmp_path / "c.png")
    (tmp_path / "c.txt").write_text("c")
    images = CaptionedImages.from_folder(tmp_path, 20)
    (upright, _), (turned, _) = images
    assert upright[:, 4, 10].tolist() == [1, -1, -1]
    assert upright[:, 15, 10].tolist() == [-1, -1, -1]
    assert turned[:, 10, 15].tolist() == [1, -1, -1]
    assert "save 8 bits" in images.skipped[str(tmp_path / "c.png")]
    (white, _), *_ = CaptionedImages.from_folder(tmp_path, 2)
    assert white.shape == (3, 2, 2)


def test_transparent_places_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("nothing")
    ((image, _),) = CaptionedImages.from_folder(tmp_path, 4)
    assert torch.equal(image, torch.ones(3, 4, 4))


@pytest.mark.usefixtures("cache")
def test_images_without_captions_are_refused(tmp_path: Path) -> None:
    for place in ("folder", "shards"):
        (tmp_path / place).mkdir()
    folder(tmp_path / "folder", False)
    (tmp_path / "folder" / "blue.txt").unlink()
    (tmp_path / "folder" / "green.txt").write_text("\n")
    with pytest.raises(InputError, match=r"2 of 3 images have no caption: .*blue\.PNG, .*green\.PNG\. .* \.txt file"):
        CaptionedImages.from_folder(tmp_path / "folder", SIDE)
    (tmp_path / "folder" / "green.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"green\.txt is no text in UTF-8"):
        CaptionedImages.from_folder(tmp_path / "folder", SIDE)
    with pytest.raises(InputError, match=r"1 of 3 images have no caption: row 1 of .*\.tar"):
        shards(tmp_path / "shards", False, without="green")


@pytest.mark.usefixtures("cache")
def test_columns_splits_and_sources_that_are_not_there(tmp_path: Path) -> None:
    dataset(tmp_path, False)
    name, columns = str(tmp_path / "data"), {"image_column": "picture", "caption_column": "words"}
    with pytest.raises(InputError, match="has no column 'image'; it has picture, words"):
        CaptionedImages.from_dataset(name, SIDE)
    with pytest.raises(InputError, match="has no column 'text'; it has picture, words"):
        CaptionedImages.from_dataset(name, SIDE, image_column="picture")
    with pytest.raises(InputError, match=r"column 'words' .* no images"):
        CaptionedImages.from_dataset(name, SIDE, image_column="words", caption_column="words")
    with pytest.raises(InputError, match=r"3 of 3 images have no caption.*name another column"):
        CaptionedImages.from_dataset(name, SIDE, image_column="picture", caption_column="picture")
    with pytest.raises(InputError, match=r"the split 'test' of .* cannot be loaded"):
        CaptionedImages.from_dataset(name, SIDE, split="test", **columns)
    with pytest.raises(InputError, match="nowhere"):
        CaptionedImages.from_dataset(str(tmp_path / "nowhere"), SIDE)
    with pytest.raises(InputError, match=r"no file is named .*\*\.tar"):
        CaptionedImages.from_shards(str(tmp_path / "*.tar"), SIDE)
    (tmp_path / "damaged.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"damaged\.tar.* cannot be loaded"):
        CaptionedImages.from_shards(str(tmp_path / "damaged.tar"), SIDE)
    with pytest.raises(InputError, match="there is no image in"):
        CaptionedImages.from_folder(tmp_path / "nowhere", SIDE)


def test_the_package_for_data_sets_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PluginError, match=r"pip install 'advloss\[distill,datasets\]'"):
        CaptionedImages.from_dataset("any/name", SIDE)


def noise_images(root: Path, *captions: str) -> None:
    root.mkdir()
    for i, caption in enumerate(captions):
        noise = torch.rand(20, 20, 3, generator=torch.Generator().manual_seed(i))
        Image.fromarray((255 * noise).byte().numpy()).save(root / f"{i}.png")
        (root / f"{i}.txt").write_text(caption)


@pytest.mark.parametrize("name", ["stable-diffusion", "pixart", "dit"])
def test_samples_of_one_caption_are_no_misaligned_fakes(name: str, tmp_path: Path) -> None:
    """Latents, places and guidance travel with a condition, and are no part of the prompt."""
    pipeline = tiny_pipeline(name, **(tiny_text(name) if name in ENCODERS else {}))
    pipeline.labels = {"a fox": 0}
    family = family_of(pipeline, resolution=SIDE, renoising=Renoising())
    noise_images(tmp_path / "images", *["a fox"] * 6)
    images = CaptionedImages.from_folder(tmp_path / "images", SIDE)
    for data in (EncodedImages(family, pipeline, images), encode(family, pipeline, images)):
        condition = {**data.conditions(6), "guidance": torch.rand(6)}
        judged = family.judged(condition, torch.arange(6))
        assert judged.keys() == {*family.takes, "time", "noise", "noise_timesteps"} | (
            {"class"} if name == "dit" else {"vector"}
        )
        fakes, _ = with_misaligned(torch.zeros(6, *family.shape), data.real(condition), judged, 0.5)
        assert len(fakes) == 6


def test_a_student_trains_on_images_and_resumes_bit_by_bit(tmp_path: Path) -> None:
    noise_images(tmp_path / "images", "goose", "tench", "goose")
    ends = []
    for stops in (False, True):
        for accelerator in fresh_accelerator():
            distillation = on_images(tmp_path / "images", accelerator)
            if stops:
                distillation.run(2, checkpoints=tmp_path / "checkpoints")
                torch.manual_seed(4)
                distillation = on_images(tmp_path / "images", accelerator)
                distillation.load(tmp_path / "checkpoints")
            distillation.run(4)
            ends.append((weights(distillation.student), weights(distillation.adversary.discriminator)))
    assert not differences(*ends)


def on_images(folder: Path, accelerator: Accelerator) -> Distillation:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0, "goose": 9}
    torch.manual_seed(3)
    distillation = tiny_run(pipeline, family, family.student(pipeline.transformer), accelerator)
    distillation.data = EncodedImages(family, pipeline, CaptionedImages.from_folder(folder, SIDE))
    condition = distillation.data.conditions(64)
    assert set(condition["class_labels"].tolist()) == {0, 9}
    assert condition["latents"].shape == (64, *family.shape)
    real = distillation.data.real(condition)
    same = (real.flatten(1)[:, None] - real.flatten(1)[None]).abs().mean(-1) < 0.1
    labels = condition["class_labels"]
    assert labels[:, None].eq(labels)[same].all()
    return distillation
