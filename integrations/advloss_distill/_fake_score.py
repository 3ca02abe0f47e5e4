"""DMD2's second network: it follows the student's distribution, and judges by its own features (arXiv:2405.14867)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from advloss import Condition, Regularizer
from advloss_distill._blocks import block_names
from advloss_distill._family import Family
from advloss_distill._noised_heads import NoisedHeads
from advloss_distill._simulation import Conditions

PROMPT = "prompt_embeds"


@final
class FakeScore(NoisedHeads):
    """A diffusion network with a head on its bottleneck (`NoisedHeads`): an adversary's discriminator that trains as a whole.

    `Denoising` among the adversary's regularizers keeps it a diffusion model of the student's samples, and
    `DistributionMatching` reads it; optimizer, checkpoints and the watch over bad steps are the adversary's.

    A network that is not told the student's step follows the mixture of what all steps make. Distribution matching then is content
    when the mixture is right, with one step too bright and the next too dark. So it is told (`told`), which the paper's is not.

    What is frozen in the network when it comes (all but the adapter, of `Family.adapted`) is the teacher's, and no part of `state_dict`.

    Args:
        family: calls the network.
        network: a copy of the teacher (`Family.student`, or `Family.adapted` to train an adapter alone).
        example: conditions of one sample or more, to look at their sizes.
        blocks: places among ``family.blocks``; None takes the one in the middle, a UNet's bottleneck.
        width: channels of a head.
        num_classes: for classes in place of prompts, their number.
        num_steps: of the student's kinds of steps (a simulation's), for heads that judge each by itself, and for `told`.
    """

    def __init__(
        self,
        family: Family,
        network: nn.Module,
        example: Conditions,
        *,
        blocks: Sequence[int] | None = None,
        width: int = 128,
        num_classes: int | None = None,
        num_steps: int | None = None,
    ) -> None:
        middle = len(block_names(network, family.blocks)) // 2
        super().__init__(
            family, network, example, (middle,) if blocks is None else blocks, width, num_classes, num_steps
        )
        prompt = example.get(PROMPT)
        self.steps = None
        if num_steps is not None and prompt is not None:
            self.steps = nn.Embedding(num_steps, prompt.shape[-1], device=next(network.parameters()).device)
            nn.init.zeros_(self.steps.weight)  # the network begins as the teacher
        self._frozen = [f"network.{name}" for name, p in network.named_parameters() if not p.requires_grad]
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_pre_hook(_with_own_frozen)

    def told(self, condition: Conditions, steps: Tensor) -> Conditions:
        """`condition` for the network, with the student's `steps` `(N,)`: a learned vector, added to each token of the prompt.

        Of a family without prompts, or without `num_steps`, it is `condition`.
        """
        if self.steps is None:
            return condition
        prompt = condition[PROMPT]
        return {**condition, PROMPT: prompt + self.steps(steps).unsqueeze(1).to(prompt.dtype)}

    def _keep(self, network: nn.Module) -> None:
        self.network = network

    @property
    def _network(self) -> nn.Module:
        return self.network


def _without_frozen(fake_score: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Take what never changes out of a state that is saved."""
    for name in fake_score._frozen:
        del state[prefix + name]


def _with_own_frozen(fake_score: Any, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """Put it into a state that is loaded."""
    state.update({prefix + name: fake_score.get_parameter(name) for name in fake_score._frozen})


@final
class Denoising(Regularizer):
    """``weight E ||network(noised fake, t) - target||^2``: what a diffusion model is trained by, on the student's samples.

    t is uniform over the schedule; network and target are in what the family predicts (noise, v, x_0 or velocity).

    Args:
        fake_score: the adversary's discriminator.
        weight: beside the adversary's loss; DMD2's scripts weight that one with 0.01, which for Adam is 100 here.
    """

    def __init__(self, fake_score: FakeScore, *, weight: float = 100.0) -> None:
        super().__init__(weight=weight)
        self._fake_score = (fake_score,)  # in a tuple: no part of this module

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        (fake_score,) = self._fake_score
        family = fake_score.family
        told = condition if fake_condition is None else fake_condition
        assert isinstance(told, dict)
        if fake_score.steps is not None:
            told = fake_score.told(told, told["time"])
        x0, diffusion = fake.detach(), family.diffusion
        timesteps = torch.randint(len(diffusion.alpha), (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        output = family.answer(fake_score.network, diffusion.add_noise(x0, noise, timesteps), timesteps, told)
        return self.weight * mse_loss(output, diffusion.target(x0, noise, timesteps))
