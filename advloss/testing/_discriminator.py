"""The checks of discriminators."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from advloss._adversary import Adversary
from advloss._condition import Condition
from advloss._features import FeatureDiscriminator
from advloss._inputs import CONDITION_OPTIONS
from advloss._logits import as_scales, logit_sum
from advloss.testing._case import KINDS, DiscriminatorCases, forward, stirred
from advloss.testing._differentiation import DifferentiationTests
from advloss.testing._expect import changed, copied, expect, fails, finite, not_applicable, same, state_of
from advloss.testing._state import StateTests


class DiscriminatorTests(DifferentiationTests, StateTests, DiscriminatorCases):
    """Name a discriminator in a subclass. Its checks run small instances: the spec's `examples`."""

    def test_defaults_are_as_declared(self) -> None:
        """Size and batch coupling of an instance with default options are those of the spec."""
        spec, known = self.spec, self.known_options
        loads = "pretrained" in known and known["pretrained"].default is True
        expect(
            loads == spec.pretrained, f"pretrained={spec.pretrained} is declared; the option's default is not the same"
        )
        if any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in known.values()):
            not_applicable("it has options without a default")
        try:
            module = self.make({"pretrained": False} if loads else {})
        except TypeError as error:
            not_applicable(f"it needs options: {error}")
        for name in ("smallest", "batch_coupled"):
            has = getattr(module, name, getattr(spec, name))
            expect(has == getattr(spec, name), f"{name}={getattr(spec, name)} is declared, and an instance has {has}")
        fixed = getattr(module, "resolution", None) is not None
        expect(
            fixed == spec.fixed_size,
            f"fixed_size={spec.fixed_size} is declared, and an instance has {'a' if fixed else 'no'} resolution",
        )

    def test_dimensions(self) -> None:
        """Samples of each declared number of dimensions give finite logits of the declared form; others are refused."""
        for case, module, samples, condition in self.instances():
            expect(case.dims in self.spec.dims, f"{case}: it takes dims={case.dims}, which is not declared")
            logits = forward(module, samples, condition)
            self.expect_form(case, logits, len(samples))
            expect(finite(logits), f"{case}: logits are not finite")
        missing = set(self.spec.dims) - {case.dims for case in self.cases}
        expect(not missing, f"no example shows dims={sorted(missing)}: add one to the spec")
        for dims in {0, 1, 2, 3} - set(self.spec.dims):
            if "dims" in self.known_options:
                expect(fails(self.make, {**self.options[0], "dims": dims}), f"dims={dims} works and is not declared")

    def test_batch_of_one(self) -> None:
        """One sample gives finite logits, in training and in eval mode."""
        for case, module, samples, condition in self.instances(1):
            for mode in (True, False):
                logits = forward(module.train(mode), samples, condition)
                self.expect_form(case, logits, 1)
                expect(finite(logits), f"{case}: logits of a batch of one are not finite")

    def test_sizes(self) -> None:
        """Odd and unequal sides down to the smallest one work, and nothing below."""
        for case, module, _, _ in self.instances():
            if case.fixed or case.dims == 0:
                continue
            for more in (0, 1, 2, 3, 5, 7):
                sides = (case.side + more, *(case.side + (more + 1) // 2,) * (case.dims - 1))
                samples = case.samples(2, sides)
                logits = forward(module, samples, case.condition(samples))
                self.expect_form(case, logits, 2)
                expect(finite(logits), f"{case}: logits are not finite for sides {sides}")
            below = case.samples(2, (case.side - 1,) * case.dims)
            expect(
                case.side == 1 or fails(_expect_logits, module, below, case.condition(below)),
                f"{case}: sides of {case.side - 1} work, and smallest={case.side} is declared",
            )

    def test_autocast(self) -> None:
        """Bfloat16 autocast gives finite logits near those of float32."""
        for case, module, samples, condition in self.instances():
            module.eval()
            wide = forward(module, samples, condition)
            with torch.autocast("cpu", torch.bfloat16):
                half = forward(module, samples, condition)
            self.expect_form(case, half, len(samples))
            expect(
                same([t.float() for t in as_scales(half)], as_scales(wide), 0.1),
                f"{case}: logits under bfloat16 autocast are far from those in float32",
            )

    def test_conditions(self) -> None:
        """Each declared kind of condition matters, alone or in a mapping, and no other one does."""
        shown = set()
        for case, module, samples, condition in self.instances():
            module.eval()
            logits = forward(module, samples, condition)
            for kind in KINDS:
                if kind in case.takes:
                    shown.add(kind)
                    expect(kind in self.spec.conditions, f"{case}: it takes a {kind} condition, which is not declared")
                    parts = case.parts(samples)
                    expect(
                        same(forward(module, samples, parts), logits),
                        f"{case}: a mapping with {sorted(parts)} is not the same as the condition itself",
                    )
                    other = {**parts, kind: case.part(kind, samples, shift=1)}
                    expect(
                        not same(forward(module, samples, other), logits),
                        f"{case}: logits do not depend on the {kind} condition, which is declared",
                    )
                elif not case.takes:
                    given = case.part(kind, samples)
                    refused = fails(forward, module, samples, given)
                    ignored = refused or same(forward(module, samples, given), logits)
                    expect(ignored, f"{case}: a {kind} condition changes the logits, and the module does not say so")
        missing = set(self.spec.conditions) - shown
        expect(not missing, f"no example shows the condition kinds {sorted(missing)}: add one to the spec")
        takes = {kind for kind, option in CONDITION_OPTIONS.items() if option in self.known_options}
        undeclared = takes - set(self.spec.conditions)
        expect(not undeclared, f"it has options for the condition kinds {sorted(undeclared)}, which are not declared")

    def test_batch_coupling(self) -> None:
        """A sample's logits depend on the others of its batch only as declared."""
        for case, module, samples, condition in self.instances():
            coupled = False
            for kept in (0, -1):  # a sum along the batch couples the last one, and leaves the first alone
                others = case.samples(len(samples))
                others[kept] = samples[kept]
                logits = []
                for batch in (samples, others):
                    torch.manual_seed(0)
                    logits.append([scale[kept] for scale in as_scales(forward(copied(module), batch, condition))])
                coupled |= not same(logits[0], logits[1], 1e-5)
            expect(
                coupled == case.batch_coupled,
                f"{case}: batch_coupled={case.batch_coupled} is declared, and a sample's logits "
                f"{'' if coupled else 'do not '}depend on the others",
            )

    def test_extreme_samples(self) -> None:
        """Logits and their gradients are finite on constant, equal, saturated and far too large samples."""
        for case, module, samples, condition in self.instances():
            low, high = case.value_range
            odd = {
                "constant": samples * 0,
                "equal": samples[:1].expand_as(samples),
                "saturated": torch.where(samples > (low + high) / 2, high, low),
                "100 times too large": samples * 100,
            }
            for name, given in odd.items():
                leaf = given.detach().clone().requires_grad_()
                logits = forward(module, leaf, condition)
                expect(finite(logits), f"{case}: logits of {name} samples are not finite")
                (gradient,) = torch.autograd.grad(logit_sum(logits), leaf)
                expect(finite(gradient), f"{case}: the gradient by {name} samples is not finite")

    def test_raw_logits(self) -> None:
        """Logits are no probabilities and not squashed: with other weights they leave [-1, 1] on both sides."""
        for case, module, samples, condition in self.instances():
            module.eval()
            weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
            lowest, highest = 0.0, 0.0
            for size in (1, 2, 4, 8):
                noise = [size * torch.randn_like(weight) for weight in weights]
                for sign in (1, -2):  # to one side, then as far to the other
                    with torch.no_grad():
                        for weight, change in zip(weights, noise):
                            weight.add_(change, alpha=sign)
                        scales = as_scales(forward(module, samples, condition))
                    lowest = min(lowest, *(float(scale.min()) for scale in scales))
                    highest = max(highest, *(float(scale.max()) for scale in scales))
            expect(
                lowest < -1 and highest > 1,
                f"{case}: whatever its weights, logits stay in [{lowest:.3g}, {highest:.3g}]; return them before any "
                "sigmoid, tanh or logarithm",
            )

    def test_frozen_features(self) -> None:
        """It is a `FeatureDiscriminator` when it declares features, and only then."""
        for case, module, *_ in self.instances():
            expect(
                isinstance(module, FeatureDiscriminator) == self.spec.features,
                f"{case}: features={self.spec.features} is declared, and this is a {type(module).__name__}",
            )

    def test_training(self) -> None:
        """An adversary takes it by name: a generator step and a discriminator step."""
        for case, _, samples, condition in self.instances():
            state = random.getstate()
            adversary = Adversary((self.entry.full_name, case.options), "hinge", seed=0)
            before = state_of(stirred(adversary.discriminator))
            fake = samples.clone().requires_grad_()
            adversary.generator_loss(fake, condition=condition).backward()
            gradient = fake.grad
            useful = gradient is not None and finite(gradient) and bool(gradient.any())
            expect(useful, f"{case}: the generator's gradient is zero or not finite")
            report = adversary.discriminator_step(case.samples(), fake, condition)
            expect(not report.skipped, f"{case}: the discriminator's step was not finite")
            expect(changed(adversary.discriminator, before), f"{case}: the discriminator's step changed nothing")
            expect(random.getstate() == state, f"{case}: Python's random state has moved")


def _expect_logits(module: nn.Module, samples: Tensor, condition: Condition | None) -> None:
    logits = as_scales(forward(module, samples, condition))
    expect(all(scale.numel() for scale in logits) and finite(logits), "there are no finite logits")
