"""The checks of losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck

from advloss._create import build_all
from advloss.errors import InputError
from advloss.testing._component import ComponentTests, expect_full_names
from advloss.testing._expect import expect, fails, finite, not_applicable, same
from advloss.testing._world import expect_no_seeding, unchanged_world


class LossTests(ComponentTests):
    """Name a loss in a subclass."""

    kind = "loss"

    def losses(self) -> Iterable[tuple[dict[str, Any], Any]]:
        """Options, and a loss with them."""
        return [(options, self.make(options)) for options in self.options]

    def test_scalars(self) -> None:
        """Both terms are finite scalars, for single logits, for maps and for several scales."""
        for options, loss in self.losses():
            for shape in ((4,), (4, 1, 3, 3), (1,)):
                for logits in (torch.randn(2, *shape), [torch.randn(2, *shape), torch.randn(2, *shape[:1])]):
                    real, fake = (logits[0], logits[1]) if isinstance(logits, Tensor) else zip(*logits)
                    for term in (loss.discriminator(real, fake), loss.generator(fake, real)):
                        expect(
                            isinstance(term, Tensor) and term.ndim == 0 and finite(term),
                            f"with {options}: logits {shape} gave {term}; return a finite scalar",
                        )

    def test_scales(self) -> None:
        """Every scale of a list counts, in both terms."""
        for options, loss in self.losses():
            real, fake = ([_logits(centre) for _ in range(3)] for centre in (0.3, -0.2))
            for name, term in {
                "discriminator": loss.discriminator(real, fake),
                "generator": loss.generator(fake, [scale.detach() for scale in real]),
            }.items():
                gradients = torch.autograd.grad(term, fake, allow_unused=True)
                idle = [i for i, g in enumerate(gradients) if g is None or not g.any()]
                expect(not idle, f"with {options}: the {name}'s term ignores the scales {idle} of 3")

    def test_means(self) -> None:
        """A term is a mean over samples: a batch that is there twice has the same."""
        for options, loss in self.losses():
            real, fake = _logits(0.3, 24).detach(), _logits(-0.2, 24).detach()
            twice = [torch.cat([logits, logits]) for logits in (real, fake)]
            tolerance = 0.2 if self.spec.batch_coupled else 1e-9  # an unbiased variance depends on the number
            for name, one, two in (
                ("discriminator", loss.discriminator(real, fake), loss.discriminator(*twice)),
                ("generator", loss.generator(fake, real), loss.generator(twice[1], twice[0])),
            ):
                expect(
                    bool((one - two).abs() <= tolerance * one.abs()),
                    f"with {options}: the {name}'s term is {float(one):.4g}, and {float(two):.4g} for the batch twice; "
                    "take means over samples",
                )

    def test_direction(self) -> None:
        """The generator's step raises fake logits; the discriminator's raises real ones and lowers fake ones."""
        for options, loss in self.losses():
            low, high = _logits(-0.5), _logits(0.5)
            (by_fake,) = torch.autograd.grad(loss.generator(low, high.detach()), low)
            expect(by_fake.sum() < 0, f"with {options}: a generator step lowers the fake logits: turn the sign")
            real, fake = _logits(-0.5), _logits(0.5)
            by_real, by_fake = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
            expect(by_real.sum() < 0, f"with {options}: a discriminator step lowers real logits: turn the sign")
            expect(by_fake.sum() > 0, f"with {options}: a discriminator step raises fake logits: turn the sign")

    def test_gradients(self) -> None:
        """Gradients agree with finite differences."""
        for options, loss in self.losses():
            real, fake = _logits(0.3), _logits(-0.2)
            terms = {
                "discriminator": lambda r, f, loss=loss: loss.discriminator(r, f),
                "generator": lambda r, f, loss=loss: loss.generator(f, r.detach()),
            }
            for name, term in terms.items():
                inputs = (real, fake) if name == "discriminator" else (real.detach(), fake)
                try:
                    gradcheck(term, inputs)
                except RuntimeError as error:
                    message = " ".join(str(error).split())[:200]
                    raise AssertionError(f"with {options}: the {name}'s gradient is wrong: {message}") from error

    def test_equilibrium(self) -> None:
        """Where real and fake samples are alike, the discriminator's loss is least at the declared logit."""
        loss, at = self.make(self.options[0]), self.spec.equilibrium
        logits = torch.linspace(-3, 3, 241, dtype=torch.float64)
        values = torch.stack([loss.discriminator(x.expand(4), x.expand(4)) for x in logits])
        near = values[logits.abs() <= 0.25]
        flat = bool(near.max() - near.min() <= 1e-9 * (1 + near.abs().max()))
        least = float(logits[values.argmin()])
        expect(
            flat == (at is None) and (at is None or abs(least - at) <= 0.025),
            f"equilibrium={at} is declared; D(x, x) is "
            + ("the same for all x near 0" if flat else f"least at x = {least:.3f}"),
        )

    def test_broadcasting_is_refused(self) -> None:
        """Logits of different shapes raise InputError and are not broadcast."""
        for options, loss in self.losses():
            pairs = [((4,), (4, 1)), ((4, 1, 3, 3), (4, 1, 3, 1)), ((4, 1, 3, 3), (4, 1, 1, 1))]
            for one, other in pairs + ([((4,), (1,))] if loss.paired else []):
                real, fake = torch.randn(one), torch.randn(other)
                for name, call in {
                    "discriminator": (loss.discriminator, real, fake),
                    "generator": (loss.generator, fake, real),
                }.items():
                    expect(
                        (name == "generator" and not loss.paired) or fails(*call, error=InputError),
                        f"with {options}: {name} took real logits {one} with fake logits {other}; raise InputError",
                    )
            scales = [torch.randn(4)] * 2
            refused = fails(loss.discriminator, scales, scales[:1], error=InputError)
            expect(refused, f"with {options}: two scales of real logits were compared with one of fake logits")

    def test_paired(self) -> None:
        """The generator's term needs real logits when `paired` is declared, and ignores them otherwise."""
        for options, loss in self.losses():
            said, spec = getattr(loss, "paired", None), self.spec.paired
            expect(said == spec, f"with {options}: paired={spec} is declared, and the loss has paired={said}")
            fake = _logits(0.0).detach()
            terms = [loss.generator(fake, _logits(shift).detach()) for shift in (0.0, 1.0)]
            differ = not same(terms[0], terms[1])
            expect(
                differ == spec,
                f"with {options}: paired={spec} is declared; real logits {'' if differ else 'do not '}matter",
            )
            if spec:
                alone = fails(loss.generator, fake, error=InputError)
                expect(alone, f"with {options}: without real logits the generator's term must raise InputError")
            else:
                expect(same(loss.generator(fake), terms[0]), f"with {options}: generator(fake) needs real logits")

    def test_batch_coupling(self) -> None:
        """A sample's gradient depends on the others of its batch only as declared."""
        for options, loss in self.losses():
            gradients = []
            for shift in (0.0, 0.7):
                real, fake = (_logits(c).detach() for c in (0.3, -0.2))
                real[1:] -= shift
                fake[1:] += shift
                inputs = [real.requires_grad_(), fake.requires_grad_()]
                by_both = torch.autograd.grad(loss.discriminator(*inputs), inputs)
                by_fake = torch.autograd.grad(loss.generator(fake, real.detach()), [fake])
                gradients.append([g[:1] for g in by_both + by_fake])
            coupled, spec = not same(gradients[0], gradients[1], 1e-9), self.spec.batch_coupled
            expect(
                coupled == spec,
                f"with {options}: batch_coupled={spec} is declared, and a sample's gradient "
                f"{'depends' if coupled else 'does not depend'} on the others",
            )

    def test_extreme_logits(self) -> None:
        """Terms and gradients are finite for logits of 1000."""
        for options, loss in self.losses():
            for sign in (1, -1):
                real, fake = (torch.full((4,), 1000.0 * s, requires_grad=True) for s in (sign, -sign))
                for term in (loss.discriminator(real, fake), loss.generator(fake, real.detach())):
                    gradients = torch.autograd.grad(term, [real, fake], allow_unused=True)
                    good = finite(term) and all(g is None or finite(g) for g in gradients)
                    expect(good, f"with {options}: logits of {1000 * sign} give {term}; use softplus, not log")

    def test_global_state(self) -> None:
        """It changes neither global state nor the logits."""
        for _, loss in self.losses():
            real, fake = torch.randn(4), torch.randn(4)
            with unchanged_world(real, fake):
                loss.discriminator(real, fake)
                loss.generator(fake, real)
            expect_no_seeding(loss.discriminator, real, fake)
            expect_no_seeding(loss.generator, fake, real)

    def test_regularizers(self) -> None:
        """The regularizers that it brings can be built, and are named in full."""
        if not self.spec.regularizers:
            not_applicable("it brings none")
        build_all("regularizer", self.spec.regularizers)
        expect_full_names(list(self.spec.regularizers), "regularizers")


def _logits(centre: float, count: int = 6) -> Tensor:
    """Different logits around `centre`, in float64, none at a kink of the usual losses."""
    spread = torch.linspace(-0.37, 0.41, count, dtype=torch.float64)
    return (spread + centre).requires_grad_()
