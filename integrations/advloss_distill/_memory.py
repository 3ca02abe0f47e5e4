"""How much memory a distillation takes, counted on tensors that have none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from advloss import OptionError
from advloss_distill._family import Family
from advloss_distill._latent_data import LatentData
from advloss_distill._weightless import asking, built, emptied, weightless, without_floats

Judged = Literal["teacher", "copy", "images", "nothing"]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, without sharding; what heads, a discriminator by name and the allocator add is not counted.

    Attributes:
        parameters: of the student, in 32 bits.
        gradients: of what is trained.
        moments: of the student's optimizer.
        average: of the averaged student.
        teacher: its weights.
        activations: what the student's forward keeps for its backward.
        judge: weights, gradients and moments of a network that trains beside the student; those of the decoder.
        judged: activations of what the adversary's gradient goes through.
    """

    parameters: int
    gradients: int
    moments: int
    average: int
    teacher: int
    activations: int
    judge: int
    judged: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(getattr(self, field.name) for field in fields(self))

    def table(self) -> str:
        """Lines of gigabytes."""
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:12}{size / 1e9:9.3f} GB" for name, size in [*rows, ("total", self.total)])


def estimate_memory(
    family: Family,
    network: nn.Module,
    *,
    batch_size: int,
    lora: int = 0,
    gradient_checkpointing: bool = False,
    half_activations: bool = False,
    half_teacher: bool = False,
    bytes_a_moment: int = 4,
    tokens: int | None = None,
    judged_by: Judged = "teacher",
    vae: nn.Module | None = None,
    crop: int | None = None,
    chunk: int | None = None,
) -> Memory:
    """Of a distillation with these settings, before anything is allocated.

    Args:
        network: of the teacher; only its configuration is read, and its weights are not touched.
        lora: the adapter's rank, or 0 for all weights.
        half_activations: mixed precision; a VAE decodes in its own all the same.
        tokens: of a prompt, such as those of `LatentData.tokens`; None takes as many as the family encodes.
        judged_by: what the adversary's gradient goes through: the teacher (LADD), a copy of it that trains as a whole (DMD2's fake
            score, which looks at fakes, reals and fakes to denoise before one backward), decoded images, or nothing large.
        vae: whose decoder makes the images; `crop` and `chunk` as `Pixels` has them.

    Raises:
        OptionError: the images' VAE is missing; the configuration does not say what the network is told (`Family.example`); or
            the network's forward depends on what its weights make of their inputs, so that nothing can be counted.
    """
    teacher: Any = built(type(network), network.config)
    student = _student(family, teacher, lora)
    judge = judged = 0
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in student.parameters())
    if judged_by == "copy":
        judge = 4 * everything + (4 + 2 * bytes_a_moment) * trained
        judged = 3 * _kept(family, student, batch_size, tokens, inputs_need_gradients=False)
    elif judged_by == "teacher":
        judged = _kept(family, teacher, batch_size, tokens, inputs_need_gradients=True)
    elif judged_by == "images":
        if vae is None:
            raise OptionError(f"this {family.name} was loaded without its VAE, and images are made by it: give vae=")
        judge = 4 * sum(p.numel() for p in vae.parameters())
        judged = _decoded(family, vae, min(batch_size, chunk or batch_size), crop)
    if gradient_checkpointing:
        student.enable_gradient_checkpointing()
    kept = _kept(family, student, batch_size, tokens, inputs_need_gradients=False)
    # the adversary runs under autocast, whatever the teacher is kept in; a decoder never does (`Pixels`)
    halved = {"teacher": half_teacher or half_activations, "copy": half_activations}.get(judged_by, False)
    return Memory(
        parameters=4 * everything,
        gradients=4 * trained,
        moments=2 * bytes_a_moment * trained,
        average=4 * trained,
        teacher=sum(p.numel() for p in teacher.parameters()) * (2 if half_teacher else 4),
        activations=kept // (2 if half_activations else 1),
        judge=judge,
        judged=judged // (2 if halved else 1),
    )


def without_memory(family: Family, pipeline: Any) -> None:
    """Take network and VAE of a pipeline out of memory, for good: what is built of them can be looked at, and takes none."""
    for part in (family.network(pipeline), getattr(pipeline, "vae", None)):
        if part is not None:
            part.to("meta")


def stand_in(family: Family, network: nn.Module) -> LatentData:
    """A sample of the family's sizes, for data that are not there yet."""
    return LatentData(torch.zeros(1, *family.shape), family.example(network))


def _student(family: Family, teacher: nn.Module, lora: int) -> Any:
    """Of a teacher without memory, without memory, too."""
    with torch.device("meta"), warnings.catch_warnings():  # an adapter's weights are made there
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by torch's own deepcopy
        student = family.adapted(teacher, lora) if lora else family.student(teacher)
    return emptied(student)


def _kept(family: Family, network: nn.Module, count: int, tokens: int | None, inputs_need_gradients: bool) -> int:
    """Bytes that one forward of `count` samples keeps, parameters left out."""
    with weightless():
        noisy = torch.zeros(count, *family.shape, requires_grad=inputs_need_gradients)
    timesteps = torch.zeros(count, dtype=torch.long)
    told = without_floats(family.example(network, count, tokens))
    return _keeps(network, lambda: family.output(network, noisy, timesteps, told))


def _decoded(family: Family, vae: Any, count: int, crop: int | None) -> int:
    """Bytes that decoding `count` samples keeps for the gradient by them."""
    decoder = built(type(vae), vae.config)
    side = family.shape[-1] * (crop or family.resolution) // family.resolution
    with weightless():
        latents = torch.zeros(count, family.shape[0], side, side, requires_grad=True)
    return _keeps(decoder, lambda: family.to_images(decoder, latents))


def _keeps(network: nn.Module, forward: Callable[[], Tensor]) -> int:
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    found: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = (tensor, storage.nbytes())  # holding it keeps its place its own
        return tensor

    with asking(network), saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return sum(size for _, size in found.values())
