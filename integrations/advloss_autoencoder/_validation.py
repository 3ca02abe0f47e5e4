"""Autoencoders side by side on the same images: figures, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from advloss import InputError, Perceptual
from advloss_autoencoder._autoencoder import Autoencoder
from advloss_autoencoder._data import middle
from advloss_autoencoder._metrics import Features, Figures, check_image, evaluate, evaluating
from advloss_autoencoder._picture import save_comparison


@torch.no_grad()
def validate(
    models: Mapping[str, nn.Module],
    images: Sequence[Tensor],
    picture: Path | str,
    *,
    window: int = 128,
    enlarge: float = 2.0,
    features: Features | None = None,
    lpips: Perceptual | None = None,
) -> dict[str, Figures]:
    """Measure each of `models` on whole images, and draw the middle of the first four.

    Args:
        models: autoencoders by title, each on its device.
        images: each `(3, H, W)` in [-1, 1], with sides that the autoencoders take.
        picture: file to write: images, reconstructions and differences; its folder is made.
        window: side of what is shown, of smaller images less; the autoencoders take it too.
        enlarge: width of a pixel in the picture.
        features: for the Fréchet distance, as in `evaluate`.
        lpips: a perceptual distance.

    Raises:
        InputError: no mapping of models, there are no images, one is none or too small, or a reconstruction has another
            size.
    """
    if not isinstance(models, Mapping):
        raise InputError(f"models is a {type(models).__name__}; give them by title: {{'reconstruction': model}}")
    images = list(images)
    if not images:
        raise InputError("there are no images to validate on")
    for image in images:
        check_image(image)
    if window < 1:
        raise InputError(f"window={window!r}: give a number of pixels, 1 or more")
    window = min(window, *(side for image in images[:4] for side in image.shape[1:]))
    windows = torch.stack([middle(image, window).float() for image in images[:4]])
    figures, made = {}, {}
    for name, model in models.items():
        parameter = next(model.parameters())
        figures[name] = evaluate(model, images, features=features, lpips=lpips, device=parameter.device)
        with evaluating(model):
            made[name] = Autoencoder(model, sample_posterior=False)(windows.to(parameter)).samples.float().cpu()
        if made[name].shape != windows.shape:
            raise InputError(
                f"the reconstruction of a window of {window} pixels has sides {tuple(made[name].shape[-2:])}: give a window "
                "that the autoencoder's downsampling divides"
            )
    save_comparison(picture, windows, made, enlarge=enlarge)
    return figures
