"""The discriminator `projected`: a frozen pyramid of timm, mixed at random."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch.nn.functional import conv2d, interpolate

from advloss import FeatureDiscriminator, InputError, OptionError, create_discriminator, logit_sum
from advloss_timm import projected

TINY = {"backbone": "test_efficientnet", "pretrained": False, "resolution": 64, "width": 4}


def samples(n=2, channels=3, side=64, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=generator, dtype=dtype) * 2 - 1


def mixed_by_hand(maps, state):
    """Cross-channel, then cross-scale mixing, as the paper's figure has it."""
    w = {name: value for name, value in state.items() if name.startswith("across")}
    c = [conv2d(m, w[f"across_channels.{i}.weight"]) for i, m in enumerate(maps)]

    def up(x):
        return interpolate(x, scale_factor=2, mode="bilinear")

    s3 = conv2d(up(c[3]), w["across_scales.3.weight"], padding=1)
    s2 = conv2d(up(c[2] + s3), w["across_scales.2.weight"], padding=1)
    s1 = conv2d(up(c[1] + s2), w["across_scales.1.weight"], padding=1)
    s0 = conv2d(up(c[0] + s1), w["across_scales.0.weight"], padding=1)
    return [s0, s1, s2, s3]


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext", "resnet10t"])
def test_features_are_timms_own_mixed(backbone):
    torch.manual_seed(0)
    discriminator = projected(**{**TINY, "backbone": backbone})
    x, features = samples(), discriminator.features
    config = timm.get_pretrained_cfg(backbone)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (config.mean, config.std))
    whole = timm.create_model(backbone, pretrained=False, num_classes=0).eval()  # timm's model, not its pyramid
    whole.load_state_dict(renamed(features.model.state_dict(), whole))
    modules = {name.replace(".", "_"): module for name, module in whole.named_modules()}
    seen = {}
    for info in features.model.feature_info.get_dicts():
        name = info["module"].replace(".", "_")
        modules[name].register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        whole(((x + 1) / 2 - mean) / std)
    maps = list(seen.values())
    assert len(maps) == 4
    for a, b in zip(features(x), mixed_by_hand(maps, features.state_dict())):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert [scale.shape[0] for scale in discriminator(x)] == [2] * 4


def renamed(state, whole):
    """timm's pyramid joins the dots of a module's name by underscores: layer1, stages_0."""
    names = {key.replace(".", "_"): key for key in whole.state_dict()}
    return {**whole.state_dict(), **{names[key.replace(".", "_")]: value for key, value in state.items()}}


def test_defaults_are_the_papers():
    discriminator = create_discriminator("projected", pretrained=False)
    assert isinstance(discriminator, FeatureDiscriminator)
    assert (discriminator.dims, discriminator.in_channels, discriminator.num_classes) == (2, 3, None)
    features = discriminator.features(samples(1))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16)]
    assert [tuple(scale.shape) for scale in discriminator.heads(features)] == [(1, 1, 5, 5)] * 4


def test_mixing_is_random_fixed_and_saved():
    torch.manual_seed(1)
    one = projected(**TINY)
    torch.manual_seed(2)
    two, three = projected(**TINY), projected(**TINY, seed=1)
    for a, b, c in zip(*(d.features.across_scales.parameters() for d in (one, two, three))):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not a.requires_grad
    names = [name for name in one.state_dict() if name.startswith("features.across")]
    assert len(names) == 8
    wide = projected(**{**TINY, "width": 64})
    for conv in (*wide.features.across_channels, *wide.features.across_scales):
        fan_in = conv.weight[0].numel()
        assert abs(conv.weight.std() * fan_in**0.5 - 1) < 0.1


def test_frozen_and_pure():
    discriminator = projected(**TINY)
    before = copy.deepcopy(discriminator.features.state_dict())
    discriminator.train()
    assert discriminator.heads.training
    assert not any(m.training for m in discriminator.features.modules())
    x = samples()
    first = discriminator.features(x)
    discriminator.features(samples(seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, discriminator.features(x)))
    logit_sum(discriminator(x)).backward()
    assert all(p.grad is None and not p.requires_grad for p in discriminator.features.parameters())
    assert all(p.grad is not None for p in discriminator.heads.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), discriminator.features.state_dict().values()))


def test_gradient_to_samples_by_finite_differences():
    torch.manual_seed(3)
    discriminator = projected(**{**TINY, "backbone": "test_convnext"}).double().eval()
    x = samples(2, side=48, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(logit_sum(discriminator(x)), x)
    direction = torch.randn_like(x)
    with torch.no_grad():
        up, down = (logit_sum(discriminator(x + s * 1e-6 * direction)) for s in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (up - down) / 2e-6, rtol=1e-5, atol=1e-9)


def test_double_backward_by_samples_and_by_features():
    torch.manual_seed(4)
    discriminator = projected(**TINY)
    features = [f.detach().requires_grad_() for f in discriminator.features(samples(3))]
    x = samples(3).requires_grad_()
    for logits, inputs in ((discriminator.heads(features), features), (discriminator(x), [x])):
        gradients = torch.autograd.grad(logit_sum(logits), inputs, create_graph=True)
        penalty = sum(g.square().sum() for g in gradients)
        penalty.backward()
        assert torch.isfinite(penalty)
        assert penalty > 0
        assert all(torch.isfinite(p.grad).all() for p in discriminator.heads.parameters() if p.grad is not None)


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_any_batch(n, norm):
    discriminator = projected(**TINY, norm=norm)
    x = samples(n, side=32).requires_grad_()
    logits = discriminator(x)
    assert [scale.shape[:2] for scale in logits] == [(n, 1)] * 4
    logit_sum(logits).backward()
    assert torch.isfinite(x.grad).all()


def test_batch_coupling_is_the_norms():
    x = samples(3)
    changed = torch.cat([x[:1], -x[1:]])
    for norm in ("batch", "none"):
        discriminator = projected(**TINY, norm=norm).train()
        for module in discriminator.modules():  # power iteration moves the weights from call to call
            if hasattr(module, "n_power_iterations"):
                module.n_power_iterations = 0
        same = torch.allclose(discriminator(x)[0][0], discriminator(changed)[0][0], atol=1e-5)
        assert same == (not discriminator.heads.batch_coupled) == (norm == "none")


def test_conditions():
    discriminator = projected(**TINY, num_classes=5).eval()
    x = samples()
    one, two = discriminator(x, torch.tensor([0, 1])), discriminator(x, torch.tensor([0, 4]))
    for a, b in zip(one, two):
        torch.testing.assert_close(a[0], b[0])
        assert not torch.allclose(a[1], b[1])
    for bad in (None, torch.tensor([0, 5]), torch.tensor([0])):
        with pytest.raises(InputError):
            discriminator(x, bad)


def test_channels_and_sizes():
    assert projected(**TINY, in_channels=1).features.images(samples(1, 1, 20)).shape == (1, 3, 64, 64)
    free = projected(**TINY, resize=False)
    shapes = [tuple(scale.shape) for scale in free(samples(1, side=96))]
    assert shapes[0] == (1, 1, 9, 9)
    with pytest.raises(InputError, match="at least"):
        free(samples(1, side=free.smallest - 1))
    free(samples(1, side=free.smallest))
    with pytest.raises(InputError):
        projected(**TINY)(samples(1, 1))


def test_state_dict_round_trip():
    one, other = projected(**TINY), projected(**TINY, seed=9)
    x = samples()
    one(x)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.eval()(x), other.eval()(x)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "tf_efficientnet_lite9"}, "tf_efficientnet_lite"),
        ({"backbone": None}, "backbone"),
        ({"backbone": "vit_tiny_patch16_224", "resolution": 224}, "four scales"),
        ({"backbone": "swin_tiny_patch4_window7_224", "resolution": 224}, "four scales"),
        ({"in_channels": 2}, "in_channels"),
        ({"resolution": 32}, "at least 64"),
        ({"resolution": -1}, "resolution"),
        ({"width": 0}, "width"),
        ({"seed": -1}, "seed"),
        ({"norm": "layer"}, "norm"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(OptionError, match=words):
        projected(**{**TINY, **options})
