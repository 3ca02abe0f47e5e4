"""A scheduler that says something else than the network does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from pipeline_tools import FAMILIES, TEXT, TOKENS, stable_diffusion, tiny_conditions, tiny_family
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill import Family, LatentData, check_prediction, family_of

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Oracle(nn.Module):
    """A network that knows the data, a constant, up to an error: what it says is noise or v."""

    def __init__(self, says: str, error: float) -> None:
        super().__init__()
        self.says, self.error = says, error
        self.config = SimpleNamespace(time_cond_proj_dim=None)  # not told its guidance
        self.weight = nn.Parameter(torch.zeros(()))
        self.alphas = DDIMScheduler(**BETAS).alphas_cumprod.sqrt()

    def forward(self, noisy: Tensor, timesteps: Tensor, **told: Any) -> Any:
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        sigma = (1 - alpha**2).sqrt()
        x0 = DATA + self.error * torch.randn_like(noisy)
        noise = (noisy - alpha * x0) / sigma
        return SimpleNamespace(sample=noise if self.says == "epsilon" else alpha * noise - sigma * x0)


DATA = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def family_that_says(prediction: str) -> Family:
    return family_of(stable_diffusion(scheduler=DDIMScheduler(prediction_type=prediction, **BETAS)), resolution=16)


@pytest.mark.parametrize("error", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("says", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("declared", ["epsilon", "v_prediction"])
def test_what_the_network_says_is_compared_with_what_is_declared(declared: str, says: str, error: float) -> None:
    family = family_that_says(declared)
    data = LatentData(DATA.expand(6, -1, -1, -1).contiguous(), {"prompt_embeds": torch.randn(6, TOKENS, TEXT)})
    state = torch.get_rng_state()
    if says == declared:
        check_prediction(family, Oracle(says, error), data)
    else:
        with pytest.raises(OptionError, match=f"predicts '{declared}', but read as '{says}' its answers .* are right"):
            check_prediction(family, Oracle(says, error), data)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_network_that_knows_nothing_yet_is_let_pass(name: str) -> None:
    pipeline, family = tiny_family(name)
    data = LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6))
    check_prediction(family, pipeline.components[family.part], data)


@pytest.mark.parametrize("declared", ["epsilon", "v_prediction"])
def test_so_is_one_that_says_nothing(declared: str) -> None:
    family = family_that_says(declared)
    data = LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6))
    network = family_of(stable_diffusion(), resolution=16).network(stable_diffusion())
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    check_prediction(family, network, data)
