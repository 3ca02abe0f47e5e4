"""The loop: phases in their order, resuming bit by bit, averages, accumulation, steps that are not finite."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from superres_tools import ADAM, adversary, alike, loader, network, pairs, phase, training, weights
from torch.utils.data import DataLoader

from advloss import NonFiniteError, OptionError, StateError
from advloss_superres import Objective, Phase, PhasedTraining, Progress, load_weights, save_weights

Make = Callable[..., Any]


def everything(run: PhasedTraining) -> dict[str, Any]:
    judge = run.phase.objective.adversary
    return copy.deepcopy(
        {
            "model": weights(run.model),
            "average": weights(run.averaged_model()),
            "adversary": judge.state_dict() if judge else None,
            "random": torch.get_rng_state(),
            "phase": run.phase.name,
            "step": run.step_count,
        }
    )


def test_a_phase_begins_with_the_averaged_weights_of_the_one_before(make_accelerator: Make) -> None:
    run, ends, began = training(make_accelerator()), {}, {}

    def on_phase_end(ended: Phase, averaged: torch.nn.Module) -> None:
        ends[ended.name] = weights(averaged)
        assert not averaged.training

    def on_progress(progress: Progress) -> None:
        began.setdefault(progress.phase, progress)

    before = run.next_phase

    def next_phase() -> None:
        before()
        assert alike(weights(run.model), ends["psnr"])
        assert alike(weights(run.averaged_model()), ends["psnr"])

    run.next_phase = next_phase  # type: ignore[method-assign]
    assert run.run(on_progress, on_phase_end)
    assert list(ends) == ["psnr", "adversarial"]
    assert not alike(ends["psnr"], ends["adversarial"])
    assert run.step_count == 7
    assert (began["psnr"].step, began["adversarial"].step) == (1, 4)
    assert began["psnr"].report is None
    assert {"adversarial", "pixel", "discriminator/regularizers/lecam"} <= set(began["adversarial"].as_dict())


def test_an_adversary_does_not_come_first(make_accelerator: Make) -> None:
    with pytest.raises(OptionError, match="'psnr' has no adversary and would follow 'adversarial'"):
        training(make_accelerator(), phase("adversarial"), phase("psnr"))
    with pytest.raises(OptionError, match="Train on pixels first"):
        training(make_accelerator(), phase("psnr"), follows="adversarial")
    with pytest.raises(OptionError, match="'interpolated', which has one"):
        training(make_accelerator(), phase("psnr"), follows="interpolated")
    training(make_accelerator(), phase("adversarial"), follows="psnr")
    training(make_accelerator(), phase("adversarial"), phase("adversarial"), follows="adversarial")


def test_the_file_says_what_it_follows(make_accelerator: Make, tmp_path: Path) -> None:
    save_weights(network(), tmp_path / "a.safetensors", phase="adversarial")
    with pytest.raises(OptionError, match="would follow 'adversarial'"):
        training(make_accelerator(), phase("psnr"), follows=load_weights(network(), tmp_path / "a.safetensors"))


@pytest.mark.parametrize("cut", [2, 3, 5], ids=["in the first phase", "between both", "in the second"])
def test_a_resumed_run_is_the_uninterrupted_one(make_accelerator: Make, tmp_path: Path, cut: int) -> None:
    whole, seen = training(make_accelerator()), []

    def on_progress(progress: Progress) -> None:
        seen.append(progress.as_dict())
        if progress.step == cut:
            whole.save(tmp_path)

    whole.run(on_progress)
    resumed, again = training(make_accelerator()), []
    with torch.no_grad():  # nothing of the right values is there but in the file
        for parameter in resumed.model.parameters():
            parameter.add_(1)
    torch.manual_seed(5)
    resumed.load(tmp_path)
    assert resumed.step_count == cut
    ends = []
    resumed.run(lambda p: again.append(p.as_dict()), lambda ended, averaged: ends.append(ended.name))
    assert alike(everything(resumed), everything(whole))
    assert again == seen[cut:]
    assert ends == (["psnr", "adversarial"] if cut <= 3 else ["adversarial"])


def test_checkpoints_are_saved_on_the_way_and_at_the_end_of_each_phase(make_accelerator: Make, tmp_path: Path) -> None:
    run, found = training(make_accelerator()), []
    run.run(lambda p: found.append([x.name for x in tmp_path.iterdir()]), checkpoints=tmp_path, save_every=2)
    names = [name[0] if name else "" for name in found]
    assert [name.removeprefix("step-0000000") for name in names] == ["", "", "2", "3", "4", "4", "6"]
    assert [x.name for x in tmp_path.iterdir()] == ["step-00000007"]


def test_ctrl_c_ends_after_the_step_and_saves(make_accelerator: Make, tmp_path: Path) -> None:
    run = training(make_accelerator())

    def on_progress(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    assert not run.run(on_progress, checkpoints=tmp_path)
    assert run.exit_status == 130
    assert [x.name for x in tmp_path.iterdir()] == ["step-00000002"]


def test_checkpoints_of_another_run(make_accelerator: Make, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no checkpoint"):
        training(make_accelerator()).load(tmp_path)
    run = training(make_accelerator())
    run.run(checkpoints=tmp_path)
    other = training(make_accelerator(), phase("psnr"))
    before = everything(other)
    with pytest.raises(StateError, match="of phase 1; this training has phases 0 to 0"):
        other.load(tmp_path)
    single = training(make_accelerator(), phase("psnr", objective=Objective(), scheduler=None), phase("psnr"))
    with pytest.raises(StateError, match="adversary"):
        single.load(tmp_path)
    assert alike(everything(other), before)


def test_the_average_follows_the_network(make_accelerator: Make) -> None:
    """Step by step: a half of the average, a half of the network, from the phase's first weights on."""
    run = training(make_accelerator(), phase("psnr", 3))
    average = weights(run.model)
    for _ in range(3):
        run.step()
        average = {name: 0.5 * value + 0.5 * weights(run.model)[name] for name, value in average.items()}
    for name, value in weights(run.averaged_model()).items():
        torch.testing.assert_close(value, average[name])
    plain = training(make_accelerator(), phase("psnr", 2), ema_decay=0.0)
    plain.run()
    assert alike(weights(plain.averaged_model()), weights(plain.model))


def test_a_step_is_the_textbooks(make_accelerator: Make) -> None:
    """L1 and Adam, written out."""
    run, twin = training(make_accelerator(), phase("psnr", 3, batches=[tuple(pairs().tensors)])), network()
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    low, high = pairs().tensors
    for _ in range(3):
        run.step()
        (twin(low) - high).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value)


def test_accumulated_batches_make_one_step(make_accelerator: Make) -> None:
    """Two micro-batches of two and one batch of four: the same gradient for both players, up to rounding."""
    low, high = (tensor[:4] for tensor in pairs().tensors)
    results = []
    for micro, batch in ((2, 2), (1, 4)):
        judge = adversary(regularizers={"r1": {"weight": 0.1}}, scheduler=None)
        batches = list(zip(low.split(batch), high.split(batch), strict=True))
        only = phase("adversarial", 2, objective=Objective(judge), batches=batches)
        run = training(make_accelerator(gradient_accumulation_steps=micro), only)
        for _ in range(micro):
            run.step()
        results.append({**weights(run.model), **{f"D.{n}": v for n, v in weights(judge.discriminator).items()}})
        assert judge.step == 1
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=2e-5, msg=name)


def test_interrupted_while_gradients_accumulate_it_goes_on_to_the_optimizers_step(
    make_accelerator: Make, tmp_path: Path
) -> None:
    """What was gathered is in no checkpoint."""
    whole = training(make_accelerator(gradient_accumulation_steps=2), phase("psnr", 2), phase("adversarial", 6))
    whole.run()
    stopped = training(make_accelerator(gradient_accumulation_steps=2), phase("psnr", 2), phase("adversarial", 6))

    def interrupt(progress: Progress) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    assert not stopped.run(interrupt, checkpoints=tmp_path, save_every=3)
    assert stopped.step_count == 6
    resumed = training(make_accelerator(gradient_accumulation_steps=2), phase("psnr", 2), phase("adversarial", 6))
    resumed.load(tmp_path)
    assert resumed.run()
    assert alike(weights(whole.model), weights(resumed.model))


def test_an_unfinished_accumulation_does_not_reach_the_next_phase(make_accelerator: Make) -> None:
    batches = list(zip(*(tensor[:4].split(2) for tensor in pairs().tensors), strict=True)) * 4  # no pass ends early
    phases = [phase(name, steps, batches=batches) for name, steps in (("psnr", 4), ("adversarial", 3))]
    run = training(make_accelerator(gradient_accumulation_steps=3), *phases)
    for _ in range(4):
        run.step()
    assert any(p.grad is not None and bool(p.grad.any()) for p in run.model.parameters())
    run.next_phase()
    assert all(p.grad is None for p in run.model.parameters())
    synced = []
    for _ in range(3):
        run.step()
        synced.append(run.accelerator.sync_gradients)
    assert synced == [False, False, True]


def test_gradients_are_clipped(make_accelerator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, norms = training(make_accelerator(), phase("psnr", 2), max_grad_norm=1e-3), []
    step = run._now.guard.step

    def look(**values: Any) -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in run.model.parameters()]).norm()))
        step(**values)

    monkeypatch.setattr(run._now.guard, "step", look)
    run.run()
    assert norms == pytest.approx([1e-3] * 2, rel=1e-3)


def test_steps_that_are_not_finite_are_skipped(make_accelerator: Make) -> None:
    low, high = pairs(2).tensors
    spoilt = (torch.full_like(low, float("nan")), high)
    run = training(make_accelerator(), phase("psnr", 30, batches=[spoilt, (low, high), *[spoilt] * 28]))
    before = weights(run.model)
    run.step()
    assert alike(weights(run.model), before)
    run.step()
    assert not alike(weights(run.model), before)
    with pytest.raises(NonFiniteError, match="ResidualNetwork"):
        run.run()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"ema_decay": 1.0}, r"ema_decay=1\.0"), ({"phases": ()}, "there is no phase"), ({"steps": 0}, "has 0 steps")],
)
def test_bad_options(make_accelerator: Make, options: dict[str, Any], words: str) -> None:
    phases = options.pop("phases", (phase("psnr", options.pop("steps", 1)),))
    with pytest.raises(OptionError, match=words):
        PhasedTraining(network(), phases, accelerator=make_accelerator(), **options)


def test_nothing_to_train(make_accelerator: Make) -> None:
    with pytest.raises(OptionError, match="nothing to train"):
        PhasedTraining(network().requires_grad_(False), [phase("psnr")], accelerator=make_accelerator())


def test_bfloat16_and_a_perceptual_module(make_accelerator: Make) -> None:
    perceptual = torch.nn.MSELoss()
    only = phase("adversarial", 3, objective=Objective(adversary(), perceptual=perceptual, feature_matching=1.0))
    seen: list[Progress] = []
    training(make_accelerator(mixed_precision="bf16"), only).run(seen.append)
    assert all(torch.tensor(list(progress.as_dict().values())).isfinite().all() for progress in seen)


def test_any_network_and_any_loader(make_accelerator: Make) -> None:
    model = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(3, 3, 3, padding=1))
    given = Phase(name="psnr", objective=Objective(pixel="charbonnier"), batches=loader(3), steps=2, optimizer=ADAM)
    assert PhasedTraining(model, [given], accelerator=make_accelerator()).run()
    assert isinstance(loader(), DataLoader)
