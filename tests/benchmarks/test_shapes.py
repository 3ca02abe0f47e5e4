"""The benchmark of distillation on rendered shapes, in miniature. No quality is asserted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.shapes import domain as domain_of
from benchmarks.shapes.__main__ import COLUMNS, lines
from benchmarks.shapes.data import COLOURS, INSIDE, PROMPTS, SHAPES, Images, embeddings, render
from benchmarks.shapes.domain import STEPS, Domain
from benchmarks.shapes.judge import Evaluation, Figures, Judge
from benchmarks.shapes.methods import RUNS, run
from benchmarks.shapes.models import noise_levels
from benchmarks.shapes.outcomes import averaged, of_average, of_run
from benchmarks.shapes.report import COLUMNS as EVERY
from benchmarks.shapes.report import report
from benchmarks.shapes.sizes import SHORT, Sizes

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def images() -> Images:
    return render(4 * len(PROMPTS), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def domain(folder: Path) -> Domain:
    return Domain(folder, SHORT)


def test_images_are_those_of_a_seed(images: Images) -> None:
    assert images.images.shape == (144, 3, 32, 32)
    assert images.images.abs().max() <= 1
    assert torch.bincount(images.labels).tolist() == [4] * len(PROMPTS)
    again, other = render(144, 0), render(144, 0, held_out=True)
    assert torch.equal(again.images, images.images)
    assert torch.equal(again.labels, images.labels)
    assert not torch.equal(other.images, images.images)  # other photographs


def test_colours_are_those_of_the_prompts(images: Images) -> None:
    """At the pixel that has most of it, a shape's hue is within a sixth of its colour's part of the circle."""
    r, g, b = (images.images / 2 + 0.5).flatten(2).unbind(1)
    most = (torch.stack([r, g, b]).amax(0) - torch.stack([r, g, b]).amin(0)).argmax(1, keepdim=True)
    r, g, b = (channel.gather(1, most).squeeze(1) for channel in (r, g, b))
    hue = torch.atan2(math.sqrt(3) * (g - b), 2 * r - g - b) / (2 * math.pi) * len(COLOURS)
    away = (hue - images.labels // len(SHAPES) + 3) % 6 - 3
    assert away.abs().max() < 0.3


def test_shapes_differ() -> None:
    at = torch.linspace(-1.2, 1.2, 49)
    u, v = torch.meshgrid(at, at, indexing="xy")
    covered = torch.stack([inside(u, v) for inside in INSIDE]).flatten(1)
    assert len(covered) == len(SHAPES)
    share = covered.float().mean(1)
    assert share.min() > 0.1
    assert share.max() < 0.5
    apart = (covered[:, None] != covered[None]).float().mean(2) + torch.eye(len(SHAPES))
    assert apart.min() > 0.05


def test_prompts_have_two_words() -> None:
    prompts = embeddings(torch.arange(len(PROMPTS)))
    assert prompts.shape == (36, 2, 16)
    red_ring, red_bar, blue_ring = (prompts[PROMPTS.index(p)] for p in ("red ring", "red bar", "blue ring"))
    assert torch.equal(red_ring[0], red_bar[0])
    assert torch.equal(red_ring[1], blue_ring[1])
    assert len(prompts.flatten(1).unique(dim=0)) == len(PROMPTS)


def test_the_reference_is_at_distance_0_of_itself(images: Images) -> None:
    evaluation = Evaluation(Judge().eval(), images.images)
    found = evaluation(images.images, images.labels)
    assert found.features == pytest.approx(0, abs=1e-4)
    assert found.pixels == pytest.approx(0, abs=1e-4)
    grey = images.images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert evaluation(grey, images.labels).pixels > 0.1


def test_what_was_trained_is_loaded_again(domain: Domain, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*anything: Any, **options: Any) -> None:
        raise AssertionError("trained or rendered once more")

    for name in ("train_vae", "train_judge", "train_teacher", "follow", "render"):
        monkeypatch.setattr(domain_of, name, refuse)
    again = Domain(folder, SHORT)
    assert again.rows == domain.rows
    assert {"training images", "teacher, 4", "teacher, 1", "start, 1"} <= set(again.rows)
    for ours, theirs in zip(again.start.parameters(), domain.start.parameters()):
        assert torch.equal(ours, theirs)
    assert torch.equal(
        again.samples(again.teacher, noise_levels(), 2), domain.samples(domain.teacher, noise_levels(), 2)
    )


@pytest.mark.parametrize("method", RUNS)
def test_every_method_runs(domain: Domain, method: str, tmp_path: Path) -> None:
    before = [parameter.clone() for parameter in domain.teacher.parameters()]
    shown: list[int] = []
    outcome = run(method, domain, 0, 2, lambda name, iteration, numbers: shown.append(iteration))
    assert shown == [1, 2]
    figures = of_run(method, 0, outcome, domain, tmp_path)
    assert list(figures) == [f"{method}, {steps}" for steps in STEPS]
    assert all(math.isfinite(value) for f in figures.values() for value in vars(f).values())
    kept = json.loads((tmp_path / f"{method}-0.json").read_text(encoding="utf-8"))["figures"]
    assert kept == {name: vars(f) for name, f in figures.items()}
    assert (tmp_path / f"{method}-0-4.png").exists()
    assert all(torch.equal(a, b) for a, b in zip(before, domain.teacher.parameters()))
    began = domain.start if RUNS[method].started else domain.teacher
    assert any(not torch.equal(a, b) for a, b in zip(outcome.student.parameters(), began.parameters()))


def test_distances_are_compared_with_the_teachers_most_steps() -> None:
    rows = {"teacher, 50": Figures(2.0, 0.5, 1.0, 1.0), "ladd, 1": Figures(1.0, 1.0, 0.9, 0.8)}
    *_, last = lines(rows, "teacher, 50")
    assert last == ["ladd, 1", 1.0, 0.5, 1.0, 2.0, 0.9, 0.8]
    assert len(last) == len(COLUMNS)
    assert json.dumps(last)


def test_a_folder_is_of_one_size(domain: Domain, folder: Path) -> None:
    with pytest.raises(SystemExit, match="images: 72 there, 14400 now"):
        Domain(folder, Sizes())


def test_what_was_kept_at_unknown_sizes_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    with pytest.raises(SystemExit, match="images: None there, 72 now"):
        Domain(tmp_path, SHORT)


def test_evaluations_of_the_teacher_are_counted(domain: Domain) -> None:
    """ADD's term and DMD2's ask it once for each sample; a relativistic LADD four times, and more where R1 is due."""
    counted = {
        method: run(method, domain, 0, 4, lambda *_: None).evaluations
        * 1e6
        / (4 * SHORT.batch_size * RUNS[method].batches)
        for method in ("adversarial", "add", "ladd", "dmd2")
    }
    assert counted == pytest.approx({"adversarial": 0, "add": 1, "ladd": 4.5, "dmd2": 1})


def test_runs_are_joined_over_seeds(tmp_path: Path) -> None:
    one = Figures(1.0, 0.25, 1.0, 1.0)
    rows = {"training images": one, "teacher, 50": one} | {
        f"{n}, {k}": one for n in ("teacher", "start") for k in STEPS
    }
    for seed, distance in ((0, 0.5), (1, 1.7)):
        figures = {f"add, {k}": vars(Figures(distance, 0.25, 1.0, 1.0)) for k in STEPS}
        kept = {"seconds": 7.0, "evaluations": 0.125, "figures": figures}
        (tmp_path / f"add-{seed}.json").write_text(json.dumps(kept), encoding="utf-8")
    found = report(tmp_path, rows, 50)
    assert found.columns == EVERY
    assert found.rows[-3] == ["`add`, seed 0", "7", "0.125", *["**0.50**, **0.250**"] * 3]
    assert found.rows[-2][3:] == ["1.70, **0.250**"] * 3
    assert found.rows[-1] == ["`add`, mean of these", "", "", *["1.10, **0.250**"] * 3]
    (tmp_path / "add-average.json").write_text((tmp_path / "add-0.json").read_text(), encoding="utf-8")
    assert report(tmp_path, rows, 50).rows[:-1] == found.rows
    assert report(tmp_path, rows, 50).rows[-1][0] == "`add`, average of their weights"


def test_students_of_several_seeds_are_averaged(domain: Domain, tmp_path: Path) -> None:
    """With the sum of their costs, and half of the way back that each of them goes."""
    with pytest.raises(SystemExit, match="has 0 student of adversarial"):
        of_average("adversarial", domain, tmp_path)
    outcomes = [run("adversarial", domain, seed, 2, lambda *_: None) for seed in (0, 1)]
    for seed, outcome in enumerate(outcomes):
        of_run("adversarial", seed, outcome, domain, tmp_path)
    found = of_average("adversarial", domain, tmp_path)
    kept = json.loads((tmp_path / "adversarial-average.json").read_text(encoding="utf-8"))
    assert kept["figures"] == {name: vars(f) for name, f in found.items()}
    assert kept["seconds"] == pytest.approx(sum(outcome.seconds for outcome in outcomes))
    mean = averaged([outcome.student for outcome in outcomes])
    for ours, one, other in zip(mean.parameters(), *(outcome.student.parameters() for outcome in outcomes)):
        torch.testing.assert_close(ours, (one + other) / 2)
