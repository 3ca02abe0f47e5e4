"""Options that change what a step costs and nothing else: compile, checkpoint, channels_last."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
from core_tools import built_in, condition_for, images, patch, samples, small
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import advloss
from advloss._registry import find

TERMS = ({}, {"r1": {"every": 2}})


def play(
    discriminator: nn.Module, batches: list[tuple[Tensor, Tensor]], *condition: Any, **options: Any
) -> list[Tensor]:
    """Losses and gradients of both players over three steps, and the state that they leave."""
    adversary = advloss.Adversary(discriminator, "hinge", seed=0, **options)
    found = []
    for real, fake in batches:
        fake = fake.detach().requires_grad_()
        loss = adversary.generator_loss(fake, real, *condition)
        found += [loss, *torch.autograd.grad(loss, fake)]
        report = adversary.discriminator_step(real, fake, *condition)
        found += [report.loss, report.grad_norm]
    return [tensor.detach() for tensor in [*found, *adversary.discriminator.state_dict().values()]]


def same(name: str, terms: Any, tolerance: float, **options: Any) -> None:
    """Play twice, with and without `options`."""
    if "r1" in terms and not find("discriminator", name).spec.double_backward:
        terms = {"r1": {"method": "finite-difference"}}
    batches = [(samples(name, dtype=torch.float64), samples(name, dtype=torch.float64)) for _ in range(3)]
    condition = [] if condition_for(name) is None else [condition_for(name)]
    ends = []
    for chosen in ({}, options):
        torch.manual_seed(3)
        ends.append(play(small(name, torch.float64), batches, *condition, regularizers=terms, **chosen))
    for one, other in zip(*ends):
        assert torch.allclose(one, other, rtol=0, atol=tolerance), (one - other).abs().max()


@pytest.mark.parametrize("terms", TERMS, ids=["plain", "r1"])
@pytest.mark.parametrize("name", built_in("discriminator"))
def test_recomputed_activations_change_nothing(name: str, terms: Any) -> None:
    same(name, terms, 1e-12, checkpoint=True)


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_memory_format_changes_nothing(name: str) -> None:
    """Where nothing is drawn: `randn_like` fills memory in its order, so that finite differences take other directions."""
    twice = find("discriminator", name).spec.double_backward
    same(name, {"r1": {"every": 2}} if twice else {}, 1e-6, channels_last=True)


def test_samples_arrive_in_the_memory_format_of_the_discriminator() -> None:
    adversary, seen = advloss.Adversary(patch(), "hinge", channels_last=True, seed=0), []
    adversary.discriminator.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    adversary.generator_loss(images(), images())
    adversary.discriminator_step(images(), images())
    assert len(seen) == 3
    assert all(given.is_contiguous(memory_format=torch.channels_last) for given in seen)


class Dropped(nn.Module):
    """Random numbers and buffers: what a second forward would get wrong. `inner` is checkpointed by itself if asked."""

    def __init__(self, inner: bool | None = None) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0
        dense = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8))
        self.layers = nn.Sequential(dense, nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.calls += 1
        if self.inner is None:
            return self.layers(samples)
        return checkpoint(self.layers, samples, use_reentrant=self.inner)


@pytest.mark.parametrize("terms", [{}, {"r1": {}}, {"gradient-penalty": {}}, {"r1": {"method": "finite-difference"}}])
def test_what_is_computed_again_draws_and_moves_the_same(terms: Any) -> None:
    batches = [(torch.randn(6, 4).double(), torch.randn(6, 4).double()) for _ in range(3)]
    ends, modules = [], []
    for option in (False, True):
        torch.manual_seed(1)
        modules.append(Dropped())
        ends.append(play(modules[-1], batches, regularizers=terms, checkpoint=option))
    assert all(torch.equal(one, other) for one, other in zip(*ends))
    assert modules[1].calls > modules[0].calls


@pytest.mark.parametrize("inner", [False, True])
def test_a_discriminator_that_checkpoints_too_is_refused(inner: bool) -> None:
    adversary = advloss.Adversary(Dropped(inner), "hinge", checkpoint=True, seed=0)
    with pytest.raises(advloss.CombinationError, match="Switch checkpointing off"):
        adversary.discriminator_step(torch.randn(6, 4), torch.randn(6, 4))


@pytest.fixture
def whole_graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`torch.compile` without generated code; a graph break is an error. Counts the graphs."""
    graphs: list[int] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count, fullgraph=True))
    return graphs


COMPILES = [name for name in built_in("discriminator") if find("discriminator", name).spec.compiles]


@pytest.mark.parametrize("name", COMPILES)
def test_both_steps_compile_without_a_graph_break(name: str, whole_graphs: list[int]) -> None:
    """And second-order steps go on without: at the first and third step of three R1 is due."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(name, {"r1": {"every": 2}}, 1e-9, compile=True)
    assert whole_graphs


def test_a_step_with_a_second_order_term_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code has no double backward."""
    runs: list[int] = []

    def count(graph: Any, inputs: Any) -> Any:
        return lambda *args: (runs.append(1), graph.forward(*args))[1]

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
    adversary = advloss.Adversary(patch(), "hinge", {"r1": {"every": 2}}, compile=True, seed=0)
    for expected in (0, 2, 2, 4):  # due, not due
        adversary.discriminator_step(images(), images())
        assert len(runs) == expected


def test_later_steps_compile_nothing(whole_graphs: list[int]) -> None:
    adversary = advloss.Adversary(patch(norm="spectral"), "hinge", compile=True, seed=0)
    counts = []
    for _ in range(4):
        adversary.generator_loss(images().requires_grad_())
        adversary.discriminator_step(images(), images())
        counts.append(len(whole_graphs))
    assert counts[0] > 0
    assert counts[1] == counts[-1]


class Tied(nn.Module):
    """One parameter in two places, one buffer in two, and one that is put anew in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.other.weight = self.one.weight
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("shared", torch.zeros(()))
        self.last.register_buffer("shared", self.shared)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.calls = self.calls + 1
        self.shared.add_(1)
        self.last.shared.add_(1)
        return self.last(self.other(self.one(samples)).tanh())


def test_what_hangs_in_two_places_is_one() -> None:
    adversary = advloss.Adversary(Tied(), "hinge", seed=0)
    fake = torch.randn(4, 4, requires_grad=True)
    adversary.generator_loss(fake).backward()
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())
    assert float(adversary.discriminator.calls) == 0
    before = adversary.discriminator.one.weight.detach().clone()
    adversary.discriminator_step(torch.randn(4, 4), fake)
    assert adversary.discriminator.one.weight is adversary.discriminator.other.weight
    assert not torch.equal(before, adversary.discriminator.one.weight)
    assert float(adversary.discriminator.calls) == 2
    assert float(adversary.discriminator.shared) == 4
