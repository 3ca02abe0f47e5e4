"""`reuse_real`: a paired loss asks about real samples in the generator's turn; the discriminator's on the same ones need not."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import FROZEN_FEATURES, assert_same, built_in, condition_for, images, patch, samples, small, snapshot
from torch import Tensor, nn

import advloss

MAKE: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("R1 and R2", {"regularizers": {"r1": {"weight": 0.1, "every": 2}, "r2": {"weight": 0.1}}}),
    ("finite differences", {"regularizers": {"r1": {"method": "finite-difference"}, "gradient-penalty": {}}}),
    ("LeCam", {"regularizers": ["lecam"]}),
    ("augmented", {"augmentations": ["diffaugment", "instance-noise"]}),
    ("checkpointed", {"checkpoint": True, "regularizers": {"r1": {}}}),
    ("channels last", {"channels_last": True}),
]


class Noisy(nn.Module):
    """Spectral norm and batch norm, whose buffers move, and dropout, which draws."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
        self.layers = nn.Sequential(first, nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, 1, 3))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.layers(samples)


def play(adversary: advloss.Adversary, name: str, share: bool, steps: int = 3) -> dict[str, Any]:
    """Both players' turns: with the same real samples in both, or with a copy of them, so that all is asked again."""
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    dtype = next(adversary.discriminator.parameters()).dtype
    for step in range(steps):
        real, fake = (samples(name, dtype=dtype) for _ in range(2))
        fake.requires_grad_()
        condition = condition_for(name)
        adversary.generator_loss(fake, real, condition).backward()
        report = adversary.discriminator_step(real if share else real.clone(), fake, condition)
        found[f"{step}"] = {"slope": fake.grad, "report": report.as_dict()}
    state = snapshot(adversary)
    state["discriminator"].pop("versions")
    return {**found, "state": state}


@pytest.mark.parametrize(("kind", "options"), MAKE, ids=[kind for kind, _ in MAKE])
@pytest.mark.parametrize("module", [patch, Noisy], ids=["patch", "noisy"])
def test_sharing_changes_no_bit(module: Callable[[], nn.Module], kind: str, options: dict[str, Any]) -> None:
    shares = advloss.Adversary(module(), "relativistic", **options, reuse_real=True, seed=0)
    alone = advloss.Adversary(copy.deepcopy(shares.discriminator), "relativistic", **options, reuse_real=True, seed=0)
    assert_same(play(shares, "patch", share=True), play(alone, "patch", share=False))


@pytest.mark.parametrize("loss", ["relativistic", "relativistic-average"])
@pytest.mark.parametrize("name", built_in("discriminator"))
def test_it_changes_no_bit_for_any_discriminator(name: str, loss: str) -> None:
    shares = advloss.Adversary(small(name), loss, reuse_real=True, seed=0)
    alone = advloss.Adversary(copy.deepcopy(shares.discriminator), loss, reuse_real=True, seed=0)
    assert_same(play(shares, name, share=True), play(alone, name, share=False))


@pytest.mark.parametrize("regularizers", [{}, {"r1": {"weight": 0.1, "every": 2}, "r2": {"weight": 0.1}}])
def test_it_changes_no_bit_of_what_is_computed_without_it(regularizers: dict[str, Any]) -> None:
    """Where no buffer moves and nothing is drawn: there each forward of a turn sees what the one before it has left."""
    shares = advloss.Adversary(patch(), "relativistic", regularizers, reuse_real=True, seed=0)
    plain = advloss.Adversary(copy.deepcopy(shares.discriminator), "relativistic", regularizers, seed=0)
    assert_same(play(shares, "patch", share=True), play(plain, "patch", share=True))


class Counted:
    """An adversary that counts its discriminator's forwards."""

    def __init__(self, discriminator: nn.Module | None = None, reuse_real: bool = True, **options: Any) -> None:
        made = discriminator or patch()
        self.adversary = advloss.Adversary(made, "relativistic", **options, reuse_real=reuse_real, seed=0)
        self.calls = 0
        self.adversary.discriminator.register_forward_hook(self._note)
        self.real, self.fake = images(), images().requires_grad_()

    def _note(self, *args: Any) -> None:
        self.calls += 1

    def in_discriminators_turn(self, real: Tensor | None = None, condition: Any = None) -> int:
        before = self.calls
        self.adversary.discriminator_step(self.real if real is None else real, self.fake, condition)
        return self.calls - before


@pytest.mark.parametrize(("kind", "options"), MAKE, ids=[kind for kind, _ in MAKE])
def test_it_saves_a_forward(kind: str, options: dict[str, Any]) -> None:
    shares, alone = Counted(**options), Counted(**options)
    shares.adversary.generator_loss(shares.fake, shares.real)
    assert shares.in_discriminators_turn() == alone.in_discriminators_turn() - 1
    assert shares.in_discriminators_turn() == alone.in_discriminators_turn()  # asked once, served once


def write_real(game: Counted) -> None:
    game.real.mul_(0.5)


def write_weight(game: Counted) -> None:
    with torch.no_grad():
        next(game.adversary.discriminator.parameters()).mul_(0.5)


def replace_weight(game: Counted) -> None:
    weight = next(game.adversary.discriminator.parameters())
    weight.data = weight.data * 0.5


def switch_mode(game: Counted) -> None:
    game.adversary.discriminator.eval()


def count_a_step(game: Counted) -> None:  # other regularizers may be due
    game.adversary.step += 1


def load(game: Counted) -> None:
    game.adversary.load_state_dict(game.adversary.state_dict())


def step_between(game: Counted) -> None:
    game.adversary.discriminator_step(images(), images())


@pytest.mark.parametrize(
    "change", [write_real, write_weight, replace_weight, switch_mode, count_a_step, load, step_between]
)
def test_what_has_changed_is_asked_again(change: Callable[[Counted], None]) -> None:
    game = Counted()
    game.adversary.generator_loss(game.fake, game.real)
    change(game)
    assert game.in_discriminators_turn() == 2


@pytest.mark.parametrize(
    "real", [lambda r: r.clone(), lambda r: r[:3], lambda r: r.flip(0)], ids=["copy", "part", "order"]
)
def test_other_samples_are_asked_about(real: Callable[[Tensor], Tensor]) -> None:
    game = Counted()
    game.adversary.generator_loss(game.fake, game.real)
    game.fake = game.fake[: len(real(game.real))]
    assert game.in_discriminators_turn(real(game.real)) == 2


def test_another_condition_is_another_question() -> None:
    game = Counted(advloss.create_discriminator("projection", width=4, resolution=8, num_classes=3).double())
    one, other = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 0, 0])
    for asked, condition, forwards in [(one, one, 1), (one, other, 2)]:
        game.adversary.generator_loss(game.fake, game.real, asked)
        assert game.in_discriminators_turn(condition=condition) == forwards


def test_another_precision_is_another_question() -> None:
    game = Counted(patch(torch.float32))
    game.real, game.fake = game.real.float(), game.fake.detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        game.adversary.generator_loss(game.fake, game.real)
    assert game.in_discriminators_turn() == 2


def test_a_script_with_an_optimizer_of_its_own_gets_no_graph_of_before() -> None:
    """A fused one writes to weights without a trace."""
    game = Counted()
    game.adversary.generator_loss(game.fake, game.real)
    before = game.calls
    game.adversary.discriminator_loss(game.real, game.fake)
    assert game.calls - before == 2


def test_a_frozen_discriminator_is_asked_again() -> None:
    """As scripts freeze it for the generator's turn: logits without a graph to the weights would train none of them."""
    norms = []
    for reuse_real in (True, False):
        torch.manual_seed(0)
        game = Counted(reuse_real=reuse_real)
        game.adversary.discriminator.requires_grad_(False)
        game.adversary.generator_loss(game.fake, game.real).backward()
        game.adversary.discriminator.requires_grad_(True)
        norms.append(game.adversary.discriminator_step(game.real, game.fake).grad_norm)
        assert game.calls == 4
    assert torch.equal(*norms)


def test_nothing_is_reused_unless_it_is_asked_for() -> None:
    game = Counted(reuse_real=False)
    game.adversary.generator_loss(game.fake, game.real)
    assert game.in_discriminators_turn() == 2


def test_draws_are_new_in_each_turn_of_the_generator() -> None:
    """Also while the discriminator waits."""
    for options in ({"reuse_real": False}, {"discriminator_start_step": 5}):
        game, seen = Counted(augmentations=["instance-noise"], **options), []
        game.adversary.discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))  # noqa: B023
        for _ in range(2):
            game.adversary.generator_loss(game.fake, game.real)
        assert not torch.equal(seen[1], seen[3])


@pytest.mark.parametrize("name", FROZEN_FEATURES)
def test_frozen_features_are_shared_in_their_own_way(name: str) -> None:
    adversary = advloss.Adversary(small(name), "relativistic", reuse_real=True, seed=0)
    real = samples(name)
    adversary.generator_loss(samples(name).requires_grad_(), real)
    assert adversary._players._ahead.take(real, None, adversary._players._moment(0)) is None


def test_one_graph_is_kept_at_most() -> None:
    game, alive = Counted(), []
    game.adversary.discriminator.register_forward_hook(lambda module, given, logits: alive.append(weakref.ref(logits)))
    for _ in range(3):
        game.adversary.generator_loss(game.fake, game.real)
    assert sum(logits() is not None for logits in alive) == 1


def test_nothing_is_kept_where_nothing_is_recorded() -> None:
    game = Counted()
    with torch.no_grad():
        game.adversary.generator_loss(game.fake, game.real)
    assert game.in_discriminators_turn() == 2


def test_real_samples_get_no_gradient_from_the_generators_turn() -> None:
    game = Counted(regularizers={"r1": {}})
    game.real.requires_grad_()
    game.adversary.generator_loss(game.fake, game.real).backward()
    assert game.real.grad is None
    assert all(p.grad is None for p in game.adversary.discriminator.parameters())


def test_resumed_between_the_turns_it_goes_on_bit_for_bit() -> None:
    one = Counted(Noisy().double(), augmentations=["diffaugment"], regularizers={"r1": {}})
    other = Counted(copy.deepcopy(one.adversary.discriminator), augmentations=["diffaugment"], regularizers={"r1": {}})
    one.adversary.generator_loss(one.fake, one.real)
    other.adversary.load_state_dict(copy.deepcopy(one.adversary.state_dict()))
    for game in (one, other):
        game.adversary.discriminator_step(one.real, one.fake)
    saved = [game.adversary.state_dict() for game in (one, other)]
    assert_same(*saved)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))], ids=["deepcopy", "pickle"])
def test_what_has_begun_is_not_copied(again: Callable[[Any], Any]) -> None:
    game = Counted()
    game.adversary.generator_loss(game.fake, game.real)
    assert again(game.adversary._players._ahead)._asked is None
