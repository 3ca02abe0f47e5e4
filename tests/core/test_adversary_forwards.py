"""How often the discriminator runs: once a side, and once more only for points that the loss does not look at."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import FROZEN_FEATURES, built_in, images, patch, samples, small
from torch import Tensor, nn

import advloss


class Calls:
    """Counts a module's forwards and keeps whether each built a graph."""

    def __init__(self, module: nn.Module) -> None:
        self.graphs: list[bool] = []
        module.register_forward_hook(self.note)

    def note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.graphs.append(any(tensor.requires_grad for tensor in advloss.as_scales(output)))

    def during(self, call: Callable[[], Any]) -> int:
        before = len(self.graphs)
        call()
        return len(self.graphs) - before


@pytest.mark.parametrize(
    ("regularizers", "expected"),
    [
        ({}, 2),
        ({"r1": {}}, 2),
        ({"r2": {}}, 2),
        ({"r1": {}, "r2": {}, "lecam": {}}, 2),
        ({"weight-clipping": {}}, 2),
        ({"gradient-penalty": {}}, 3),
        ({"dragan": {}, "r1": {}}, 3),
        ({"r1": {"every": 2}, "gradient-penalty": {"every": 2}}, 3),
    ],
)
def test_discriminator_step_runs_once_a_side(regularizers: dict[str, Any], expected: int) -> None:
    norm = "none" if "weight-clipping" in regularizers else "spectral"
    adversary = advloss.Adversary(patch(norm=norm), "hinge", regularizers, seed=0)
    calls = Calls(adversary.discriminator)
    assert calls.during(lambda: adversary.discriminator_step(images(), images())) == expected
    if any("every" in options for options in regularizers.values()):
        assert calls.during(lambda: adversary.discriminator_step(images(), images())) == 2


@pytest.mark.parametrize(("loss", "expected"), [("hinge", 1), ("relativistic", 2), ("relativistic-average", 2)])
def test_generator_loss_runs_on_reals_only_for_a_paired_loss(loss: str, expected: int) -> None:
    adversary = advloss.Adversary(patch(), loss, seed=0)
    calls = Calls(adversary.discriminator)
    assert calls.during(lambda: adversary.generator_loss(images().requires_grad_(), images())) == expected
    assert calls.graphs[0]
    assert not any(calls.graphs[1:])


def test_a_paired_loss_misses_its_reals_from_the_first_step_on() -> None:
    adversary = advloss.Adversary(patch(), "relativistic", seed=0, start_step=5)
    with pytest.raises(advloss.InputError, match="pass real="):
        adversary.generator_loss(images())


def test_nothing_runs_before_the_start_step() -> None:
    adversary = advloss.Adversary(patch(), seed=0, start_step=2)
    calls = Calls(adversary.discriminator)
    for _ in range(2):
        assert float(adversary.generator_loss(images(), images())) == 0.0
        adversary.discriminator_step(images(), images())
    assert not calls.graphs
    assert calls.during(lambda: adversary.generator_loss(images())) == 1


@pytest.mark.parametrize("name", FROZEN_FEATURES)
def test_features_of_fakes_are_computed_once_for_both_players(name: str) -> None:
    adversary = advloss.Adversary(small(name), "hinge", seed=0)
    features, heads = Calls(adversary.discriminator.features), Calls(adversary.discriminator.heads)
    real, fake = samples(name), samples(name).requires_grad_() * 1.0
    assert features.during(lambda: adversary.generator_loss(fake, real).backward()) == 1
    assert features.during(lambda: adversary.discriminator_step(real, fake)) == 1  # the reals'
    assert features.graphs == [True, False]
    assert len(heads.graphs) == 3
    assert features.during(lambda: adversary.discriminator_step(real, fake)) == 2  # a further step asks again


@pytest.mark.parametrize("regularizers", [{}, {"r1": {"inputs": "features"}}])
@pytest.mark.parametrize("name", FROZEN_FEATURES)
def test_features_serve_the_generator_where_it_comes_second(name: str, regularizers: dict[str, Any]) -> None:
    """Once that order was seen, the discriminator's turn keeps them with the graph to their maker; no number changes."""
    shares, twin = (advloss.Adversary(small(name, torch.float64), "hinge", regularizers, seed=0) for _ in range(2))
    twin.discriminator.load_state_dict(shares.discriminator.state_dict())
    twin._shares = False
    features, maker = Calls(shares.discriminator.features), nn.Conv2d(3, 3, 1).double()
    counts = []
    for _ in range(3):
        real, fake, slopes = samples(name, dtype=torch.float64), maker(samples(name, dtype=torch.float64)), []
        for adversary in (shares, twin):
            before = len(features.graphs)
            adversary.discriminator_step(real, fake)
            between = len(features.graphs)
            loss = adversary.generator_loss(fake, real)
            slopes.append(torch.autograd.grad(loss, maker.weight, retain_graph=True)[0])
            counts.append((between - before, len(features.graphs) - between))
        assert torch.allclose(*slopes, rtol=1e-9)
    assert counts[::2] == [(2, 1), (2, 0), (2, 0)]
    pairs = zip(shares.discriminator.parameters(), twin.discriminator.parameters())
    assert all(torch.allclose(one, other, rtol=0, atol=1e-9) for one, other in pairs)


@pytest.mark.parametrize("name", FROZEN_FEATURES)
def test_r1_by_features_costs_no_backbone_graph_and_no_forward(name: str) -> None:
    regularizers = {"r1": {"inputs": "features"}, "r2": {"inputs": "features"}}
    adversary = advloss.Adversary(small(name), "hinge", regularizers, seed=0)
    features, heads = Calls(adversary.discriminator.features), Calls(adversary.discriminator.heads)
    adversary.discriminator_step(samples(name), samples(name))
    assert features.graphs == [False, False]
    assert len(heads.graphs) == 2


def changed_in_place(fake: Tensor) -> Tensor:
    with torch.no_grad():
        fake.mul_(0.5)
    return fake


@pytest.mark.parametrize(
    "change",
    [changed_in_place, lambda fake: fake * 0.5, lambda fake: fake[:2], lambda fake: fake.flip(0)],
    ids=["in-place", "new", "part", "order"],
)
def test_features_of_a_changed_fake_are_computed_again(change: Callable[[Tensor], Tensor]) -> None:
    """What one player saw may serve the other only while it is the same."""
    name = "projected"
    adversary = advloss.Adversary(small(name), "hinge", seed=0)
    twin = advloss.Adversary(copy.deepcopy(adversary.discriminator), "hinge", seed=0)
    features = Calls(adversary.discriminator.features)
    real, fake = samples(name), samples(name)
    adversary.generator_loss(fake)
    fake = change(fake)
    expected = twin.discriminator_loss(real, fake)
    loss = None

    def step() -> None:
        nonlocal loss
        loss = adversary.discriminator_loss(real, fake)

    assert features.during(step) == 2
    assert loss is not None
    assert torch.equal(loss, expected)


def test_augmented_fakes_are_drawn_anew_for_the_discriminator() -> None:
    adversary = advloss.Adversary(small("projected"), "hinge", augmentations="instance-noise", seed=0)
    features = Calls(adversary.discriminator.features)
    fake = samples("projected")
    adversary.generator_loss(fake)
    assert features.during(lambda: adversary.discriminator_step(samples("projected"), fake)) == 2


class Flat(nn.Module):
    """Slope zero everywhere, but logits that move with every forward and with random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.calls += 1
        return self.weight * (torch.randn(len(samples)) + self.calls) + 0 * samples.flatten(1).sum(1)


@pytest.mark.parametrize("side", ["r1", "r2"])
def test_finite_differences_compare_like_with_like(side: str) -> None:
    """Both forwards draw the same numbers and start from the same buffers: else noise is taken for slope."""
    adversary = advloss.Adversary(Flat(), regularizers={side: {"method": "finite-difference"}}, seed=0)
    report = adversary.discriminator_step(torch.rand(4, 2), torch.rand(4, 2))
    assert float(report.regularizers[side]) == 0.0
    assert float(adversary.discriminator.calls) == 2  # and leave the buffers to the loss's own forwards


def test_finite_differences_see_one_augmentation() -> None:
    """A step of 1e-3 between two views of a sample is far smaller than what separates two augmentations of it."""
    options = {"method": "finite-difference", "sigma": 1e-3, "weight": 2.0}
    adversary = advloss.Adversary(patch(), "hinge", {"r1": options}, ["diffaugment"], seed=0)
    exact = advloss.Adversary(adversary.discriminator, "hinge", {"r1": {"weight": 2.0}}, seed=0)
    real = images(64)
    estimate = adversary.discriminator_step(real, images(64)).regularizers["r1"]
    assert float(estimate) < 20 * float(exact.discriminator_step(real, images(64)).regularizers["r1"])


def test_regularizer_on_its_own_equals_the_adversarys() -> None:
    """Sharing forwards changes no value."""
    discriminator, real, fake = patch(), images(), images()
    names = ["r1", "r2", "lecam"]
    expected = {n: advloss.create_regularizer(n).double()(discriminator, real, fake) for n in names}
    chosen = [(n, {}) for n in names]
    report = advloss.Adversary(discriminator, "hinge", chosen, seed=0).discriminator_step(real, fake)
    for name in names:
        assert torch.allclose(report.regularizers[name].double(), expected[name], rtol=1e-6), name


class OneScale(nn.Module):
    """All scales of a discriminator, of which only one has a gradient."""

    def __init__(self, module: nn.Module, scale: int) -> None:
        super().__init__()
        self.module, self.scale = module, scale

    def forward(self, samples: Tensor, condition: Any = None) -> list[Tensor]:
        logits = advloss.as_scales(self.module(samples))
        return [scale if i == self.scale else scale.detach() for i, scale in enumerate(logits)]


@pytest.mark.parametrize("loss", built_in("loss"))
def test_every_scale_has_a_gradient_for_both_players(loss: str) -> None:
    """A loss that never asks one scale, or swaps input and target, trains with a part of the game or none."""
    module = small("multiscale")
    for scale in range(len(module(samples("multiscale")))):
        adversary = advloss.Adversary(OneScale(module, scale), ("losses/" + loss, {}), seed=0)
        adversary._players.parts.regularizers.clear()  # a penalty would have a gradient of its own
        real, fake = samples("multiscale"), samples("multiscale").requires_grad_()
        adversary.generator_loss(fake, real).backward()
        assert fake.grad is not None
        assert float(fake.grad.abs().sum()) > 0
        report = adversary.discriminator_step(real, fake)
        assert report.grad_norm is not None
        assert float(report.grad_norm) > 0


def test_what_was_asked_without_gradients_is_asked_again_with_them() -> None:
    """A regularizer of one's own may look first and differentiate then."""
    from advloss._judge import Judge

    judge, samples = Judge(patch(), lambda samples: samples), images()
    with torch.no_grad():
        assert not judge(samples).requires_grad
    assert judge(samples).requires_grad


@pytest.mark.parametrize("name", FROZEN_FEATURES)
def test_a_copy_between_the_turns_has_seen_nothing(name: str) -> None:
    """Features that wait for the generator's turn have a graph, which cannot be copied."""
    adversary = advloss.Adversary(small(name), "hinge", seed=0)
    real, first, fake = samples(name), samples(name).requires_grad_(), samples(name).requires_grad_()
    adversary.discriminator_step(real, first)
    adversary.generator_loss(first)
    adversary.discriminator_step(real, fake)
    twin = copy.deepcopy(adversary)
    assert torch.equal(twin.generator_loss(fake), adversary.generator_loss(fake))
