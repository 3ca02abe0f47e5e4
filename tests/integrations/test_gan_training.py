"""What the trainer does besides the game: classes, growing, trackers, pictures."""

import functools
import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from advloss import Adversary, InputError, OptionError
from advloss_gan import Growth, MLPGenerator, SampleGrids, StyleGenerator, digits, save_grid, train_gan

adam = functools.partial(torch.optim.Adam, lr=5e-3, betas=(0.0, 0.9))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def conditional_players(num_classes=3):
    generator = MLPGenerator(latent_features=4, width=32, depth=2, num_classes=num_classes)
    discriminator = ("mlp", {"width": 32, "num_classes": num_classes})
    terms = {"r1": {"weight": 0.1}, "r2": {"weight": 0.1}}
    return generator, Adversary(discriminator, "relativistic", terms, optimizer=adam, seed=0)


def clusters(count=600):
    """Class k lies around (3 k, 0)."""
    labels = torch.arange(count) % 3
    points = torch.stack([3.0 * labels, torch.zeros(count)], dim=1) + 0.3 * torch.randn(count, 2)
    return DataLoader(TensorDataset(points, labels), 64, shuffle=True, drop_last=True)


def play(generator, adversary, real, **changes):
    arguments = {"latent_features": 4, "steps": 3, "generator_optimizer": adam, "ema_decay": 0.9, **changes}
    return train_gan(generator, adversary, real, **arguments)


def test_classes_are_learned():
    generator, adversary = conditional_players()
    result = play(generator, adversary, clusters(), num_classes=3, steps=200)
    labels = torch.arange(300) % 3
    with torch.no_grad():
        made = result.generator(torch.randn(300, 4), labels)
    means = torch.stack([made[labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(means, torch.tensor([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]]), rtol=0, atol=0.5)


def test_both_players_are_given_the_classes_of_the_batch():
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, points, condition):
            seen.append((len(points), condition))
            return points @ self.weight

    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 2))

        def forward(self, latent, labels):
            seen.append((len(latent), labels))
            return latent @ self.weight + labels[:, None]

    labels = [torch.tensor([2, 0]), torch.tensor([1, 1])]
    play(
        Made(),
        Adversary(Watched(), optimizer=adam),
        [(torch.randn(2, 2), own) for own in labels],
        num_classes=3,
        steps=1,
    )
    expected = [labels[0]] * 3 + [
        labels[1]
    ] * 2  # fakes, and both sides of the discriminator; then the generator's turn
    assert [count for count, _ in seen] == [2] * 5
    assert all(torch.equal(given, own) for (_, given), own in zip(seen, expected))


def test_labels_are_left_aside_without_classes():
    generator = MLPGenerator(latent_features=4, width=8)
    assert play(generator, Adversary(("mlp", {"width": 8}), optimizer=adam), clusters()).steps == 3


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), "labels from 0 to 3: give num_classes=4"),
        (torch.tensor([1, -1]), "labels from -1 to 1"),
        (torch.tensor([0.0, 1.0]), "give whole numbers"),
        (torch.tensor([0]), r"whole numbers \(2,\)"),
        (None, "these have no labels"),
    ],
)
def test_labels_that_disagree(labels, words):
    generator, adversary = conditional_players()
    batch = torch.randn(2, 2)
    with pytest.raises(InputError, match=words):
        play(generator, adversary, [batch if labels is None else (batch, labels)], num_classes=3)
    assert adversary.step == 0


def test_a_discriminator_built_for_fewer_classes():
    generator, _ = conditional_players()
    adversary = Adversary(("mlp", {"width": 8, "num_classes": 2}), optimizer=adam)
    with pytest.raises(InputError, match="classes"):
        play(generator, adversary, [(torch.randn(2, 2), torch.tensor([0, 2]))], num_classes=3)
    assert adversary.step == 0


def test_labels_of_any_whole_type():
    generator, adversary = conditional_players()
    labels = torch.tensor([0, 2], dtype=torch.uint8)
    assert play(generator, adversary, [(torch.randn(2, 2), labels)], num_classes=3, steps=1).steps == 1


@pytest.mark.parametrize("batch", [{"image": torch.zeros(2, 2)}, ["a", "b"]])
def test_batches_that_are_no_samples(batch):
    generator, adversary = conditional_players()
    with pytest.raises(InputError, match=r"a real batch is a (dict|list); give samples"):
        play(generator, adversary, [batch], num_classes=3)


def test_a_generator_built_for_something_else():
    generator, adversary = conditional_players()
    for changes, words in (
        ({"num_classes": 10}, "num_classes=10, but"),
        ({"latent_features": 5}, "latent_features=5, but"),
    ):
        with pytest.raises(OptionError, match=words):
            play(generator, adversary, clusters(), **{"num_classes": 3, **changes})


def test_growing_goes_on_after_a_stop(tmp_path):
    def players():
        torch.manual_seed(0)
        generator = StyleGenerator(latent_features=4, out_channels=1, width=4, resolution=8, mapping_depth=1)
        options = {"in_channels": 1, "resolution": 8, "width": 8, "depth": 1}
        return generator, Adversary(("r3gan", options), optimizer=adam, seed=0)

    loader = DataLoader(digits()[0], 8, shuffle=True)
    grown = []

    def look(step, averaged):
        grown.append(averaged.grown)

    arguments = {"growth": Growth(steps=4), "checkpoints": tmp_path / "checkpoints"}
    play(*players(), loader, steps=5, on_step=look, **arguments)
    generator, adversary = players()
    result = play(generator, adversary, loader, steps=8, on_step=look, resume=True, **arguments)
    assert grown == [1, 1, 1, 1, 1, 1.5, 2, 2]
    assert (generator.grown, result.generator.grown) == (2, 2)

    whole = play(*players(), loader, steps=8, growth=Growth(steps=4)).generator
    for one, other in zip(whole.parameters(), result.generator.parameters()):
        torch.testing.assert_close(one, other)


def test_growing_takes_a_generator_that_can():
    with pytest.raises(OptionError, match="cannot grow"):
        play(*conditional_players(), clusters(), num_classes=3, growth=Growth(steps=4))


def test_trackers_are_told(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("curves")
    latent = torch.randn(4, 4)
    grids = SampleGrids(tmp_path, latent, every=4, columns=2, accelerator=accelerator)
    generator = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    options = {"in_channels": 1, "resolution": 8, "width": 8, "depth": 1}
    adversary = Adversary(("r3gan", options), optimizer=adam)
    log = tmp_path / "log.jsonl"
    loader = DataLoader(TensorDataset(digits()[0].tensors[0]), 8)
    play(generator, adversary, loader, steps=5, accelerator=accelerator, track_every=2, on_step=grids, log=log)
    accelerator.end_training()

    events = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    curve = events.Scalars("generator/loss")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [point.step for point in curve] == [2, 4]
    assert [point.value for point in curve] == pytest.approx([lines[1]["generator/loss"], lines[3]["generator/loss"]])
    assert {"discriminator/loss", "discriminator/real_accuracy"} <= set(events.Tags()["scalars"])
    assert [image.step for image in events.Images("samples")] == [4]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["samples-000004.png"]


def test_grids_show_pixels(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    images = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    save_grid(tmp_path / "grid.png", images, columns=3)
    with image_module.open(tmp_path / "grid.png") as picture:
        assert picture.size == (4 * (3 * 9 + 1), 4 * (2 * 9 + 1))  # enlarged four times, a pixel between
        shades = [
            picture.getpixel((4 * (9 * column + 5), 4 * (9 * row + 5)))[0] for row in (0, 1) for column in range(3)
        ]
    assert shades == sorted(shades)
    assert (shades[0], shades[-1]) == (0, 255)
    save_grid(tmp_path / "grid.png", torch.full((1, 3, 8, 8), float("nan")))
    with pytest.raises(InputError, match="1 or 3"):
        save_grid(tmp_path / "grid.png", torch.zeros(4, 2))
    with pytest.raises(OptionError, match="every=0"):
        SampleGrids(tmp_path, torch.zeros(1, 4), every=0)
