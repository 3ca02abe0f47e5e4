"""The heads against textbook twins: plain float64 code that shares nothing with them but the initial weights."""

from __future__ import annotations

import math

import pytest
import torch

from advloss import InputError, OptionError, logit_sum
from advloss_timm import BatchNormLocal, MapHeads, TokenHeads

BATCHES = [1, 2, 7, 8, 9, 15, 16, 17]


def group_sizes(n, virtual=8):
    """As equal as can be: 9 -> 5, 4; 15 -> 8, 7."""
    groups = math.ceil(n / virtual)
    return [n // groups + (i < n % groups) for i in range(groups)]


def batch_norm_local_twin(x, weight, bias, eps=1e-5):
    out, start = torch.empty_like(x), 0
    for size in group_sizes(len(x)):
        group = x[start : start + size]
        for c in range(x.shape[1]):
            values = group[:, c]
            mean = values.sum() / values.numel()
            variance = ((values - mean) ** 2).sum() / values.numel()
            out[start : start + size, c] = weight[c] * (values - mean) / (variance + eps) ** 0.5 + bias[c]
        start += size
    return out


class SpectralTwin:
    """W / sigma(W), sigma from one power iteration a use (Miyato et al. 2018, algorithm 1)."""

    def __init__(self, state, prefix):
        key = prefix + ".parametrizations.weight."
        self.weight = state[key + "original"].clone().requires_grad_()
        self.bias = state[prefix + ".bias"].clone().requires_grad_() if prefix + ".bias" in state else None
        self.u, self.v = state[key + "0._u"].clone(), state[key + "0._v"].clone()
        self.parameters = [self.weight] if self.bias is None else [self.weight, self.bias]

    def matrix(self):
        flat = self.weight.flatten(1)
        with torch.no_grad():
            self.u = flat @ self.v
            self.u = self.u / self.u.norm()
            self.v = flat.T @ self.u
            self.v = self.v / self.v.norm()
        return flat / (self.u @ flat @ self.v)

    def circular(self, x):
        """out[n, :, l] = W [x[n, :, l - k // 2], ..., x[n, :, l + k // 2]] + b, positions modulo L."""
        kernel = self.weight.shape[2]
        columns = torch.stack([x.roll(kernel // 2 - j, dims=2) for j in range(kernel)], dim=2)  # N, C, k, L
        return torch.einsum("oi,nil->nol", self.matrix(), columns.flatten(1, 2)) + self.bias[:, None]

    def image(self, x, stride, padding):
        side = (x.shape[-1] + 2 * padding - 4) // stride + 1
        columns = torch.nn.functional.unfold(x, 4, padding=padding, stride=stride)
        out = (self.matrix() @ columns).unflatten(2, (side, side))
        return out if self.bias is None else out + self.bias[:, None, None]


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


class TokenHeadsTwin:
    def __init__(self, heads):
        state = {name: value.detach().clone() for name, value in heads.state_dict().items()}
        self.levels, self.parameters = [], []
        for i in range(len(heads.levels)):
            level = {name: SpectralTwin(state, f"levels.{i}.{name}") for name in ("first.0", "residual.0", "last")}
            for conv in level.values():
                self.parameters += conv.parameters
            for name in ("first.1", "residual.1", "projection.vectors", "projection.classes"):
                tensors = [state.get(f"levels.{i}.{name}.{part}") for part in ("weight", "bias")]
                level[name] = [t.requires_grad_() for t in tensors if t is not None]
                self.parameters += level[name]
            self.levels.append(level)

    def __call__(self, features, labels=None, vectors=None):
        logits = []
        for level, x in zip(self.levels, features):
            a = leaky(batch_norm_local_twin(level["first.0"].circular(x), *level["first.1"]))
            b = leaky(batch_norm_local_twin(level["residual.0"].circular(a), *level["residual.1"]))
            out = level["last"].circular((a + b) / 2**0.5)
            if labels is None and vectors is None:
                logits.append(out[:, 0])
                continue
            c = 0
            if labels is not None:
                c = c + level["projection.classes"][0][labels]
            if vectors is not None:
                weight, bias = level["projection.vectors"]
                c = c + vectors @ weight.T + bias
            logits.append((out * c[:, :, None]).sum(1) / 8)
        return logits


class MapHeadsTwin:
    def __init__(self, heads, blocks, norm):
        state = {name: value.detach().clone() for name, value in heads.state_dict().items()}
        self.scales, self.parameters = [], []
        step = 3 if norm == "batch" else 2
        for i, count in enumerate(blocks):
            convs = [SpectralTwin(state, f"scales.{i}.blocks.{j * step}") for j in range(count)]
            last = SpectralTwin(state, f"scales.{i}.last")
            norms = []
            for j in range(count if norm == "batch" else 0):
                key = f"scales.{i}.blocks.{j * step + 1}."
                norms.append([state[key + "weight"].requires_grad_(), state[key + "bias"].requires_grad_()])
            names = ["0.weight", "1.weight", "1.bias"] if f"scales.{i}.projection.0.weight" in state else []
            projection = [state[f"scales.{i}.projection.{name}"].requires_grad_() for name in names]
            self.scales.append((convs, norms, last, projection))
            for part in (*[c.parameters for c in convs], *norms, last.parameters, projection):
                self.parameters += part

    def __call__(self, features, labels=None):
        logits = []
        for (convs, norms, last, projection), x in zip(self.scales, features):
            for j, conv in enumerate(convs):
                x = conv.image(x, 2, 1)
                if norms:
                    mean = x.mean((0, 2, 3), keepdim=True)
                    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
                    weight, bias = norms[j]
                    x = weight[:, None, None] * (x - mean) / (variance + 1e-5) ** 0.5 + bias[:, None, None]
                x = leaky(x)
            x = last.image(x, 1, 0)
            if projection:
                embedding, weight, bias = projection
                x = (x * leaky(embedding[labels] @ weight.T + bias)[:, :, None, None]).sum(1, keepdim=True) / 8
            logits.append(x)
        return logits


def lock_step(heads, twin, features, twin_args=(), condition=None, steps=3):
    """Train both by plain SGD on a hinge term and compare logits at each step."""
    ours = torch.optim.SGD(heads.parameters(), lr=0.05)
    theirs = torch.optim.SGD(twin.parameters, lr=0.05)
    assert sum(p.numel() for p in heads.parameters()) == sum(p.numel() for p in twin.parameters)
    for _ in range(steps):
        logits, expected = heads(features, condition), twin(features, *twin_args)
        assert len(logits) == len(expected)
        for a, b in zip(logits, expected):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        for optimizer, out in ((ours, logits), (theirs, expected)):
            optimizer.zero_grad()
            sum((1 - scale).relu().mean() for scale in out).backward()
            optimizer.step()


def double_tokens(n, channels=(6, 6), length=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, length, dtype=torch.float64, generator=generator) for c in channels]


@pytest.mark.parametrize("n", BATCHES)
def test_batch_norm_local_is_its_twin(n):
    torch.manual_seed(n)
    norm = BatchNormLocal(3).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(n, 3, 4, dtype=torch.float64, requires_grad=True)
    out, expected = norm(x), batch_norm_local_twin(x, norm.weight, norm.bias)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(out)
    inputs = [x, norm.weight, norm.bias]
    for a, b in zip(
        torch.autograd.grad((out * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), inputs)
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_batch_norm_local_groups_and_ranges():
    assert [group_sizes(n) for n in (1, 8, 9, 15, 17)] == [[1], [8], [5, 4], [8, 7], [6, 6, 5]]
    norm = BatchNormLocal(2)
    x = torch.randn(9, 2, 5)
    moved = torch.cat([x[:5], x[5:] * 7 + 3])
    torch.testing.assert_close(norm(moved)[:5], norm(x)[:5])  # groups know nothing of each other
    changed = x.clone()
    changed[0] += 5
    assert not torch.allclose(norm(changed)[1], norm(x)[1])  # samples of a group do
    assert torch.isfinite(norm(torch.ones(1, 2, 1))).all()
    half = norm((x * 100).bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), norm((x * 100).bfloat16().float()), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(norm.eval()(x), norm.train()(x), rtol=0, atol=0)
    with pytest.raises(OptionError, match="virtual_batch"):
        BatchNormLocal(2, virtual_batch=0)


@pytest.mark.parametrize("n", [1, 2, 8, 9, 15])
def test_token_heads_in_lock_step_with_their_twin(n):
    torch.manual_seed(n)
    heads = TokenHeads((6, 6)).double()
    features = double_tokens(n)
    lock_step(heads, TokenHeadsTwin(heads), features)
    assert [tuple(scale.shape) for scale in heads(features)] == [(n, 10)] * 2


@pytest.mark.parametrize("kinds", ["class", "vector", "both"])
def test_conditional_token_heads_in_lock_step(kinds):
    torch.manual_seed(3)
    labels, vectors = torch.tensor([0, 4, 2]), torch.randn(3, 7, dtype=torch.float64)
    labels_in, vectors_in = labels if kinds != "vector" else None, vectors if kinds != "class" else None
    heads = TokenHeads((6, 6), 5 if labels_in is not None else None, 7 if vectors_in is not None else None).double()
    condition = {"class": labels, "vector": vectors} if kinds == "both" else labels if kinds == "class" else vectors
    features = double_tokens(3)
    lock_step(heads, TokenHeadsTwin(heads), features, (labels_in, vectors_in), condition)
    other = {"class": (labels + 1) % 5, "vector": vectors + 1}
    assert not torch.allclose(heads(features, other)[0], heads(features, {"class": labels, "vector": vectors})[0])


@pytest.mark.parametrize(("norm", "num_classes"), [("batch", None), ("none", None), ("batch", 5)])
def test_map_heads_in_lock_step_with_their_twin(norm, num_classes):
    torch.manual_seed(5)
    sides = (32, 16, 8)
    heads = MapHeads((2, 2, 4), sides, 2, num_classes, norm).double()
    assert heads.batch_coupled == (norm == "batch")
    features = [torch.randn(3, c, s, s, dtype=torch.float64) for c, s in zip((2, 2, 4), sides)]
    labels = None if num_classes is None else torch.tensor([4, 0, 1])
    lock_step(heads, MapHeadsTwin(heads, (2, 1, 0), norm), features, (labels,), labels)
    assert [tuple(scale.shape) for scale in heads(features, labels)] == [(3, 1, 5, 5)] * 3


def test_map_heads_published_widths():
    heads = MapHeads((64, 64, 128, 256), (128, 64, 32, 16))
    widths = [[m.out_channels for m in head.modules() if isinstance(m, torch.nn.Conv2d)] for head in heads.scales]
    assert widths == [[64, 128, 256, 512, 1], [128, 256, 512, 1], [256, 512, 1], [512, 1]]
    with pytest.raises(OptionError, match="norm"):
        MapHeads((4,), (16,), norm="layer")


def test_r1_on_head_inputs_by_hand():
    """weight / 2 E ||grad_f sum D||^2 by the twin's gradient, and that gradient by finite differences."""
    torch.manual_seed(7)
    heads = TokenHeads((4, 4)).double()
    features = [f.requires_grad_() for f in double_tokens(9, (4, 4), 5)]
    twin = TokenHeadsTwin(heads)
    gradients = torch.autograd.grad(logit_sum(heads(features)), features, create_graph=True)
    by_hand = torch.autograd.grad(logit_sum(twin(features)), features, create_graph=True)
    penalties = [sum(g.square().flatten(1).sum(1) for g in gs).mean() / 2 for gs in (gradients, by_hand)]
    torch.testing.assert_close(*penalties, rtol=1e-9, atol=0)
    assert penalties[0] > 0
    ours = torch.autograd.grad(penalties[0], list(heads.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(penalties[1], twin.parameters, allow_unused=True)
    norm = [sum(g.square().sum() for g in gs if g is not None) for gs in (ours, theirs)]
    assert torch.isfinite(norm[0])
    torch.testing.assert_close(*norm, rtol=1e-8, atol=0)
    heads.eval()  # no power iteration from here on
    gradient = torch.autograd.grad(logit_sum(heads(features)), features)
    direction = [torch.randn_like(f) for f in features]
    up, down = ([f + s * 1e-6 * d for f, d in zip(features, direction)] for s in (1, -1))
    with torch.no_grad():
        slope = (logit_sum(heads(up)) - logit_sum(heads(down))) / 2e-6
    torch.testing.assert_close(slope, sum((g * d).sum() for g, d in zip(gradient, direction)), rtol=1e-6, atol=1e-8)


def test_wrong_conditions():
    features = [f.float() for f in double_tokens(2)]
    heads = TokenHeads((6, 6), num_classes=3)
    for bad in (
        None,
        torch.tensor([0, 3]),
        torch.tensor([0, -1]),
        torch.tensor([0]),
        torch.tensor([0.0, 1.0]),
        {"vector": 1},
    ):
        with pytest.raises(InputError):
            heads(features, bad)
    heads(features, torch.tensor([0, 2], dtype=torch.int32))
    heads = TokenHeads((6, 6), num_classes=3, condition_features=4)
    for bad in (
        torch.tensor([0, 1]),
        {"class": torch.tensor([0, 1])},
        {"class": torch.tensor([0, 1]), "vector": torch.ones(2, 5)},
    ):
        with pytest.raises(InputError):
            heads(features, bad)
