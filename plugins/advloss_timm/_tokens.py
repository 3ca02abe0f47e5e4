"""Frozen token features of a vision transformer, at several depths."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from advloss import OptionError
from advloss_timm._images import ImageInput

Readout = Literal["add", "patches"]


@final
class TokenFeatures(nn.Module):
    """Samples -> the tokens that enter the first block, and those after each of `blocks`: a list of `(N, C, L)`.

    The first level is the patch embedding with its positions. No final normalization is applied. `L` counts patches,
    row by row. What the other tokens do is `readout`: ``"add"`` adds the class token (the mean of two, where a
    distilled model has two) to every patch, as StyleGAN-T does; ``"patches"`` leaves it out. Register tokens are
    always left out. A pure function of the samples: nothing is kept from call to call.

    Args:
        model: a timm vision transformer, with `forward_intermediates`, `blocks` and `patch_embed`.
        images: what samples pass first.
        blocks: which blocks, counted from 0, ascending; None for the last of each quarter.
        readout: see above.
    """

    dims = 2

    def __init__(self, model: Any, images: ImageInput, blocks: Sequence[int] | None, readout: Readout = "add") -> None:
        super().__init__()
        if readout not in ("add", "patches"):
            raise OptionError(f"readout={readout!r}; give 'add' or 'patches'")
        self.model = model
        self.images = images
        self.blocks = _checked(blocks, len(self.model.blocks))
        self.readout = readout
        self.in_channels = images.in_channels
        self.smallest = images.smallest
        self.channels = (int(self.model.embed_dim),) * (len(self.blocks) + 1)
        parameters = inspect.signature(self.model.forward_intermediates).parameters
        registers = getattr(self.model, "reg_token", None)
        self._with_prefix = bool(getattr(self.model, "num_prefix_tokens", 0)) and "return_prefix_tokens" in parameters
        self._registers = 0 if registers is None else int(registers.shape[1])

    def forward(self, samples: Tensor) -> list[Tensor]:
        """`(N, in_channels, H, W)` in [-1, 1] -> levels `(N, C, L)`, the shallowest first."""
        return self._levels(self.images(samples), self.blocks)

    def _levels(self, images: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        entering: list[Tensor] = []
        handle = self.model.blocks[0].register_forward_pre_hook(lambda block, args: entering.append(args[0]))
        try:
            after = self.model.forward_intermediates(
                images,
                indices=list(blocks),
                output_fmt="NLC",
                stop_early=True,
                intermediates_only=True,
                **({"return_prefix_tokens": True} if self._with_prefix else {}),
            )
        finally:
            handle.remove()
        pairs = [level if isinstance(level, tuple) else (level, level[:, :0]) for level in after]
        prefix = entering[0].shape[1] - pairs[0][0].shape[1]
        pairs.insert(0, (entering[0][:, prefix:], entering[0][:, :prefix]))
        return [self._read(patches, others).transpose(1, 2).contiguous() for patches, others in pairs]

    def _read(self, patches: Tensor, others: Tensor) -> Tensor:
        summary = others[:, : others.shape[1] - self._registers]
        return patches + summary.mean(1, keepdim=True) if self.readout == "add" and summary.shape[1] else patches


def check_transformer(model: Any, name: str, size: int) -> None:
    """Refuse a backbone whose blocks do not pass on tokens `(N, L, C)`, found by running the first one."""
    way_out = "choose a plain vision transformer of timm (vit, deit, beit, eva), or the discriminator 'projected'"
    missing = [part for part in ("blocks", "patch_embed", "forward_intermediates") if not hasattr(model, part)]
    if missing:
        raise OptionError(f"backbone={name!r} has no {', '.join(missing)}; {way_out}")
    try:
        with torch.no_grad():
            images = torch.zeros(1, 3, size, size)
            ok = model.forward_intermediates(
                images, indices=[0], output_fmt="NLC", stop_early=True, intermediates_only=True
            )
    except (AssertionError, TypeError, RuntimeError) as error:
        raise OptionError(f"backbone={name!r} gives no tokens: {error}; {way_out}") from error
    if ok[0].ndim != 3 or ok[0].shape[-1] != model.embed_dim:
        raise OptionError(f"backbone={name!r} gives {tuple(ok[0].shape)} for tokens; {way_out}")


def _checked(blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if blocks is None:
        return tuple(sorted({max(quarter * depth // 4 - 1, 0) for quarter in (1, 2, 3, 4)}))
    given = tuple(blocks) if isinstance(blocks, Sequence) and not isinstance(blocks, str) else ()
    whole = all(isinstance(block, int) and not isinstance(block, bool) for block in given)
    if not given or not whole or list(given) != sorted(set(given)) or given[0] < 0 or given[-1] >= depth:
        raise OptionError(
            f"blocks={blocks!r}; give whole numbers from 0 to {depth - 1}, ascending: the backbone has {depth}"
        )
    return given
