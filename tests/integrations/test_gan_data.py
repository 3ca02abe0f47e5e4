"""Data without a download, folders with whatever lies in them, and names that lead nowhere."""

import sys
import types

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from advloss import InputError
from advloss_gan import StackedDigits, digits, grid, load_images, num_classes_of, two_gaussians
from advloss_gan import _images as images_module

Image = pytest.importorskip("PIL.Image")


def test_digits_are_split_once_and_for_all():
    train, held_out = digits()
    assert (len(train), len(held_out)) == (1500, 297)
    images, labels = train.tensors
    assert images.shape == (1500, 1, 8, 8)
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.unique().tolist() == list(range(10)) == held_out.tensors[1].unique().tolist()
    assert torch.equal(digits()[1].tensors[0], held_out.tensors[0])


def test_stacked_digits():
    torch.manual_seed(0)
    data = StackedDigits()
    images, modes = data.sample(5000)
    assert images.shape == (5000, 3, 8, 8)
    assert data.modes == 1000
    assert 900 < len(modes.unique()) <= 1000
    assert int(modes.max()) < 1000
    by_pixels = {image.numpy().tobytes(): int(label) for image, label in zip(data.images, data.labels)}
    for image, mode in zip(images[:20], modes):
        names = [by_pixels[channel.numpy().tobytes()] for channel in image[:, None]]
        assert names[0] * 100 + names[1] * 10 + names[2] == int(mode)
    assert next(data.batches(7)).shape == (7, 3, 8, 8)


def test_grid_and_line():
    centers = grid().centers
    assert centers.shape == (25, 2)
    assert sorted(set(centers.flatten().tolist())) == [-4, -2, 0, 2, 4]
    assert grid().std == 0.05
    assert two_gaussians(6.0).centers.tolist() == [[-3.0], [3.0]]
    assert next(two_gaussians().batches(5)).shape == (5, 1)


@pytest.fixture
def folder(tmp_path):
    for name, size, color in (("cat/a.png", (40, 20), 255), ("cat/b.jpg", (9, 30), 0), ("dog/c.png", (8, 8), 128)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", size, color).save(tmp_path / name)
    return tmp_path


def test_folder_of_mixed_sizes(folder):
    data = load_images(str(folder), resolution=16)
    assert (len(data), num_classes_of(data), data.skipped) == (3, 2, ())
    images, labels = next(iter(DataLoader(data, 3)))
    assert images.shape == (3, 3, 16, 16)
    assert labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(images[:, 0, 8, 8], torch.tensor([1.0, -1.0, 128 / 127.5 - 1]), rtol=0, atol=0.02)
    assert load_images(str(folder), resolution=4, channels=1)[0][0].shape == (1, 4, 4)


def test_the_middle_is_kept(tmp_path):
    image = Image.new("L", (24, 8), 0)
    image.paste(255, (8, 0, 16, 8))
    image.save(tmp_path / "wide.png")
    data = load_images(str(tmp_path), resolution=8, channels=1)
    assert num_classes_of(data) == 1
    assert torch.equal(data[0][0], torch.ones(1, 8, 8))


def test_broken_files_are_counted_and_named(folder):
    (folder / "dog" / "empty.png").touch()
    whole = (folder / "cat" / "b.jpg").read_bytes()
    (folder / "cat" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match=r"2 files .*half\.jpg.*empty\.png"):
        data = load_images(str(folder), resolution=8)
    assert len(data) == 3
    assert [path.name for path in data.skipped] == ["half.jpg", "empty.png"]


def test_pixels_of_more_than_8_bits(tmp_path):
    """PIL would cut off everything above 255; where the range is not known, the file is named."""
    shades = np.array([[0, 20_000], [40_000, 65_535]], dtype=np.uint16)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.warns(UserWarning, match=r"1 files .*8 or 16 bits.*float\.tiff"):
        data = load_images(str(tmp_path), resolution=2, channels=1)
    expected = torch.from_numpy(shades.astype(np.float32)) / 65_535 * 2 - 1
    torch.testing.assert_close(data[0][0][0], expected, rtol=0, atol=0.01)


def test_pictures_are_read_as_viewers_show_them(tmp_path):
    """A camera held upright says so beside the pixels; what cannot be seen is white, whatever colour lies under it."""
    upright = Image.new("L", (8, 8), 0)
    upright.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right
    upright.save(tmp_path / "a.png", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "b.png")
    data = load_images(str(tmp_path), resolution=8, channels=1)
    assert torch.equal(data[0][0][0, 0], torch.tensor([-1.0] * 4 + [1.0] * 4))
    assert torch.equal(data[1][0], torch.ones(1, 8, 8))


def test_what_leads_nowhere(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*nothing; by name there are digits"):
        load_images(str(tmp_path / "nothing"), resolution=8)
    with pytest.raises(InputError, match="no readable image"):
        load_images(str(tmp_path), resolution=8)
    with pytest.raises(InputError, match="1 x 8 x 8"):
        load_images("digits", resolution=16)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="channels=2"):
        load_images(str(tmp_path), resolution=8, channels=2)


def test_torchvision_by_name(tmp_path, monkeypatch):
    """Files that lie there are used without a network; a class that does not exist is said so."""
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(images_module, "CACHE", tmp_path)
    with pytest.raises(InputError, match="no data set 'FashionMINST'"):
        load_images("torchvision:FashionMINST", resolution=32)

    class Fake:
        classes = ("a", "b", "c")

        def __init__(self, root, train=True, download=False):
            assert (root, train, download) == (tmp_path / "torchvision", True, True)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Image.new("L", (28, 28), 255 * index), index

    monkeypatch.setattr(datasets, "Fake", Fake, raising=False)
    data = load_images("torchvision:Fake", resolution=32, channels=1)
    assert (len(data), num_classes_of(data)) == (2, 3)
    assert torch.equal(data[1][0], torch.ones(1, 32, 32))

    class Boxes(Fake):
        def __getitem__(self, index):
            return Image.new("L", (28, 28)), {"boxes": []}

    monkeypatch.setattr(datasets, "Fake", Boxes)  # targets that are no classes
    data = load_images("torchvision:Fake", resolution=32)
    assert (num_classes_of(data), int(data[1][1])) == (1, 0)

    with pytest.raises(InputError, match="FakeData cannot be loaded: TypeError"):
        load_images("torchvision:FakeData", resolution=32)

    def without_network(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "Fake", without_network)
    with pytest.raises(InputError, match="cannot be loaded: OSError: no network"):
        load_images("torchvision:Fake", resolution=32)


def test_hugging_face_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'advloss\[datasets\]'"):
        load_images("datasets:uoft-cs/cifar10", resolution=32)

    class ClassLabel:
        num_classes = 4

    class Column:
        pass

    class Rows:
        def __init__(self):
            self.features = {"img": Column(), "label": ClassLabel()}
            self.column_names = ["img", "label"]

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"img": Image.new("RGB", (8, 8), (255, 0, 0)), "label": 3}

    module = types.ModuleType("datasets")
    module.ClassLabel, module.Image, module.load_dataset = ClassLabel, Column, lambda name, split: Rows()
    monkeypatch.setitem(sys.modules, "datasets", module)
    data = load_images("datasets:some/images", resolution=8)
    assert (len(data), num_classes_of(data), int(data[0][1])) == (2, 4, 3)
    assert data[0][0][:, 0, 0].tolist() == [1, -1, -1]
