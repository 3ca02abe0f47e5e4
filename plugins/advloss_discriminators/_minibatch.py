"""Minibatch discrimination (Salimans et al. 2016), in front of any discriminator's last layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from advloss import Condition, Logits, OptionError
from advloss_discriminators._embedding import ConditionEmbedding
from advloss_discriminators._options import check_positive, parse_wrapped, take_over


@final
class MinibatchDiscrimination(nn.Module):
    """``o(x_i)_b = sum_{j != i} exp(-|M_i,b - M_j,b|_1)`` with ``M = T f(x)`` (arXiv:1606.03498, section 3.2).

    How near the others of the batch are, in `kernels` learned ways. As in the authors' code a sample is not compared with
    itself; the sum is over a batch of one process.

    Args:
        in_features: length of the features f(x).
        kernels: ways to compare, B; 100 in the paper.
        kernel_features: length of the vectors that are compared, C; 5 in the paper.
    """

    def __init__(self, in_features: int, kernels: int = 100, kernel_features: int = 5) -> None:
        super().__init__()
        check_positive(in_features=in_features, kernels=kernels, kernel_features=kernel_features)
        self.kernels = kernels
        self.project = nn.Linear(in_features, kernels * kernel_features, bias=False)
        nn.init.normal_(self.project.weight, 0.0, in_features**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, in_features)` to `(N, kernels)`."""
        vectors = self.project(features).view(len(features), self.kernels, -1)
        distances = (vectors[:, None] - vectors[None]).abs().sum(3)
        nearness = (-distances).exp()
        itself = torch.eye(len(features), dtype=nearness.dtype, device=nearness.device)
        return (nearness * (1 - itself)[:, :, None]).sum(1)


@final
class MinibatchDiscriminator(nn.Module):
    """Another discriminator, whose last layer also sees how near the samples of a batch are to each other.

    What reaches that layer (its mean over positions, where there are any) goes through `MinibatchDiscrimination`, and a dense
    layer of the result, zero at first, is added to the logits: for a linear last layer that is the paper's concatenation. Of a
    ``"multiscale"`` give it the levels: ``("multiscale", {"discriminator": ("minibatch", {...})})``.

    Args:
        discriminator: a name, a ``(name, options)`` pair, or a module.
        kernels, kernel_features: of the layer.
        layer: name of the layer whose input is compared; default: the last one that has weights.
        options: further ones of a discriminator by name.
    """

    batch_coupled = True

    def __init__(
        self,
        *,
        discriminator: str | tuple[str, Mapping[str, Any]] | nn.Module = "discriminators/mlp",
        kernels: int = 32,
        kernel_features: int = 5,
        layer: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.inner = _build(discriminator, options)
        take_over(self, self.inner)
        self.layer = layer or _last_layer(self.inner)
        weight = getattr(dict(self.inner.named_modules()).get(self.layer), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2:
            raise OptionError(f"layer={layer!r}: {type(self.inner).__name__} has no layer with weights of that name")
        self.compare = MinibatchDiscrimination(weight.shape[1], kernels, kernel_features)
        self.dense = nn.Linear(kernels, 1, bias=False)
        nn.init.zeros_(self.dense.weight)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Logits:
        """The inner discriminator's logits, each sample's with what the others of the batch say."""
        seen: list[Tensor] = []
        layer = self.inner.get_submodule(self.layer)
        with layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            logits = self.inner(samples, condition)
        features = seen[-1].flatten(2).mean(2) if seen[-1].ndim > 2 else seen[-1]
        shift = self.dense(self.compare(features))
        if isinstance(logits, Tensor):
            return _add(logits, shift)
        return [_add(scale, shift) for scale in logits]


def _add(logits: Tensor, shift: Tensor) -> Tensor:
    """`logits` `(N, ...)` plus one number `(N, 1)` for each sample."""
    return logits + shift.view(-1, *[1] * (logits.ndim - 1))


def _build(given: Any, further: Mapping[str, Any]) -> nn.Module:
    from advloss import create_discriminator  # here, as the catalogue is needed only here

    if isinstance(given, nn.Module) and not further:
        return given
    name, options = parse_wrapped(given, further)
    return create_discriminator(name, **options)


def _last_layer(module: nn.Module) -> str:
    """The name of the last layer with a matrix of weights; embeddings of conditions are none."""
    names = [name for name, part in module.named_modules() if isinstance(part, (nn.Embedding, ConditionEmbedding))]
    layers = [
        name
        for name, part in module.named_modules()
        if isinstance(weight := getattr(part, "weight", None), Tensor)
        and weight.ndim > 1
        and not any(name == other or name.startswith(f"{other}.") for other in names)
    ]
    if not layers:
        raise OptionError(f"{type(module).__name__} has no layer with weights to put minibatch discrimination before")
    return layers[-1]
