"""Guarantee 7 for the player that the script owns: a gradient that is not finite changes nothing of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState, PartialState
from core_tools import assert_same, copied
from no_reading import NoReading
from torch import Tensor, nn

from advloss import NonFiniteError, OptionError, StepGuard
from advloss._stepper import Stepper

ADAM = functools.partial(torch.optim.Adam, lr=1e-2, fused=True)
SGD = functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


def players(make: Any = ADAM) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return model, make(model.parameters())


def differentiate(model: nn.Module, factor: float = 1.0) -> Tensor:
    loss = model(torch.randn(6, 3, generator=torch.Generator().manual_seed(1))).square().mean() * factor
    loss.backward()
    return loss


def everything(model: nn.Module, optimizer: Any, buffers: bool = False) -> Any:
    """Running statistics that a batch moved and that are finite are no poison: they may move in a skipped step."""
    tensors = model.state_dict() if buffers else dict(model.named_parameters())
    return copied({"model": tensors, "optimizer": optimizer.state_dict()})


@pytest.fixture
def accelerator() -> Iterator[Any]:
    def forget() -> None:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    forget()
    yield functools.partial(Accelerator, cpu=True)
    forget()


@pytest.mark.parametrize("make", [ADAM, SGD])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_healthy_steps_are_the_optimizers_own(make: Any, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stepper, "asynchronous", asynchronous)
    ended = []
    for guarded in (False, True):
        model, optimizer = players(make)
        step = StepGuard(model, optimizer).step if guarded else optimizer.step
        for _ in range(4):
            differentiate(model)
            step()
            optimizer.zero_grad()
        ended.append(everything(model, optimizer, buffers=True))
    assert_same(*ended)


@pytest.mark.parametrize("make", [ADAM, SGD])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_bad_step_changes_nothing(
    factor: float, asynchronous: bool, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e30: the gradient is finite, its square, of which Adam's moment is made, is not."""
    monkeypatch.setattr(Stepper, "asynchronous", asynchronous)
    model, optimizer = players(make)
    guard = StepGuard(model, optimizer)
    for bad in (True, False, True):  # the first of all too
        before = everything(model, optimizer)
        differentiate(model, factor if bad else 1.0)
        guard.step()
        optimizer.zero_grad()
        assert (everything(model, optimizer)["model"]["0.weight"] == before["model"]["0.weight"]).all() == bad
        if bad:
            assert_same(everything(model, optimizer), before)
    guard.state_dict()  # reads what is pending
    assert guard.skipped_in_a_row == 1


def test_a_healthy_step_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from advloss._guard import Flag

    monkeypatch.setattr(Stepper, "asynchronous", True)
    model, optimizer = players()
    guard = StepGuard(model, optimizer)
    differentiate(model)
    guard.step()
    guard.state_dict()
    loss = differentiate(model)
    monkeypatch.setattr(Flag, "read", lambda flag: pytest.fail("this step's own flag was read"))
    with NoReading():
        guard.step(loss=loss)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_training_stops_after_so_many_in_a_row_and_names_the_tensor(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stepper, "asynchronous", asynchronous)
    model, optimizer = players()
    guard = StepGuard(model, optimizer, max_skipped=2)
    guard.step(loss=differentiate(model))
    optimizer.zero_grad()
    before = everything(model, optimizer)
    for _ in range(3 if asynchronous else 2):  # the third flag is read at the fourth step
        guard.step(loss=differentiate(model, torch.nan))
        optimizer.zero_grad()
    with pytest.raises(NonFiniteError, match="3 Sequential's steps in a row were skipped; not finite: loss"):
        guard.step(loss=differentiate(model, torch.nan))
    assert_same(everything(model, optimizer), before)


def test_a_gradient_without_a_cause_and_a_parameter_are_named() -> None:
    model, optimizer = players()
    guard = StepGuard(model, optimizer, max_skipped=0)
    differentiate(model)
    model[2].weight.grad[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"not finite: gradient of 2\.weight\."):
        guard.step()
    with torch.no_grad():
        model[0].bias[1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"not finite: parameter 0\.bias\."):
        guard.step(loss=differentiate(model))


def test_good_steps_in_between_start_the_count_anew() -> None:
    model, optimizer = players()
    guard = StepGuard(model, optimizer, max_skipped=1)
    for bad in (True, False, True, False, True):
        differentiate(model, torch.nan if bad else 1.0)
        guard.step()
        optimizer.zero_grad()
    assert guard.skipped_in_a_row == 1


def test_accumulation_steps_once(accelerator: Any) -> None:
    accelerator = accelerator(gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(*players())
    guard = StepGuard(model, optimizer, accelerator=accelerator)
    moved, skipped = [], []
    for bad in (True, False, False, False):
        before = copied(model[0].weight)
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.randn(6, 3)).square().sum() * (torch.nan if bad else 1.0))
            guard.step()
            optimizer.zero_grad()
        moved.append(not torch.equal(model[0].weight, before))
        skipped.append(guard.skipped_in_a_row)
    assert moved == [False, False, False, True]
    assert skipped == [0, 1, 1, 0]


@pytest.mark.parametrize("make", [ADAM, SGD])
def test_a_scaler_lowers_its_scale(make: Any, accelerator: Any) -> None:
    """Float16 under Accelerate, whose optimizer skips by itself: it is only counted."""
    accelerator()
    model, inner = players(make)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = AcceleratedOptimizer(inner, scaler=scaler)
    guard = StepGuard(model, optimizer, max_skipped=1)
    for bad, scale in ((True, 512.0), (False, 512.0), (True, 256.0)):
        before = everything(model, inner)
        optimizer.zero_grad()
        loss = model(torch.randn(6, 3)).square().mean() * (torch.inf if bad else 1.0)
        scaler.scale(loss).backward()
        guard.step(loss=loss)
        assert scaler.get_scale() == scale
        assert guard.skipped_in_a_row == int(bad)
        assert (everything(model, inner)["model"]["0.weight"] == before["model"]["0.weight"]).all() == bad


def test_its_state_goes_on() -> None:
    model, optimizer = players()
    guard = StepGuard(model, optimizer)
    for factor in (1.0, torch.nan):
        differentiate(model, factor)
        guard.step()
        optimizer.zero_grad()
    saved = copy.deepcopy(guard.state_dict())
    other, its_optimizer = players()
    again = StepGuard(other, its_optimizer)
    again.load_state_dict(saved)
    assert again.skipped_in_a_row == 1
    poison(other)
    again.step()
    assert again.skipped_in_a_row == 2
    assert all(buffer.isfinite().all() for buffer in other.buffers())
    assert_same(other[1].running_var, saved["buffers"]["1.running_var"])


def poison(model: nn.Module) -> None:
    """A batch that makes a running variance infinite, and a finite gradient."""
    model(torch.randn(6, 3) * 1e25)
    differentiate(model)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_buffers_that_a_batch_has_poisoned_go_back(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stepper, "asynchronous", asynchronous)
    model, optimizer = players()
    guard = StepGuard(model, optimizer)
    differentiate(model)
    guard.step()
    optimizer.zero_grad()
    before = everything(model, optimizer, buffers=True)
    poison(model)
    guard.step()
    after = everything(model, optimizer, buffers=True)
    assert_same(after, before, but=("/model/1.running_mean", "/model/1.num_batches_tracked"))


def test_a_state_loaded_after_the_guard_was_built_stays() -> None:
    """Before its first good step a guard has nothing to go back to, and does not go back to a fresh model."""
    model, optimizer = players()
    guard = StepGuard(model, optimizer)
    model.load_state_dict({**model.state_dict(), "1.running_mean": torch.full((4,), 4.35)})
    differentiate(model, torch.nan)
    guard.step()
    assert (model[1].running_mean > 3).all()


def test_all_that_the_optimizer_steps_is_looked_at() -> None:
    model, text = players()[0], nn.Linear(2, 2)
    optimizer = ADAM([*model.parameters(), *text.parameters()])
    guard = StepGuard(model, optimizer, max_skipped=0)
    differentiate(model)
    text.weight.grad = torch.full((2, 2), torch.nan)
    with pytest.raises(NonFiniteError, match="gradient of 6 of the optimizer's group 0"):
        guard.step()
    assert text.weight.isfinite().all()


@pytest.mark.parametrize("loss", [torch.tensor(torch.nan), float("inf")])
def test_a_loss_that_is_not_finite_is_enough(loss: Any) -> None:
    model, optimizer = players()
    guard = StepGuard(model, optimizer, max_skipped=0)
    differentiate(model)
    with pytest.raises(NonFiniteError, match="not finite: loss"):
        guard.step(loss=loss)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("loss", [1.0, torch.nan])
def test_a_scaler_is_told_of_what_it_does_not_look_at(loss: float, unscaled: bool, accelerator: Any) -> None:
    """Squares that overflow, and a loss; also where the script has unscaled, to clip."""
    accelerator()
    model, inner = players()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    guard = StepGuard(model, AcceleratedOptimizer(inner, scaler=scaler))
    before = everything(model, inner)
    scaler.scale(model(torch.randn(6, 3)).sum() * (1e25 if loss == 1.0 else 1.0)).backward()
    if unscaled:
        scaler.unscale_(inner)
    guard.step(loss=torch.tensor(loss))
    assert_same(everything(model, inner)["model"], before["model"])
    assert not any(t.isinf().any() for of_one in inner.state.values() for t in of_one.values())
    assert (scaler.get_scale(), guard.skipped_in_a_row) == (2.0, 1)


def test_options() -> None:
    model, optimizer = players()
    with pytest.raises(OptionError, match="max_skipped=-1"):
        StepGuard(model, optimizer, max_skipped=-1)
    with pytest.raises(OptionError, match="trains no parameter of this Linear"):
        StepGuard(nn.Linear(2, 2), optimizer)
    with pytest.raises(OptionError, match="LBFGS, whose step needs closure"):
        StepGuard(model, torch.optim.LBFGS(model.parameters()))
    scaling = SimpleNamespace(scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(OptionError, match="the optimizer does not know of it"):
        StepGuard(model, optimizer, accelerator=scaling)
