"""Real samples with other prompts, as further fakes: what a discriminator can only tell by the prompt (SANA-Sprint)."""

from __future__ import annotations

import torch
from torch import Tensor

from advloss import InputError

OF_THE_SAMPLE = ("time", "noise", "noise_timesteps", "index")  # of what is told, all else belongs to the prompt

Judged = dict[str, Tensor]


def with_misaligned(fake: Tensor, real: Tensor, judged: Judged, share: float) -> tuple[Tensor, Judged]:
    """`fake` and what is told of it, then a share of `real` with what is told of another sample.

    A sample whose prompt no other of the batch differs from is left out: to call it a fake would be wrong.

    Args:
        share: of the batch, 0 to 1.
    """
    count = round(share * len(real))
    if count == 0:
        return fake, judged
    prompt = [name for name in judged if name not in OF_THE_SAMPLE]
    if not prompt:
        raise InputError("misaligned prompts are asked for, and the discriminator is told of no prompt or class")
    compared = [name for name in prompt if name != "vector"] or prompt  # an image may be in it, beside the text
    partner, differs = _partners([judged[name] for name in compared], count)
    chosen = torch.arange(count, device=real.device)[differs]
    told = {n: value[partner[differs]] if n in prompt else value[chosen] for n, value in judged.items()}
    return torch.cat([fake, real[chosen]]), {name: torch.cat([value, told[name]]) for name, value in judged.items()}


def _partners(values: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """For each of the first `count` samples the next one with another prompt, and whether there is any."""
    flat = [value.reshape(len(value), -1) for value in values]
    size, device = len(flat[0]), flat[0].device
    partner, found = (
        torch.zeros(count, dtype=torch.long, device=device),
        torch.zeros(count, dtype=torch.bool, device=device),
    )
    for offset in range(1, size):
        other = (torch.arange(count, device=device) + offset) % size
        differs = torch.stack([(v[:count] != v[other]).any(1) for v in flat]).any(0)
        partner = torch.where(~found & differs, other, partner)
        found |= differs
    return partner, found
