"""The checks of a discriminator's derivatives, and of `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector
from torch.utils._python_dispatch import TorchDispatchMode

from advloss._condition import Condition
from advloss._logits import as_scales, logit_sum
from advloss.testing._case import Case, DiscriminatorCases, forward, stirred
from advloss.testing._expect import expect, same

Function: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class DifferentiationTests(DiscriminatorCases):
    """Gradients by samples and by all trained parameters, in float64 and eval mode."""

    def test_gradient(self) -> None:
        """Gradients by samples and parameters agree with finite differences."""
        for case in self.cases:
            problem = self._problem(case)
            expect(not problem, f"{case}: {problem}")

    def test_double_backward(self) -> None:
        """The samples' gradient has gradients that agree with finite differences, or has none, as declared."""
        for case in self.cases:
            problem = self._problem(case, of=_sample_gradient)
            expect(
                (not problem) == self.spec.double_backward,
                f"{case}: double_backward={self.spec.double_backward} is declared, and it {problem or 'works'}",
            )

    def test_every_parameter_learns(self) -> None:
        """The loss reaches every parameter that requires gradients, and the samples."""
        for case, module, samples, condition in self.instances():
            samples.requires_grad_()
            names = [name for name, p in module.named_parameters() if p.requires_grad]
            expect(names, f"{case}: no parameter requires gradients")
            own = [p for p in module.parameters() if p.requires_grad]
            squares = logit_sum([scale.square() for scale in as_scales(forward(module, samples, condition))])
            gradients = torch.autograd.grad(squares, [samples, *own], allow_unused=True)
            idle = [name for name, g in zip(["samples", *names], gradients) if g is None]
            expect(not idle, f"{case}: no gradient reaches {', '.join(idle[:3])}")

    def test_compile(self) -> None:
        """Torch.compile takes it whole and gives the same logits and gradients, as declared."""
        for case, module, samples, condition in list(self.instances())[:1]:
            module.eval()
            problem = ""
            try:
                compiled: Any = torch.compile(module, backend="aot_eager", fullgraph=True)
                results = [_logits_and_gradient(m, samples, condition) for m in (compiled, module)]
                if not same(results[0], results[1], 1e-4):
                    problem = "gives other logits or gradients"
            except Exception as error:  # each stage of the compiler raises its own kind
                problem = f"fails: {type(error).__name__}: {_first_line(error)}"
            finally:
                torch._dynamo.reset()
            expect(
                (not problem) == self.spec.compiles,
                f"{case}: compiles={self.spec.compiles} is declared, and torch.compile {problem or 'works'}",
            )

    def _problem(self, case: Case, of: Callable[[Function], Function] = lambda logits: logits) -> str:
        """What is wrong with the gradient of the logits, or `of` something made of them; "" when it is right."""
        problem = ""
        for seed in range(3):  # other samples avoid a kink that lies within a step
            module = stirred(self.make(case.options))
            torch.manual_seed(seed)
            samples = case.samples(2)
            function, inputs = _double(module, samples, case.condition(samples))
            try:
                eps, atol, rtol = _step(function, inputs)
                gradcheck(of(function), inputs, eps=eps, atol=atol, rtol=rtol, fast_mode=True)
                return ""
            except RuntimeError as error:
                problem = _first_line(error)
        return problem


def _double(module: nn.Module, samples: Tensor, condition: Condition | None) -> tuple[Function, tuple[Tensor, Tensor]]:
    """Logits in float64 as a function of samples and of one vector of all trained parameters."""
    module = module.double().eval()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    own = [p.detach() for p in module.parameters() if p.requires_grad]
    args = () if condition is None else (_as_double(condition),)

    def function(x: Tensor, flat: Tensor) -> tuple[Tensor, ...]:
        parts = [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in own]), own)]
        return as_scales(functional_call(module, dict(zip(names, parts)), (x, *args)))

    return function, (samples.double().requires_grad_(), parameters_to_vector(own).requires_grad_())


def _sample_gradient(function: Function) -> Function:
    """The gradient by the samples, of logits in a random sum: what R1 and its kind differentiate.

    Not the parameters' gradient: nobody differentiates it, and of some layers (torch's weight norm) it cannot be.
    """

    def gradient(x: Tensor, flat: Tensor) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        parts = [t * torch.randn(t.shape, generator=generator).to(t) for t in function(x.requires_grad_(), flat)]
        return torch.autograd.grad(logit_sum(parts), x, create_graph=True)

    return gradient


class _Precision(TorchDispatchMode):
    """Notes whether anything inside is computed in less than float64, whatever the inputs."""

    narrow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.narrow |= isinstance(out, Tensor) and out.is_floating_point() and out.dtype != torch.float64
        return out


def _step(function: Function, inputs: tuple[Tensor, Tensor]) -> tuple[float, float, float]:
    """Step and tolerances of finite differences; larger where a layer computes in float32, as some norms insist on."""
    with _Precision() as precision:
        function(*inputs)
    return (1e-3, 1e-4, 1e-2) if precision.narrow else (1e-6, 1e-6, 1e-3)


def _as_double(condition: Condition) -> Condition:
    if isinstance(condition, Tensor):
        return condition.double() if condition.is_floating_point() else condition
    return {kind: part.double() if part.is_floating_point() else part for kind, part in condition.items()}


def _logits_and_gradient(module: nn.Module, samples: Tensor, condition: Condition | None) -> list[Tensor]:
    leaf = samples.detach().clone().requires_grad_()
    logits = as_scales(forward(module, leaf, condition))
    return [*logits, *torch.autograd.grad(logit_sum(logits), leaf)]


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
