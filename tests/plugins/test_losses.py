"""Losses against their textbook lines, in float64."""

import importlib
import subprocess
import sys

import pytest
import torch

from advloss import InputError, OptionError
from advloss_losses import (
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Saturating,
    Wasserstein,
)
from advloss_losses._plugin import advloss_losses

R = torch.tensor([0.5, -1.2, 2.0], dtype=torch.float64)
F = torch.tensor([0.3, -0.7, 1.5], dtype=torch.float64)


def mean(values):
    return sum(values) / len(values)


def log_sigmoid(x):
    return torch.log(1 / (1 + torch.exp(-x)))


def pairs(r, f):
    return list(zip(r.flatten(), f.flatten()))


def twin_average_d(r, f):
    real = mean([-log_sigmoid(x - mean(f.flatten())) for x in r.flatten()])
    fake = mean([-torch.log(1 - torch.sigmoid(x - mean(r.flatten()))) for x in f.flatten()])
    return (real + fake) / 2


def twin_logistic_d(r, f):
    return mean([-log_sigmoid(x) for x in r.flatten()]) + mean([-torch.log(1 - torch.sigmoid(x)) for x in f.flatten()])


def twin_hinge_d(r, f):
    return mean([torch.clamp(1 - x, min=0) for x in r.flatten()]) + mean(
        [torch.clamp(1 + x, min=0) for x in f.flatten()]
    )


def twin_squares_d(r, f):
    return mean([(x - 1) ** 2 for x in r.flatten()]) + mean([x**2 for x in f.flatten()])


# name: (loss, textbook D(r, f), textbook G(f, r), golden D, golden G)
LOSSES = {
    "non-saturating": (
        NonSaturating(),
        twin_logistic_d,
        lambda f, r: mean([-log_sigmoid(x) for x in f.flatten()]),
        1.6744140113,
        0.6196515238,
    ),
    "saturating": (
        Saturating(),
        twin_logistic_d,
        lambda f, r: mean([torch.log(1 - torch.sigmoid(x)) for x in f.flatten()]),
        1.6744140113,
        -0.9863181905,
    ),
    "hinge": (Hinge(), twin_hinge_d, lambda f, r: -mean(f.flatten()), 2.2666666667, -0.3666666667),
    "hinge-taming": (
        Hinge(scale=0.5),
        lambda r, f: twin_hinge_d(r, f) / 2,
        lambda f, r: -mean(f.flatten()),
        1.1333333333,
        -0.3666666667,
    ),
    "least-squares": (
        LeastSquares(),
        twin_squares_d,
        lambda f, r: mean([(x - 1) ** 2 for x in f.flatten()]),
        2.9733333333,
        1.21,
    ),
    "least-squares-half": (
        LeastSquares(half=True),
        lambda r, f: twin_squares_d(r, f) / 2,
        lambda f, r: mean([(x - 1) ** 2 / 2 for x in f.flatten()]),
        2.9733333333 / 2,
        0.605,
    ),
    "wasserstein": (
        Wasserstein(),
        lambda r, f: mean(f.flatten()) - mean(r.flatten()),
        lambda f, r: -mean(f.flatten()),
        -0.0666666667,
        -0.3666666667,
    ),
    "relativistic": (
        RelativisticPairing(),
        lambda r, f: mean([-log_sigmoid(x - y) for x, y in pairs(r, f)]),
        lambda f, r: mean([-log_sigmoid(y - x) for x, y in pairs(r, f)]),
        0.6820976126,
        0.7487642792,
    ),
    "relativistic-average": (
        RelativisticAverage(),
        twin_average_d,
        lambda f, r: twin_average_d(f, r),
        0.8055951885,
        0.8722618552,
    ),
}
EACH = pytest.mark.parametrize("name", LOSSES)


def spec_of(name):
    names = {"hinge-taming": "hinge", "least-squares-half": "least-squares"}
    return next(spec for spec in advloss_losses() if spec.name == names.get(name, name))


@EACH
def test_golden_values(name):
    loss, _, _, d, g = LOSSES[name]
    assert loss.discriminator(R, F).item() == pytest.approx(d, abs=2e-10)
    assert loss.generator(F, R).item() == pytest.approx(g, abs=2e-10)


@EACH
@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1, 2, 2)])
def test_twin_values_and_gradients(name, shape):
    loss, twin_d, twin_g, _, _ = LOSSES[name]
    torch.manual_seed(0)
    real, fake = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for ours, twin, inputs in (
        (loss.discriminator(real, fake), twin_d(real, fake), (real, fake)),
        (loss.generator(fake, real), twin_g(fake, real), (fake,)),
    ):
        assert ours.shape == ()
        torch.testing.assert_close(ours, twin, rtol=1e-12, atol=1e-14)
        for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(twin, inputs)):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@EACH
def test_gradients_by_finite_differences(name):
    loss = LOSSES[name][0]
    real, fake = (x.clone().requires_grad_() for x in (R, F))
    assert torch.autograd.gradcheck(loss.discriminator, (real, fake))
    assert torch.autograd.gradcheck(lambda f: loss.generator(f, R), (fake,))


@EACH
def test_lock_step(name):
    loss, twin_d, twin_g, _, _ = LOSSES[name]

    def play(discriminator_loss, generator_loss):
        torch.manual_seed(1)
        d, g = torch.nn.Linear(3, 2, dtype=torch.float64), torch.nn.Linear(2, 3, dtype=torch.float64)
        steps = [torch.optim.Adam(m.parameters(), 0.05, betas=(0.0, 0.9)) for m in (d, g)]
        values = []
        for _ in range(5):
            real, noise = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
            for player, step in enumerate(steps):
                fake = g(noise)
                value = generator_loss(d(fake), d(real)) if player else discriminator_loss(d(real), d(fake.detach()))
                step.zero_grad()
                value.backward()
                step.step()
                values.append(value.detach())
        return torch.stack(values), [p.detach() for m in (d, g) for p in m.parameters()]

    values, weights = play(loss.discriminator, loss.generator)
    twin_values, twin_weights = play(twin_d, twin_g)
    torch.testing.assert_close(values, twin_values, rtol=1e-9, atol=1e-11)
    for a, b in zip(weights, twin_weights):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@EACH
def test_scales(name):
    loss, twin_d, twin_g, _, _ = LOSSES[name]
    real, fake = [R, R[:2].view(2, 1) * 2], [F, F[:2].view(2, 1) - 1]
    d = [twin_d(r, f) for r, f in zip(real, fake)]
    g = [twin_g(f, r) for r, f in zip(real, fake)]
    torch.testing.assert_close(loss.discriminator(real, fake), sum(d) / 2)
    torch.testing.assert_close(loss.generator(fake, real), sum(g) / 2)
    options = {key: getattr(loss, key) for key in ("scale", "half") if hasattr(loss, key)}
    summing = type(loss)(scales="sum", **options)
    torch.testing.assert_close(summing.discriminator(real, fake), sum(d))
    torch.testing.assert_close(summing.generator(fake, real), sum(g))


@EACH
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_logits_stay_finite(name, size):
    loss = LOSSES[name][0]
    real, fake = (torch.tensor([size, -size, 0.0], requires_grad=True) for _ in range(2))
    for value in (loss.discriminator(real, fake), loss.generator(fake, real)):
        (gradient,) = torch.autograd.grad(value, fake)
        assert value.isfinite()
        assert gradient.isfinite().all()


@EACH
def test_what_the_spec_says_is_so(name):
    loss, spec = LOSSES[name][0], spec_of(name)
    module, _, attribute = spec.target.partition(":")
    assert getattr(importlib.import_module(module), attribute) is type(loss)
    assert loss.paired is spec.paired
    singles = mean([loss.discriminator(R[i : i + 1], F[i : i + 1]) for i in range(3)])
    assert torch.isclose(loss.discriminator(R, F), singles) != spec.batch_coupled
    if spec.paired:
        with pytest.raises(InputError, match="pass real logits"):
            loss.generator(F)
        with pytest.raises(InputError, match="as many real as fake"):
            loss.discriminator(R, F[:2])
    else:
        torch.testing.assert_close(loss.generator(F), loss.generator(F, R))
        loss.discriminator(R, F[:2])


@EACH
def test_generator_gradient_reaches_fake_logits_only(name):
    real, fake = (x.clone().requires_grad_() for x in (R, F))
    LOSSES[name][0].generator(fake, real).backward()
    assert real.grad is None
    assert fake.grad.abs().sum() > 0


@EACH
def test_generator_wants_larger_logits(name):
    fake = F.clone().requires_grad_()
    LOSSES[name][0].generator(fake, R).backward()
    assert fake.grad.sum() < 0


def test_accuracy():
    real, fake = torch.tensor([0.9, 0.2, 3.0, 0.4]), torch.tensor([-1.0, 0.3, 0.55, 0.1])
    by_sign = (1.0, 0.25)
    by_half = (0.5, 0.75)
    by_midpoint = (0.5, 1.0)  # the means are 1.125 and -0.0125: the threshold is 0.55625
    expected = {
        NonSaturating: by_sign,
        Saturating: by_sign,
        Hinge: by_sign,
        LeastSquares: by_half,
        Wasserstein: by_midpoint,
        RelativisticAverage: by_midpoint,
        RelativisticPairing: (0.75, 0.75),
    }
    for loss, shares in expected.items():
        assert tuple(share.item() for share in loss().accuracy(real, fake)) == shares, loss
    # A critic is free up to a constant, and so is what is told apart.
    for loss in (Wasserstein, RelativisticAverage, RelativisticPairing):
        assert loss().accuracy(real + 100, fake + 100) == loss().accuracy(real, fake)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hinge(scale=0.0),
        lambda: Hinge(scale=-1.0),
        lambda: Hinge(scale=float("nan")),
        lambda: LeastSquares(half=0.5),
        lambda: NonSaturating(scales="max"),
    ],
)
def test_bad_options(make):
    with pytest.raises(OptionError):
        make()


def test_wgan_gp_is_wasserstein_with_its_penalty():
    spec = spec_of("wgan-gp")
    assert spec.target == spec_of("wasserstein").target
    assert dict(spec.regularizers) == {"regularizers/gradient-penalty": {"weight": 10.0}}


def test_hooks_import_no_torch():
    code = (
        "import sys, advloss_losses._plugin as p, advloss_regularizers._plugin as q, advloss_augmentations._plugin as a;"
        "p.advloss_losses(), q.advloss_regularizers(), a.advloss_augmentations(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
