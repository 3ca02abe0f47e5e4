"""The guide's three loops, run as they stand there: few lines differ, and nothing else until the start step."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, SD3Transformer2DModel, UNet2DModel
from distill_tools import reset_accelerate
from pipeline_tools import POOLED, TEXT, TOKENS, tiny_unet
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

GUIDE = Path(__file__).parents[2] / "docs" / "existing_scripts.md"
STEPS, START, BATCH = 4, 2, 4


def lcm(draw: Callable[..., Tensor]) -> dict[str, Any]:
    data = TensorDataset(draw(STEPS * BATCH, 4, 8, 8), draw(STEPS * BATCH, TOKENS, TEXT))
    return {"unet": tiny_unet(), "scheduler": DDPMScheduler(), "nothing": torch.zeros(1, TOKENS, TEXT), "data": data}


def flow(draw: Callable[..., Tensor]) -> dict[str, Any]:
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=16,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=8,
    )
    count = STEPS * BATCH
    return {
        "transformer": transformer,
        "data": TensorDataset(draw(count, 4, 16, 16), draw(count, TOKENS, TEXT), draw(count, POOLED)),
    }


def diffusion(draw: Callable[..., Tensor]) -> dict[str, Any]:
    unet = UNet2DModel(
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        add_attention=False,
    )
    return {"unet": unet, "scheduler": DDPMScheduler(), "data": draw(STEPS * BATCH, 3, 72, 72).tanh()}


LOOPS: dict[str, Callable[[Callable[..., Tensor]], dict[str, Any]]] = {"lcm": lcm, "flow": flow, "diffusion": diffusion}


def snippet(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the guide has no snippet {name!r}"
    return found.group(1)


def run(loop: str, code: str, **more: Any) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Run a loop; the network's weights after each step of its optimizer, and what the script's names stand for."""
    reset_accelerate()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    names = {**LOOPS[loop](lambda *shape: torch.randn(*shape, generator=generator)), **more}
    network, seen = names.get("unet", names.get("transformer")), []
    names["loader"] = DataLoader(names.pop("data"), batch_size=BATCH)

    def look(optimizer: torch.optim.Optimizer, *unused: object) -> None:
        if type(optimizer) is torch.optim.AdamW:
            seen.append({name: value.clone() for name, value in network.state_dict().items()})

    hook = register_optimizer_step_post_hook(look)
    try:
        exec(compile(code.replace("Accelerator()", "Accelerator(cpu=True)"), str(GUIDE), "exec"), names)
    finally:
        hook.remove()
        reset_accelerate()
    assert len(seen) == STEPS
    return seen, names


def same(one: Iterable[dict[str, Tensor]], other: Iterable[dict[str, Tensor]]) -> list[bool]:
    return [all(torch.equal(v, after[n]) for n, v in before.items()) for before, after in zip(one, other)]


@pytest.mark.parametrize("loop", LOOPS)
def test_at_most_fifteen_lines_change(loop: str) -> None:
    plain, adversarial = (snippet(f"{loop} {kind}").splitlines() for kind in ("plain", "adversarial"))
    difference = [line for line in difflib.ndiff(plain, adversarial) if line[0] in "+-" and line[1:].strip()]
    assert len(difference) <= 15
    assert len([line for line in difference if line[0] == "-"]) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_bitwise_alike_until_the_start_step(loop: str) -> None:
    started = snippet(f"{loop} adversarial").replace("start_step=1_000", f"start_step={START}")
    assert started != snippet(f"{loop} adversarial")
    plain, _ = run(loop, snippet(f"{loop} plain"))
    adversarial, names = run(loop, started)
    assert same(plain, plain[1:]) == [False] * (STEPS - 1)
    assert same(plain, adversarial) == [True] * START + [False] * (STEPS - START)
    assert names["adversary"].step == STEPS


def test_the_discriminator_sees_crops_of_the_samples_with_the_least_noise() -> None:
    look = "adversary.discriminator.register_forward_hook(lambda module, given, logits: seen.append(given[0].shape))"
    code = snippet("diffusion adversarial").replace("start_step=1_000", "start_step=0")
    seen: list[torch.Size] = []
    _, names = run("diffusion", code.replace("\nfor images", f"\n{look}\nfor images"), seen=seen)
    assert {tuple(shape) for shape in seen} == {(1, 3, 64, 64)}
    assert names["timesteps"][names["near"]] == names["timesteps"].min()
    assert names["x0"].shape == (1, 3, 72, 72)
