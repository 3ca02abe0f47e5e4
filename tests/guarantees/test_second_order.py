"""Guarantee 9: a second-order term ends in a right gradient or in a refusal that names the finite-difference form."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from catalogue import Combination, combinations
from core_tools import assert_same, built_in
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import advloss
from advloss._registry import find


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_each_discriminator_has_a_double_backward_or_says_that_it_has_none(name: str) -> None:
    """gradgradcheck along one random direction of the samples; a small step, as kinks of 100 000 leaky units lie dense."""
    combination = Combination(name, "hinge")
    module = combination.adversary().discriminator.eval()
    samples, condition = combination.samples(2), combination.condition(2)
    along = torch.randn_like(samples)

    def logits(t: Tensor) -> Tensor:
        return sum(s.tanh().sum() for s in advloss.as_scales(module(samples + t * along, condition)))

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    if find("discriminator", name).spec.double_backward:
        assert gradgradcheck(logits, (t,), eps=1e-7, atol=1e-3, rtol=1e-2, nondet_tol=1e-12)
    else:
        with pytest.raises(advloss.CombinationError, match="method='finite-difference'"):
            combination_with("r1", name)
        assert not any(c.regularizer == "r1" and not c.way for c in combinations([name]))


def combination_with(regularizer: str, name: str) -> advloss.Adversary:
    return Combination(name, "hinge", regularizer).adversary()


class Quadratic(nn.Module):
    """D(x) = x'Ax / 2 + b'x, whose gradient is Ax + b."""

    def __init__(self) -> None:
        super().__init__()
        root = torch.randn(4, 4, dtype=torch.float64)
        self.matrix, self.vector = nn.Parameter(root + root.T), nn.Parameter(torch.randn(4, dtype=torch.float64))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return ((samples @ self.matrix) * samples).sum(1) / 2 + samples @ self.vector


def test_finite_difference_r1_is_within_one_percent_of_the_exact_one() -> None:
    """Averaged over enough noise: E (D(x + s e) - D(x))^2 / s^2 is ||grad D||^2 up to s^2."""
    discriminator, samples = Quadratic(), torch.randn(1_000_000, 4, dtype=torch.float64)
    expected = 0.5 * (samples @ discriminator.matrix + discriminator.vector).square().sum(1).mean()
    exact = advloss.create_regularizer("r1", weight=1.0)(discriminator, samples, samples)
    near = advloss.create_regularizer("r1", weight=1.0, method="finite-difference")(discriminator, samples, samples)
    assert torch.allclose(exact, expected, rtol=1e-12)
    assert torch.allclose(near, exact, rtol=0.01)
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad(term, list(discriminator.parameters()))])
        for term in (near, exact)
    )
    assert (ours - theirs).norm() < 0.01 * theirs.norm()


# -- preflight ----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """A transformer of one layer; `mode` says how its activations are checkpointed: not, or reentrant or not."""

    def __init__(self, mode: bool | None = None, spectral: bool = False) -> None:
        super().__init__()
        dense = nn.Linear(8, 24)
        self.mode = mode
        self.mix = nn.utils.parametrizations.spectral_norm(dense) if spectral else dense
        self.head = nn.Linear(8, 1)
        self.double()

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        mixed = (
            self._attend(samples) if self.mode is None else checkpoint(self._attend, samples, use_reentrant=self.mode)
        )
        return self.head(mixed).mean(1)

    def _attend(self, samples: Tensor) -> Tensor:
        query, key, value = self.mix(samples).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def tokens() -> Tensor:
    return torch.randn(3, 5, 8, dtype=torch.float64)


def gradients(discriminator: nn.Module, regularizers: Any, real: Tensor, fake: Tensor) -> list[Tensor]:
    adversary = advloss.Adversary(discriminator, "hinge", regularizers, seed=0)
    loss = adversary.discriminator_loss(real, fake)
    return list(torch.autograd.grad(loss, list(discriminator.parameters())))


@pytest.mark.parametrize("backend", list(SDPBackend.__members__.values())[1:])
@pytest.mark.parametrize("name", ["r1", "r2", "gradient-penalty", "dragan"])
def test_attention_is_differentiated_twice_whatever_backend_the_script_chose(name: str, backend: SDPBackend) -> None:
    plain, real, fake = Attention(), tokens(), tokens()
    with sdpa_kernel(SDPBackend.MATH):
        expected = gradients(copy.deepcopy(plain), [name], real, fake)
    with sdpa_kernel(backend):
        found = gradients(plain, [name], real, fake)
    for one, other in zip(found, expected):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("regularizers", [[], ["r1"], [("r1", {"method": "finite-difference"})]])
@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_checkpointed_activations(mode: bool, spectral: bool, regularizers: Any) -> None:
    """Right where the forward can be repeated (no buffers, not reentrant), refused where it cannot."""
    checkpointed, real, fake = Attention(mode, spectral), tokens(), tokens()
    plain = copy.deepcopy(checkpointed)
    plain.mode = None
    if mode or spectral:
        with pytest.raises(advloss.CombinationError, match=r"checkpoints activations.*finite-difference"):
            gradients(checkpointed, regularizers, real, fake)
    else:
        for module in (checkpointed, plain):
            advloss.Adversary(module, "hinge", regularizers, seed=0).discriminator_step(real, fake)
        pairs = zip(checkpointed.parameters(), plain.parameters())
        assert all(torch.allclose(one, other, rtol=0, atol=1e-12) for one, other in pairs)
    buffers = [b.clone() for b in checkpointed.buffers()]
    with pytest.raises(advloss.CombinationError, match="Switch checkpointing off"):
        advloss.Adversary(checkpointed, seed=0).generator_loss(fake.requires_grad_())
    assert all(map(torch.equal, checkpointed.buffers(), buffers))
    assert all(p.grad is None for p in checkpointed.parameters())


def test_a_scripts_own_saved_tensor_hooks_stay_in_force() -> None:
    adversary, samples = advloss.Adversary(Attention(None, True), "hinge", ["r1"], seed=0), tokens()
    with torch.autograd.graph.save_on_cpu():
        adversary.generator_loss(samples.requires_grad_()).backward()
        assert not adversary.discriminator_step(samples, samples).skipped


def compiled(whole: bool) -> nn.Module:
    module = Attention()
    if whole:
        return torch.compile(module, backend="eager")  # type: ignore[return-value]
    module.mix.compile(backend="eager")
    return module


def synchronized() -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(40, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return nn.SyncBatchNorm.convert_sync_batchnorm(layers).double()


@pytest.mark.parametrize("make", [lambda: compiled(True), lambda: compiled(False), synchronized])
@pytest.mark.parametrize("name", ["r1", "r2", "gradient-penalty", "dragan"])
def test_what_has_no_double_backward_is_refused(make: Any, name: str) -> None:
    with pytest.raises(advloss.CombinationError, match=r"no double backward.*method='finite-difference'"):
        advloss.Adversary(make(), "hinge", [name])


class CompiledFunction(nn.Module):
    """Compiles a function, which no module tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
        self.bend = [torch.compile(torch.tanh, backend="aot_eager")]

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.head(self.bend[0](self.inner(samples))).squeeze(1)


def test_a_compiled_function_inside_is_refused_at_its_first_turn_and_nothing_changes() -> None:
    adversary = advloss.Adversary(CompiledFunction(), regularizers=["r1"], seed=0)
    before = copy.deepcopy(adversary.state_dict())
    with pytest.raises(advloss.CombinationError, match=r"double backward.*method='finite-difference'"):
        adversary.discriminator_step(torch.randn(8, 4), torch.randn(8, 4))
    assert_same(adversary.state_dict(), before)


def test_compiled_discriminators_train_with_finite_differences() -> None:
    plain, real, fake = Attention(), tokens(), tokens()
    regularizers = [("r1", {"method": "finite-difference"})]
    expected = gradients(copy.deepcopy(plain), regularizers, real, fake)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = gradients(torch.compile(plain, backend="eager"), regularizers, real, fake)  # type: ignore[arg-type]
    assert all(torch.allclose(one, other, rtol=1e-10) for one, other in zip(found, expected))


@pytest.fixture
def one_process_group(tmp_path: Any) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, samples: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(samples, weight)
        return (samples * weight).tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        samples, weight = ctx.saved_tensors
        inner = slope * (1 - (samples * weight).tanh() ** 2)
        return inner * weight, (inner * samples).sum(0)


class OnceDifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 1)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.head(_Once.apply(samples, self.weight)).squeeze(1)


def test_a_backward_that_is_once_differentiable_is_refused_and_nothing_changes() -> None:
    """torch.autograd.grad by parameters would leave out what lies behind it, in silence."""
    adversary = advloss.Adversary(OnceDifferentiable(), regularizers={"r1": {"weight": 10.0, "every": 2}})
    before = copy.deepcopy(adversary.state_dict())
    with pytest.raises(advloss.CombinationError, match=r"'r1'.*once_differentiable.*method='finite-difference'"):
        adversary.discriminator_step(torch.randn(8, 4), torch.randn(8, 4))
    after = adversary.state_dict()
    assert after["counters"] == before["counters"]
    assert all(torch.equal(value, before["discriminator"][name]) for name, value in after["discriminator"].items())
    finite = {"r1": {"weight": 10.0, "method": "finite-difference"}}
    advloss.Adversary(OnceDifferentiable(), regularizers=finite).discriminator_step(
        torch.randn(8, 4), torch.randn(8, 4)
    )


@pytest.mark.parametrize("wrapper", ["DistributedDataParallel", "FSDP2"])
def test_wrapped_discriminators_are_refused(wrapper: str, one_process_group: Any) -> None:
    if wrapper == "FSDP2":
        from torch.distributed.fsdp import fully_shard

        module: nn.Module = fully_shard(Attention(), mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    else:
        module = nn.parallel.DistributedDataParallel(Attention())
    with pytest.raises(advloss.CombinationError, match=rf"wrapped in {wrapper}.*give it bare.*finite-difference"):
        advloss.Adversary(module, "hinge", ["r1"])
