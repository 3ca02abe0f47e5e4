"""The checks of regularizers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from advloss._adversary import Adversary
from advloss.errors import InputError
from advloss.testing._component import ComponentTests
from advloss.testing._expect import changed, expect, expect_flags, finite, flags_of, not_applicable, same, state_of
from advloss.testing._players import Curved, Linear, Once, SameNoise
from advloss.testing._world import expect_no_seeding, unchanged_world


class RegularizerTests(ComponentTests):
    """Name a regularizer in a subclass. Its checks run it on small discriminators of vectors."""

    kind = "regularizer"

    def regularizers(self) -> Iterable[tuple[dict[str, Any], Any]]:
        """Options, and a regularizer with them."""
        return [(options, self.make(options)) for options in self.options]

    def test_scalar(self) -> None:
        """Its term is a finite scalar, not negative, proportional to its weight and the same for each `every`."""
        for options, regularizer in self.regularizers():
            term = _term(regularizer, Curved())
            expect(
                isinstance(term, Tensor) and term.ndim == 0 and finite(term),
                f"with {options}: the term is {term}; return a finite scalar",
            )
            expect(term >= 0, f"with {options}: the term is negative ({float(term.detach()):.3g})")
            if "weight" in self.known_options:
                double = self.make({**options, "weight": 2 * regularizer.weight})
                expect(
                    same(_term(double, Curved()), 2 * term, 1e-5),
                    f"with {options}: twice the weight is not twice the term",
                )
            if "every" in self.known_options:
                lazy = self.make({**options, "every": 4})
                expect(
                    same(_term(lazy, Curved()), term, 1e-5),
                    f"with {options}: every=4 changes the term; the adversary multiplies by `every` where it is due",
                )

    def test_reaches_the_discriminator(self) -> None:
        """Its gradient reaches the discriminator's parameters, or it changes them after a step, as declared."""
        for options, regularizer in self.regularizers():
            player = Curved()
            reached = _reached(_term(regularizer, player), player)
            before = state_of(player)
            if hasattr(regularizer, "after_step"):
                with torch.no_grad():
                    player.first.weight.add_(100)
                    player.last.weight.add_(100)
                    before = state_of(player)
                regularizer.after_step(player, torch.zeros(4), torch.zeros(4))
            acts = bool(changed(player, before))
            expect(
                (reached, acts) == (not self.spec.constraint, self.spec.constraint),
                f"with {options}: constraint={self.spec.constraint} is declared; its gradient "
                f"{'reaches' if reached else 'does not reach'} the parameters, and after a step it "
                f"{'changes' if acts else 'does not change'} them",
            )

    def test_leaves_the_maker_alone(self) -> None:
        """No gradient reaches the samples' maker."""
        for options, regularizer in self.regularizers():
            maker = nn.Linear(3, 3)
            made = maker(torch.randn(4, 3))
            term = regularizer(Curved(), made * 1.5, made)
            if term.requires_grad:
                leaked = torch.autograd.grad(term, list(maker.parameters()), allow_unused=True)
                expect(
                    all(g is None or not g.any() for g in leaked),
                    f"with {options}: its gradient reaches the samples' maker: detach the samples",
                )

    def test_discriminator_stays_as_it_is(self) -> None:
        """Computing the term changes no parameter, gradient or flag of the discriminator, and no input."""
        for options, regularizer in self.regularizers():
            player, real, fake = Curved(), *_samples()
            before, flags = state_of(player), flags_of(player)
            with unchanged_world(real, fake):
                regularizer(player, real, fake)
            expect_flags(player, flags, f"with {options}: it")
            expect(not changed(player, before), f"with {options}: it changed {changed(player, before)}")
            left = [n for n, p in player.named_parameters() if p.grad is not None]
            expect(not left, f"with {options}: it left gradients on {left}: use torch.autograd.grad")
            expect_no_seeding(regularizer, player, real, fake)

    def test_accumulation(self) -> None:
        """The term of a batch is the mean over its halves, unless batch coupling is declared."""
        if self.spec.constraint:
            not_applicable("constraint is declared: it has no term")
        for options, regularizer in self.regularizers():
            real, fake = _samples(8)
            with SameNoise():
                whole = float(copy.deepcopy(regularizer)(Curved(), real, fake).detach())
            halves = []
            for part in (slice(0, 4), slice(4, 8)):
                with SameNoise():
                    halves.append(float(copy.deepcopy(regularizer)(Curved(), real[part], fake[part]).detach()))
            mean = (halves[0] + halves[1]) / 2
            exact, spec = abs(whole - mean) <= 1e-5 * (1 + abs(mean)), self.spec.batch_coupled
            expect(
                exact != spec,
                f"with {options}: batch_coupled={spec} is declared; the term of 8 samples is {whole:.6g}, and the "
                f"mean over two halves {mean:.6g}",
            )

    def test_slope(self) -> None:
        """A discriminator of the declared slope has no term, and a steeper one has."""
        if self.spec.constraint:
            not_applicable("constraint is declared: it has no term")
        spec = self.spec.slope
        for options, regularizer in self.regularizers():
            found = _free_slope(regularizer, spec or 0.0)
            expect(
                found == spec,
                f"with {options}: slope={spec} is declared; "
                + (
                    "the term does not depend on slopes, or vanishes for no slope, or for all"
                    if found is None
                    else f"the steepest slope without a term is {found}"
                ),
            )

    def test_zero_gradient(self) -> None:
        """A constant discriminator gives a finite gradient."""
        for options, regularizer in self.regularizers():
            player = Linear(0.0)
            term = _term(regularizer, player)
            gradients = (
                torch.autograd.grad(term, list(player.parameters()), allow_unused=True) if term.requires_grad else []
            )
            expect(
                all(g is None or finite(g) for g in gradients),
                f"with {options}: the gradient is not finite where the discriminator is constant: the root of a sum of "
                "squares has none at 0; take the norm of a vector, or add an epsilon inside",
            )

    def test_second_order(self) -> None:
        """It differentiates the discriminator twice only as declared."""
        for options, regularizer in self.regularizers():
            player = Once()
            try:
                term = _term(regularizer, player)
                needs = False
                if term.requires_grad:
                    term.backward()  # autograd.grad would cut off what cannot be differentiated, in silence
            except RuntimeError:
                needs = True
            expect(
                needs == self.spec.second_order,
                f"with {options}: second_order={self.spec.second_order} is declared, and it {'needs' if needs else 'needs no'} "
                "double backward",
            )
            said = getattr(regularizer, "second_order", None)
            expect((said is not None) == needs, f"with {options}: its attribute second_order is {said!r}")

    def test_condition(self) -> None:
        """Each sample reaches the discriminator with its own condition; numbers of reals and fakes may differ."""
        for options, regularizer in self.regularizers():
            for count, own in ((4, False), (4, True), (6, True)):
                player, real, fake = Curved(), _samples(4)[0], _samples(count)[1]
                numbers = torch.arange(4 + count) if own else torch.arange(4).repeat(2)
                try:
                    regularizer(player, real, fake, numbers[:4], numbers[4:] if own else None)
                except InputError as error:  # a term that joins reals to fakes may need as many, under one condition
                    expect(own, f"with {options}: it refuses a condition: {error}")
                    continue
                except Exception as error:
                    raise AssertionError(
                        f"with {options}: 4 real and {count} fake samples"
                        f"{' of other conditions' if own else ''} raise {type(error).__name__}: {error}; "
                        "take them, or raise InputError"
                    ) from error
                known = torch.cat([real, fake])
                for samples, condition in player.seen:
                    which = (samples[:, None] == known).all(2).nonzero()
                    expect(
                        condition is not None
                        and len(condition) == len(samples)
                        and torch.equal(condition[which[:, 0]], numbers[which[:, 1]]),
                        f"with {options}: it calls the discriminator with samples and not their condition; real ones "
                        "have `condition`, fake ones `fake_condition`, or where that is None `condition` as well",
                    )

    def test_saved_state(self) -> None:
        """A deep copy, and a new instance that loads the state, give the same term."""
        for options, regularizer in self.regularizers():
            _term(regularizer, Curved())
            others = [copy.deepcopy(regularizer)]
            if isinstance(regularizer, nn.Module):
                others.append(self.make(options))
                others[1].load_state_dict(regularizer.state_dict())
            term = _term(copy.deepcopy(regularizer), Curved())
            for other in others:
                expect(
                    same(_term(other, Curved()), term),
                    f"with {options}: a copy gives another term: keep what changes in buffers",
                )

    def test_training(self) -> None:
        """An adversary takes it by name: three steps."""
        for options in self.options:
            adversary = Adversary(Curved(), "non-saturating", [(self.entry.full_name, options)], seed=0)
            for _ in range(3):
                report = adversary.discriminator_step(*_samples())
                expect(not report.skipped, f"with {options}: a step was not finite")


def _samples(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator) - 0.5


def _term(regularizer: Any, player: nn.Module) -> Tensor:
    torch.manual_seed(0)
    term: Tensor = regularizer(player, *_samples())
    return term


def _value(regularizer: Any, player: nn.Module) -> float:
    return float(_term(regularizer, player).detach())


def _free_slope(regularizer: Any, declared: float) -> float | None:
    """The largest slope that has no term (a one-sided penalty leaves smaller ones alone as well).

    None for a term that does not look at slopes: samples do not matter to it, or no slope or every slope is free.
    """
    real, fake = _samples()
    torch.manual_seed(0)
    elsewhere = copy.deepcopy(regularizer)(Curved(), 2 * real, 2 * fake)
    if same(_term(copy.deepcopy(regularizer), Curved()), elsewhere):
        return None
    steep = 3.0 + declared
    free = [
        slope
        for slope in (0.0, 1.0, declared, steep)
        if all(_value(regularizer, Linear(slope, offset)) < 1e-9 for offset in (0.0, 2.0, -2.0))
    ]
    return None if steep in free else max(free, default=None)


def _reached(term: Tensor, player: nn.Module) -> bool:
    if not term.requires_grad:
        return False
    gradients = torch.autograd.grad(term, list(player.parameters()), allow_unused=True)
    return any(g is not None and bool(g.any()) for g in gradients)
