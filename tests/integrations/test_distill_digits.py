"""The digits: their split, what a distillation draws from them, their teacher, and the judge's independence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from distill_tools import all_digits, judge_of_digits
from sklearn.datasets import load_digits
from torch import Tensor

from advloss_distill import digits


@pytest.fixture
def data() -> digits.Digits:
    return all_digits()


@pytest.fixture
def classifier() -> digits.Classifier:
    return judge_of_digits()


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def rows(images: Tensor) -> list[tuple[float, ...]]:
    return [tuple(image.tolist()) for image in images.flatten(1)]


def test_the_split_is_whole_disjoint_and_fixed(data: digits.Digits) -> None:
    images, _ = load_digits(return_X_y=True)
    assert sorted(rows(data.all_images)) == sorted(rows(torch.tensor(images, dtype=torch.float32) / 8 - 1))
    assert len(data.held_out_images) == len(data.held_out_labels) == 400
    assert len(data.images) == len(data.labels) == 1397
    assert not set(rows(data.images)) & set(rows(data.held_out_images))
    torch.manual_seed(99)
    again = digits.Digits()
    assert torch.equal(again.images, data.images)
    assert torch.equal(again.held_out_images, data.held_out_images)
    assert torch.equal(again.labels, data.labels)
    assert torch.equal(again.held_out_labels, data.held_out_labels)
    held_out = torch.bincount(data.held_out_labels)
    assert held_out.min() >= 38, "every digit is held out as often as it occurs"
    assert held_out.max() <= 42


def test_images_fill_the_range(data: digits.Digits) -> None:
    assert data.images.shape[1:] == (1, 8, 8)
    assert data.images.dtype == torch.float32
    assert data.all_images.min() == -1
    assert data.all_images.max() == 1
    images, labels = load_digits(return_X_y=True)
    known = {tuple((image / 8 - 1).tolist()): int(label) for image, label in zip(images, labels)}
    assert all(known[row] == label for row, label in zip(rows(data.images), data.labels.tolist()))


@pytest.mark.parametrize("count", [7, 10, 36, 100])
def test_conditions_are_balanced_and_in_random_order(data: digits.Digits, count: int) -> None:
    drawn = [data.conditions(count)["class_labels"] for _ in range(50)]
    for labels in drawn:
        uses = torch.bincount(labels, minlength=10)
        assert uses.sum() == count
        assert uses.max() - uses.min() <= 1
        assert labels.dtype == torch.long
    assert len({tuple(labels.tolist()) for labels in drawn}) > 40
    assert {int(labels[0]) for labels in drawn} == set(range(10))
    if count % 10:  # what is left over goes to other classes every time
        assert torch.cat(drawn).bincount(minlength=10).min() > 0.6 * 5 * count


def test_real_samples_are_training_images_of_the_labels(data: digits.Digits) -> None:
    labels = data.conditions(500)["class_labels"]
    known: dict[tuple[float, ...], int] = dict(zip(rows(data.images), data.labels.tolist()))
    real = data.real({"class_labels": labels})
    assert [known.get(row) for row in rows(real)] == labels.tolist()
    other = data.real({"class_labels": labels})
    assert (real != other).any()


def test_every_training_image_is_drawn_alike(data: digits.Digits) -> None:
    """Classes differ in size: neither padding nor the last image of a class may be favoured or left out."""
    place = {row: i for i, row in enumerate(rows(data.images))}
    labels = torch.arange(10).repeat(4000)
    drawn = torch.tensor([place[row] for row in rows(data.real({"class_labels": labels}))])
    uses = torch.bincount(drawn, minlength=len(data.images))
    assert uses.min() > 0
    assert uses.max() < 70  # 29 each, on average


def test_the_judge_recognizes_digits(data: digits.Digits, classifier: digits.Classifier) -> None:
    with torch.no_grad():
        correct = classifier(data.held_out_images).argmax(1) == data.held_out_labels
        assert classifier.features(data.held_out_images[:5]).shape == (5, 64)
    assert correct.double().mean() > 0.97
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_the_judge_is_always_the_same_and_touches_no_random_numbers(
    data: digits.Digits, classifier: digits.Classifier
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = digits.train_classifier(data)
    assert torch.equal(torch.get_rng_state(), before)
    for mine, theirs in zip(again.state_dict().values(), classifier.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_teacher_is_trained_by_the_networks_own_prediction(data: digits.Digits) -> None:
    """Predicting nothing costs the mean of v's square; a few steps are better than that, and the result is frozen."""
    losses: list[float] = []
    teacher = digits.train_teacher(data, 40, batch_size=16, on_progress=lambda i, loss: losses.append(float(loss)))
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.config.num_class_embeds == 10
