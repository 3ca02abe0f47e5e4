"""Augmentations against loops over single samples, in float64."""

import importlib

import pytest
import torch

from advloss import Augmentation, InputError, OptionError
from advloss_augmentations import DiffAugment, InstanceNoise
from advloss_augmentations._plugin import advloss_augmentations

DOUBLE = torch.float64
POLICIES = ["color", "translation", "cutout", "color,translation,cutout", "cutout,color"]


def images(count=4, channels=3, height=16, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, dtype=DOUBLE, generator=generator) * 2 - 1


def seeded(function, *args, seed=0):
    torch.manual_seed(seed)
    return function(*args)


def textbook_color(samples):
    brightness, saturation, contrast = (torch.rand(len(samples), 1, 1, 1, dtype=DOUBLE).flatten() for _ in range(3))
    results = []
    for i, x in enumerate(samples):
        x = x + brightness[i] - 0.5
        grey = sum(x[c] for c in range(len(x))) / len(x)
        x = torch.stack([grey + 2 * saturation[i] * (x[c] - grey) for c in range(len(x))])
        mean = x.sum() / x.numel()
        results.append(mean + (contrast[i] + 0.5) * (x - mean))
    return torch.stack(results)


def textbook_translation(samples, ratio):
    shifts = []
    for size in samples.shape[2:]:
        reach = int(size * ratio + 0.5)
        shifts.append(torch.randint(-reach, reach + 1, (len(samples), 1)).flatten().tolist())
    results = torch.zeros_like(samples)
    height, width = samples.shape[2:]
    for i, (down, right) in enumerate(zip(*shifts)):
        for h in range(height):
            for w in range(width):
                if 0 <= h - down < height and 0 <= w - right < width:
                    results[i, :, h, w] = samples[i, :, h - down, w - right]
    return results


def textbook_cutout(samples, ratio):
    boxes = []
    for size in samples.shape[2:]:
        side = int(size * ratio + 0.5)
        centres = torch.randint(0, size + (1 - side % 2), (len(samples), 1)).flatten().tolist()
        boxes.append([range(c - side // 2, c - side // 2 + side) for c in centres])
    results = samples.clone()
    for i, (rows, columns) in enumerate(zip(*boxes)):
        for h in range(samples.shape[2]):
            for w in range(samples.shape[3]):
                if h in rows and w in columns:
                    results[i, :, h, w] = 0
    return results


class TestDiffAugment:
    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("shape", [(4, 3, 16, 12), (1, 1, 9, 7), (3, 5, 4, 4)])
    def test_lock_step(self, policy, shape):
        def twin(samples):
            for name in policy.split(","):
                if name == "color":
                    samples = textbook_color(samples)
                elif name == "translation":
                    samples = textbook_translation(samples, 1 / 8)
                else:
                    samples = textbook_cutout(samples, 1 / 2)
            return samples

        samples = images(*shape)
        augment = DiffAugment(policy=policy)
        for seed in range(8):
            torch.testing.assert_close(seeded(augment, samples, seed=seed), seeded(twin, samples, seed=seed))

    @pytest.mark.parametrize("ratios", [(0.0, 0.0), (0.3, 0.9), (1.0, 1.0)])
    def test_lock_step_of_options(self, ratios):
        translation, cutout = ratios
        augment = DiffAugment(policy="translation,cutout", translation=translation, cutout=cutout)
        samples = images()
        for seed in range(8):
            torch.testing.assert_close(
                seeded(augment, samples, seed=seed),
                seeded(lambda x: textbook_cutout(textbook_translation(x, translation), cutout), samples, seed=seed),
            )
        if ratios == (0.0, 0.0):
            assert torch.equal(augment(samples), samples)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_gradients(self, policy):
        augment, samples = DiffAugment(policy=policy), images(2, 2, 3, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: seeded(augment, x), (samples,), fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda x: seeded(augment, x).square(), (samples,), fast_mode=True)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_each_sample_has_its_own_draw(self, policy):
        result = seeded(DiffAugment(policy=policy), images(1).repeat(8, 1, 1, 1))
        assert len({tuple(x.flatten().tolist()) for x in result}) > 3

    @pytest.mark.parametrize("policy", ["translation,cutout", "color"])
    def test_the_draw_does_not_depend_on_the_values(self, policy):
        """Real and fake see the same distribution: with one seed, the same affine map."""
        augment, x, y = DiffAugment(policy=policy), images(), images(seed=1)
        offset = seeded(augment, torch.zeros_like(x))
        torch.testing.assert_close(
            seeded(augment, x + y) - offset, seeded(augment, x) - offset + seeded(augment, y) - offset
        )

    def test_shifts_and_centres_are_uniform(self):
        samples = torch.zeros(20_000, 1, 8, 8)
        samples[:, :, 4, 4] = 1
        moved = seeded(DiffAugment(policy="translation"), samples)
        torch.testing.assert_close(moved.mean((0, 1))[3:6, 3:6], torch.full((3, 3), 1 / 9), rtol=0, atol=0.01)
        assert moved.sum() == 20_000
        kept = seeded(DiffAugment(policy="cutout"), torch.ones(20_000, 1, 8, 8)).mean((0, 1))
        # Sides of 4, centres 0 to 8: row h is cut by the centres h - 1 to h + 2, four of nine, at the border three.
        torch.testing.assert_close(kept[3, 3].item(), 1 - (4 / 9) ** 2, rtol=0, atol=0.01)
        torch.testing.assert_close(kept[0, 0].item(), 1 - (3 / 9) ** 2, rtol=0, atol=0.01)

    def test_color_is_right_in_the_mean(self):
        result = seeded(DiffAugment(policy="color"), images(1, 3, 4, 4).repeat(50_000, 1, 1, 1)).mean(0)
        torch.testing.assert_close(result, images(1, 3, 4, 4)[0], rtol=0, atol=0.02)

    def test_works_in_half_precision(self):
        result = DiffAugment()(images().to(torch.bfloat16))
        assert result.dtype == torch.bfloat16
        assert result.isfinite().all()

    @pytest.mark.parametrize(
        "options",
        [
            {"policy": "colour"},
            {"policy": ""},
            {"policy": ["color"]},
            {"translation": -0.1},
            {"translation": 1.5},
            {"cutout": 2.0},
        ],
    )
    def test_bad_options(self, options):
        with pytest.raises(OptionError, match="DiffAugment"):
            DiffAugment(**options)

    def test_bad_samples(self):
        with pytest.raises(InputError, match=r"\(4, 3\)"):
            DiffAugment()(torch.zeros(4, 3))
        with pytest.raises(InputError, match="uint8"):
            DiffAugment()(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


class TestInstanceNoise:
    @pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6), (2, 3, 4, 5, 6)])
    def test_lock_step(self, shape):
        samples = torch.zeros(shape, dtype=DOUBLE) + 0.5
        augment = InstanceNoise(sigma=0.3, decay_steps=4)
        for step in range(7):
            expected = seeded(lambda: samples + 0.3 * max(0.0, 1 - step / 4) * torch.randn(shape, dtype=DOUBLE))  # noqa: B023
            torch.testing.assert_close(seeded(augment, samples), expected, rtol=0, atol=1e-7)
            augment.after_step(torch.nn.Identity(), samples, samples)
        assert torch.equal(augment(samples), samples)

    def test_it_stays_without_decay(self):
        augment, samples = InstanceNoise(), torch.zeros(100_000)[:, None]
        for _ in range(3):
            augment.after_step(torch.nn.Identity(), samples, samples)
        assert seeded(augment, samples).std().item() == pytest.approx(0.1, rel=0.02)

    def test_gradients(self):
        assert torch.autograd.gradcheck(lambda x: seeded(InstanceNoise(), x), (images(2, 1, 3, 3).requires_grad_(),))

    def test_the_step_is_state(self):
        first, second = InstanceNoise(decay_steps=2), InstanceNoise(decay_steps=2)
        first.after_step(torch.nn.Identity(), images(), images())
        second.load_state_dict(first.state_dict())
        assert torch.equal(seeded(first, images()), seeded(second, images()))
        assert second.step.item() == 1

    def test_keeps_dtype(self):
        for augment in (InstanceNoise(), InstanceNoise(decay_steps=3)):
            assert augment(images().to(torch.bfloat16)).dtype == torch.bfloat16

    @pytest.mark.parametrize(
        "options", [{"sigma": -1.0}, {"sigma": float("nan")}, {"decay_steps": 0}, {"decay_steps": 1.5}]
    )
    def test_bad_options(self, options):
        with pytest.raises(OptionError, match="InstanceNoise"):
            InstanceNoise(**options)

    def test_bad_samples(self):
        with pytest.raises(InputError, match="uint8"):
            InstanceNoise()(torch.zeros(1, 3, dtype=torch.uint8))


@pytest.mark.parametrize("augment", [DiffAugment(), InstanceNoise(decay_steps=3)], ids=lambda a: type(a).__name__)
def test_samples_stay_as_they_are(augment):
    samples = images()
    before = samples.clone()
    first, second, other = (seeded(augment, samples, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(samples, before)
    assert first.shape == samples.shape
    assert first.dtype == samples.dtype
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("spec", advloss_augmentations(), ids=lambda spec: spec.name)
def test_what_the_spec_says_is_so(spec):
    module, _, attribute = spec.target.partition(":")
    augment = getattr(importlib.import_module(module), attribute)()
    assert isinstance(augment, Augmentation)
    for dims in range(4):
        samples = torch.zeros((2, 3) + (4,) * dims)
        if dims in spec.dims:
            assert augment(samples).shape == samples.shape
        else:
            with pytest.raises(InputError):
                augment(samples)
