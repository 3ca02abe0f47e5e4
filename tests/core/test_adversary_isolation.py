"""What a call may touch: `generator_loss` the samples' gradient and nothing else, a failed step nothing at all."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import assert_same, built_in, condition_for, copied, images, patch, samples, small, snapshot
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import advloss

SGD = functools.partial(torch.optim.SGD, lr=0.1)

REGULARIZERS = {"lecam": {"weight": 0.1}}
COUNTERS = ("/saved/counters/generator", "/saved/counters/discriminator", "/saved/fake_grad_norm")


def adversary_of(name: str) -> advloss.Adversary:
    """One that has taken a step, so that every buffer, moment and moving average holds something."""
    discriminator = small(name)
    for p in discriminator.parameters():
        p.grad = torch.rand_like(p) if p.requires_grad else None  # what a script left there stays there
    adversary = advloss.Adversary(discriminator, "hinge", REGULARIZERS, seed=3)
    adversary.discriminator_step(samples(name), samples(name), condition_for(name))
    return adversary


def leaves_of(loss: Tensor) -> set[int]:
    """Ids of the tensors that a backward from `loss` would give gradients to."""
    found, todo, seen = set(), [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo.extend(following for following, _ in node.next_functions)
    return found


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_generator_loss_touches_only_the_gradient_of_fake(name: str) -> None:
    adversary = adversary_of(name)
    real, fake, condition = samples(name), samples(name).requires_grad_(), condition_for(name)
    given = copied((real, fake, condition))
    before = snapshot(adversary)

    loss = adversary.generator_loss(fake, real, condition)
    assert leaves_of(loss) == {id(fake)}
    loss.backward()

    assert_same(snapshot(adversary), before, but=COUNTERS)
    assert_same((real, fake, condition), given)
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_discriminator_step_leaves_the_script_alone(name: str) -> None:
    adversary = adversary_of(name)
    gradients = [copied(p.grad) for p in adversary.discriminator.parameters()]
    flags = [(p.requires_grad, p.is_leaf) for p in adversary.discriminator.parameters()]
    source = samples(name).requires_grad_()
    real, fake, condition = samples(name), source * 1.0, condition_for(name)
    fake.retain_grad()
    given, random_state = copied((real, fake, source, condition)), torch.get_rng_state()

    adversary.discriminator_step(real, fake, condition)

    assert_same((real, fake, source, condition), given)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert fake.grad is None
    assert source.grad is None
    assert not real.requires_grad
    assert_same([p.grad for p in adversary.discriminator.parameters()], gradients)
    assert [(p.requires_grad, p.is_leaf) for p in adversary.discriminator.parameters()] == flags
    fake.sum().backward()  # the model's graph is whole
    assert torch.equal(source.grad, torch.ones_like(source))


class WeightGradients(TorchDispatchMode):
    """Counts convolution backwards that computed a weight's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return function(*args, **(kwargs or {}))


def test_generator_backward_computes_no_weight_gradient() -> None:
    adversary = advloss.Adversary(patch(norm="spectral"), seed=0)
    fake = images().requires_grad_()
    loss = adversary.generator_loss(fake)
    with WeightGradients() as seen:
        loss.backward()
    assert len(seen.masks) == 3
    assert all(mask == [True, False, False] for mask in seen.masks)
    assert all(p.grad is None for p in adversary.discriminator.parameters())


@pytest.mark.parametrize("regularizers", [{}, {"r2": {}}, {"lecam": {}}, {"gradient-penalty": {}}])
def test_the_model_is_not_trained_to_help_the_discriminator(regularizers: dict[str, Any]) -> None:
    """A reconstruction that is not detached would also be trained by the discriminator's loss."""
    model = nn.Conv2d(3, 3, 1).double()
    adversary = advloss.Adversary(patch(), "hinge", regularizers, seed=0)
    adversary.discriminator_step(images(), model(images()))
    adversary.discriminator_loss(images(), model(images())).backward()
    assert all(p.grad is None for p in model.parameters())


class Pairs:
    """A paired loss that forgets to cut the real logits."""

    paired = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (fake_logits - real_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        return (real_logits - fake_logits).square().mean()


def test_gradient_does_not_reach_the_reals_of_a_paired_loss() -> None:
    """Reals may have a graph of their own, behind an encoder: the generator's loss is no business of theirs."""
    adversary = advloss.Adversary(patch(), Pairs(), seed=0)
    real, fake = images().requires_grad_(), images().requires_grad_()
    assert leaves_of(adversary.generator_loss(fake, real)) == {id(fake)}


@pytest.mark.parametrize("call", ["generator_loss", "discriminator_loss"])
def test_gradient_does_not_reach_a_condition(call: str) -> None:
    """An embedding that the script trains is no business of the adversary's loss."""
    options = {"width": 4, "resolution": 8, "condition_features": 2}
    adversary = advloss.Adversary(("projection", options), "hinge", seed=0)
    fake, condition = images(dtype=torch.float32).requires_grad_(), torch.randn(4, 2).requires_grad_()
    if call == "generator_loss":
        loss = adversary.generator_loss(fake, images(dtype=torch.float32), condition=condition)
    else:
        loss = adversary.discriminator_loss(images(dtype=torch.float32), fake, condition=condition)
    assert id(condition) not in leaves_of(loss)


def test_spectral_norm_is_moved_by_the_discriminators_turn_only() -> None:
    adversary = advloss.Adversary(patch(norm="spectral"), seed=0)
    vectors = [b.clone() for b in adversary.discriminator.buffers()]
    for _ in range(3):
        adversary.generator_loss(images().requires_grad_())
    assert_same(list(adversary.discriminator.buffers()), vectors)
    adversary.discriminator_step(images(), images())
    assert not all(torch.equal(b, v) for b, v in zip(adversary.discriminator.buffers(), vectors))


class Reassigns(nn.Module):
    """Buffers written in the three ways that people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(2, 1)
        for name in ("in_place", "assigned", "filled"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.in_place += 1
        self.assigned = self.assigned + 1
        self.filled.copy_(self.filled + 1)
        return self.dense(samples)


@pytest.mark.parametrize("call", ["discriminator_step", "discriminator_loss"])
def test_buffers_are_kept_however_a_discriminator_writes_them(call: str) -> None:
    discriminator = Reassigns()
    adversary = advloss.Adversary(discriminator, seed=0)
    adversary.generator_loss(torch.rand(4, 2))
    assert [float(b) for b in discriminator.buffers()] == [0, 0, 0]
    getattr(adversary, call)(torch.rand(4, 2), torch.rand(4, 2))
    assert [float(b) for b in discriminator.buffers()] == [2, 2, 2]


class Grows(nn.Module):
    """A buffer that a forward fills, registers or makes larger."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.dense, self.how = nn.Linear(2, 1), how
        if how != "registered":
            self.register_buffer("seen", None if how == "filled" else torch.zeros(1))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        if self.how == "registered" and not hasattr(self, "seen"):
            self.register_buffer("seen", samples.detach().mean(0))
        elif self.how == "filled" and self.seen is None:
            self.seen = samples.detach().mean(0)
        elif self.how == "larger":
            self.seen = torch.cat([self.seen, samples.detach().mean()[None]])
        return self.dense(samples)


@pytest.mark.parametrize("call", ["generator_loss", "discriminator_step", "discriminator_loss"])
@pytest.mark.parametrize("how", ["filled", "registered", "larger"])
def test_buffers_that_appear_or_grow_in_a_forward_are_refused(how: str, call: str) -> None:
    adversary = advloss.Adversary(Grows(how), seed=0)
    real, fake = torch.rand(2, 4, 2)
    before = snapshot(adversary)
    with pytest.raises(advloss.InputError, match=r"gave its buffer seen .*in __init__"):
        getattr(adversary, call)(real, fake)
    assert_same(snapshot(adversary), before)
    assert hasattr(adversary.discriminator, "seen") == (how != "registered")


class Renormalizes(nn.Module):
    """Writes to a parameter in its forward, as an embedding with max_norm does."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.dense = how, nn.Linear(2, 1)
        self.embedding = nn.Embedding(3, 2, max_norm=0.1 if how == "max_norm" else None)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        if self.how == "clamp_":
            with torch.no_grad():
                self.dense.weight.clamp_(-0.01, 0.01)
        return self.dense(samples) + self.embedding(torch.zeros(len(samples), dtype=torch.int64)).sum(1, keepdim=True)


@pytest.mark.parametrize("call", ["generator_loss", "discriminator_step", "discriminator_loss"])
@pytest.mark.parametrize(("how", "name"), [("max_norm", "embedding.weight"), ("clamp_", "dense.weight")])
def test_a_forward_that_writes_to_a_parameter_is_refused(how: str, name: str, call: str) -> None:
    adversary = advloss.Adversary(Renormalizes(how), seed=0)
    with pytest.raises(advloss.InputError, match=rf"writes to its parameter {name}"):
        getattr(adversary, call)(*torch.rand(2, 4, 2))
    healthy = advloss.Adversary(Renormalizes("not at all"), seed=0)
    getattr(healthy, call)(*torch.rand(2, 4, 2))


def test_cached_parametrizations_are_refused() -> None:
    """One turn's frozen weight would be taken in the other."""
    adversary, plain = advloss.Adversary(patch(norm="spectral"), seed=0), advloss.Adversary(patch(), seed=0)
    with nn.utils.parametrize.cached():
        for call in run_all(adversary)[:3]:
            with pytest.raises(advloss.CombinationError, match="leave the `with` block first"):
                call()
        for call in run_all(plain):
            call()
    for call in run_all(adversary):
        call()


def test_flags_of_a_partly_frozen_discriminator_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    discriminator = patch(norm="batch").eval()
    first = next(discriminator.parameters()).requires_grad_(False)
    start = first.clone()
    adversary = advloss.Adversary(discriminator, seed=0)
    adversary.generator_loss(images().requires_grad_()).backward()
    adversary.discriminator_step(images(), images())
    assert not discriminator.training
    assert not first.requires_grad
    assert torch.equal(first, start)
    assert first.grad is None


def run_all(adversary: advloss.Adversary) -> list[Callable[[], object]]:
    real, fake = images(), images()
    return [
        lambda: adversary.generator_loss(fake, real),
        lambda: adversary.discriminator_step(real, fake),
        lambda: adversary.discriminator_loss(real, fake),
        lambda: adversary.load_state_dict(copied(adversary.state_dict())),
    ]


def test_no_call_works_without_gradients_being_asked_for() -> None:
    """Under no_grad `generator_loss` is a number, for evaluation."""
    adversary = advloss.Adversary(patch(), seed=0)
    with torch.no_grad():
        value = adversary.generator_loss(images())
    assert not value.requires_grad


def test_every_call_leaves_the_global_random_state() -> None:
    adversary = advloss.Adversary(patch(), "wgan-gp", augmentations=["diffaugment", "instance-noise"], seed=0)
    for call in run_all(adversary):
        state = torch.get_rng_state()
        call()
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}])
def test_a_graph_of_before_a_step_is_not_differentiated_after_it(options: dict[str, bool]) -> None:
    """Its gradient would be of neither discriminator; a fused optimizer says nothing of having written."""
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3, **options)
    adversary = advloss.Adversary(patch(), "hinge", optimizer=optimizer, seed=0)
    fake = images().requires_grad_()
    loss = adversary.generator_loss(fake)
    adversary.discriminator_step(images(), fake)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_each_step_sees_the_one_before_it_under_the_scripts_autocast() -> None:
    """Autocast keeps what it has cast until its outermost block ends."""
    adversary = advloss.Adversary(patch(torch.float32), "wasserstein", optimizer=SGD, seed=0)
    real, fake = images(dtype=torch.float32), images(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [float(adversary.discriminator_step(real, fake).loss) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


def test_ctrl_c_waits_until_a_step_is_whole() -> None:
    """Weights without their buffers, counters and schedule would be a state that no run has."""
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    adversary, other = (
        advloss.Adversary(patch(norm="spectral"), "hinge", ["lecam"], optimizer=SGD, scheduler=schedule, seed=0)
        for _ in range(2)
    )
    other.load_state_dict(adversary.state_dict())
    real, fake = images(), images()
    other.discriminator_step(real, fake)
    hook = adversary.optimizer.register_step_post_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        adversary.discriminator_step(real, fake)
    hook.remove()
    assert_same(adversary.state_dict(), other.state_dict())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
