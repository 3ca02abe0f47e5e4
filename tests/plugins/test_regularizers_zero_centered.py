"""R1 and R2 against textbook loops with one autograd call a sample, in float64."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from advloss import CombinationError, FeatureDiscriminator, OptionError
from advloss_regularizers import R1, R2

DOUBLE = torch.float64


class Small(nn.Module):
    """Two scales: a map and a logit, shifted by a condition."""

    def __init__(self, channels=2):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, padding=1, dtype=DOUBLE)
        self.head = nn.Conv2d(3, 1, 2, dtype=DOUBLE)
        self.line = nn.Linear(3, 1, dtype=DOUBLE)
        self.seen = []

    def forward(self, samples, condition=None):
        self.seen.append((samples, condition))
        hidden = torch.tanh(self.conv(samples))
        if condition is not None:
            hidden = hidden * condition[:, None, None, None]
        return [self.head(hidden).square(), self.line(hidden.sum((2, 3))).squeeze(1)]


class Levels(nn.Module):
    """Frozen features at two levels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, dtype=DOUBLE)
        self.second = nn.Conv2d(3, 2, 2, dtype=DOUBLE)

    def forward(self, samples):
        first = torch.tanh(self.first(samples))
        return [first, torch.tanh(self.second(first))]


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(3, 1, dtype=DOUBLE), nn.Linear(2, 1, dtype=DOUBLE)])

    def forward(self, features, condition=None):
        return [head(torch.tanh(f).mean((2, 3)) ** 2) for head, f in zip(self.heads, features)]


def total(logits):
    return sum(scale.sum() for scale in logits) if isinstance(logits, list) else logits.sum()


def textbook(discriminator, samples, weight, condition=None):
    """Loop over samples: gradient of D's sum, squared and summed over the sample's elements."""
    terms = []
    for i in range(len(samples)):
        x = samples[i : i + 1].detach().clone().requires_grad_()
        own = None if condition is None else condition[i : i + 1]
        (gradient,) = torch.autograd.grad(total(discriminator(x, own)), x, create_graph=True)
        terms.append((gradient**2).sum())
    return weight / 2 * sum(terms) / len(samples)


def textbook_features(discriminator, samples, weight):
    terms = []
    for i in range(len(samples)):
        levels = [f.detach().requires_grad_() for f in discriminator.features(samples[i : i + 1])]
        gradients = torch.autograd.grad(total(discriminator.heads(levels)), levels, create_graph=True)
        terms.append(sum((g**2).sum() for g in gradients))
    return weight / 2 * sum(terms) / len(samples)


def batch(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 2, 4, 4, dtype=DOUBLE, generator=generator) for _ in range(2)]


def made(function):
    torch.manual_seed(7)
    return function()


def gradients(value, module):
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.autograd.grad(value, trained, allow_unused=True, materialize_grads=True)


def lock_step(discriminator, twin, our_loss, twin_loss, steps=4):
    """Both take their own steps from equal weights; values and weights stay together."""
    players = []
    for module, loss in ((discriminator, our_loss), (twin, twin_loss)):
        trained = [p for p in module.parameters() if p.requires_grad]
        players.append((module, loss, torch.optim.Adam(trained, 0.02, betas=(0.0, 0.99))))
    for step in range(steps):
        values = []
        for module, loss, optimizer in players:
            optimizer.zero_grad()
            values.append(loss(module, *batch(seed=step)))
            values[-1].backward()
            optimizer.step()
        torch.testing.assert_close(*values, rtol=1e-10, atol=1e-13)
    for a, b in zip(discriminator.parameters(), twin.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("make", "side"), [(R1, 0), (R2, 1)])
class TestExact:
    def test_value_and_gradient(self, make, side):
        discriminator, samples = made(Small), batch()
        ours, twin = make(weight=3.0)(discriminator, *samples), textbook(discriminator, samples[side], 3.0)
        torch.testing.assert_close(ours, twin, rtol=1e-12, atol=0)
        for a, b in zip(gradients(ours, discriminator), gradients(twin, discriminator)):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)

    def test_lock_step(self, make, side):
        lock_step(
            made(Small), made(Small), make(weight=0.5), lambda d, *samples: textbook(d, samples[side], 0.5), steps=5
        )

    def test_gradient_by_finite_differences(self, make, side):
        samples = batch(2)
        weight = torch.randn(2, 4, 4, dtype=DOUBLE, requires_grad=True)
        regularizer = make()
        assert torch.autograd.gradcheck(
            lambda w: regularizer(lambda x, c: torch.tanh(x * w).flatten(1).sum(1) ** 2, *samples), (weight,)
        )

    def test_known_value(self, make, side):
        """D(x) = <a, x>^2 / 2 has the gradient <a, x> a."""
        a, samples = torch.randn(2, 4, 4, dtype=DOUBLE), batch()
        scores = (samples[side] * a).sum((1, 2, 3))
        expected = 10 / 2 * (scores**2).mean() * (a**2).sum()
        value = make()(lambda x, c: (x * a.clone().requires_grad_()).sum((1, 2, 3)) ** 2 / 2, *samples)
        torch.testing.assert_close(value, expected)

    def test_a_batch_is_the_mean_of_its_samples(self, make, side):
        discriminator, (real, fake) = made(Small), batch(4)
        singles = [make()(discriminator, real[i : i + 1], fake[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(make()(discriminator, real, fake), sum(singles) / 4, rtol=1e-12, atol=0)

    def test_sides_may_differ_in_number(self, make, side):
        discriminator, (real, _), (_, fake) = made(Small), batch(2), batch(5)
        make()(discriminator, real, fake)
        assert len(discriminator.seen[-1][0]) == (2, 5)[side]

    def test_a_leaf_is_not_replaced(self, make, side):
        """The adversary hands leaves in, so that one forward serves the loss and the term."""
        discriminator = made(Small)
        samples = [x.requires_grad_() for x in batch()]
        make()(discriminator, *samples)
        assert discriminator.seen[-1][0] is samples[side]
        assert make().differentiates == {("real", "fake")[side]}
        assert make().second_order == "samples"


@pytest.mark.parametrize("method", ["exact", "finite-difference"])
@pytest.mark.parametrize(("make", "side"), [(R1, 0), (R2, 1)])
class TestBothMethods:
    def test_no_gradient_reaches_the_maker(self, make, side, method):
        discriminator, maker = made(Small), torch.ones((), dtype=DOUBLE, requires_grad=True)
        make(method=method)(discriminator, *(x * maker for x in batch())).backward()
        assert maker.grad is None
        assert discriminator.conv.weight.grad.abs().sum() > 0

    def test_conditions(self, make, side, method):
        discriminator, samples = made(Small), batch()
        own, other = torch.ones(3, dtype=DOUBLE), torch.full((3,), 2.0, dtype=DOUBLE)
        make(method=method)(discriminator, *samples, own, other)
        assert all(condition is (own, other)[side] for _, condition in discriminator.seen)
        discriminator.seen.clear()
        make(method=method)(discriminator, *samples, own)
        assert all(condition is own for _, condition in discriminator.seen)

    def test_flat_discriminator_and_batch_of_one(self, make, side, method):
        line = nn.Linear(32, 1, dtype=DOUBLE)
        nn.init.zeros_(line.weight)
        value = make(method=method)(lambda x, c: line(x.flatten(1)), *batch(1))
        value.backward()
        assert value.item() == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in line.parameters())

    def test_half_precision_sums_do_not_overflow(self, make, side, method):
        weight = torch.full((2, 4, 4), 60.0, dtype=torch.float16, requires_grad=True)
        samples = [torch.zeros(1, 2, 4, 4, dtype=torch.float16)] * 2
        value = make(method=method, sigma=0.1)(lambda x, c: x * weight, *samples)
        assert value.dtype == torch.float32
        assert value.isfinite()
        if method == "exact":
            torch.testing.assert_close(value.item(), 10 / 2 * 32 * 60.0**2)  # 115200 squares, beyond 65504


def test_conditioned_value():
    discriminator, (real, fake) = made(Small), batch()
    condition = torch.tensor([0.5, -1.0, 2.0], dtype=DOUBLE)
    torch.testing.assert_close(
        R1()(discriminator, real, fake, condition), textbook(discriminator, real, 10.0, condition), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        R2()(discriminator, real, fake, None, condition),
        textbook(discriminator, fake, 10.0, condition),
        rtol=1e-12,
        atol=0,
    )


class TestFiniteDifference:
    def test_lock_step(self):
        def twin_loss(discriminator, real, fake):
            torch.manual_seed(3)
            moved = real + 0.05 * torch.randn(real.shape, dtype=DOUBLE)
            changes = [
                total(discriminator(moved[i : i + 1])) - total(discriminator(real[i : i + 1])) for i in range(len(real))
            ]
            return 4.0 / (2 * 0.05**2) * sum(c**2 for c in changes) / len(real)

        ours = R1(weight=4.0, method="finite-difference", sigma=0.05)

        def our_loss(*args):
            torch.manual_seed(3)
            return ours(*args)

        lock_step(made(Small), made(Small), our_loss, twin_loss)

    @pytest.mark.parametrize(("make", "side"), [(R1, 0), (R2, 1)])
    def test_its_mean_is_the_exact_term(self, make, side):
        """Value and gradient, on a quadratic discriminator, averaged over many draws of eps."""
        torch.manual_seed(0)
        matrix, vector = torch.randn(5, 5, dtype=DOUBLE) / 3, torch.randn(5, dtype=DOUBLE)
        matrix, vector = (matrix + matrix.T).requires_grad_(), vector.requires_grad_()
        samples = [torch.randn(4, 5, dtype=DOUBLE) for _ in range(2)]

        def discriminator(x, condition=None):
            return ((x @ matrix) * x).sum(1) / 2 + x @ vector

        def value_and_gradients(regularizer, inputs):
            value = regularizer(discriminator, *inputs)
            return value, *torch.autograd.grad(value, (matrix, vector))

        exact = value_and_gradients(make(weight=2.0), samples)
        many = [x.repeat_interleave(80_000, 0) for x in samples]
        estimate = value_and_gradients(make(weight=2.0, method="finite-difference", sigma=0.01), many)
        for a, b in zip(estimate, exact):
            assert ((a - b).norm() / b.norm()).item() < 0.01

    def test_needs_no_double_backward(self):
        class Once(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx, gradient):
                return gradient * 2

        weight = torch.randn(2, 4, 4, dtype=DOUBLE, requires_grad=True)

        def discriminator(x, condition=None):
            return Once.apply(x * weight).square()

        with pytest.raises(RuntimeError, match="once_differentiable"):
            R1()(discriminator, *batch()).backward()
        regularizer = R1(method="finite-difference")
        regularizer(discriminator, *batch()).backward()
        assert weight.grad.abs().sum() > 0
        assert regularizer.second_order is None
        assert regularizer.differentiates == frozenset()

    def test_both_forwards_draw_the_same_numbers(self):
        """Other dropout masks would be taken for slope: the logits are large and D is nearly flat."""

        class Dropped(nn.Module):
            def forward(self, samples, condition=None):
                return 1e3 * nn.functional.dropout(torch.ones_like(samples)).sum((1, 2, 3)) + samples.sum((1, 2, 3))

        value = R1(weight=2.0, method="finite-difference")(Dropped(), *batch(200))
        torch.testing.assert_close(value.item(), 32.0, rtol=0.3, atol=0)

    def test_both_forwards_start_from_the_same_buffers(self):
        """Spectral norm's power iteration moves with every forward and would be taken for slope."""

        class Normed(nn.Module):
            def __init__(self):
                super().__init__()
                self.line = spectral_norm(nn.Linear(32, 16, dtype=DOUBLE))

            def forward(self, samples, condition=None):
                return self.line(samples.flatten(1))

        discriminator = made(Normed)
        norm = discriminator.line.parametrizations.weight[0]
        nn.init.orthogonal_(norm._u[None])  # far from converged, as after a large step
        nn.init.orthogonal_(norm._v[None])
        before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
        value = R1(weight=2.0, method="finite-difference")(discriminator, *[x + 10 for x in batch(200)])
        for name, buffer in discriminator.named_buffers():
            assert torch.equal(buffer, before[name])
        exact = R1(weight=2.0)(discriminator, *batch(1))
        torch.testing.assert_close(value.item(), exact.item(), rtol=0.3, atol=0)

    def test_a_wrapper_makes_its_own_snapshots(self):
        class Wrapper:
            def __init__(self):
                self.snapshots = 0

            def snapshot(self):
                self.snapshots += 1
                return lambda samples, condition: samples.sum((1, 2, 3))

        wrapper = Wrapper()
        value = R1(weight=2.0, method="finite-difference")(wrapper, *batch(200))
        assert wrapper.snapshots == 2
        torch.testing.assert_close(value.item(), 32.0, rtol=0.3, atol=0)


class TestFeatures:
    def discriminator(self):
        return made(lambda: FeatureDiscriminator(Levels(), Heads()))

    @pytest.mark.parametrize(("make", "side"), [(R1, 0), (R2, 1)])
    def test_value_and_attributes(self, make, side):
        discriminator, samples = self.discriminator(), batch()
        regularizer = make(inputs="features", weight=3.0)
        value = regularizer(discriminator, *samples)
        torch.testing.assert_close(value, textbook_features(discriminator, samples[side], 3.0), rtol=1e-12, atol=0)
        assert regularizer.second_order == "features"
        assert regularizer.differentiates == {("real_features", "fake_features")[side]}
        value.backward()
        assert all(p.grad is None for p in discriminator.features.parameters())

    def test_lock_step(self):
        lock_step(
            self.discriminator(),
            self.discriminator(),
            R1(inputs="features", weight=5.0),
            lambda d, real, fake: textbook_features(d, real, 5.0),
        )

    def test_finite_difference_is_near_the_exact_term(self):
        discriminator, (real, fake) = self.discriminator(), batch(1)
        exact = R1(inputs="features")(discriminator, real, fake)
        estimate = R1(inputs="features", method="finite-difference", sigma=0.001)
        value = estimate(discriminator, real.repeat(20_000, 1, 1, 1), fake)
        torch.testing.assert_close(value, exact, rtol=0.03, atol=0)
        assert estimate.second_order is None
        assert estimate.differentiates == frozenset()

    def test_leaves_keep_their_list(self):
        """A wrapper that hands out leaves recognizes them, so that one forward of the heads serves both."""

        class Wrapper:
            def __init__(self, inner):
                self.inner = inner
                self.handed = self.asked = None

            def features(self, samples):
                self.handed = [f.detach().requires_grad_() for f in self.inner.features(samples)]
                return self.handed

            def heads(self, features, condition=None):
                self.asked = features
                return self.inner.heads(features, condition)

        wrapper = Wrapper(self.discriminator())
        R1(inputs="features")(wrapper, *batch())
        assert wrapper.asked is wrapper.handed

    @pytest.mark.parametrize("method", ["exact", "finite-difference"])
    def test_no_gradient_reaches_the_maker(self, method):
        maker = torch.ones((), dtype=DOUBLE, requires_grad=True)
        R1(inputs="features", method=method)(self.discriminator(), *(x * maker for x in batch())).backward()
        assert maker.grad is None

    @pytest.mark.parametrize("method", ["exact", "finite-difference"])
    def test_a_discriminator_without_features_is_refused(self, method):
        with pytest.raises(CombinationError, match="Small has no features"):
            R2(inputs="features", method=method)(Small(), *batch())


@pytest.mark.parametrize("make", [R1, R2])
@pytest.mark.parametrize(
    "options",
    [
        {"weight": -1.0},
        {"weight": float("nan")},
        {"every": 0},
        {"every": 2.5},
        {"method": "numeric"},
        {"inputs": "logits"},
        {"sigma": 0.0},
    ],
)
def test_bad_options(make, options):
    with pytest.raises(OptionError, match=make.__name__):
        make(**options)
