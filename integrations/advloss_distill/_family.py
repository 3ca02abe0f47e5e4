"""A family of teachers: diffusers pipelines whose networks are called alike."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError
from advloss_distill._denoiser import Denoiser
from advloss_distill._diffusion import Diffusion, Prediction
from advloss_distill._lora import add_lora
from advloss_distill._pipelines import call_size, check_text_encoders, compression, sign_of_a_student
from advloss_distill._renoising import Renoising, UniformRenoising
from advloss_distill._simulation import Conditions
from advloss_distill._weightless import built, quiet, weightless, without_floats


class Family(Denoiser):
    """How the network of a diffusers pipeline is called, and what lies around it.

    Conditions are named as the pipeline's own arguments are, so that ``pipeline(**family.arguments(condition))``
    samples for them. A family of one's own is a subclass with three tuples and two methods.

    Args:
        pipeline: a loaded pipeline, the teacher. Its text encoders and its VAE may be None.
        resolution: side of the images in pixels; default the one that the network was trained for.
        renoising: draws the noise that a `TeacherDiscriminator` sees samples through; it comes with `judged`.
        undistilled: the teacher is not distilled, although its scheduler is one that distilled models come with.

    Attributes:
        part: the pipeline's component that is distilled.
        blocks: names of the network's modules whose outputs are features; ``*`` stands for a number.
        predictions: what the networks of this family may predict.
        takes: the conditions that a call needs.
        tokens: of a prompt, as the pipeline's call encodes it by default.
        widths: pairs of a condition and of where the network's configuration says how wide its embeddings are.
        shape: of one sample, latents `(C, H, W)`.
        size: arguments of the pipeline's call for images of `resolution`; empty where it takes none.
        adapter_guidance: the `guidance_scale` to call the teacher's pipeline with, once a student's adapter is in it.

    Raises:
        OptionError: the pipeline is none of this family, is distilled already, or the resolution does not fit it.
    """

    part: ClassVar[str] = "transformer"
    blocks: ClassVar[tuple[str, ...]]
    predictions: ClassVar[tuple[Prediction, ...]]
    takes: ClassVar[tuple[str, ...]]
    tokens: ClassVar[int] = 77
    widths: ClassVar[tuple[tuple[str, str], ...]] = ()
    adapter_guidance = 0.0

    def __init__(
        self,
        pipeline: Any,
        *,
        resolution: int | None = None,
        renoising: Renoising | UniformRenoising | None = None,
        undistilled: bool = False,
    ) -> None:
        self.name = type(pipeline).__name__
        scheduler, network = pipeline.scheduler, self.network(pipeline)
        self._built: tuple[Any, Any] = type(network), network.config
        if not undistilled and (sign := sign_of_a_student(scheduler)):
            raise self._distilled(
                sign, "; if it is not distilled, say so: family_of(pipeline, undistilled=True), --undistilled"
            )
        super().__init__(Diffusion.from_scheduler(scheduler))
        if self.diffusion.prediction not in self.predictions:
            raise OptionError(
                f"the {type(scheduler).__name__} of this {self.name} is set for {self.diffusion.prediction!r}, and its "
                f"network predicts {' or '.join(map(repr, self.predictions))}: load the scheduler that the teacher came with"
            )
        self.teacher_scheduler = scheduler
        self.renoising = renoising
        vae = getattr(pipeline, "vae", None)
        factor = compression(pipeline, vae)
        self.resolution = int(network.config.get("sample_size") or 128) * factor if resolution is None else resolution
        if self.resolution < 1 or self.resolution % (2 * factor):
            raise OptionError(
                f"resolution={resolution}; a {self.name} makes images whose sides are multiples of {2 * factor}"
            )
        self.shape = (self._channels(network), self.resolution // factor, self.resolution // factor)
        self.size = call_size(pipeline, self.resolution)
        self.guessed = vae is None and resolution is not None
        if vae is not None and self.shape[0] != vae.config.latent_channels:
            raise OptionError(
                f"the network takes {self.shape[0]} channels and the VAE makes {vae.config.latent_channels}: networks for "
                "inpainting or editing, which see an image beside the noise, cannot be distilled here"
            )

    def answer(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        """`output` by a network whose weights may be of another precision than `noisy`, in that of `noisy`."""
        kind = next(network.parameters()).dtype
        told = {name: condition[name] for name in (*self.takes, "guidance") if name in condition}
        told = {name: value.to(kind) if value.is_floating_point() else value for name, value in told.items()}
        return self.output(network, noisy.to(kind), timesteps, told).to(noisy.dtype)

    def x0(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return self.diffusion.to_x0(self.answer(network, noisy, timesteps, condition), noisy, timesteps)

    def network(self, pipeline: Any) -> Any:
        """The part of `pipeline` that is distilled."""
        return getattr(pipeline, self.part)

    def student(self, teacher: nn.Module) -> nn.Module:
        """A trainable copy of the teacher, to begin with."""
        return copy.deepcopy(teacher).train().requires_grad_(True)

    def adapted(self, teacher: nn.Module, rank: int = 64, **options: Any) -> nn.Module:
        """A copy of the teacher whose trainable part is an adapter (`add_lora`), to be loaded into the teacher's pipeline."""
        student = self.student(teacher)
        add_lora(student, rank, **options)
        return student

    def resized(self, student: Any) -> None:
        """Write `resolution` into a student's configuration, so that its pipeline makes images of that size unasked.

        Its answers stay as they are, also those of the network that is built from the configuration.
        """
        if student.config.get("sample_size"):
            student.register_to_config(sample_size=self.shape[-1])

    def guided_student(self, teacher: nn.Module) -> nn.Module:
        """A trainable copy that is told ``condition["guidance"]``, and at first does not listen.

        Raises:
            OptionError: networks of this family have no input for it.
        """
        raise OptionError(
            f"the network of a {self.name} has no input for a guidance scale: build one scale into the student, in place of a range"
        )

    @abstractmethod
    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        """Conditions for `prompts`, by the pipeline's own encoders.

        Args:
            options: of the pipeline's `encode_prompt`; its call's own defaults are `call_defaults`.
        """

    def encode_unwanted(self, pipeline: Any, prompts: Sequence[str]) -> Conditions:
        """Conditions for negative prompts, which some pipelines encode otherwise."""
        return self.encode(pipeline, prompts)

    def negative(self, pipeline: Any, count: int) -> dict[str, Any]:
        """What the pipeline's call is told beside `count` conditions, so that it can guide: embeddings of no prompt."""
        check_text_encoders(pipeline)
        nothing = self.encode_unwanted(pipeline, [""] * count)
        return {f"negative_{name}": value for name, value in nothing.items()}

    def nothing(self, pipeline: Any, prompt: str = "") -> Conditions:
        """What the network is told, of one sample, where nothing is asked for, or by a negative prompt: guidance's other end.

        Raises:
            OptionError: there is no such thing in this family, or the pipeline has no text encoder.
        """
        if "text_encoder" in pipeline.components and pipeline.components["text_encoder"] is None:
            raise OptionError(
                f"this {self.name} was loaded without its text encoder, which guidance needs for the prompt {prompt!r}: load it, "
                "too, or distil without guidance (a scale of 1)"
            )
        if prompt:
            return self.encode_unwanted(pipeline, [prompt])
        return {name.removeprefix("negative_"): value for name, value in self.negative(pipeline, 1).items()}

    def text(self, condition: Conditions) -> Tensor | None:
        """One vector a prompt `(N, C)`: the pooled embedding, or the mean over tokens. None where there are no prompts."""
        if "pooled_prompt_embeds" in condition:
            return condition["pooled_prompt_embeds"]
        if (embeds := condition.get("prompt_embeds")) is None:
            return None
        mask = condition.get("prompt_attention_mask", embeds.new_ones(embeds.shape[:2])).to(embeds.dtype)
        return (embeds * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def num_classes(self, network: Any) -> int | None:
        """For ``"class_labels"`` in place of prompts, how many `network` knows."""
        return None

    def judged(self, condition: Conditions, steps: Tensor) -> dict[str, Tensor]:
        """The prompt as the network is told it (`takes`), noise, step and text or class; no latents, places or scales beside it."""
        text = self.text(condition)
        prompt = {name: condition[name] for name in self.takes if name in condition}
        noise = self.renoising.draw(self.diffusion, self.shape, steps) if self.renoising else {}
        known = {"vector": text, "class": prompt.get("class_labels")}
        return {**prompt, **noise, "time": steps, **{name: value for name, value in known.items() if value is not None}}

    def sample_shape(self, network: nn.Module) -> tuple[int, ...]:
        return self.shape

    def feature(self, output: Any) -> Tensor:
        """A block's output as the tensor that stands for the image; of several, the last."""
        return output if isinstance(output, Tensor) else output[-1]

    def arguments(self, condition: Conditions) -> dict[str, Any]:
        """`condition` as arguments of the pipeline's call."""
        return {name: condition[name] for name in self.takes}

    def size_words(self) -> str:
        """What the network takes, for an error."""
        words = f"{self.shape} at {self.resolution} pixels"
        if self.guessed:
            factor = self.resolution // self.shape[-1]
            words += (
                f"; the pipeline was loaded without its VAE, and {factor} pixels a latent is a guess: load it with the VAE, or "
                "give no resolution, for the network's own"
            )
        return words

    def check(self, condition: Conditions) -> None:
        """Raise InputError unless `condition` has all that a call needs."""
        if missing := [name for name in self.takes if name not in condition]:
            raise InputError(
                f"a {self.name} is told {', '.join(self.takes)}; {', '.join(missing)} is missing (given: "
                f"{', '.join(sorted(condition)) or 'nothing'}). family.encode(pipeline, prompts) makes them of prompts"
            )

    def example(self, network: Any, count: int = 1, tokens: int | None = None) -> Conditions:
        """Conditions of `count` samples as `network` takes them, of no meaning: memory is counted and data are compared by them.

        Args:
            tokens: of a prompt; None takes as many as the pipeline encodes.

        Raises:
            OptionError: nothing says how wide an embedding is. `widths` does, or a method of one's own in place of this one.
        """
        length, config, told = self.tokens if tokens is None else tokens, bare(network).config, {}
        for name in self.takes:
            field = dict(self.widths).get(name)
            width = None if field is None else config.get(field)
            if name == "prompt_attention_mask":
                told[name] = torch.ones(count, length, dtype=torch.long)
            elif width is not None:
                told[name] = torch.zeros(count, *([length] if name == "prompt_embeds" else []), width)
            elif field is not None:
                raise OptionError(
                    f"{type(self).__name__}.widths has {field!r} for {name}, which the configuration of a {self.name}'s network does not have"
                )
            else:
                raise OptionError(
                    f"nothing says how wide {name} of a {self.name} are: give the family {type(self).__name__} widths = "
                    f"(({name!r}, ...),), with the name that its network's configuration has for it, or a method example()"
                )
        return told

    def check_told(self, condition: Conditions) -> None:
        """Raise InputError unless the network can be told `condition`, all in it: tensors of these kinds and sizes, these classes.

        It is asked about the first two samples, without weights or memory. A network that cannot be asked this way, since it
        takes no `example` either, is not asked.
        """
        self.check(condition)
        network = built(*self._built)
        given = {name: value[:2] for name, value in condition.items()}
        if (refusal := self._refusal(network, given)) is not None:
            try:
                taken = self.example(network, 2)
            except OptionError:
                return
            if self._refusal(network, taken) is None:
                raise InputError(
                    f"the network of this {self.name} cannot be told, of a sample, {self._sizes(given)} ({refusal}). It can be told, "
                    f"for example, {self._sizes(taken)}: make them anew with this teacher (distill_pipeline.py cache)"
                ) from refusal
        self._check_classes(network, condition)

    def _refusal(self, network: nn.Module, told: Conditions) -> Exception | None:
        """Why a network without memory has no answer for what it is told; None where it has one."""
        count = len(told[self.takes[0]])
        with weightless():
            noisy = torch.zeros(count, *self.shape)
        try:
            with quiet():
                self.answer(network, noisy, torch.zeros(count, dtype=torch.long), without_floats(told))
        except Exception as error:  # networks raise of all kinds
            return error
        return None

    def _sizes(self, told: Conditions) -> str:
        """Shape and type of each condition of a sample, for an error."""
        return ", ".join(f"{n} {tuple(told[n].shape[1:])} in {str(told[n].dtype)[6:]}" for n in self.takes)

    def _check_classes(self, network: nn.Module, condition: Conditions) -> None:
        if (count := self.num_classes(network)) is None:
            return
        labels = condition["class_labels"]
        if len(rows := ((labels < 0) | (labels >= count)).nonzero().flatten()):
            raise InputError(
                f"this {self.name} knows {count} classes, 0 to {count - 1}, and {len(rows)} of {len(labels)} samples are of others, such "
                f"as {int(labels[rows[0]])} in row {int(rows[0])}, counted from 0: make them anew with this teacher "
                "(distill_pipeline.py cache), or leave these samples out"
            )

    @torch.no_grad()
    def to_latents(self, vae: Any, images: Tensor) -> Tensor:
        """Latents `(N, C, h, w)`, scaled as the network takes them, of images `(N, 3, H, W)` in [-1, 1]."""
        encoded = vae.encode(images)
        latents = encoded.latent_dist.sample() if hasattr(encoded, "latent_dist") else encoded.latent
        return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor

    def to_images(self, vae: Any, latents: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` of latents as the network takes them; gradients flow."""
        return vae.decode(latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)).sample

    def pack(self, latents: Tensor) -> Tensor:
        """Latents in the layout that the pipeline keeps them in."""
        return latents

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of `pack`."""
        return packed

    def _channels(self, network: Any) -> int:
        return int(network.config.in_channels)

    def _distilled(self, sign: str, otherwise: str = "") -> OptionError:
        """For a teacher that is distilled already, as `sign` says."""
        return OptionError(
            f"this {self.name} is distilled already ({sign}): it knows no guidance, and its answers are no scores. Give "
            f"the model that it was made of{otherwise}"
        )

    @staticmethod
    def _device(pipeline: Any) -> torch.device:
        """Where prompts are encoded: text encoders may be elsewhere than the network, or, when they are offloaded, nowhere."""
        parts = pipeline.components.items()
        encoders = [part for name, part in parts if name.startswith("text_encoder") and part is not None]
        away = not encoders or encoders[0].device.type == "meta"
        return pipeline._execution_device if away else encoders[0].device


def rescale_positions(student: Any, patches: Any, side: int) -> None:
    """For a student that will be built for latents of `side`: the scale at which its positions (`PatchEmbed`) stay as they are."""
    scale = patches.interpolation_scale * side / (patches.base_size * patches.patch_size)
    student.register_to_config(interpolation_scale=int(scale) if scale == int(scale) else scale)


def bare(network: Any) -> Any:
    """A network without what Accelerate and torch.compile wrap it in."""
    while (inner := getattr(network, "module", getattr(network, "_orig_mod", None))) is not None:
        network = inner
    return network
