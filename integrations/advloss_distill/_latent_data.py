"""Latents and embeddings that were computed before training: data of which neither VAE nor text encoder is needed again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import Any, final

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError, StateError, load_state, save_state
from advloss_distill._digest import data_digest
from advloss_distill._family import Family
from advloss_distill._pipelines import check_sampling, check_text_encoders, check_vae, own_guidance, vae_for_images
from advloss_distill._signature import check_signature, signature
from advloss_distill._simulation import Conditions

SHOWN = 5  # rows in a message


@final
class LatentData:
    """Real latents with what they were made for: the `Data` of a distillation.

    Args:
        latents: `(N, C, h, w)` as the network takes them.
        told: conditions of all N.
        vae: what tells one VAE from another (`signature`), or None for latents that none made.
    """

    def __init__(self, latents: Tensor, told: Conditions, vae: Tensor | None = None) -> None:
        if len(latents) == 0:
            raise InputError("there are no latents; give at least one")
        if wrong := [name for name, value in told.items() if len(value) != len(latents)]:
            raise InputError(f"{len(latents)} latents, and another number of {', '.join(wrong)}; give one for each")
        self.latents, self.told, self.vae = latents, told, vae

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def tokens(self) -> int | None:
        """Of a prompt; None where there are none."""
        return self.told["prompt_embeds"].shape[1] if "prompt_embeds" in self.told else None

    def conditions(self, count: int) -> Conditions:
        """Of `count` random samples, with the places that they have here (``"index"``)."""
        index = torch.randint(len(self), (count,), device=self.latents.device)
        return {**{name: value[index] for name, value in self.told.items()}, "index": index}

    def real(self, condition: Conditions) -> Tensor:
        """The latents of these conditions."""
        return self.latents[condition["index"]]

    def to(self, device: torch.device | str) -> LatentData:
        """The same on `device`."""
        told = {name: value.to(device) for name, value in self.told.items()}
        return LatentData(self.latents.to(device), told, self.vae)

    def save(self, path: File) -> None:
        """Write a safetensors file; its folder is made.

        Raises:
            StateError: numbers are not finite. Nothing is written.
        """
        self._check_finite(f"what is to be written to {path} has")
        File(path).parent.mkdir(parents=True, exist_ok=True)
        save_state({"latents": self.latents, "told": self.told, "vae": self.vae}, path)

    @classmethod
    def load(cls, path: File, family: Family, vae: nn.Module | None = None) -> LatentData:
        """Read what `save` wrote; tensors are on the CPU.

        Args:
            family: that will be told the conditions.
            vae: of the teacher, to compare with the one that the latents were made with.

        Raises:
            StateError: there is no such file, it is damaged, of another VAE or resolution, or not finite.
            InputError: its conditions are not those that the family's network is told.
        """
        if not File(path).is_file():
            raise StateError(f"there is no file {path}: make it with LatentData.save (distill_pipeline.py cache)")
        state = load_state(path)
        if not state.keys() >= {"latents", "told", "vae"}:
            raise StateError(f"{path} holds no latents; make it with LatentData.save (distill_pipeline.py cache)")
        data = cls(**state)
        if not data.latents.is_floating_point():
            raise StateError(f"{path} holds latents in {str(data.latents.dtype)[6:]}: they are floating-point numbers")
        shape = tuple(data.latents.shape[1:])
        if shape != family.shape:
            raise StateError(f"{path} holds latents {shape}, and the teacher takes {family.size_words()}")
        try:
            family.check_told(data.told)
        except InputError as error:
            raise InputError(f"{path} is not for this teacher: {error}") from error
        if vae is not None and data.vae is not None:
            check_signature(vae, data.vae, f"{path}")
        data._check_finite(f"{path} holds")
        return data

    def digest(self) -> str:
        """What tells these latents and conditions from others of their sizes; on every device the same."""
        return data_digest({"latents": self.latents, **self.told})

    def _check_finite(self, what: str, first: int = 0) -> None:
        """Raise StateError, with the rows from `first` on, unless all numbers are finite.

        Args:
            what: has them, with a verb, for the message.
        """
        for name, value in {"latents": self.latents, **self.told}.items():
            finite = value.reshape(len(self), -1).sum(1, dtype=torch.float64).isfinite()
            if rows := (first + (~finite).nonzero().flatten()).tolist():
                more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
                shown = ", ".join(map(str, rows[:SHOWN])) + more
                raise StateError(
                    f"{what} NaN or infinity in {name}, in {len(rows)} of {len(self)} rows, counted from 0: {shown}. Make it anew, with "
                    "VAE, text encoders and teacher in 32 bits or bfloat16 (some overflow in float16), or leave these samples out"
                )


@torch.no_grad()
def encode(family: Family, pipeline: Any, pairs: Iterable[tuple[Tensor, str]], batch_size: int = 8) -> LatentData:
    """Latents and embeddings of images `(3, H, W)` in [-1, 1] with their prompts (class names, for classes).

    Raises:
        OptionError: the pipeline has no text encoder or no VAE.
        InputError: there are no images, they have another size than `family.resolution`, or are not in [-1, 1].
        StateError: what comes out is not finite.
    """
    parts: list[LatentData] = []
    remaining = iter(pairs)
    while batch := list(itertools.islice(remaining, batch_size)):
        _add(parts, *encoded(family, pipeline, batch))
    return _together(parts, pipeline)


@torch.no_grad()
def encoded(family: Family, pipeline: Any, pairs: Sequence[tuple[Tensor, str]]) -> tuple[Tensor, Conditions]:
    """Latents `(N, C, h, w)` in 32 bits and conditions of one batch, as in `encode`."""
    vae = vae_for_images(pipeline)
    images = torch.stack([image for image, _ in pairs])
    sides = (family.resolution, family.resolution)
    if images.shape[1:] != (3, *sides) or images.min() < -1 or images.max() > 1:
        raise InputError(
            f"images of shape {tuple(images.shape[1:])} from {images.min():.3g} to {images.max():.3g}; give "
            f"{(3, *sides)} in [-1, 1]"
        )
    latents = family.to_latents(vae, images.to(next(vae.parameters())))
    latents = (
        latents.float().contiguous()
    )  # as they come back from a checkpoint: random numbers are drawn in memory's order
    return latents, encode_prompts(family, pipeline, [prompt for _, prompt in pairs])


@torch.no_grad()
def encode_prompts(family: Family, pipeline: Any, prompts: Sequence[str]) -> Conditions:
    """Conditions for `prompts` (class names, for classes).

    Raises:
        OptionError: the pipeline has no text encoder.
        InputError: it knows no such class.
    """
    check_text_encoders(pipeline)
    return family.encode(pipeline, prompts)


@torch.no_grad()
def teacher_made(
    family: Family,
    pipeline: Any,
    prompts: Sequence[str],
    *,
    guidance_scale: float | None = None,
    steps: int,
    batch_size: int = 8,
    **call: Any,
) -> LatentData:
    """Samples of the teacher with guidance, as LADD's data are (arXiv:2403.12015), with their prompts.

    Args:
        guidance_scale: None is what the pipeline's call takes unasked.
        call: further arguments of the pipeline's call.

    Raises:
        OptionError: the pipeline has no text encoder, the scale is negative or not finite, or the teacher has no so many steps.
        StateError: what comes out is not finite.
    """
    parts: list[LatentData] = []
    scale = own_guidance(pipeline) if guidance_scale is None else guidance_scale
    check_sampling(pipeline, scale, steps)
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        told = encode_prompts(family, pipeline, some)
        latents = sample_latents(
            family,
            pipeline,
            told,
            family.negative(pipeline, len(some)),
            guidance_scale=scale,
            steps=steps,
            **call,
        )
        _add(parts, latents.float(), told)
    return _together(parts, pipeline)


@torch.no_grad()
def sample_latents(
    family: Family,
    pipeline: Any,
    condition: Conditions,
    negative: dict[str, Any] | None = None,
    *,
    guidance_scale: float,
    steps: int,
    **call: Any,
) -> Tensor:
    """Latents `(N, C, h, w)` by a whole pipeline, the teacher's or a student's, as the network takes them.

    Raises:
        OptionError: as `teacher_made`, or the pipeline makes images alone and has no VAE to encode them.
    """
    check_sampling(pipeline, guidance_scale, steps)
    told = {**family.arguments(condition), **(negative or {})}
    if negative:
        told["negative_prompt"] = None  # some pipelines have "" for it, and take one of the two
    kind = "pt" if "class_labels" in told else "latent"  # DiT's pipeline hands out no latents
    if kind == "pt":
        check_vae(getattr(pipeline, "vae", None), family.name, "its samples are images that are encoded: load it, too")
    given = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "output_type": kind, **call}
    made = pipeline(**told, **family.size, **given).images
    return family.unpack(made) if kind == "latent" else family.to_latents(pipeline.vae, made * 2 - 1)


def _add(parts: list[LatentData], latents: Tensor, told: Conditions) -> None:
    """Put one batch, on the CPU, beside those before it; what is not finite is known at once."""
    part = LatentData(latents, told).to("cpu")
    part._check_finite("what was computed has", sum(map(len, parts)))
    parts.append(part)


def _together(parts: Sequence[LatentData], pipeline: Any) -> LatentData:
    if not parts:
        raise OptionError("there is nothing to encode: give at least one image or prompt")
    told = {name: torch.cat([part.told[name] for part in parts]) for name in parts[0].told}
    vae = getattr(pipeline, "vae", None)
    return LatentData(torch.cat([part.latents for part in parts]), told, None if vae is None else signature(vae))
