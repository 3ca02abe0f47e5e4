"""The discriminator `dino`: frozen tokens of timm's vision transformers."""

from __future__ import annotations

import copy

import pytest
import torch

from advloss import FeatureDiscriminator, InputError, OptionError, create_discriminator, logit_sum
from advloss_timm import dino

TINY = {"backbone": "test_vit", "pretrained": False, "blocks": (1, 3), "resolution": 32}


def samples(n=2, channels=3, side=32, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side, generator=generator, dtype=dtype) * 2 - 1


def collected(discriminator, images, blocks):
    """timm's own activations, by hooks of the test."""
    model, seen = discriminator.features.model, []
    norm_pre = getattr(model, "norm_pre", None)
    entry = norm_pre if isinstance(norm_pre, torch.nn.Module) else model.pos_drop
    handles = [
        m.register_forward_hook(lambda m, a, out: seen.append(out)) for m in (entry, *(model.blocks[b] for b in blocks))
    ]
    with torch.no_grad():
        model.forward_features(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("backbone", "side", "prefix", "summary"),
    [
        ("test_vit", 32, 1, (0,)),
        ("test_vit2", 32, 1, ()),  # a register token alone
        ("deit_tiny_patch16_224", 32, 1, (0,)),
        ("deit_tiny_distilled_patch16_224", 32, 2, (0, 1)),
        ("eva02_tiny_patch14_224", 28, 1, (0,)),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 28, 5, (0,)),
    ],
)
def test_features_are_timms_own(backbone, side, prefix, summary):
    torch.manual_seed(0)
    blocks = (0, 2, 5)
    options = {"backbone": backbone, "pretrained": False, "resolution": side, "blocks": blocks}
    discriminator = dino(**options)
    x = samples(2, side=side)
    config = discriminator.features.model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    seen = collected(discriminator, ((x + 1) / 2 - mean) / std, blocks)
    levels = discriminator.features(x)
    assert len(levels) == len(seen) == 4
    for level, tokens in zip(levels, seen):
        expected = tokens[:, prefix:]
        if summary:
            expected = expected + sum(tokens[:, i : i + 1] for i in summary) / len(summary)
        torch.testing.assert_close(level, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    discriminator.features.readout = "patches"
    for level, tokens in zip(discriminator.features(x), seen):
        torch.testing.assert_close(level, tokens[:, prefix:].transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert [tuple(scale.shape) for scale in discriminator(x)] == [(2, 4)] * 4


def test_built_by_name_and_forwarded():
    discriminator = create_discriminator("dino", **TINY, num_classes=3, condition_features=5)
    assert isinstance(discriminator, FeatureDiscriminator)
    assert (discriminator.dims, discriminator.in_channels) == (2, 3)
    assert (discriminator.num_classes, discriminator.condition_features) == (3, 5)
    assert discriminator.heads.batch_coupled
    condition = {"class": torch.tensor([0, 2]), "vector": torch.randn(2, 5)}
    assert [tuple(scale.shape) for scale in discriminator(samples(), condition)] == [(2, 4)] * 3


def test_defaults_are_the_papers():
    discriminator = dino(pretrained=False)
    assert discriminator.features.channels == (384,) * 5
    assert discriminator.features.blocks == (2, 5, 8, 11)
    features = discriminator.features(samples(1, side=64))
    assert [tuple(level.shape) for level in features] == [(1, 384, 196)] * 5
    head = 384 * 384 + 384 + 2 * 384 + 9 * 384 * 384 + 384 + 2 * 384 + 384 + 1
    assert sum(p.numel() for p in discriminator.heads.parameters()) == 5 * head


def test_frozen_and_pure():
    discriminator = dino(**TINY)
    discriminator.requires_grad_(True)
    discriminator = FeatureDiscriminator(discriminator.features, discriminator.heads)
    before = copy.deepcopy(discriminator.features.state_dict())
    discriminator.train()
    assert discriminator.heads.training
    assert not any(m.training for m in discriminator.features.modules())
    assert not any(p.requires_grad for p in discriminator.features.parameters())
    rng = torch.get_rng_state()
    x, y = samples(), samples(seed=1)
    first = discriminator.features(x)
    discriminator.features(y)
    with torch.no_grad():
        again = discriminator.features(x)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert torch.equal(rng, torch.get_rng_state())
    assert not any(m._forward_pre_hooks for m in discriminator.features.modules())
    logit_sum(discriminator(x)).backward()
    assert all(p.grad is None for p in discriminator.features.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), discriminator.features.state_dict().values()))


@pytest.mark.parametrize("side", [32, 21])
def test_gradient_to_samples_by_finite_differences(side):
    torch.manual_seed(1)
    discriminator = dino(**TINY).double().eval()
    x = samples(2, side=side, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(logit_sum(discriminator(x)), x)
    direction = torch.randn_like(x)
    with torch.no_grad():
        up, down = (logit_sum(discriminator(x + s * 1e-5 * direction)) for s in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-9)
    assert (gradient != 0).all()


@pytest.mark.parametrize("n", [1, 2, 8, 9, 15])
def test_any_batch(n):
    discriminator = dino(**TINY)
    x = samples(n).requires_grad_()
    logits = discriminator(x)
    assert [tuple(scale.shape) for scale in logits] == [(n, 4)] * 3
    logit_sum(logits).backward()
    assert torch.isfinite(x.grad).all()


def test_r1_by_features_works_and_by_samples_is_refused_by_torch():
    torch.manual_seed(2)
    discriminator = dino(**TINY)
    features = [f.detach().requires_grad_() for f in discriminator.features(samples(9))]
    gradients = torch.autograd.grad(logit_sum(discriminator.heads(features)), features, create_graph=True)
    penalty = sum(g.square().sum() for g in gradients)
    penalty.backward()
    assert torch.isfinite(penalty)
    assert all(torch.isfinite(p.grad).all() for p in discriminator.heads.parameters() if p.grad is not None)
    x = samples().requires_grad_()
    (gradient,) = torch.autograd.grad(logit_sum(discriminator(x)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        gradient.square().sum().backward()  # why the spec says double_backward=False


def test_channels_and_sizes():
    grey = dino(**TINY, in_channels=1)
    x = samples(2, channels=1, side=40)
    assert all(torch.equal(a, b) for a, b in zip(grey.features(x), grey.features(x.clone())))
    assert grey.features.images(x).shape == (2, 3, 32, 32)
    assert all(torch.isfinite(level).all() for level in grey.features(samples(1, 1, 1)))
    free = dino(**TINY, resize=False)
    assert [tuple(scale.shape) for scale in free(samples(2, side=48))] == [(2, 9)] * 3
    assert free.smallest == 32
    fixed = dino(**TINY)
    x = samples()
    torch.testing.assert_close(fixed.features.images(x), x)  # test_vit: mean 0.5, deviation 0.5
    for bad in (samples(1, side=40), samples(1, side=16)):
        with pytest.raises(InputError):
            free(bad)
    bads = (samples(0), samples(1, 1), samples()[0], samples().mul(127).byte(), samples().permute(0, 2, 3, 1))
    for bad in bads:
        with pytest.raises(InputError):
            fixed(bad)


def test_state_dict_round_trip():
    torch.manual_seed(3)
    one, other = dino(**TINY, num_classes=4), dino(**TINY, num_classes=4)
    x, labels = samples(), torch.tensor([1, 3])
    one(x, labels)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.eval()(x, labels), other.eval()(x, labels)))
    assert all(torch.equal(a, b) for a, b in zip(one(x, labels), copy.deepcopy(one)(x, labels)))


def test_half_precision_and_compile():
    discriminator = dino(**TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = discriminator(samples(9))
    assert all(torch.isfinite(scale.float()).all() for scale in logits)
    discriminator.eval()
    compiled = torch.compile(discriminator, backend="eager")
    for a, b in zip(compiled(samples()), discriminator(samples())):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "vit_smal_patch16_224.dino"}, "vit_small_patch16_224.dino"),
        ({"backbone": "vit_small_patch16_224.dno"}, "vit_small_patch16_224.dino"),
        ({"backbone": 3}, "backbone"),
        ({"backbone": "test_resnet"}, "img_size"),
        ({"backbone": "swin_tiny_patch4_window7_224", "resolution": 224}, "projected"),
        ({"backbone": "samvit_base_patch16", "resolution": 32}, "no tokens"),
        ({"blocks": (1, 6)}, "0 to 5"),
        ({"blocks": ()}, "blocks"),
        ({"blocks": (3, 1)}, "ascending"),
        ({"blocks": "12"}, "blocks"),
        ({"blocks": (-1,)}, "blocks"),
        ({"readout": "cls"}, "'patches'"),
        ({"in_channels": 4}, "in_channels"),
        ({"resolution": 40}, "multiple of 16"),
        ({"resolution": 16}, "at least 32"),
        ({"resolution": 0}, "resolution"),
        ({"num_classes": 0}, "num_classes"),
        ({"condition_features": 2.5}, "condition_features"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(OptionError, match=words):
        dino(**{**TINY, **options})


def test_default_blocks_end_each_quarter_of_any_depth():
    discriminator = create_discriminator("dino", **{**TINY, "blocks": None})
    assert len(discriminator.features.model.blocks) == 6
    assert discriminator.features.blocks == (0, 2, 3, 5)
