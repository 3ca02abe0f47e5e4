"""The guide's two loops, run as they stand there: few lines differ, and nothing else until the start step."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import torch
from autoencoder_tools import kl_model, reset_accelerate
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

GUIDE = Path(__file__).parents[2] / "docs" / "autoencoder.md"
STEPS, START = 4, 2


def snippet(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the guide has no snippet {name!r}"
    return found.group(1)


def weights_after_each_step(code: str) -> list[dict[str, Tensor]]:
    """Run a loop; look at the VAE's weights after each step of its optimizer."""
    reset_accelerate()
    torch.manual_seed(0)
    vae, seen = kl_model(), []

    def look(optimizer: torch.optim.Optimizer, *unused: object) -> None:
        if type(optimizer) is torch.optim.AdamW:
            seen.append({name: value.clone() for name, value in vae.state_dict().items()})

    images = torch.rand(2 * STEPS, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    names = {"vae": vae, "loader": torch.utils.data.DataLoader(images, batch_size=2)}
    hook = register_optimizer_step_post_hook(look)
    try:
        exec(compile(code.replace("Accelerator()", "Accelerator(cpu=True)"), str(GUIDE), "exec"), names)
    finally:
        hook.remove()
        reset_accelerate()
    assert len(seen) == STEPS
    return seen


def test_at_most_ten_lines_change() -> None:
    plain, adversarial = snippet("plain").splitlines(), snippet("adversarial").splitlines()
    difference = [line for line in difflib.ndiff(plain, adversarial) if line[0] in "+-"]
    assert 5 <= len([line for line in difference if line[0] == "+"]) <= 10
    assert len([line for line in difference if line[0] == "-"]) <= 2


def test_bitwise_alike_until_the_start_step() -> None:
    started = snippet("adversarial").replace("start_step=20_000", f"start_step={START}")
    assert started != snippet("adversarial")
    plain, adversarial = weights_after_each_step(snippet("plain")), weights_after_each_step(started)
    same = [all(torch.equal(v, after[n]) for n, v in before.items()) for before, after in zip(plain, adversarial)]
    assert same == [True] * START + [False] * (STEPS - START)
