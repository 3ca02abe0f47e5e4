"""Options of an adversary, and what its report says."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from core_tools import images, patch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

import advloss

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def copies(count: int, *args: Any, **options: Any) -> list[advloss.Adversary]:
    """Adversaries on copies of one discriminator."""
    discriminator = options.pop("discriminator", None) or patch()
    options = {"optimizer": SGD, "seed": 0, **options}
    return [advloss.Adversary(copy.deepcopy(discriminator), *args, **options) for _ in range(count)]


def weights(adversary: advloss.Adversary) -> Tensor:
    return torch.cat([p.detach().flatten() for p in adversary.discriminator.parameters()])


@pytest.mark.parametrize("part", ["discriminator", "loss", "regularizers", "augmentations", "optimizer", "scheduler"])
def test_what_it_is_made_of_cannot_be_swapped(part: str) -> None:
    """It would go on with the old part, or with both."""
    (adversary,) = copies(1, regularizers={"r1": {}}, scheduler=functools.partial(StepLR, step_size=1))
    with pytest.raises(AttributeError, match=part):
        setattr(adversary, part, getattr(copies(1)[0], part))


@pytest.mark.parametrize("part", ["regularizers", "augmentations"])
def test_no_part_can_be_added(part: str) -> None:
    (adversary,) = copies(1)
    with pytest.raises(TypeError, match="item assignment"):
        getattr(adversary, part)["another"] = nn.Identity()


def test_weight_scales_the_generators_loss_only() -> None:
    (plain,), (heavy,) = copies(1), copies(1, weight=0.25)
    heavy.discriminator.load_state_dict(plain.discriminator.state_dict())
    real, fake = images(), images()
    assert torch.equal(0.25 * plain.generator_loss(fake), heavy.generator_loss(fake))
    assert torch.equal(plain.discriminator_loss(real, fake), heavy.discriminator_loss(real, fake))


def test_start_step_holds_both_players_back() -> None:
    (adversary,) = copies(1, start_step=2)
    start = weights(adversary)
    for step in range(2):
        fake = images().requires_grad_()
        loss = adversary.generator_loss(fake)
        assert float(loss) == 0.0
        assert loss.ndim == 0
        report = adversary.discriminator_step(images(), fake)
        assert report.step == step
        assert report.as_dict() == {"step": float(step), "skipped": 0.0}
    assert torch.equal(weights(adversary), start)
    assert float(adversary.generator_loss(images())) != 0.0
    assert adversary.discriminator_step(images(), images()).loss is not None
    assert not torch.equal(weights(adversary), start)


def test_discriminator_may_start_before_the_generator() -> None:
    (adversary,) = copies(1, start_step=2, discriminator_start_step=1)
    reports = [adversary.discriminator_step(images(), images()) for _ in range(3)]
    assert [report.loss is None for report in reports] == [True, False, False]
    adversary.step = 1
    assert float(adversary.generator_loss(images())) == 0.0


def test_lazy_terms_count_every_times_on_the_steps_when_due() -> None:
    (adversary,) = copies(1, regularizers={"r1": {"weight": 2.0, "every": 3}})
    term = advloss.create_regularizer("r1", weight=2.0)
    for step in range(7):
        real, fake = images(), images()
        alone = term(copy.deepcopy(adversary.discriminator), real, fake)
        bare = advloss.Adversary(copy.deepcopy(adversary.discriminator), seed=0).discriminator_loss(real, fake)
        report = adversary.discriminator_step(real, fake)
        assert ("r1" in report.regularizers) == (step % 3 == 0)
        extra = 3 * alone if step % 3 == 0 else 0
        assert torch.allclose(report.loss, bare + extra, rtol=1e-12)


def test_max_grad_norm_clips_the_discriminators_gradient() -> None:
    free, clipped = copies(1)[0], copies(1, max_grad_norm=0.01)[0]
    clipped.discriminator.load_state_dict(free.discriminator.state_dict())
    start, real, fake = weights(free), images(), images()
    norm = free.discriminator_step(real, fake).grad_norm
    assert norm > 0.01
    assert torch.equal(clipped.discriminator_step(real, fake).grad_norm, norm)  # the norm before clipping
    change, full = weights(clipped) - start, weights(free) - start
    assert torch.allclose(change, full * 0.01 / norm, rtol=1e-3)
    assert float(change.norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_grad_norm_is_the_2_norm_of_the_gradient() -> None:
    (adversary,) = copies(1, "hinge")
    real, fake = images(), images()
    loss = advloss.create_loss("hinge").discriminator(adversary.discriminator(real), adversary.discriminator(fake))
    gradients = torch.autograd.grad(loss, list(adversary.discriminator.parameters()))
    expected = torch.cat([g.flatten() for g in gradients]).norm()
    assert torch.allclose(adversary.discriminator_step(real, fake).grad_norm, expected, rtol=1e-12)


def test_scheduler_steps_with_the_optimizer() -> None:
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    (adversary,) = copies(1, scheduler=halve, discriminator_start_step=1)
    rates = []
    for _ in range(3):
        adversary.discriminator_step(images(), images())
        rates.append(adversary.optimizer.param_groups[0]["lr"])
    assert rates == [0.1, 0.05, 0.025]


def test_optimizer_gets_the_trainable_parameters_and_defaults_to_adam() -> None:
    discriminator = patch()
    frozen = next(discriminator.parameters()).requires_grad_(False)
    adversary = advloss.Adversary(discriminator)
    held = {id(p) for group in adversary.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in discriminator.parameters()} - {id(frozen)}
    assert isinstance(adversary.optimizer, torch.optim.Adam)
    assert adversary.optimizer.defaults["lr"] == 2e-4
    assert adversary.optimizer.defaults["betas"] == (0.0, 0.99)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(advloss.OptionError, match="nothing to train"):
        advloss.Adversary(patch().requires_grad_(False))


class Conditional(nn.Module):
    """Logits that carry their condition, so that a test sees who got which."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor, condition: Tensor) -> Tensor:
        return self.weight * condition.to(samples.dtype) + 0 * samples.flatten(1).sum(1)


def test_each_side_has_its_own_condition() -> None:
    adversary = advloss.Adversary(Conditional(), "relativistic", seed=0)
    real, fake = torch.rand(2, 3), torch.rand(2, 3)
    one, two = torch.tensor([1, 1]), torch.tensor([2, 2])
    report = adversary.discriminator_step(real, fake, one, fake_condition=two)
    assert (float(report.real_logits), float(report.fake_logits)) == (1.0, 2.0)
    adversary = advloss.Adversary(Conditional(), "relativistic", seed=0)
    shared = adversary.discriminator_step(real, fake, two)
    assert (float(shared.real_logits), float(shared.fake_logits)) == (2.0, 2.0)

    adversary = advloss.Adversary(Conditional(), "relativistic", seed=0)
    softplus = torch.nn.functional.softplus
    loss = adversary.generator_loss(fake, real, two, real_condition=one)
    assert torch.allclose(loss, softplus(torch.tensor(-1.0)))
    assert torch.allclose(adversary.generator_loss(fake, real, two), softplus(torch.tensor(0.0)))


def test_accuracy_is_the_share_of_logits_on_their_side() -> None:
    real, fake = torch.zeros(4, 3), torch.zeros(4, 3)
    signs, others = torch.tensor([1, 1, 1, -1]), torch.tensor([1, -1, 1, 1])
    report = advloss.Adversary(Conditional(), "hinge").discriminator_step(real, fake, signs, fake_condition=others)
    assert (float(report.real_accuracy), float(report.fake_accuracy)) == (0.75, 0.25)
    report = advloss.Adversary(Conditional(), "relativistic").discriminator_step(
        real, fake, signs + 10, fake_condition=others + 10
    )
    assert float(report.real_accuracy) == 0.25  # pairs (1,1) (1,-1) (1,1) (-1,1): one real is larger


def test_report_says_what_happened_and_is_frozen() -> None:
    (adversary,) = copies(1, "hinge", {"r1": {}, "lecam": {}})
    report = adversary.discriminator_step(images(), images())
    numbers = report.as_dict()
    assert set(numbers) == {
        *("step", "skipped", "loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy", "grad_norm"),
        *("regularizers/r1", "regularizers/lecam"),
        *(f"signals/{name}" for name in ("spread", "diversity", "distance")),
        *(f"signals/{side}_{end}" for side in ("real", "fake") for end in ("low", "high")),
    }
    assert all(type(value) is float for value in numbers.values())
    assert numbers["loss"] == float(report.loss)
    tensors = [report.loss, report.real_logits, report.fake_logits, *report.regularizers.values()]
    assert not any(t.requires_grad for t in tensors)
    with pytest.raises(AttributeError):
        report.step = 3


@pytest.mark.parametrize("augmentations", [(), "diffaugment"])
def test_discriminator_loss_is_what_the_step_uses(augmentations: Any) -> None:
    step, loss = copies(
        2, "hinge", {"r1": {"every": 2}, "lecam": {}}, augmentations, discriminator=patch(norm="spectral")
    )
    optimizer = SGD(loss.discriminator.parameters())
    for _ in range(4):
        real, fake = images(), images()
        report = step.discriminator_step(real, fake)
        value = loss.discriminator_loss(real, fake)
        assert torch.equal(report.loss, value)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        for one, other in zip(step.discriminator.state_dict().values(), loss.discriminator.state_dict().values()):
            assert torch.equal(one, other)
        for one, other in zip(step.regularizers["lecam"].buffers(), loss.regularizers["lecam"].buffers()):
            assert torch.equal(one, other)
            assert float(one) != 0


def test_wgan_gp_brings_its_penalty_and_an_explicit_one_replaces_it() -> None:
    assert advloss.Adversary(patch(), "wgan-gp").regularizers["gradient-penalty"].weight == 10.0
    both = advloss.Adversary(patch(), "wgan-gp", {"r1": {}})
    assert set(both.regularizers) == {"r1", "gradient-penalty"}


@pytest.mark.parametrize(
    "regularizers",
    [
        {"gradient-penalty": {"weight": 3.0}},
        [("gradient-penalty", {"weight": 3.0})],
        {"regularizers/gradient-penalty": {"weight": 3.0}},
        "object",
    ],
    ids=["mapping", "pair", "full name", "object"],
)
def test_however_it_is_spelled_there_is_one_penalty(regularizers: Any) -> None:
    if regularizers == "object":
        regularizers = advloss.create_regularizer("gradient-penalty", weight=3.0)
    adversary = advloss.Adversary(patch(), "wgan-gp", regularizers)
    assert [r.weight for r in adversary.regularizers.values()] == [3.0]


def test_what_a_loss_brings_stays_beside_other_functions() -> None:
    """Two components that are functions have one type: it says nothing about whether they are the same."""

    @advloss.register_regularizer("gp-fn")
    def gp_fn(*, weight: float = 10.0) -> Any:
        return lambda judge, real, fake, condition=None, fake_condition=None: judge(real).sum() * 0

    def my_term(judge: Any, real: Any, fake: Any, condition: Any = None, fake_condition: Any = None) -> Any:
        return judge(fake).sum() * 0

    @advloss.register_loss("brings", regularizers={"script/gp-fn": {}})
    class Brings(type(advloss.create_loss("hinge"))):  # type: ignore[misc]
        """Hinge with a term that is a function."""

    assert set(advloss.Adversary(patch(), "brings").regularizers) == {"gp-fn"}
    assert len(advloss.Adversary(patch(), "brings", [my_term]).regularizers) == 2
    assert set(advloss.Adversary(patch(), "brings", {"gp-fn": {"weight": 1.0}}).regularizers) == {"gp-fn"}


def test_components_are_given_in_any_of_the_spellings() -> None:
    r1 = advloss.create_regularizer("r1", weight=3.0)
    for given in ("r1", ["r1"], ("r1", {"weight": 10.0}), [("r1", {"weight": 10.0})], {"r1": {"weight": 10.0}}):
        adversary = advloss.Adversary(patch(), ("hinge", {"scale": 0.5}), given)
        assert [r.weight for r in adversary.regularizers.values()] == [10.0]
    assert list(advloss.Adversary(patch(), regularizers=r1).regularizers.values()) == [r1]
    assert r1 in advloss.Adversary(patch(), regularizers=[r1, "lecam"]).regularizers.values()
    with pytest.raises(advloss.OptionError, match="given twice"):
        advloss.Adversary(patch(), regularizers=["r1", "r1"])


def test_recipe_with_changes() -> None:
    small = {"discriminator": ("r3gan", {"width": 16, "resolution": 8})}
    adversary = advloss.Adversary.from_recipe("r3gan", preset="ffhq64", weight=0.5, seed=1, **small)
    assert {n: r.weight for n, r in adversary.regularizers.items()} == {"r1": 2.0, "r2": 2.0}
    assert adversary.weight == 0.5
    assert adversary.loss.paired
    assert adversary.optimizer.defaults["betas"] == (0.0, 0.9)
    vqgan = advloss.Adversary.from_recipe("vqgan", start_step=3, discriminator=patch())
    assert (vqgan.start_step, vqgan.weight, vqgan.loss.scale) == (3, 0.8, 0.5)
    with pytest.raises(advloss.UnknownComponentError, match="Did you mean 'vqgan'"):
        advloss.Adversary.from_recipe("vqgann")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("weight", value) for value in (float("nan"), float("inf"), -1, "1")),
        *(("max_grad_norm", value) for value in (0, -1.0, float("nan"), "1")),
        *(("start_step", value) for value in ("a", -1, 1.5)),
        *(("discriminator_start_step", value) for value in (-1, 0.5)),
        *(("max_skipped", value) for value in (-1, None)),
        ("optimizer", "adam"),
        ("scheduler", 5),
    ],
)
def test_options_that_cannot_be(option: str, value: Any) -> None:
    if value is None:
        value = "none"
    with pytest.raises(advloss.OptionError, match=f"^{option}={value!r}; give a"):
        advloss.Adversary(patch(), **{option: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": lambda parameters: None}, "optimizer= returned a NoneType, which has no step"),
        ({"optimizer": torch.optim.LBFGS}, "optimizer= returned a LBFGS, whose step needs closure"),
        ({"scheduler": lambda optimizer: 0.1}, "scheduler= returned a float, which has no step"),
        (
            {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau},
            "scheduler= returned a ReduceLROnPlateau, whose step needs metrics",
        ),
    ],
)
def test_what_cannot_be_stepped_is_refused_when_it_is_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(advloss.OptionError, match=message):
        advloss.Adversary(patch(), **options)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adadelta", "Adamax"])
def test_optimizers_of_torch_are_taken(name: str) -> None:
    schedule = functools.partial(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, T_0=2)
    adversary = advloss.Adversary(patch(), optimizer=getattr(torch.optim, name), scheduler=schedule, seed=0)
    assert not adversary.discriminator_step(images(), images()).skipped


def test_discriminator_loss_refuses_what_follows_a_step() -> None:
    adversary = advloss.Adversary(patch(), regularizers={"weight-clipping": {}})
    with pytest.raises(advloss.CombinationError, match=r"WeightClipping would never act.*discriminator_step"):
        adversary.discriminator_loss(images(), images())
    assert adversary.step == 0
    adversary.discriminator_step(images(), images())


def test_augmentations_follow_discriminator_loss() -> None:
    adversary = advloss.Adversary(patch(), augmentations={"instance-noise": {"decay_steps": 5}})
    adversary.discriminator_loss(images(), images())
    assert adversary.state_dict()["augmentations"]["instance-noise"]["step"] == 1


@pytest.mark.parametrize("change", [{"presett": "ffhq64"}, {"wieght": 2.0}])
def test_change_that_nothing_takes_is_an_option_error(change: dict[str, Any]) -> None:
    with pytest.raises(advloss.OptionError, match=next(iter(change))):
        advloss.Adversary.from_recipe("vqgan", discriminator=patch(), **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda _: torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1),
            "trains 2 tensors that are not the discriminator's",
        ),
        (lambda ps: torch.optim.Adam(ps[:1]), "without the discriminator's layers"),
    ],
)
def test_an_optimizer_of_other_parameters_is_refused(make: Any, message: str) -> None:
    with pytest.raises(advloss.OptionError, match=message):
        advloss.Adversary(patch(), optimizer=make)


class Learns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, samples: Any) -> Any:
        return samples * self.scale

    def discriminator(self, real: Any, fake: Any) -> Any:
        return (fake - real).mean() * self.scale

    def generator(self, fake: Any, real: Any = None) -> Any:
        return -fake.mean() * self.scale


def test_a_loss_or_an_augmentation_that_learns_is_refused() -> None:
    with pytest.raises(advloss.OptionError, match="the loss Learns holds scale"):
        advloss.Adversary(patch(), Learns())
    with pytest.raises(advloss.OptionError, match="the augmentation Learns would learn scale"):
        advloss.Adversary(patch(), augmentations=[Learns()])
    advloss.Adversary(patch(), augmentations=[Learns().requires_grad_(False)])
