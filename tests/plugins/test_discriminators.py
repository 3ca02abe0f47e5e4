"""What all discriminators promise: shapes, sizes, options, state, and that their specs tell the truth."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advloss
import advloss_discriminators as plugin
from advloss import DiscriminatorSpec, InputError, OptionError, as_scales
from advloss_discriminators._plugin import advloss_discriminators

SPECS = {spec.name: spec for spec in advloss_discriminators()}

# name, options, shape of a sample, condition of two samples
TINY: dict[str, tuple[str, dict[str, Any], tuple[int, ...], Any]] = {
    "patch": ("patch", {"width": 2, "depth": 1}, (3, 9, 8), None),
    "patch-group": ("patch", {"width": 2, "depth": 1, "norm": "group"}, (3, 8, 8), None),
    "patch-instance-3d": ("patch", {"width": 2, "depth": 1, "norm": "instance", "dims": 3}, (3, 6, 6, 6), None),
    "patch-image": ("patch", {"width": 2, "depth": 1, "condition_channels": 1}, (3, 8, 8), torch.ones(2, 1, 8, 8)),
    "multiscale": (
        "multiscale",
        {"discriminator": ("patch", {"width": 2, "depth": 1}), "scales": 2},
        (3, 12, 12),
        None,
    ),
    "pixel-unshuffle": ("pixel-unshuffle", {"discriminator": ("patch", {"width": 2, "depth": 1})}, (3, 13, 12), None),
    "minibatch": ("minibatch", {"discriminator": ("mlp", {"width": 4}), "kernels": 3}, (2,), None),
    "detail": ("detail", {"width": 2}, (3, 9, 8), None),
    "unet": ("unet", {"width": 2}, (3, 8, 8), None),
    "spectral-norm": ("spectral-norm", {"width": 2, "resolution": 8}, (3, 8, 8), None),
    "spectral-norm-residual": (
        "spectral-norm",
        {"width": 2, "resolution": 8, "architecture": "residual"},
        (3, 8, 8),
        None,
    ),
    "projection": ("projection", {"width": 2, "resolution": 8, "num_classes": 3}, (3, 8, 8), torch.tensor([0, 2])),
    "projection-several": (
        "projection",
        {"width": 2, "resolution": 8, "norm": "none", "condition_features": 5, "num_steps": 4},
        (3, 8, 8),
        {"vector": torch.ones(2, 5), "time": torch.tensor([3, 0])},
    ),
    "mlp": ("mlp", {"width": 4}, (2,), None),
    "mlp-classes": ("mlp", {"width": 4, "num_classes": 3}, (2,), {"class": torch.tensor([0, 2])}),
    "dcgan": ("dcgan", {"width": 2, "resolution": 16}, (3, 16, 16), None),
    "dcgan-classes": ("dcgan", {"width": 2, "resolution": 8, "num_classes": 3}, (3, 8, 8), torch.tensor([0, 2])),
    "vgg": ("vgg", {"width": 2, "resolution": 8}, (3, 8, 8), None),
    "r3gan": ("r3gan", {"width": 8, "resolution": 8, "depth": 1}, (3, 8, 8), None),
    "r3gan-classes": (
        "r3gan",
        {"width": 8, "resolution": 8, "depth": 1, "num_classes": 3},
        (3, 8, 8),
        torch.tensor([0, 2]),
    ),
    "stylegan2": ("stylegan2", {"width": 2, "resolution": 8}, (3, 8, 8), None),
}


def first(condition: Any) -> Any:
    """The condition of the first sample."""
    if isinstance(condition, dict):
        return {kind: part[:1] for kind, part in condition.items()}
    return None if condition is None else condition[:1]


def make(case: str) -> tuple[nn.Module, Tensor, Any]:
    torch.manual_seed(0)
    name, options, shape, condition = TINY[case]
    return advloss.create_discriminator(name, **options), torch.randn(2, *shape), condition


def of_spec(spec: DiscriminatorSpec) -> nn.Module:
    """A module with default options, without its weights."""
    with torch.device("meta"):
        return advloss.create_discriminator(spec.name, **({"num_classes": 3} if spec.name == "projection" else {}))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_every_discriminator_is_tested() -> None:
    assert {name for name, *_ in TINY.values()} == set(SPECS)


def test_hooks_import_no_torch() -> None:
    code = (
        "import sys, advloss_discriminators._plugin as p; p.advloss_discriminators(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", SPECS)
def test_specs_tell_the_truth_of_defaults(name: str) -> None:
    spec, module = SPECS[name], of_spec(SPECS[name])
    assert module.batch_coupled == spec.batch_coupled
    assert module.dims in spec.dims
    assert getattr(module, "smallest", 1) == spec.smallest
    kinds = {"num_classes": "class", "condition_features": "vector", "num_steps": "time", "condition_channels": "image"}
    assert {kind for attribute, kind in kinds.items() if hasattr(module, attribute)} <= set(spec.conditions)


@pytest.mark.parametrize("case", TINY)
def test_logits_have_the_declared_form(case: str) -> None:
    module, samples, condition = make(case)
    logits = module(samples, condition)
    output = SPECS[TINY[case][0]].output
    assert isinstance(logits, list) == (output == "multi-scale")
    for scale in as_scales(logits):
        assert scale.isfinite().all()
        assert scale.shape == (2,) if output == "logit" else scale.shape[:2] == (2, 1)
        assert scale.dim() == (1 if output == "logit" else samples.dim())


@pytest.mark.parametrize("case", TINY)
def test_batch_of_one_and_batch_coupling(case: str) -> None:
    module, samples, condition = make(case)
    if any("parametrizations" in name for name, _ in module.named_parameters()):
        module.eval()  # the power iteration would move
    for weight in (p for p in module.parameters() if p.ndim > 1 and not p.any()):
        nn.init.normal_(weight)  # a layer that begins at zero
    together = [scale[:1] for scale in as_scales(module(samples, condition))]
    alone = as_scales(module(samples[:1], first(condition)))
    assert all(scale.isfinite().all() for scale in alone)
    equal = all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone))
    coupled = module.batch_coupled and case != "dcgan-classes" and case != "stylegan2"
    if coupled:
        assert not equal
    elif not module.batch_coupled:
        assert equal


@pytest.mark.parametrize("case", TINY)
def test_forward_leaves_samples_and_random_state_alone(case: str) -> None:
    module, samples, condition = make(case)
    before, state = samples.clone(), torch.get_rng_state()
    module(samples, condition)
    assert torch.equal(samples, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("case", TINY)
def test_copies_and_saved_state_give_equal_logits(case: str) -> None:
    module, samples, condition = make(case)
    module.eval()
    expected = as_scales(module(samples, condition))
    torch.manual_seed(1)
    name, options, *_ = TINY[case]
    loaded = advloss.create_discriminator(name, **options).eval()
    loaded.load_state_dict(module.state_dict())
    for other in (loaded, copy.deepcopy(module)):
        for a, b in zip(as_scales(other(samples, condition)), expected):
            assert torch.equal(a, b)


@pytest.mark.parametrize("case", TINY)
def test_every_parameter_and_sample_gets_a_gradient(case: str) -> None:
    module, samples, condition = make(case)
    samples.requires_grad_()
    sum(scale.square().sum() for scale in as_scales(module(samples, condition))).backward()
    assert samples.grad is not None
    assert samples.grad.abs().sum() > 0
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("case", TINY)
def test_half_precision_and_channels_last(case: str) -> None:
    module, samples, condition = make(case)
    if samples.dim() == 4:
        samples = samples.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(scale.isfinite().all() for scale in as_scales(module(samples, condition)))


@pytest.mark.parametrize("case", [case for case, row in TINY.items() if row[3] is not None])
def test_condition_matters_and_is_required(case: str) -> None:
    module, samples, condition = make(case)
    module.eval()
    parts = condition if isinstance(condition, dict) else {SPECS[TINY[case][0]].conditions[-1]: condition}
    if case.startswith("projection") and not isinstance(condition, dict):
        parts = {"class": condition}
    for kind, part in parts.items():
        changed = {**parts, kind: 1 - part if part.is_floating_point() else (part + 1) % 3}
        assert not torch.equal(module(samples, changed), module(samples, parts))
        with pytest.raises(InputError, match=kind):
            module(samples, {other: p for other, p in parts.items() if other != kind})
    with pytest.raises(InputError, match="condition"):
        module(samples)


def test_one_tensor_for_several_conditions_is_refused() -> None:
    module = plugin.MLPDiscriminator(num_classes=3, num_steps=3)
    with pytest.raises(InputError, match="class and time"):
        module(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long))


def test_image_condition_of_another_size_is_refused() -> None:
    module = plugin.PatchDiscriminator(width=2, depth=1, condition_channels=1)
    with pytest.raises(InputError, match="resize"):
        module(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "spectral", "none"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("dims", [1, 2])
def test_patch_at_its_smallest_size(norm: str, depth: int, dims: int) -> None:
    module = plugin.PatchDiscriminator(width=2, depth=depth, norm=norm, dims=dims)
    assert module.smallest == 3 * 2**depth
    for side in (module.smallest, module.smallest + 1):
        assert module(torch.randn(1, 3, *[side] * dims)).shape == (1, 1, *[1] * dims)
    with pytest.raises((RuntimeError, ValueError)):  # torch's, by layer
        module(torch.randn(1, 3, *[module.smallest - 1] * dims))


@pytest.mark.parametrize("name", ["spectral-norm", "projection", "dcgan", "vgg", "r3gan", "stylegan2"])
@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_depth_follows_resolution(name: str, resolution: int) -> None:
    options = {"projection": {"num_classes": 2}, "r3gan": {"width": 16, "depth": 1}}.get(name, {})
    module = advloss.create_discriminator(name, **{"width": 2, **options}, resolution=resolution)
    assert module.resolution == module.smallest == resolution
    condition = torch.zeros(1, dtype=torch.long) if name == "projection" else None
    assert module(torch.randn(1, 3, resolution, resolution), condition).shape == (1,)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("patch", {}, 2_765_633),  # pix2pix's code
        ("unet", {}, 4_376_897),  # Real-ESRGAN's
        ("vgg", {}, 14_502_281 - 2_880),  # ESRGAN's, less the biases before batch norm
        ("dcgan", {}, 2_765_569 + 64),  # DCGAN's has 2,765,568 and no biases; here the first and last layer have
        ("stylegan2", {"width": 64}, 24_001_089),  # stylegan2-ada's at 256 x 256, half as wide
        ("stylegan2", {}, 28_864_129),  # the paper's at 256 x 256
        ("stylegan2", {"width": 32, "resolution": 1024}, 29_012_513),
        ("r3gan", {}, 3 * 768 + 8 * (4 * 768**2 + 16 * 9 * 1536 + 2 * 1536) + 17 * 768),
        ("r3gan", {"num_classes": 10}, 3 * 768 + 8 * (4 * 768**2 + 16 * 9 * 1536 + 2 * 1536) + 26 * 768 + 768**2),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert parameters(advloss.create_discriminator(name, **options)) == expected


@pytest.mark.parametrize(("side", "logits"), [(256, 30), (70, 6), (255, 29), (24, 1)])
def test_patch_sizes(side: int, logits: int) -> None:
    with torch.device("meta"):
        assert plugin.PatchDiscriminator()(torch.empty(1, 3, side, side)).shape == (1, 1, logits, logits)


@pytest.mark.parametrize(("depth", "width"), [(1, 16), (2, 34), (3, 70)])
def test_patch_sees_patches_of_its_papers_width(depth: int, width: int) -> None:
    module = plugin.PatchDiscriminator(width=2, depth=depth, norm="none").double()
    samples = torch.randn(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = module(samples)
    logits[..., logits.shape[2] // 2, logits.shape[3] // 2].sum().backward()
    assert samples.grad is not None
    rows = samples.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == width


def test_dcgan_initialization() -> None:
    torch.manual_seed(0)
    for module in (plugin.PatchDiscriminator(), plugin.DCGANDiscriminator()):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                assert abs(layer.weight.std().item() - 0.02) < 2e-3
                assert layer.bias is None or not layer.bias.any()
            if isinstance(layer, nn.BatchNorm2d):
                assert abs(layer.weight.mean().item() - 1) < 0.02
                assert 0.01 < layer.weight.std().item() < 0.03
        assert module.layers[0].bias is not None


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    module = plugin.ProjectionDiscriminator(width=4, resolution=8, num_classes=3)
    for _ in range(50):
        module(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
    assert len(layers) == 9
    for layer in layers:
        assert abs(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() - 1) < 1e-2
    plain = plugin.ProjectionDiscriminator(width=4, resolution=8, num_classes=3, norm="none")
    assert not any("parametrizations" in name for name, _ in plain.named_parameters())


def test_unet_normalizes_all_but_first_and_last() -> None:
    names = [name for name, _ in plugin.UNetDiscriminator(width=2).named_parameters() if "original" in name]
    assert len(names) == 8
    assert not any(name.startswith(("first", "last")) for name in names)


@pytest.mark.parametrize("sides", [(12, 16), (8, 9), (21, 15)])
def test_unet_gives_a_logit_a_pixel_for_any_sides(sides: tuple[int, int]) -> None:
    assert plugin.UNetDiscriminator(width=2)(torch.zeros(1, 3, *sides)).shape == (1, 1, *sides)


def test_r3gan_starts_as_its_skips() -> None:
    torch.manual_seed(0)
    module = plugin.R3GANDiscriminator(width=64, resolution=8, num_classes=50)
    hidden = torch.randn(1, 64, 8, 8)
    assert torch.equal(module.stages[0](hidden), hidden)
    block = module.stages[0][0]
    gain = (2 / 1.04) ** 0.5 * 4**-0.25  # four blocks
    assert abs(block.expand.weight.std().item() / (gain * 64**-0.5) - 1) < 0.05
    assert abs(block.mix.weight.std().item() / (gain * (16 * 9) ** -0.5) - 1) < 0.05
    assert abs(module.embedding.weight.std().item() / (64 * 50) ** -0.5 - 1) < 0.1


def test_r3gan_halves_the_width_above_32() -> None:
    with torch.device("meta"):
        module = plugin.R3GANDiscriminator(resolution=256)
    assert [stage[0].reduce.out_channels for stage in module.stages] == [96, 192, 384, 768, 768, 768, 768]


def test_lowpass_is_antialiased_bilinear_resampling() -> None:
    from advloss_discriminators._resample import LowPass

    images = torch.randn(2, 3, 16, 16)
    expected = nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    halved = LowPass(stride=2, padding=1)(images)
    torch.testing.assert_close(halved[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert halved.shape == expected.shape
    assert not LowPass(stride=2, padding=1).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("patch", {"norm": "layer"}, "norm='layer': use one of 'batch'"),
        ("patch", {"depth": 0}, "depth=0: give a whole number"),
        ("patch", {"width": 2.5}, r"width=2\.5"),
        ("patch", {"in_channels": True}, "in_channels=True"),
        ("patch", {"dims": 4}, "dims=4: use one of 1, 2, 3"),
        ("patch", {"condition_channels": -1}, "condition_channels=-1"),
        ("unet", {"width": 0}, "width=0"),
        ("spectral-norm", {"resolution": 36}, "resolution=36: give a number from 4 to 7 times a power of two"),
        ("spectral-norm", {"resolution": 4}, "resolution=4: .*8 or more"),
        ("spectral-norm", {"resolution": "32"}, "resolution='32'"),
        ("spectral-norm", {"architecture": "unet"}, "architecture='unet'"),
        ("projection", {}, "needs a condition"),
        ("projection", {"num_classes": 0}, "num_classes=0"),
        ("projection", {"num_classes": 2, "norm": "batch"}, "norm='batch'"),
        ("mlp", {"norm": "batch"}, "norm='batch': use one of 'none', 'spectral'"),
        ("mlp", {"num_steps": 1.5}, r"num_steps=1\.5"),
        ("dcgan", {"resolution": 48}, "resolution=48: give 4 times a power of two"),
        ("vgg", {"resolution": 100}, "resolution=100"),
        ("detail", {"gain": float("inf")}, "gain=inf: give a finite number above 0"),
        ("detail", {"gain": "8"}, "gain='8'"),
        ("r3gan", {"width": 12}, "width=12: give a multiple of 8"),
        ("r3gan", {"width": 8, "resolution": 64}, "give a multiple of 16 for resolution=64"),
        ("stylegan2", {"resolution": 24}, "resolution=24"),
        ("stylegan2", {"group_size": 0}, "group_size=0"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        advloss.create_discriminator(name, **options)
