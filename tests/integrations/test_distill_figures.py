"""Figures of quality against their definitions, written out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distill_tools import all_digits, judge_of_digits
from matplotlib import image as picture_file
from scipy.linalg import sqrtm
from torch import Tensor

from advloss_distill import digits


@pytest.fixture
def data() -> digits.Digits:
    return all_digits()


@pytest.fixture
def evaluation() -> digits.Evaluation:
    return digits.Evaluation(all_digits(), judge_of_digits())


def frechet(one: Tensor, other: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))."""
    one, other = one.double().numpy(), other.double().numpy()
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = sqrtm(a @ b + 1e-12 * np.eye(len(a)))
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(root)))


def distances(images: Tensor, others: Tensor) -> Tensor:
    return (images.flatten(1)[:, None] - others.flatten(1)[None]).square().sum(2).sqrt()


def nearest(images: Tensor, others: Tensor) -> Tensor:
    return distances(images, others).amin(1)


def damaged(data: digits.Digits) -> tuple[Tensor, Tensor]:
    """Recognizable digits with noise, some beyond the range."""
    torch.manual_seed(0)
    chosen = torch.randperm(len(data.images))[:300]
    return data.images[chosen] + 0.3 * torch.randn(300, 1, 8, 8), data.labels[chosen]


def test_distances_are_frechets(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    images, labels = damaged(data)
    found = evaluation(images, labels)
    images, features = images.clamp(-1, 1), evaluation.classifier.features
    everything = torch.cat([data.images, data.held_out_images])
    with torch.no_grad():
        assert found.features_all == pytest.approx(frechet(features(images), features(everything)), rel=1e-4)
        held_out = frechet(features(images), features(data.held_out_images))
        assert found.features_held_out == pytest.approx(held_out, rel=1e-4)
    assert found.pixels_all == pytest.approx(frechet(images.flatten(1), everything.flatten(1)), rel=1e-4)
    pixels = frechet(images.flatten(1), data.held_out_images.flatten(1))
    assert found.pixels_held_out == pytest.approx(pixels, rel=1e-4)
    assert found.nearest == pytest.approx(float(nearest(images, data.images).median()), rel=1e-4)


def test_held_out_digits_are_the_floor(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    floor = evaluation.held_out()
    assert floor.features_held_out == pytest.approx(0, abs=1e-6)
    assert floor.pixels_held_out == pytest.approx(0, abs=1e-6)
    assert floor.features_all < 2
    assert floor.accuracy > 0.97
    assert floor.close == pytest.approx(0.1, abs=0.005)
    assert floor.memorized == pytest.approx(0.5, abs=0.05)
    images, labels = damaged(data)
    worse, noise = evaluation(images, labels), evaluation(torch.randn(300, 1, 8, 8), labels)
    assert floor.features_all < worse.features_all < noise.features_all
    assert floor.pixels_all < worse.pixels_all < noise.pixels_all
    assert noise.features_all > 100 * floor.features_all
    assert noise.accuracy < 0.3
    assert noise.close == 0
    assert noise.nearest > 2 * floor.nearest


def test_copies_of_training_digits_are_memorized(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    copies = evaluation(data.images[:400], data.labels[:400])
    assert copies.close == 1
    assert copies.memorized > 0.65
    assert copies.copied == 1
    assert copies.nearest < 0.01
    assert evaluation.held_out().copied < 0.02
    mixed = torch.cat([data.images[:200], data.held_out_images[:200]])
    labels = torch.cat([data.labels[:200], data.held_out_labels[:200]])
    close = torch.quantile(nearest(data.held_out_images, data.images), 0.1)
    expected = (nearest(mixed, data.images) < close).double().mean()
    found = evaluation(mixed, labels)
    assert found.close == pytest.approx(float(expected), abs=0.005)
    first, second = distances(mixed, data.images).sort(1).values[:, :2].unbind(1)
    assert found.copied == pytest.approx(float((3 * first < second).double().mean()), abs=0.005)


def test_memorized_is_the_share_of_drawn_training_digits_that_are_nearer_than_all_held_out_ones(
    data: digits.Digits, evaluation: digits.Evaluation
) -> None:
    images, labels = damaged(data)
    held_out = nearest(images, data.held_out_images)
    draws = [torch.randperm(len(data.images))[:400] for _ in range(200)]
    drawn = [(nearest(images, data.images[draw]) < held_out).double().mean() for draw in draws]
    assert evaluation(images, labels).memorized == pytest.approx(float(torch.stack(drawn).mean()), abs=0.01)


def test_samples_that_are_all_alike_are_not_memorized(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    everything, labels = data.all_images, torch.cat([data.labels, data.held_out_labels])
    means = torch.stack([everything[labels == label].mean(0) for label in range(10)])
    alike = torch.arange(500) % 10
    found = evaluation(means[alike] + 0.05 * torch.randn(500, 1, 8, 8), alike)
    assert found.close > 0.1, "means are closer to training digits than held-out digits are"
    assert found.memorized == pytest.approx(0.5, abs=0.05), "and as close to held-out ones"


def test_accuracy_is_for_the_labels_asked_for(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    images, labels = data.held_out_images, data.held_out_labels
    assert evaluation(images, (labels + 1) % 10).accuracy < 0.03


def test_one_mode_only_is_far_from_the_data(data: digits.Digits, evaluation: digits.Evaluation) -> None:
    one = torch.nonzero(data.labels == 3).squeeze(1)
    found = evaluation(data.images[one], data.labels[one])
    assert found.accuracy > 0.97
    assert found.features_all > 20 * evaluation.held_out().features_all


def test_rows_of_a_table_line_up(evaluation: digits.Evaluation) -> None:
    figures = evaluation.held_out()
    text = digits.table({"real": figures, "a much longer name": figures}).splitlines()
    assert len(text) == 3
    assert len({len(line) for line in text}) == 1
    assert text[1].split()[1:] == text[2].split()[4:] == [f"{value:.3f}" for value in figures.as_dict().values()]


def steps_of(line: np.ndarray) -> list[float]:
    """The grey levels along a line of pixels, without edges, white and repetition."""
    flat = [float(b) for a, b, c in zip(line, line[1:], line[2:]) if a == b == c and b > 0]
    return [grey for i, grey in enumerate(flat) if i == 0 or grey != flat[i - 1]]


def test_a_picture_shows_every_class_in_its_column(tmp_path: Path) -> None:
    labels = torch.arange(40).flip(0) % 10
    images = (labels / 4.5 - 1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # grey by class, 0 as light as the background
    digits.picture({"a": (images, labels), "b": (images, labels)}, tmp_path / "p.png", "title")
    drawn = picture_file.imread(tmp_path / "p.png")[..., :3].mean(2)
    assert drawn.shape[1] > drawn.shape[0] > 100
    expected = [digit / 9 for digit in range(1, 10)]
    for half in np.array_split(1 - drawn, 2, axis=1):
        assert sum(steps_of(line) == pytest.approx(expected, abs=0.02) for line in half) > 20
