"""The estimate against what a real forward keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pipeline_tools import ENCODERS, FAMILIES, TOKENS, tiny_conditions, tiny_family, tiny_pipeline, tiny_text
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from advloss import OptionError
from advloss_distill import Family, LatentData, estimate_memory, family_of
from advloss_distill.methods import METHODS, memory_options


def really_kept(family: Family, network: nn.Module, inputs_need_gradients: bool) -> int:
    """Bytes of the storages that autograd keeps in a forward on the CPU, those of parameters left out."""
    condition = tiny_conditions(family, 2)
    noisy = torch.randn(2, *family.shape, requires_grad=inputs_need_gradients)
    return keeps(network, lambda: family.output(network, noisy, torch.tensor([9, 500]), condition))


def keeps(network: nn.Module, forward: Callable[[], Tensor]) -> int:
    own = {p.data_ptr() for p in network.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(t.untyped_storage().nbytes() for place, t in found.items() if place not in own)


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_estimate_is_what_a_forward_keeps(name: str, lora: int) -> None:
    pipeline, family = tiny_family(name)
    network = pipeline.components[family.part]
    found = estimate_memory(family, network, batch_size=2, lora=lora, tokens=TOKENS)
    student = family.adapted(network, lora) if lora else family.student(network)
    assert found.activations == pytest.approx(really_kept(family, student, False), rel=0.05)
    teacher = network.requires_grad_(False)
    assert found.judged == pytest.approx(really_kept(family, teacher, True), rel=0.05)
    count = sum(p.numel() for p in student.parameters())
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad) or count
    assert found.parameters == 4 * count
    assert (found.gradients, found.moments, found.average) == (4 * trained, 8 * trained, 4 * trained)
    assert found.teacher == 4 * sum(p.numel() for p in teacher.parameters())
    assert found.total == sum(
        (
            found.parameters,
            found.gradients,
            found.moments,
            found.average,
            found.teacher,
            found.activations,
            found.judge,
            found.judged,
        )
    )


@pytest.mark.parametrize("name", ["stable-diffusion", "sana"])
@pytest.mark.parametrize(("crop", "chunk"), [(None, None), (8, None), (8, 1)])
def test_decoded_images_are_counted(name: str, crop: int | None, chunk: int | None) -> None:
    pipeline, family = tiny_family(name)
    found = estimate_memory(
        family,
        pipeline.components[family.part],
        batch_size=2,
        tokens=TOKENS,
        judged_by="images",
        vae=pipeline.vae,
        crop=crop,
        chunk=chunk,
    )
    vae = pipeline.vae.requires_grad_(False).eval()
    side = family.shape[-1] * (crop or family.resolution) // family.resolution
    latents = torch.randn(chunk or 2, family.shape[0], side, side, requires_grad=True)
    assert found.judged == pytest.approx(keeps(vae, lambda: family.to_images(vae, latents)), rel=0.05)
    assert found.judge == 4 * sum(p.numel() for p in vae.parameters())


def test_in_half_precision_a_decoder_keeps_as_much_and_a_teacher_half() -> None:
    """The adversary runs under autocast, its teacher's weights in 32 bits or in 16; a VAE is never put under it."""
    pipeline, family = tiny_family("stable-diffusion")
    for judged, halves in (("images", 1), ("teacher", 2), ("copy", 2)):
        told = {"batch_size": 2, "tokens": TOKENS, "judged_by": judged, "vae": pipeline.vae}
        whole, half = (estimate_memory(family, pipeline.unet, half_activations=h, **told) for h in (False, True))
        assert half.judged == whole.judged // halves


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_prompts_are_as_long_as_the_pipeline_encodes_them(name: str) -> None:
    """In the data, and where there are none yet as the family's call has it."""
    pipeline = tiny_pipeline(name, **tiny_text(name))
    family = family_of(pipeline, resolution=FAMILIES[name].side)
    told = family.encode(pipeline, ["a red fox"])
    data = LatentData(torch.zeros(1, *family.shape), told)
    clip = 77 - 12 if name.startswith("stable-diffusion") else 0  # of a miniature's tokenizer
    assert data.tokens == told["prompt_embeds"].shape[1] == family.tokens - clip
    default, known, less = (
        estimate_memory(family, family.network(pipeline), batch_size=2, tokens=tokens)
        for tokens in (None, family.tokens, TOKENS)
    )
    assert default == known
    assert less.activations < known.activations
    assert LatentData(torch.zeros(1, 4), {"class_labels": torch.zeros(1)}).tokens is None


@pytest.mark.parametrize("lora", [0, 2])
def test_a_fake_score_is_counted(lora: int) -> None:
    """Its weights, gradients and moments, and three forwards before one backward."""
    pipeline, family = tiny_family("stable-diffusion")
    found = estimate_memory(family, pipeline.unet, batch_size=2, lora=lora, tokens=TOKENS, judged_by="copy")
    copy = family.adapted(pipeline.unet, lora) if lora else family.student(pipeline.unet)
    trained = sum(p.numel() for p in copy.parameters() if p.requires_grad)
    assert found.judge == 4 * sum(p.numel() for p in copy.parameters()) + 12 * trained
    assert found.judged == pytest.approx(3 * really_kept(family, copy, False), rel=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_estimated(name: str) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    told = memory_options(name)
    found = estimate_memory(family, pipeline.unet, batch_size=2, tokens=TOKENS, vae=pipeline.vae, **told)
    assert (found.judged > 0) == (told["judged_by"] != "nothing")
    assert (found.judge > 0) == (told["judged_by"] in ("copy", "images"))
    if told["judged_by"] == "images":
        with pytest.raises(OptionError, match="without its VAE"):
            estimate_memory(family, pipeline.unet, batch_size=2, tokens=TOKENS, **told)


def test_what_saves_memory() -> None:
    pipeline, family = tiny_family("stable-diffusion")
    plain = estimate_memory(family, pipeline.unet, batch_size=2)
    assert estimate_memory(family, pipeline.unet, batch_size=4).activations == pytest.approx(
        2 * plain.activations, rel=0.02
    )
    less = estimate_memory(
        family, pipeline.unet, batch_size=2, half_activations=True, half_teacher=True, bytes_a_moment=1
    )
    assert less.activations == plain.activations // 2
    assert less.teacher == plain.teacher // 2
    assert less.moments == plain.moments // 4
    assert (
        estimate_memory(family, pipeline.unet, batch_size=2, gradient_checkpointing=True).activations
        < plain.activations / 2
    )
    assert f"{plain.total / 1e9:.3f} GB" in plain.table()


def test_a_network_of_a_thousand_million_parameters_takes_none() -> None:
    """Nothing is allocated: four terabytes of weights are counted like four kilobytes."""
    pipeline, family = tiny_family("dit")
    pipeline.transformer.register_to_config(num_layers=2, num_attention_heads=2**15)
    found = estimate_memory(family, pipeline.transformer, batch_size=2)
    assert found.teacher > 4e12
