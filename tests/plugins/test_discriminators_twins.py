"""Every discriminator against its textbook twin: the paper's formula, written plainly, in lock-step in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import advloss_discriminators as plugin
from advloss import as_scales, logit_mean, logit_sum


class Weights:
    """The leaves of a discriminator, copied; a twin asks for them layer by layer, in order or by name."""

    def __init__(self, module: nn.Module) -> None:
        self.leaves = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
        self.vectors = {name: b.detach().clone() for name, b in module.named_buffers()}
        names = [n.removesuffix(".parametrizations.weight.original") for n in self.leaves]
        names = [n.removesuffix(".weight").removesuffix(".bias") for n in names]
        self.order = list(dict.fromkeys(names))
        self.restart()

    def restart(self) -> None:
        self.position = iter(self.order)

    def __call__(self, name: str | None = None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the layer `name`, or of the next one."""
        name = next(self.position) if name is None else name
        weight = self.leaves.get(f"{name}.weight")
        return (self.normalized(name) if weight is None else weight), self.leaves.get(f"{name}.bias")

    def normalized(self, name: str) -> Tensor:
        """W / sigma after one step of the power iteration."""
        weight = self.leaves[f"{name}.parametrizations.weight.original"]
        matrix, prefix = weight.flatten(1), f"{name}.parametrizations.weight.0."
        with torch.no_grad():
            u = matrix @ self.vectors[prefix + "_v"]
            u = u / u.norm()
            v = matrix.T @ u
            v = v / v.norm()
        self.vectors[prefix + "_u"], self.vectors[prefix + "_v"] = u, v
        return weight / (u @ matrix @ v)


CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def conv(x: Tensor, layer: tuple[Tensor, Tensor | None], stride: int = 1, padding: int = 1, groups: int = 1) -> Tensor:
    return CONV[x.dim() - 2](x, *layer, stride=stride, padding=padding, groups=groups)


def lrelu(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def norm(x: Tensor, layer: tuple[Tensor, Tensor | None], kind: str) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5) weight + bias, over what the norm's name says."""
    n, channels, *sides = x.shape
    groups = {"batch": channels, "instance": channels, "group": math.gcd(32, channels)}[kind]
    y = x.reshape(n, groups, channels // groups, *sides)
    over = [0, *range(2, y.dim())] if kind == "batch" else list(range(2, y.dim()))
    y = (y - y.mean(over, keepdim=True)) / (y.var(over, unbiased=False, keepdim=True) + 1e-5).sqrt()
    shape = (1, channels, *[1] * len(sides))
    weight, bias = layer
    assert bias is not None
    return y.reshape(x.shape) * weight.view(shape) + bias.view(shape)


def block(x: Tensor, w: Weights, kind: str, stride: int) -> Tensor:
    x = conv(x, w(), stride)
    return lrelu(norm(x, w(), kind) if kind in ("batch", "instance", "group") else x)


def filtered(x: Tensor, stride: int, padding: int) -> Tensor:
    """[1, 3, 3, 1] / 8 along rows and columns, by its sum."""
    x = F.pad(x, [padding] * 4)
    side = (x.shape[-1] - 4) // stride + 1
    end, taps = stride * (side - 1) + 1, (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    rows = sum(t * x[..., i : i + end : stride, :] for i, t in enumerate(taps))
    return sum(t * rows[..., i : i + end : stride] for i, t in enumerate(taps))


def patch(w: Weights, x: Tensor, y: Any, norm: str = "batch", depth: int = 3, **_: Any) -> Tensor:
    x = x if y is None else torch.cat([y, x], 1)
    x = lrelu(conv(x, w(), 2))
    for _level in range(depth - 1):
        x = block(x, w, norm, 2)
    x = block(x, w, norm, 1)
    return conv(x, w())


def dcgan(w: Weights, x: Tensor, y: Any, norm: str = "batch", resolution: int = 64, **_: Any) -> Tensor:
    x = lrelu(conv(x, w(), 2))
    while x.shape[-1] > 4:
        x = block(x, w, norm, 2)
    logits = F.linear(x.flatten(1), *w())[:, 0]
    return logits if y is None else logits + (w()[0][y] * x.sum((2, 3))).sum(1)


def vgg(w: Weights, x: Tensor, y: Any, norm: str = "batch", **_: Any) -> Tensor:
    x = lrelu(conv(x, w(), 1))
    x = block(x, w, norm, 2)
    while x.shape[-1] > 4:
        x = block(block(x, w, norm, 1), w, norm, 2)
    return F.linear(lrelu(F.linear(x.flatten(1), *w())), *w())[:, 0]


def unet(w: Weights, x: Tensor, y: Any, **_: Any) -> Tensor:
    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = lrelu(conv(x, w("first")))
    x1 = lrelu(conv(x0, w("down.0"), 2))
    x2 = lrelu(conv(x1, w("down.1"), 2))
    x3 = lrelu(conv(x2, w("down.2"), 2))
    x4 = lrelu(conv(up(x3), w("up.0"))) + x2
    x5 = lrelu(conv(up(x4), w("up.1"))) + x1
    x6 = lrelu(conv(up(x5), w("up.2"))) + x0
    x7 = lrelu(conv(lrelu(conv(x6, w("refine.0"))), w("refine.1")))
    return conv(x7, w("last"))


def sngan_convolutional(w: Weights, x: Tensor) -> Tensor:
    x = lrelu(conv(x, w()), 0.1)
    while x.shape[-1] >= 8:
        x = lrelu(conv(x, w(), 2), 0.1)
        x = lrelu(conv(x, w()), 0.1)
    return x


def sngan_residual(w: Weights, x: Tensor, plan: list[str]) -> Tensor:
    """`plan` has a letter a block: d pools, s stays; c stays with a convolution on the skip."""
    for index, kind in enumerate(plan):
        h = x if index == 0 else F.relu(x)
        h = conv(F.relu(conv(h, w())), w())
        skip = conv(x, w(), padding=0) if kind != "s" else x
        x = h + skip if kind != "d" else F.avg_pool2d(h, 2) + F.avg_pool2d(skip, 2)
    return F.relu(x)


def trunk(w: Weights, x: Tensor, architecture: str, resolution: int) -> Tensor:
    plans = {8: "dss", 16: "dss", 32: "ddss", 64: "dddds"}
    return sngan_convolutional(w, x) if architecture == "convolutional" else sngan_residual(w, x, [*plans[resolution]])


def spectral_norm(
    w: Weights, x: Tensor, y: Any, architecture: str = "convolutional", resolution: int = 32, **_: Any
) -> Tensor:
    h = trunk(w, x, architecture, resolution)
    return F.linear(h.sum((2, 3)) if architecture == "residual" else h.flatten(1), *w())[:, 0]


def embedded(w: Weights, y: Any) -> Tensor:
    """e(y): rows of a table for indices, a matrix product for vectors."""
    parts = [y[kind] for kind in ("class", "vector", "time") if kind in y] if isinstance(y, dict) else [y]
    return sum(part @ w()[0].T if part.is_floating_point() else w()[0][part] for part in parts)


def projection(w: Weights, x: Tensor, y: Any, architecture: str = "residual", resolution: int = 32, **_: Any) -> Tensor:
    phi = trunk(w, x, architecture, resolution).sum((2, 3))
    return F.linear(phi, *w())[:, 0] + (embedded(w, y) * phi).sum(1)


def mlp(w: Weights, x: Tensor, y: Any, depth: int = 3, **_: Any) -> Tensor:
    for _level in range(depth):
        x = lrelu(F.linear(x, *w()))
    logits = F.linear(x, *w())[:, 0]
    return logits if y is None else logits + (embedded(w, y) * x).sum(1)


def r3gan(w: Weights, x: Tensor, y: Any, width: int = 768, depth: int = 2, **_: Any) -> Tensor:
    x, stage = conv(x, w("first"), padding=0), 0
    while True:
        for index in range(depth):
            name = f"stages.{stage}.{index}."
            h = lrelu(conv(x, w(name + "expand"), padding=0))
            h = lrelu(conv(h, w(name + "mix"), groups=h.shape[1] // 16))
            x = x + conv(h, w(name + "reduce"), padding=0)
        if x.shape[-1] == 4:
            break
        x = filtered(x, 2, 1)
        if f"transitions.{stage}.weight" in w.leaves:
            x = conv(x, w(f"transitions.{stage}"), padding=0)
        stage += 1
    basis = (x * w("basis")[0][:, 0]).sum((2, 3)) @ w("dense")[0].T
    return basis[:, 0] if y is None else (basis * w("embedding")[0][y]).sum(1)


def deviation(x: Tensor, group_size: int) -> Tensor:
    """Minibatch standard deviation, a sample at a time."""
    groups = math.ceil(len(x) / group_size)
    extra = []
    for index in range(len(x)):
        group = x[index % groups :: groups]
        spread = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        extra.append(spread.expand(1, *x.shape[2:]))
    return torch.cat([x, torch.stack(extra)], 1)


def stylegan2(w: Weights, x: Tensor, y: Any, group_size: int = 4, **_: Any) -> Tensor:
    def equalized(name: str) -> tuple[Tensor, Tensor | None]:
        weight, bias = w(name)
        return weight / math.sqrt(weight[0].numel()), bias

    def act(x: Tensor) -> Tensor:
        return math.sqrt(2) * lrelu(x)

    x, index = act(conv(x, equalized("first"), padding=0)), 0
    while x.shape[-1] > 4:
        name = f"blocks.{index}."
        h = filtered(act(conv(x, equalized(name + "conv1"))), 1, 2)
        h = act(conv(h, equalized(name + "conv2"), stride=2, padding=0))
        x = (h + conv(filtered(x, 2, 1), equalized(name + "skip"), padding=0)) / math.sqrt(2)
        index += 1
    x = act(conv(deviation(x, group_size), equalized("conv")))
    return F.linear(act(F.linear(x.flatten(1), *equalized("dense"))), *equalized("logit"))[:, 0]


def multiscale(w: Weights, x: Tensor, y: Any, scales: int = 3, **_: Any) -> list[Tensor]:
    logits = []
    for level in range(scales):
        if level:
            x = F.avg_pool2d(F.pad(x, [1] * 4), 3, 2) / F.avg_pool2d(F.pad(torch.ones_like(x), [1] * 4), 3, 2)
        logits.append(patch(w, x, None, depth=1))
    return logits


def pixel_unshuffle(w: Weights, x: Tensor, y: Any, **_: Any) -> Tensor:
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
    squares = [x[:, c : c + 1, i::2, j::2] for c in range(x.shape[1]) for i in (0, 1) for j in (0, 1)]
    return patch(w, torch.cat(squares, 1), None, depth=1)


def detail(w: Weights, x: Tensor, y: Any, gain: float = 8.0, **_: Any) -> Tensor:
    """What is removed: each pixel less the mean of nine, with mirrored borders; the convolutions one by one."""
    columns = torch.arange(-1, x.shape[3] + 1).abs()
    columns = torch.where(columns < x.shape[3], columns, 2 * (x.shape[3] - 1) - columns)
    rows = torch.arange(-1, x.shape[2] + 1).abs()
    rows = torch.where(rows < x.shape[2], rows, 2 * (x.shape[2] - 1) - rows)
    wide = x[:, :, rows][..., columns]
    nine = [wide[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3)]
    hidden = gain * (x - sum(nine) / 9)
    for stride in (2, 2, 1):
        hidden = lrelu(conv(hidden, w(), stride))
    return conv(hidden, w())


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


def everything(n: int) -> dict[str, Tensor]:
    return {"class": labels(n), "vector": torch.randn(n, 5, dtype=torch.float64), "time": torch.arange(n) % 4}


PATCH, SN, PROJECTION = plugin.PatchDiscriminator, plugin.SpectralNormDiscriminator, plugin.ProjectionDiscriminator
MLP, DCGAN, VGG, R3GAN = (
    plugin.MLPDiscriminator,
    plugin.DCGANDiscriminator,
    plugin.VGGDiscriminator,
    plugin.R3GANDiscriminator,
)


def tiny_patch() -> nn.Module:
    return PATCH(width=2, depth=1)


# class, options, twin, shape of a sample, condition
CASES: dict[str, tuple[type[nn.Module], dict[str, Any], Callable[..., Any], tuple[int, ...], Any]] = {
    "patch": (PATCH, {"width": 4}, patch, (3, 27, 24), None),
    "patch-instance": (PATCH, {"width": 4, "depth": 2, "norm": "instance"}, patch, (3, 13, 15), None),
    "patch-group": (PATCH, {"width": 20, "depth": 1, "norm": "group"}, patch, (3, 6, 7), None),
    "patch-spectral": (PATCH, {"width": 4, "depth": 2, "norm": "spectral"}, patch, (3, 12, 13), None),
    "patch-none": (PATCH, {"width": 4, "depth": 1, "norm": "none"}, patch, (3, 9, 9), None),
    "patch-1d": (PATCH, {"width": 4, "depth": 1, "dims": 1, "in_channels": 2}, patch, (2, 9), None),
    "patch-3d": (PATCH, {"width": 2, "depth": 1, "dims": 3, "in_channels": 1}, patch, (1, 6, 7, 6), None),
    "patch-image": (
        PATCH,
        {"width": 4, "depth": 1, "condition_channels": 2},
        patch,
        (3, 8, 8),
        lambda n: torch.randn(n, 2, 8, 8, dtype=torch.float64),
    ),
    "multiscale": (
        plugin.MultiscaleDiscriminator,
        {"discriminator": tiny_patch, "scales": 2},
        multiscale,
        (3, 13, 12),
        None,
    ),
    "pixel-unshuffle": (
        plugin.PixelUnshuffleDiscriminator,
        {"discriminator": ("discriminators/patch", {"width": 2, "depth": 1})},
        pixel_unshuffle,
        (3, 13, 12),
        None,
    ),
    "detail": (plugin.DetailDiscriminator, {"width": 3, "gain": 5.0}, detail, (3, 12, 9), None),
    "unet": (plugin.UNetDiscriminator, {"width": 2}, unet, (3, 8, 16), None),
    "spectral-norm": (SN, {"width": 3, "resolution": 16}, spectral_norm, (3, 16, 16), None),
    "spectral-norm-odd": (SN, {"width": 3, "resolution": 10}, spectral_norm, (3, 10, 10), None),
    "spectral-norm-residual": (
        SN,
        {"width": 3, "architecture": "residual"},
        spectral_norm,
        (3, 32, 32),
        None,
    ),
    "spectral-norm-large": (
        SN,
        {"width": 2, "resolution": 64, "architecture": "residual"},
        spectral_norm,
        (3, 64, 64),
        None,
    ),
    "projection": (PROJECTION, {"width": 4, "resolution": 8, "num_classes": 3}, projection, (3, 8, 8), labels),
    "projection-plain": (
        PROJECTION,
        {
            "width": 4,
            "resolution": 8,
            "architecture": "convolutional",
            "norm": "none",
            "in_channels": 1,
            "num_classes": 3,
            "condition_features": 5,
            "num_steps": 4,
        },
        projection,
        (1, 8, 8),
        everything,
    ),
    "mlp": (MLP, {"width": 8}, mlp, (2,), None),
    "mlp-spectral": (
        MLP,
        {"width": 8, "depth": 1, "in_features": 3, "norm": "spectral", "num_classes": 3, "num_steps": 4},
        mlp,
        (3,),
        lambda n: {kind: part for kind, part in everything(n).items() if kind != "vector"},
    ),
    "mlp-vector": (MLP, {"width": 8, "condition_features": 5}, mlp, (2,), lambda n: everything(n)["vector"]),
    "dcgan": (DCGAN, {"width": 2, "resolution": 16, "in_channels": 1}, dcgan, (1, 16, 16), None),
    "dcgan-classes": (
        DCGAN,
        {"width": 4, "resolution": 16, "norm": "spectral", "num_classes": 3},
        dcgan,
        (3, 16, 16),
        labels,
    ),
    "vgg": (VGG, {"width": 2, "resolution": 16}, vgg, (3, 16, 16), None),
    "vgg-none": (VGG, {"width": 2, "resolution": 8, "norm": "none"}, vgg, (3, 8, 8), None),
    "r3gan": (R3GAN, {"width": 16, "resolution": 64, "depth": 1}, r3gan, (3, 64, 64), None),
    "r3gan-classes": (R3GAN, {"width": 8, "resolution": 8, "num_classes": 3}, r3gan, (3, 8, 8), labels),
    "stylegan2": (
        plugin.StyleGAN2Discriminator,
        {"width": 4, "resolution": 8, "group_size": 2},
        stylegan2,
        (3, 8, 8),
        None,
    ),
}


def make(case: str, batch: int = 4) -> tuple[nn.Module, Tensor, Any]:
    torch.manual_seed(0)
    kind, options, _, shape, condition = CASES[case]
    module = kind(**options).double()
    with torch.no_grad():  # zero-initialized layers would hide those before them
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    samples = torch.randn(batch, *shape, dtype=torch.float64)
    return module, samples, None if condition is None else condition(batch)


def game(discriminate: Callable[[Tensor], Any], real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss with R1, so that second derivatives are compared as well."""
    real = real.detach().requires_grad_()
    on_real, on_fake = discriminate(real), discriminate(fake)
    loss = logit_mean([F.softplus(-r) for r in as_scales(on_real)])
    loss = loss + logit_mean([F.softplus(f) for f in as_scales(on_fake)])
    (gradient,) = torch.autograd.grad(logit_sum(on_real), real, create_graph=True)
    return loss + 0.5 * gradient.square().sum() / len(real)


@pytest.mark.parametrize("case", CASES)
def test_lock_step(case: str) -> None:
    module, real, condition = make(case)
    fake, twin, options = torch.randn_like(real), CASES[case][2], CASES[case][1]
    weights = Weights(module)

    def textbook(samples: Tensor) -> Any:
        weights.restart()
        return twin(weights, samples, condition, **options)

    ours = torch.optim.SGD(module.parameters(), lr=1e-3)
    theirs = torch.optim.SGD(weights.leaves.values(), lr=1e-3)
    for _ in range(3):
        loss = game(lambda samples: module(samples, condition), real, fake)
        expected = game(textbook, real, fake)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        ours.zero_grad()
        theirs.zero_grad()
        loss.backward()
        expected.backward()
        for name, p in module.named_parameters():
            torch.testing.assert_close(
                p.grad, weights.leaves[name].grad, rtol=1e-9, atol=1e-10, msg=f"gradient of {name}"
            )
        ours.step()
        theirs.step()
    for ours_, theirs_ in zip(as_scales(module(real, condition)), as_scales(textbook(real))):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_second_derivative_matches_finite_differences(case: str) -> None:
    module, real, condition = make(case, batch=2)
    if any("parametrizations" in name for name, _ in module.named_parameters()):
        module.eval()  # the power iteration would move between evaluations

    def penalty() -> Tensor:
        samples = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(logit_sum(module(samples, condition)), samples, create_graph=True)
        return gradient.square().sum()

    gradients = torch.autograd.grad(penalty(), list(module.parameters()), allow_unused=True)
    torch.manual_seed(1)
    direction = [torch.randn_like(p) for p in module.parameters()]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction) if g is not None)
    values = []
    for step in (1e-7, -2e-7):
        with torch.no_grad():
            for p, d in zip(module.parameters(), direction):
                p.add_(d, alpha=step)
        values.append(penalty().detach())
    torch.testing.assert_close((values[0] - values[1]) / 2e-7, slope.detach(), rtol=1e-4, atol=1e-6)
