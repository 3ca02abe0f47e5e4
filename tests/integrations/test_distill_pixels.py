"""Decoded images, as the adversary and the teacher's term see them."""

from __future__ import annotations

import pytest
import torch
from pipeline_tools import FAMILIES, tiny_family
from torch import Tensor

import advloss
from advloss_distill import (
    ImageEmbedding,
    Pixels,
)

NAMES = sorted(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_pipelines_and_gradients_come_back(name: str) -> None:
    pipeline, family = tiny_family(name)
    pixels = Pixels(family, pipeline.vae)
    fake, real = torch.randn(3, *family.shape, requires_grad=True), torch.randn(3, *family.shape)
    images, reals, judged = pixels(fake, real, {"vector": torch.ones(3, 2)})
    assert images.shape == reals.shape == (3, 3, family.resolution, family.resolution)
    torch.testing.assert_close(reals, family.to_images(pipeline.vae, real))
    torch.testing.assert_close(judged["vector"], torch.ones(3, 2))
    assert not reals.requires_grad
    images.square().mean().backward()
    assert fake.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in pipeline.vae.parameters())
    assert not pipeline.vae.training


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_memory_and_nothing_else(chunk: int) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    latents = torch.randn(5, *family.shape, requires_grad=True)
    kept, results = [], []
    for pixels in (Pixels(family, pipeline.vae), Pixels(family, pipeline.vae, chunk=chunk)):
        count = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images = pixels.decode(latents)
        kept.append(count)
        (slope,) = torch.autograd.grad(images.square().sum(), latents)
        results.append((images, slope))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)
    assert chunk == 5 or kept[1] < 0.1 * kept[0]


def test_both_sides_see_one_window_and_it_moves() -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pixels = Pixels(family, pipeline.vae, crop=8)
    latents = torch.randn(2, *family.shape)
    torch.manual_seed(0)
    seen = []
    for _ in range(8):
        fake, real, _ = pixels(latents, latents, {})
        assert fake.shape[-2:] == (8, 8)
        assert torch.equal(fake, real)
        seen.append(fake)
    assert any(not torch.equal(seen[0], other) for other in seen)
    whole = [family.to_images(pipeline.vae, latents[..., i : i + 4, j : j + 4]) for i in range(5) for j in range(5)]
    assert all(any(torch.allclose(one, window, atol=1e-5) for window in whole) for one in seen)


@pytest.mark.parametrize("crop", [None, 8])
def test_the_teachers_term_takes_the_images_that_the_adversary_was_shown(crop: int | None) -> None:
    """Once, of the same latents, in the same window; its gradient is that of images decoded for it alone."""
    pipeline, family = tiny_family("stable-diffusion")
    pixels, calls = Pixels(family, pipeline.vae, crop=crop), []
    pipeline.vae.decoder.register_forward_hook(lambda module, given, image: calls.append(image.requires_grad))
    latents, other = torch.randn(2, *family.shape, requires_grad=True), torch.randn(2, *family.shape)
    images, _, _ = pixels(latents, other, {})
    made, _ = pixels.pair(latents, other)
    assert calls == [True, False, False]
    assert made is images
    again, matching = pixels.pair(latents, latents)
    assert calls[3:] == [True, False]
    torch.testing.assert_close(again, matching)
    if crop is None:
        slopes = [torch.autograd.grad(image.square().sum(), latents)[0] for image in (made, again)]
        torch.testing.assert_close(*slopes)


def test_a_decoder_in_half_precision() -> None:
    pipeline, family = tiny_family("stable-diffusion")
    latents = torch.randn(2, *family.shape, requires_grad=True)
    images = Pixels(family, pipeline.vae.to(torch.bfloat16)).decode(latents)
    assert images.dtype == torch.float32
    images.sum().backward()
    assert latents.grad.dtype == torch.float32


def test_an_image_embedding_is_the_mean_of_the_last_tokens() -> None:
    judge = advloss.create_discriminator("dino", backbone="test_vit", pretrained=False, blocks=(1, 3), resolution=32)
    embed, images = ImageEmbedding(judge.features), torch.rand(2, 3, 16, 16) * 2 - 1
    found = embed(images)
    assert found.shape == (2, embed.channels)
    torch.testing.assert_close(found, judge.features(images)[-1].mean(-1))
    pipeline, family = tiny_family("stable-diffusion")
    pixels = Pixels(family, pipeline.vae, embed=embed)
    real = torch.randn(2, *family.shape)
    _, images, judged = pixels(real, real, {})
    torch.testing.assert_close(judged["vector"], embed(images))
