"""The checks of a discriminator's derivatives, and of `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from advloss._condition import Condition
from advloss._logits import as_scales, logit_sum
from advloss.testing._case import Case, DiscriminatorCases, forward
from advloss.testing._component import expect, same


class DifferentiationTests(DiscriminatorCases):
    """Gradients by samples and by all trained parameters, in float64 and eval mode."""

    def test_gradient(self) -> None:
        """Gradients by samples and parameters agree with finite differences."""
        for case in self.cases:
            problem = self._problem(gradcheck, case)
            expect(not problem, f"{case}: {problem}")

    def test_double_backward(self) -> None:
        """Gradients of gradients agree with finite differences, or fail, as declared."""
        for case in self.cases:
            problem = self._problem(gradgradcheck, case)
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

    def _problem(self, check: Callable[..., bool], case: Case) -> str:
        """What `check` says of an instance; "" when it passes. Other samples avoid a kink that lies within a step."""
        problem = ""
        for seed in range(3):
            module = self.make(case.options)
            torch.manual_seed(seed)
            samples = case.samples(2)
            try:
                check(*_double(module, samples, case.condition(samples)), fast_mode=True, atol=1e-4, rtol=1e-3)
                return ""
            except RuntimeError as error:
                problem = _first_line(error)
        return problem


def _double(
    module: nn.Module, samples: Tensor, condition: Condition | None
) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, Tensor]]:
    """Logits in float64 as a function of samples and of one vector of all trained parameters."""
    module = module.double().eval()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    own = [p.detach() for p in module.parameters() if p.requires_grad]
    args = () if condition is None else (_as_double(condition),)

    def function(x: Tensor, flat: Tensor) -> tuple[Tensor, ...]:
        parts = [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in own]), own)]
        return as_scales(functional_call(module, dict(zip(names, parts)), (x, *args)))

    return function, (samples.double().requires_grad_(), parameters_to_vector(own).requires_grad_())


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
