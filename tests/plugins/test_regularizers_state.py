"""LeCam and weight clipping, which keep or change state, and what all specs say."""

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call

from advloss import OptionError, Regularizer
from advloss_regularizers import LeCam, WeightClipping
from advloss_regularizers._plugin import advloss_regularizers

DOUBLE = torch.float64
R = torch.tensor([0.5, -1.2, 2.0], dtype=DOUBLE)
F = torch.tensor([0.3, -0.7, 1.5], dtype=DOUBLE)


def identity(samples, condition=None):
    return samples


def lecam(real=0.0, fake=0.0, **options):
    regularizer = LeCam(**options).double()
    regularizer.ema_real.fill_(real)
    regularizer.ema_fake.fill_(fake)
    return regularizer


class TextbookLeCam:
    """Loops over logits; the averages are plain numbers."""

    def __init__(self, weight, decay):
        self.weight, self.decay, self.real, self.fake = weight, decay, 0.0, 0.0

    def __call__(self, discriminator, real, fake):
        reals, fakes = discriminator(real).flatten(), discriminator(fake).flatten()
        term = sum(torch.clamp(r - self.fake, min=0) ** 2 for r in reals) / len(reals)
        term = term + sum(torch.clamp(self.real - f, min=0) ** 2 for f in fakes) / len(fakes)
        self.real = self.decay * self.real + (1 - self.decay) * sum(reals.tolist()) / len(reals)
        self.fake = self.decay * self.fake + (1 - self.decay) * sum(fakes.tolist()) / len(fakes)
        return self.weight * term


class TestLeCam:
    def test_golden_value(self):
        assert lecam(0.2, -0.1, weight=1.0)(identity, R, F).item() == pytest.approx(1.86)
        assert lecam(0.2, -0.1)(identity, R, F).item() == pytest.approx(0.3 * 1.86)

    def test_lock_step(self):
        def player(loss):
            torch.manual_seed(0)
            discriminator = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
            return discriminator, loss, torch.optim.Adam(discriminator.parameters(), 0.05, betas=(0.0, 0.9))

        ours, twin = lecam(weight=0.7, decay=0.8), TextbookLeCam(0.7, 0.8)
        players = [player(lambda d, *args: ours(lambda x, c: d(x), *args)), player(twin)]
        for step in range(6):
            values = []
            for discriminator, loss, optimizer in players:
                generator = torch.Generator().manual_seed(step)
                samples = [torch.randn(n, 4, dtype=DOUBLE, generator=generator) + n for n in (3, 5)]
                optimizer.zero_grad()
                values.append(loss(discriminator, *samples))
                values[-1].backward()
                optimizer.step()
            torch.testing.assert_close(*values, rtol=1e-10, atol=1e-13)
            assert ours.ema_real.item() == pytest.approx(twin.real, rel=1e-10)
            assert ours.ema_fake.item() == pytest.approx(twin.fake, rel=1e-10)
        for a, b in zip(players[0][0].parameters(), players[1][0].parameters()):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)

    def test_gradient_by_finite_differences(self):
        assert torch.autograd.gradcheck(
            lambda w: lecam(0.2, -0.1)(lambda x, c: x * w, R, F), (torch.ones(3, dtype=DOUBLE, requires_grad=True),)
        )

    def test_scales(self):
        scales = lecam(0.2, -0.1, weight=1.0)
        value = scales(lambda x, c: [x, x[:1] * 2], R, F)
        single = [lecam(0.2, -0.1, weight=1.0)(identity, *x) for x in ((R, F), (R[:1] * 2, F[:1] * 2))]
        torch.testing.assert_close(value, sum(single) / 2)
        assert scales.ema_real.item() == pytest.approx(0.99 * 0.2 + 0.01 * (R.mean() + 1.0).item() / 2)

    def test_scratch_buffers_take_the_update(self):
        """An adversary runs it on copies and commits their mean: k small batches move as one large one."""
        regularizer = lecam(0.2, -0.1, decay=0.9)
        scratches = []
        for real, fake in ((R, F), (R + 3, F - 2)):
            scratches.append({name: buffer.clone() for name, buffer in regularizer.named_buffers()})
            functional_call(regularizer, scratches[-1], (identity, real, fake))
        assert regularizer.ema_real.item() == 0.2
        regularizer(identity, torch.cat([R, R + 3]), torch.cat([F, F - 2]))
        for name, buffer in regularizer.named_buffers():
            torch.testing.assert_close(sum(s[name] for s in scratches) / 2, buffer)

    def test_averages_are_state(self):
        first, second = LeCam(), LeCam()
        first(identity, R.float(), F.float())
        assert set(first.state_dict()) == {"ema_real", "ema_fake"}
        second.load_state_dict(first.state_dict())
        assert second.ema_real.item() == first.ema_real.item() != 0
        assert not first.ema_real.requires_grad

    def test_samples_and_conditions(self):
        seen = []

        def discriminator(samples, condition=None):
            seen.append((samples, condition))
            return samples

        own, other = torch.zeros(3), torch.ones(3)
        LeCam()(discriminator, R, F, own)
        LeCam()(discriminator, R, F, own, other)
        assert [condition is own for _, condition in seen] == [True, True, True, False]
        assert all(samples is given for (samples, _), given in zip(seen, (R, F)))  # one forward serves both
        maker = torch.ones((), dtype=DOUBLE, requires_grad=True)
        assert not LeCam()(discriminator, R * maker, F * maker).requires_grad

    def test_extreme_logits_and_batch_of_one(self):
        for dtype in (torch.float16, torch.float32):
            real, fake = (torch.tensor([x], dtype=dtype, requires_grad=True) for x in (1e4, -1e4))
            value = LeCam()(identity, real, fake)
            value.backward()
            assert value.isfinite()
            assert real.grad.isfinite().all()

    @pytest.mark.parametrize("options", [{"weight": -1.0}, {"decay": 1.0}, {"decay": -0.1}, {"every": 0}])
    def test_bad_options(self, options):
        with pytest.raises(OptionError, match="LeCam"):
            LeCam(**options)


class TestWeightClipping:
    def test_lock_step(self):
        def run(clip):
            torch.manual_seed(0)
            discriminator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
            optimizer = torch.optim.RMSprop(discriminator.parameters(), 5e-3)
            for _ in range(5):
                real, fake = torch.randn(3, 4, dtype=DOUBLE) + 1, torch.randn(3, 4, dtype=DOUBLE)
                optimizer.zero_grad()
                (discriminator(fake).mean() - discriminator(real).mean()).backward()
                optimizer.step()
                clip(discriminator)
            return [p.detach() for p in discriminator.parameters()]

        def textbook(discriminator):
            for parameter in discriminator.parameters():
                for i, value in enumerate(parameter.data.flatten().tolist()):
                    parameter.data.view(-1)[i] = min(max(value, -0.01), 0.01)

        regularizer = WeightClipping()
        ours, twin = run(lambda d: regularizer.after_step(d, R, F)), run(textbook)
        for a, b in zip(ours, twin):
            assert torch.equal(a, b)
            assert a.abs().max() <= 0.01

    def test_frozen_parameters_stay(self):
        discriminator = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        discriminator[0].requires_grad_(False)
        before = discriminator[0].weight.clone()
        WeightClipping(clip=1e-3).after_step(discriminator, R, F)
        assert torch.equal(discriminator[0].weight, before)
        assert discriminator[1].weight.abs().max() <= 1e-3
        assert discriminator[1].weight.requires_grad

    def test_the_term_is_zero(self):
        term = WeightClipping()(identity, R, F)
        assert term.shape == ()
        assert term.item() == 0

    @pytest.mark.parametrize("clip", [0.0, -0.01, float("nan")])
    def test_bad_options(self, clip):
        with pytest.raises(OptionError, match="clip="):
            WeightClipping(clip=clip)


@pytest.mark.parametrize("spec", advloss_regularizers(), ids=lambda spec: spec.name)
def test_what_the_spec_says_is_so(spec):
    module, _, attribute = spec.target.partition(":")
    regularizer = getattr(importlib.import_module(module), attribute)()
    assert isinstance(regularizer, Regularizer)
    assert (regularizer.second_order is not None) is spec.second_order
    assert spec.paper is not None
    if not spec.batch_coupled:
        weight = torch.ones(4, dtype=DOUBLE, requires_grad=True)
        real, fake = torch.full((2, 4), 2.0, dtype=DOUBLE), torch.full((2, 4), 2.0, dtype=DOUBLE)
        real[1], fake[1] = 3.0, 3.0  # real is fake: no random point in between

        def value(real, fake):
            return getattr(importlib.import_module(module), attribute)()(lambda x, c: (x * weight) ** 2, real, fake)

        torch.testing.assert_close(value(real, fake), (value(real[:1], fake[:1]) + value(real[1:], fake[1:])) / 2)
