"""Discriminators that judge frozen features: pretrained networks, a diffusion teacher."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss._condition import Condition
from advloss._logits import Logits


@final
class FeatureDiscriminator(nn.Module):
    """Trained heads on frozen features: `heads(features(samples), condition)`.

    The parts are called on their own where that saves work: an adversary computes the features of real
    samples without a graph, those of fakes once for both players, and R1 can be taken by the heads'
    inputs (``inputs="features"``), which needs no double backward through the frozen network.

    `state_dict` holds the frozen features too: a checkpoint resumes without a download and whatever a model hub
    serves by then, and is larger by them (87 MB for a ViT-S). To keep them out, save `heads.state_dict()`.

    Args:
        features: maps samples to a list of tensors. It is frozen and stays in eval mode.
        heads: `heads(features, condition)` returns logits. Only these parameters train.
    """

    def __init__(self, features: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.features = features.requires_grad_(False).eval()
        self.heads = heads
        for name in (
            "dims",
            "in_channels",
            "smallest",
            "num_classes",
            "condition_features",
            "num_steps",
            "batch_coupled",
        ):
            for part in (features, heads):
                if hasattr(part, name):
                    setattr(self, name, getattr(part, name))

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Logits:
        """Logits of `samples`."""
        return self.heads(self.features(samples), condition)

    def train(self, mode: bool = True) -> FeatureDiscriminator:
        """Switch the heads; the features stay in eval mode."""
        super().train(mode)
        self.features.eval()
        return self
