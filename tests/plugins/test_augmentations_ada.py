"""Adaptive augmentation against loops over single pixels, in float64, with the same draws."""

import math

import pytest
import torch
from torch import nn

from advloss import InputError, OptionError
from advloss_augmentations import AdaptiveAugment

DOUBLE = torch.float64


def images(count=5, channels=3, height=6, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, dtype=DOUBLE, generator=generator) * 2 - 1


def seeded(function, *args, seed=0):
    torch.manual_seed(seed)
    return function(*args)


def drawn(count, kind, p, neutral, shape=()):
    """Numbers of one transform and whether it is chosen, in the order that the augmentation draws them."""
    values = (torch.rand if kind == "uniform" else torch.randn)(*shape, count, dtype=DOUBLE)
    return values, lambda made: torch.where(torch.rand(count, dtype=DOUBLE) < p, made, neutral)


def textbook_places(count, p, height, width, policy):
    """For each sample the function from an output pixel (x, y from the middle) to the input's: one transform after another."""
    steps = [[] for _ in range(count)]

    def add(maker, *values):
        for i in range(count):
            steps[i].append(maker(*(float(value[i]) for value in values)))

    def turn(angle):
        cosine, sine = math.cos(angle), math.sin(angle)
        return lambda x, y: (cosine * x - sine * y, sine * x + cosine * y)

    def shift(right, down):
        return lambda x, y: (x - right, y - down)

    def zoom(across, along):
        return lambda x, y: (x / across, y / along)

    if "blit" in policy:
        values, chosen = drawn(count, "uniform", p, 1.0)
        add(lambda flip: zoom(flip, 1), chosen(torch.where(values < 0.5, 1.0, -1.0).to(DOUBLE)))
        values, chosen = drawn(count, "uniform", p, 0.0)
        add(lambda turns: turn(turns * math.pi / 2), chosen((values * 4).floor()))
        values, chosen = drawn(count, "uniform", p, 0.0, (2,))
        right, down = chosen(values / 4 - 1 / 8)
        add(lambda r, d: shift(round(r * width), round(d * height)), right, down)
    if "geometry" in policy:
        once = 1 - math.sqrt(1 - p)
        values, chosen = drawn(count, "normal", p, 1.0)
        add(lambda s: zoom(s, s), chosen(2 ** (0.2 * values)))
        values, chosen = drawn(count, "uniform", once, 0.0)
        add(turn, chosen((2 * values - 1) * math.pi))
        values, chosen = drawn(count, "normal", p, 1.0)
        add(lambda s: zoom(s, 1 / s), chosen(2 ** (0.2 * values)))
        values, chosen = drawn(count, "uniform", once, 0.0)
        add(turn, chosen((2 * values - 1) * math.pi))
        values, chosen = drawn(count, "normal", p, 0.0, (2,))
        right, down = chosen(values / 8)
        add(lambda r, d: shift(r * width, d * height), right, down)

    def place(i, x, y):
        for step in reversed(steps[i]):  # the matrix of the first transform stands leftmost, and acts last
            x, y = step(x, y)
        return x, y

    return place


def mirrored(index, size):
    while size > 1 and not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index if size > 1 else 0


def textbook_geometry(samples, p, policy):
    count, _, height, width = samples.shape
    place = textbook_places(count, p, height, width, policy)
    result = torch.zeros_like(samples)
    for i in range(count):
        for h in range(height):
            for w in range(width):
                x, y = place(i, w - (width - 1) / 2, h - (height - 1) / 2)
                x, y = x + (width - 1) / 2, y + (height - 1) / 2
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        weight = (1 - abs(y - row)) * (1 - abs(x - column))
                        result[i, :, h, w] += weight * samples[i, :, mirrored(row, height), mirrored(column, width)]
    return result


def textbook_color(samples, p):
    """Lightness is the part along (1, 1, 1); the hue turns around it, the saturation scales what is beside it."""
    count = len(samples)
    values, chosen = drawn(count, "normal", p, 0.0)
    brightness = chosen(0.2 * values)
    values, chosen = drawn(count, "normal", p, 1.0)
    contrast = chosen(2 ** (0.5 * values))
    values, chosen = drawn(count, "uniform", p, 0.0)
    flip = chosen((2 * values).floor())
    values, chosen = drawn(count, "uniform", p, 0.0)
    hue = chosen((2 * values - 1) * math.pi)
    values, chosen = drawn(count, "normal", p, 1.0)
    saturation = chosen(2**values)
    result = torch.empty_like(samples)
    for i in range(count):
        x = (samples[i] + brightness[i]) * contrast[i]
        lightness = x.mean(0, keepdim=True)
        beside = x - lightness
        lightness = -lightness if flip[i] else lightness
        crossed = torch.stack([beside[2] - beside[1], beside[0] - beside[2], beside[1] - beside[0]]) / math.sqrt(3)
        result[i] = lightness + saturation[i] * (beside * torch.cos(hue[i]) + crossed * torch.sin(hue[i]))
    return result


@pytest.mark.parametrize("policy", ["blit", "geometry", "blit,geometry"])
@pytest.mark.parametrize("p", [0.4, 1.0])
def test_geometry_in_lock_step(policy, p):
    for seed, shape in enumerate([(5, 3, 6, 7), (2, 1, 8, 8), (3, 2, 1, 5)]):
        samples = images(*shape)
        augment = AdaptiveAugment(p=p, policy=policy).double()
        expected = seeded(textbook_geometry, samples, float(augment.p), policy, seed=seed)
        torch.testing.assert_close(seeded(augment, samples, seed=seed), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", [0.4, 1.0])
def test_color_in_lock_step(p):
    augment = AdaptiveAugment(p=p, policy="color").double()
    for seed in range(4):
        expected = seeded(textbook_color, images(), float(augment.p), seed=seed)
        torch.testing.assert_close(seeded(augment, images(), seed=seed), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_treated_as_grey(channels):
    """A grey image stays what an RGB one of three such channels becomes in the mean."""
    grey = images(channels=1)
    augment = AdaptiveAugment(p=1.0, policy="color").double()
    expected = seeded(augment, grey.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    made = seeded(augment, grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(made, expected.expand_as(made))


def test_nothing_happens_at_zero():
    for dtype in (torch.float32, DOUBLE, torch.bfloat16):
        samples = images().to(dtype)
        assert torch.equal(AdaptiveAugment().to(dtype)(samples), samples)


def test_each_transform_comes_with_probability_p():
    ones = torch.ones(4000, 1, 2, 2)
    changed = (seeded(AdaptiveAugment(p=0.3, policy="color"), ones) - 1).abs().amax((1, 2, 3)) > 1e-6
    assert float(changed.float().mean()) == pytest.approx(1 - 0.7**2 * 0.85, abs=0.03)  # a luma flip in half the cases


def test_gradients():
    augment, samples = AdaptiveAugment(p=0.9).double(), images(2, 3, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: seeded(augment, x), (samples,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: seeded(augment, x).square(), (samples,), fast_mode=True)


def test_p_follows_the_signs():
    """By hand: every 2 steps, by 2 x 3 images of 60, towards the sign of E sign D(x) - 0.6."""
    augment = AdaptiveAugment(images=60, interval=2, p=0.05)
    sure, unsure = torch.ones(3), torch.tensor([1.0, -1.0, 1.0])
    seen = []
    for real in (sure, sure, unsure, unsure, sure, unsure, unsure, unsure):
        augment.after_step(nn.Identity(), real, -sure)
        seen.append(round(float(augment.p), 4))
    assert seen == [0.05, 0.15, 0.15, 0.05, 0.05, 0.15, 0.15, 0.05]


def test_p_stays_between_zero_and_one():
    augment = AdaptiveAugment(images=1, interval=1)
    for real, expected in ((torch.ones(3), 1.0), (-torch.ones(3), 0.0)):
        for _ in range(2):
            augment.after_step(nn.Identity(), real, real)
            assert float(augment.p) == expected


def test_several_scales_count_alike():
    augment = AdaptiveAugment(images=10, interval=1, p=0.5, target=0.4)
    augment.after_step(nn.Identity(), [torch.ones(2, 1, 4, 4), torch.tensor([[1.0], [-1.0]])], [])
    assert float(augment.p) == pytest.approx(0.7)  # (1 + 0) / 2 is above 0.4; two images of ten


def test_without_target_p_stays():
    augment = AdaptiveAugment(p=0.5, target=None, images=1, interval=1)
    augment.after_step(nn.Identity(), torch.ones(3), torch.ones(3))
    assert float(augment.p) == 0.5


def test_p_is_state():
    first, second = AdaptiveAugment(images=10, interval=2), AdaptiveAugment(images=10, interval=2)
    first.after_step(nn.Identity(), torch.ones(3), torch.ones(3))
    second.load_state_dict(first.state_dict())
    second.after_step(nn.Identity(), torch.ones(3), torch.ones(3))
    assert float(second.p) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "colour"},
        {"policy": ""},
        {"p": 1.5},
        {"target": 2.0},
        {"images": 0},
        {"interval": 0},
        {"interval": 1.5},
    ],
)
def test_bad_options(options):
    with pytest.raises(OptionError, match="AdaptiveAugment"):
        AdaptiveAugment(**options)


def test_bad_samples():
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        AdaptiveAugment()(torch.zeros(4, 3))
    with pytest.raises(InputError, match="uint8"):
        AdaptiveAugment()(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
