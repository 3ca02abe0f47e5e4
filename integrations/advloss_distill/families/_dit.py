"""Class-conditional DiT (arXiv:2212.09748)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, final

import torch
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor, nn

from advloss import InputError, OptionError
from advloss_distill._family import Family, bare
from advloss_distill._simulation import Conditions


@final
class DiT(Family):
    """A transformer that predicts noise for a class, and a variance that is left out here."""

    blocks = ("transformer_blocks.*",)
    predictions = ("epsilon",)
    takes = ("class_labels",)
    apart = ("transformer_blocks.0.norm1.emb",)

    def __init__(self, pipeline: Any, *, resolution: int | None = None, **options: Any) -> None:
        super().__init__(pipeline, resolution=resolution, **options)
        own, factor = pipeline.transformer.config.sample_size, self.resolution // self.shape[-1]
        if self.shape[-1] != own:
            raise OptionError(
                f"resolution={resolution}; a {self.name} makes images of {own * factor} pixels alone, and takes no size"
            )

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        output = network(noisy, timestep=timesteps, class_labels=condition["class_labels"]).sample
        return output[:, : noisy.shape[1]]

    def student(self, teacher: nn.Module) -> nn.Module:
        """A trainable copy that forgets no classes: a teacher in training drops some, to learn guidance."""
        return _without_dropout(super().student(teacher))

    def example(self, network: Any, count: int = 1, tokens: int | None = None) -> Conditions:
        return {"class_labels": torch.zeros(count, dtype=torch.long)}

    def num_classes(self, network: Any) -> int | None:
        return int(bare(network).config.num_embeds_ada_norm)

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        names = list(prompts or ())
        if unknown := sorted(set(names) - pipeline.labels.keys()):
            near = difflib.get_close_matches(unknown[0], pipeline.labels, n=5, cutoff=0.4)
            raise InputError(
                f"this {self.name} knows {len(pipeline.labels)} names of classes, and {unknown[0]!r} is none of them"
                + (f" (nor are {len(unknown) - 1} others that were given)" if unknown[1:] else "")
                + (f"; near it: {', '.join(near)}" if near else "; pipeline.labels has them all")
            )
        labels = pipeline.get_label_ids(names, **options)
        return {"class_labels": torch.tensor(labels, device=self._device(pipeline))}

    def negative(self, pipeline: Any, count: int) -> dict[str, Any]:
        return {}

    def nothing(self, pipeline: Any, prompt: str = "") -> Conditions:
        """The class that stands for none."""
        if prompt:
            raise OptionError(
                f"a {self.name} is told classes: there is no negative prompt, which noise-free score distillation needs"
            )
        return {"class_labels": torch.tensor([pipeline.transformer.config.num_embeds_ada_norm])}

    def arguments(self, condition: Conditions) -> dict[str, Any]:
        return {"class_labels": condition["class_labels"].tolist()}


def _without_dropout(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, LabelEmbedding):
            part.dropout_prob = 0.0
    return network
