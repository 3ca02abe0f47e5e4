"""diffusers' autoencoders under one call: terms, gradients, the last layer, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from autoencoder_tools import MODELS, dc_model, images_for, kl_model, tiny_model, vq_model, wan_model
from torch import Tensor, nn

import advloss
from advloss import AdaptiveWeight, Adversary, InputError, OptionError
from advloss_autoencoder import Autoencoder, Objective, Reconstruction, freeze_encoder, last_layer


def nearest_weight(reconstruction: Tensor) -> Tensor:
    """The weight that the fewest operations separate from the reconstruction in its graph: an independent search."""
    level = [reconstruction.grad_fn]
    while level:
        found = [node.variable for node in level if hasattr(node, "variable") and node.variable.ndim > 1]
        if found:
            return found[0]
        level = [child for node in level for child, _ in node.next_functions if child is not None]
    raise AssertionError("there is no weight")


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_is_called_alike_and_its_last_layer_found(name: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[name](), images_for(name)
    reconstruction = Autoencoder(model)(images)
    assert reconstruction.samples.shape == images.shape
    assert (reconstruction.regularization is None) == (name in ("AutoencoderTiny", "AutoencoderDC"))
    assert last_layer(Autoencoder(model)) is nearest_weight(reconstruction.samples)


def test_channels_of_patches_are_not_those_of_images() -> None:
    """Wan 2.2's configuration counts 12 channels, of 2 x 2 patches of images of 3."""
    model, video = (
        wan_model(in_channels=12, out_channels=12, patch_size=2, is_residual=True),
        torch.rand(1, 3, 9, 32, 32),
    )
    reconstruction = Autoencoder(model)(video)
    assert reconstruction.samples.shape == video.shape
    assert last_layer(model) is nearest_weight(reconstruction.samples)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_trains_encoder_and_decoder_of_every_kind(name: str) -> None:
    """Also of the tiny one, whose own forward rounds latents to bytes, which lets no gradient into its encoder."""
    torch.manual_seed(0)
    model, images = MODELS[name](), images_for(name)
    dims = images.ndim - 2
    adversary = Adversary(("patch", {"width": 4, "depth": 1, "norm": "none", "dims": dims}), "hinge", seed=0)
    objective = Objective(
        adversary, last_layer(model), perceptual=lambda a, b: (a[:, :, ::2] - b[:, :, ::2]).square().mean()
    )
    reconstruction = Autoencoder(model)(images)
    losses = objective(reconstruction, images)
    losses.total.backward()
    report = objective.discriminator_step(reconstruction, images)
    assert losses.adaptive_weight > 0
    assert report.grad_norm > 0
    for part in ("encoder", "decoder"):
        gradients = [p.grad for p in getattr(model, part).parameters() if p.grad is not None]
        assert sum(float(g.abs().sum()) for g in gradients) > 0


@pytest.mark.parametrize("name", MODELS)
def test_the_adaptive_weight_is_the_textbook_for_every_kind(name: str) -> None:
    torch.manual_seed(0)
    model, images = MODELS[name]().double(), images_for(name, 1).double()
    discriminator = advloss.create_discriminator("patch", width=4, depth=1, norm="none", dims=images.ndim - 2).double()
    adversary = Adversary(discriminator, "hinge", weight=0.5, seed=0)
    fake = Autoencoder(model, sample_posterior=False)(images).samples
    weight = last_layer(model)
    rec, adv = (fake - images).abs().mean(), -discriminator(fake).mean()
    norms = [torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (rec, adv)]
    ratio = norms[0] / (norms[1] + 1e-4)
    parameters = list(model.decoder.parameters())
    expected = torch.autograd.grad(rec + ratio * 0.5 * adv, parameters, retain_graph=True, allow_unused=True)
    adaptive = AdaptiveWeight(adversary, weight)
    total = adaptive(fake, (fake - images).abs().mean(), adversary.generator_loss(fake))
    torch.testing.assert_close(adaptive.value, ratio, rtol=1e-12, atol=0)
    for mine, theirs in zip(torch.autograd.grad(total, parameters, allow_unused=True), expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("make", [kl_model, tiny_model])
def test_gradient_checkpointing_of_diffusers_changes_nothing(make: Any) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model, images = make().double().train(), images_for("AutoencoderKL").double()
        if checkpointing:
            model.enable_gradient_checkpointing()
            # that of AutoencoderTiny forgets to scale its input when it is checkpointed (diffusers 0.42)
            model.encoder.gradient_checkpointing = make is not tiny_model
        discriminator = advloss.create_discriminator("patch", width=4, depth=1, norm="none").double()
        objective = Objective(Adversary(discriminator, "hinge", seed=0), last_layer(model))
        torch.manual_seed(1)
        objective(Autoencoder(model)(images), images).total.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


def test_kl_is_diffusers_own() -> None:
    torch.manual_seed(0)
    model, images = kl_model(), images_for("AutoencoderKL")
    expected = model.encode(images).latent_dist.kl().mean() / images[0].numel()  # latent diffusion's, beside a mean
    torch.testing.assert_close(Autoencoder(model)(images).regularization, expected)


def test_the_codebook_term_is_the_models_own() -> None:
    torch.manual_seed(0)
    model, images = vq_model(), images_for("VQModel")
    torch.testing.assert_close(Autoencoder(model)(images).regularization, model(images).commit_loss)


def test_what_is_saved_loads_in_plain_diffusers(tmp_path: Path) -> None:
    for name, make in MODELS.items():
        model = Autoencoder(make()).model
        model.save_pretrained(tmp_path / name)
        loaded = getattr(diffusers, name).from_pretrained(tmp_path / name)
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


class Plain(nn.Module):
    """A user's encoder-decoder without diffusers' methods."""

    def __init__(self, pair: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 2, 2, 2), nn.ConvTranspose2d(2, 3, 2, 2)
        self.pair = pair

    def forward(self, images: Tensor) -> Any:
        code = self.encoder(images)
        return (self.decoder(code), code.square().mean()) if self.pair else self.decoder(code)


@pytest.mark.parametrize("pair", [False, True])
def test_any_encoder_decoder(pair: bool) -> None:
    model, images = Plain(pair), images_for("AutoencoderKL")
    reconstruction = Autoencoder(model)(images)
    assert isinstance(reconstruction, Reconstruction)
    assert (reconstruction.regularization is not None) == pair
    assert last_layer(model) is model.decoder.weight


@pytest.mark.parametrize("make", [kl_model, vq_model, tiny_model])
def test_decoder_only_training(make: Any) -> None:
    torch.manual_seed(0)
    model, images = freeze_encoder(make()), images_for("AutoencoderKL")
    Autoencoder(model)(images).samples.square().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in trained)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert (hasattr(model, "post_quant_conv")) == any(name.startswith("post_quant_conv") for name in trained)


def test_a_model_that_is_frozen_whole_lets_its_decoder_train() -> None:
    model = freeze_encoder(kl_model().requires_grad_(False))
    assert all(p.requires_grad for p in model.decoder.parameters())
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_errors_say_what_to_pass() -> None:
    frozen = kl_model()
    frozen.decoder.requires_grad_(False)
    with pytest.raises(OptionError, match="frozen"):
        last_layer(frozen)
    with pytest.raises(OptionError, match="last_layer="):
        last_layer(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(InputError, match="not latents"):
        Autoencoder(kl_model())(torch.zeros(2, 4, 8, 8))
    with pytest.raises(InputError, match=r"takes videos \(N, C, T, H, W\)"):
        Autoencoder(wan_model())(torch.zeros(2, 3, 8, 8))
    with pytest.raises(InputError, match=r"takes images \(N, C, H, W\)"):
        Autoencoder(kl_model())(torch.zeros(2, 3, 5, 8, 8))
    with pytest.raises(InputError, match="cannot halve often enough: crop or resize"):
        Autoencoder(dc_model())(torch.zeros(2, 3, 30, 31))
    with pytest.raises(InputError, match=r"dtype torch.uint8: give floats in"):
        Autoencoder(tiny_model())(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))

    class Odd(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"image": images}

    with pytest.raises(InputError, match="returned a dict"):
        Autoencoder(Odd())(torch.zeros(2, 3, 8, 8))
