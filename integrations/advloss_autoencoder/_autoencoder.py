"""How autoencoders are called: one forward for every kind of diffusers' and for any encoder-decoder."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError


class Reconstruction(NamedTuple):
    """What an autoencoder made of a batch.

    Attributes:
        samples: `(N, C, ...)`, in the range of the images, [-1, 1].
        regularization: a scalar: the KL divergence to the standard normal in nats for each value of the images, or the codebook's
            loss; None where the latent space has no such term.
    """

    samples: Tensor
    regularization: Tensor | None


@final
class Autoencoder(nn.Module):
    """`model` as one module from images to a `Reconstruction`: what Accelerate prepares, so that DDP sees every call.

    A model with `encode` and `decode`, as all of diffusers': what `encode` returns is asked for a posterior
    (`latent_dist`: KL, sampled) or for latents (`latents`, `latent`), and `decode` for its `sample` and `commit_loss`.
    Any other model is called, and returns a reconstruction, or a pair of one and its regularization.

    diffusers' own `forward` is not used: it hides the posterior, and that of `AutoencoderTiny` rounds latents to bytes,
    which lets no gradient into the encoder.

    Args:
        model: the autoencoder.
        sample_posterior: draw latents from the posterior; otherwise take its mode.
    """

    def __init__(self, model: nn.Module, *, sample_posterior: bool = True) -> None:
        super().__init__()
        self.model = model
        self.sample_posterior = sample_posterior

    def forward(self, images: Tensor) -> Reconstruction:
        """`(N, C, H, W)`, or videos `(N, C, T, H, W)`, in [-1, 1].

        Raises:
            InputError: other channels or dimensions than the model was built for, sides that it does not divide, no floats.

        Warns:
            The encoder trains, and the whole decoder is frozen.
        """
        model: Any = self.model
        if torch.is_grad_enabled():
            _warn_about_frozen_decoder(model)
        if not images.is_floating_point():
            raise InputError(f"images have dtype {images.dtype}: give floats in [-1, 1] (x / 127.5 - 1)")
        if not (hasattr(model, "encode") and hasattr(model, "decode")):
            return _read(model(images))
        try:
            code = model.encode(images)
        except (RuntimeError, ValueError) as error:
            if problem := _unfit(model, images, error):
                raise InputError(problem) from error
            raise
        posterior = getattr(code, "latent_dist", None)
        if posterior is None:
            return _read(model.decode(_latents(code)))
        latents = posterior.sample() if self.sample_posterior else posterior.mode()
        return Reconstruction(_read(model.decode(latents)).samples, _kl(posterior) / images.numel())


def last_layer(model: nn.Module) -> nn.Parameter:
    """The weight of the decoder's last layer, for `advloss.AdaptiveWeight`: the last that `model.decoder` registers.

    Raises:
        OptionError: there is no decoder of that name, or the layer is frozen.
    """
    model = _unwrap(model)
    decoder = getattr(model, "decoder", None)
    weights = [p for p in decoder.parameters() if p.ndim > 1] if isinstance(decoder, nn.Module) else []
    if not weights:
        raise OptionError(
            f"a {type(model).__name__} has no 'decoder' with a weight: pass the weight of the layer that makes the "
            "reconstruction as last_layer=, or None for a fixed weight"
        )
    if not weights[-1].requires_grad:
        raise OptionError(
            f"the decoder of this {type(model).__name__} is frozen: an adversarial loss trains the decoder; call "
            "model.decoder.requires_grad_(True)"
        )
    return weights[-1]


def freeze_encoder(model: nn.Module) -> nn.Module:
    """Let only the decoder train, as when latents must stay what a diffusion model was trained on.

    Freezes all but `decoder` and `post_quant_conv`. There is no gradient for a KL or codebook term then.

    Raises:
        OptionError: there is no `decoder`.
    """
    inner = _unwrap(model)
    if not isinstance(getattr(inner, "decoder", None), nn.Module):
        last_layer(model)  # says what is missing
    inner.requires_grad_(False)
    for name in ("decoder", "post_quant_conv"):
        part = getattr(inner, name, None)
        if isinstance(part, nn.Module):
            part.requires_grad_(True)
    return model


def _warn_about_frozen_decoder(model: nn.Module) -> None:
    decoder = getattr(model, "decoder", None)
    trains = [p.requires_grad for p in decoder.parameters()] if isinstance(decoder, nn.Module) else []
    if trains and not any(trains) and any(p.requires_grad for p in model.parameters()):
        warnings.warn(
            f"the decoder of this {type(model).__name__} is frozen and only the rest trains: an adversarial loss is for the "
            "decoder; call model.decoder.requires_grad_(True), and freeze_encoder(model) to keep the latents",
            stacklevel=5,  # past forward and Module's two functions
        )


def _unwrap(model: nn.Module) -> nn.Module:
    while isinstance(model, (Autoencoder, nn.parallel.DistributedDataParallel)):
        model = model.model if isinstance(model, Autoencoder) else model.module
    return model


def _unfit(model: nn.Module, images: Tensor, error: Exception) -> str | None:
    """Why `model` cannot have encoded `images`, where their shape tells. Asked afterwards, since configurations count
    channels in several ways: Wan 2.2's are those of patches."""
    name, shape = type(model).__name__, tuple(images.shape)
    if isinstance(error, torch.OutOfMemoryError):
        return None
    dims = 3 if any(isinstance(module, nn.Conv3d) for module in model.modules()) else 2
    if images.ndim != dims + 2:
        kind = "videos (N, C, T, H, W)" if dims == 3 else "images (N, C, H, W)"
        return f"images have shape {shape}, and this {name} takes {kind}, in [-1, 1]"
    config = getattr(model, "config", None)
    channels, patch = getattr(config, "in_channels", None), getattr(config, "patch_size", None)
    if channels is not None and isinstance(patch, int):
        channels //= patch**2
    if channels is not None and images.shape[1] != channels:
        return (
            f"images have shape {shape}, and this {name} takes {channels} channels: give images (N, C, ...) in "
            "[-1, 1], not latents"
        )
    if "divisible" in str(error):
        return f"images have shape {shape}, whose sides this {name} cannot halve often enough: crop or resize them ({error})"
    return None


def _latents(code: Any) -> Tensor:
    for name in ("latents", "latent"):
        if hasattr(code, name):
            latents: Tensor = getattr(code, name)
            return latents
    return code[0] if isinstance(code, tuple) else code


def _read(output: Any) -> Reconstruction:
    """A reconstruction from what a model or its `decode` returned."""
    if isinstance(output, Reconstruction):
        return output
    if isinstance(output, Tensor):
        return Reconstruction(output, None)
    if hasattr(output, "sample"):
        return Reconstruction(output.sample, getattr(output, "commit_loss", None))
    if isinstance(output, tuple) and 1 <= len(output) <= 2 and isinstance(output[0], Tensor):
        return Reconstruction(output[0], output[1] if len(output) == 2 else None)
    raise InputError(
        f"the autoencoder returned a {type(output).__name__}; return the reconstruction, or a pair of it and a scalar "
        "regularization"
    )


def _kl(posterior: Any) -> Tensor:
    """Of diffusers' diagonal normal distribution to the standard one, summed over everything."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
