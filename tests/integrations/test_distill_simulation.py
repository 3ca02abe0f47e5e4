"""Backward simulation: whose output becomes whose next input, at which timestep, with which label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import advloss
from advloss import OptionError, StateError
from advloss_distill import BackwardSimulation, Diffusion

PATHS = ((999,), (999, 499), (999, 749, 499, 249))
COUNTS = {(999,): 6, (999, 499): 3, (999, 749): 5, (999, 749, 499): 4, (999, 749, 499, 249): 2}
STEPS = [(999,), (999, 499), (999, 749), (999, 749, 499), (999, 749, 499, 249)]  # by length
PLACES = [step for step in STEPS for _ in range(COUNTS[step])]  # the step of each sample in a batch
CPU = torch.device("cpu")


def diffusion() -> Diffusion:
    angle = torch.linspace(0, torch.pi / 2, 1000, dtype=torch.float64)
    return Diffusion(angle.cos(), angle.sin(), "v_prediction")


def level(levels: Tensor, timesteps: list[int]) -> Tensor:
    return levels[timesteps].view(-1, 1)


def simulation(**options: Any) -> BackwardSimulation:
    return BackwardSimulation(**{"diffusion": diffusion(), "paths": PATHS, "counts": COUNTS, **options})


def filled() -> BackwardSimulation:
    made = simulation()
    made.fill(lambda noisy, t, condition: noisy, (3,), lambda n: {"class_labels": torch.zeros(n, dtype=int)}, CPU)
    return made


def test_a_batch_holds_every_step_of_every_path() -> None:
    made = simulation()
    assert len(made) == len(PLACES)
    assert made.fresh == 6
    assert made.timesteps.tolist() == [step[-1] for step in PLACES]
    assert made.steps.tolist() == [STEPS.index(step) for step in PLACES]


def test_each_output_is_the_next_input_of_its_own_path() -> None:
    """Labels are unique and every output carries its label: what comes next tells whose output it was."""
    made, levels = filled(), diffusion()
    labels = torch.arange(len(made)) + 100
    x0 = labels.double().view(-1, 1).repeat(1, 3)
    torch.manual_seed(7)
    made.advance(x0, {"class_labels": labels})
    torch.manual_seed(7)
    later = PLACES[made.fresh :]
    noise = torch.randn(len(later), 3, dtype=torch.float64)
    fresh = torch.randn(made.fresh, 3, dtype=torch.float64)
    noisy, condition = made.inputs(fresh, {"class_labels": torch.full((made.fresh,), -1)})

    assert torch.equal(noisy[: made.fresh], fresh)
    assert condition["class_labels"][: made.fresh].eq(-1).all()
    own = condition["class_labels"][made.fresh :]
    timesteps = [step[-1] for step in later]
    expected = level(levels.alpha, timesteps) * own.view(-1, 1) + level(levels.sigma, timesteps) * noise
    torch.testing.assert_close(noisy[made.fresh :], expected, rtol=0, atol=1e-10)
    for step, label in zip(later, own.tolist()):
        assert PLACES[label - 100] == step[:-1]  # made at the step before, on the same path


def test_no_output_is_wasted_while_another_is_used_twice() -> None:
    made = filled()
    made.advance(torch.zeros(len(made), 3), {"class_labels": torch.arange(len(made))})
    parents = made.inputs(torch.zeros(6, 3), {"class_labels": torch.zeros(6, dtype=int)})[1]["class_labels"][6:]
    uses = torch.bincount(parents, minlength=len(made))[:6]  # 6 fresh samples have 8 children
    assert uses.tolist().count(2) == 2
    assert uses.tolist().count(1) == 4


def test_filling_rolls_out_to_the_deepest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise an input is alpha x0, so each output can append its timestep to the digits of the one before."""
    levels, digit = diffusion(), {999: 1, 749: 2, 499: 3, 249: 4}
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: torch.zeros(*shape, dtype=torch.float64))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)

    def predict(noisy: Tensor, timesteps: Tensor, condition: dict[str, Tensor]) -> Tensor:
        fresh = (timesteps == 999).view(-1, 1)
        before = torch.where(fresh, 0, noisy / level(levels.alpha, timesteps.tolist()))
        return 10 * before + torch.tensor([digit[t] for t in timesteps.tolist()]).view(-1, 1)

    made = simulation()
    assert not made.ready
    made.fill(predict, (3,), lambda n: {"class_labels": torch.zeros(n, dtype=int)}, CPU)
    assert made.ready
    noisy, _ = made.inputs(torch.zeros(6, 3), {"class_labels": torch.zeros(6, dtype=int)})
    timesteps = [step[-1] for step in PLACES[6:]]
    history = noisy[6:, 0] / level(levels.alpha, timesteps)[:, 0]
    expected = [int("".join(str(digit[t]) for t in step[:-1])) for step in PLACES[6:]]
    assert history.round().tolist() == expected  # 1, 1, 12 and 123


def test_the_state_goes_through_a_file(tmp_path: Path) -> None:
    one, other = filled(), simulation()
    advloss.save_state(one.state_dict(), tmp_path / "state")
    other.load_state_dict(advloss.load_state(tmp_path / "state"))
    assert other.ready
    noise, condition = torch.randn(6, 3), {"class_labels": torch.arange(6)}
    for mine, theirs in zip(one.inputs(noise, condition), other.inputs(noise, condition)):
        assert torch.equal(mine["class_labels"], theirs["class_labels"]) if isinstance(mine, dict) else True
        assert torch.equal(mine, theirs) if isinstance(mine, Tensor) else True
    other.load_state_dict(simulation().state_dict())
    assert not other.ready


def test_the_state_goes_to_the_device_of_the_samples() -> None:
    made = filled()
    noise, labels = torch.zeros(6, 3, device="meta"), torch.zeros(6, dtype=int, device="meta")
    noisy, condition = made.inputs(noise, {"class_labels": labels})
    assert noisy.device.type == condition["class_labels"].device.type == "meta"


def test_a_state_of_other_counts_is_refused() -> None:
    made = simulation(paths=[(999,), (999, 499)], counts={(999,): 2, (999, 499): 2})
    with pytest.raises(StateError, match="14 samples at later steps, this simulation 2"):
        made.load_state_dict(filled().state_dict())
    assert not made.ready


@pytest.mark.parametrize(
    ("noise", "condition", "error"),
    [
        ((4,), {"class_labels": ()}, r"^samples of this run's data are of shape \(4,\), those .* are of shape \(3,\)"),
        (
            (3,),
            {"class_labels": (7, 2)},
            r"^class_labels .* of shape \(7, 2\), those .* are of shape \(\): resume it with",
        ),
        ((3,), {"class_labels": (), "prompt": (7,)}, r"^prompt of this run's data are of shape \(7,\), .* are missing"),
    ],
)
def test_a_state_of_other_data_is_named(noise: tuple, condition: dict[str, tuple], error: str) -> None:
    made = simulation()
    made.load_state_dict(filled().state_dict())
    with pytest.raises(StateError, match=error):
        made.inputs(torch.zeros(6, *noise), {n: torch.zeros(6, *shape, dtype=int) for n, shape in condition.items()})


def test_one_step_only_needs_no_past() -> None:
    made = simulation(paths=[(999,)], counts={(999,): 4})
    made.fill(lambda noisy, t, condition: noisy, (3,), lambda n: {"class_labels": torch.zeros(n, dtype=int)}, CPU)
    noisy, _ = made.inputs(torch.ones(4, 3), {"class_labels": torch.zeros(4, dtype=int)})
    assert torch.equal(noisy, torch.ones(4, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": []}, "at least one"),
        ({"paths": [()]}, "at least one"),
        ({"paths": [(999,), ()]}, "path \\(\\): timesteps fall"),
        ({"paths": [(999, 499), (749,)]}, "beginning at the same timestep"),
        ({"paths": [(499, 999)]}, "timesteps fall"),
        ({"paths": [(999, 499, 499)]}, "timesteps fall"),
        ({"paths": [(1000, 499)]}, "from at most 999"),
        ({"paths": [(999, -1)]}, "to at least 0"),
        ({"counts": {(999,): 6}}, "counts are given for \\[\\(999,\\)\\]; the steps of these paths are"),
        ({"counts": {**COUNTS, (249,): 1}}, "the steps of these paths are"),
        ({"counts": {**COUNTS, (999, 749, 499): 6}}, "give 1 to 5, the count of the step before it"),
        ({"counts": {**COUNTS, (999, 499): 0}}, "give 1 to 6"),
    ],
)
def test_impossible_paths_and_counts_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        simulation(**options)


def test_a_batch_before_filling_is_refused() -> None:
    with pytest.raises(RuntimeError, match="fill"):
        simulation().inputs(torch.zeros(6, 3), {"class_labels": torch.zeros(6, dtype=int)})
