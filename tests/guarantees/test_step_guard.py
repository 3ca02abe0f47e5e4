"""Guarantee 7 for the player that the script owns: a gradient that is not finite changes nothing of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
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


def everything(model: nn.Module, optimizer: Any) -> Any:
    return copied({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


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
        ended.append(everything(model, optimizer))
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
    differentiate(model)
    guard.step()
    differentiate(model, torch.nan)
    guard.step()
    saved, good = copy.deepcopy(guard.state_dict()), copied(dict(model.named_buffers()))
    other, its_optimizer = players()
    again = StepGuard(other, its_optimizer)
    again.load_state_dict(saved)
    assert again.skipped_in_a_row == 1
    differentiate(other, torch.nan)
    again.step()
    assert again.skipped_in_a_row == 2
    assert_same(dict(other.named_buffers()), good)


def test_options() -> None:
    model, optimizer = players()
    with pytest.raises(OptionError, match="max_skipped=-1"):
        StepGuard(model, optimizer, max_skipped=-1)
    with pytest.raises(OptionError, match="no parameter of Sequential requires gradients"):
        StepGuard(model.requires_grad_(False), optimizer)
