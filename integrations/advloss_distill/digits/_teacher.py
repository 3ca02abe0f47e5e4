"""A small class-conditional diffusion model of the digits, to be distilled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss

from advloss_distill._diffusion import Diffusion
from advloss_distill.digits._data import CLASSES, Digits

TIMESTEPS = (999, 749, 499, 249)


def teacher_network() -> UNet2DModel:
    """An untrained UNet for images `(N, 1, 8, 8)` and labels `(N,)`, with 160 thousand parameters."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        num_class_embeds=CLASSES,
    )


def teacher_scheduler() -> DDIMScheduler:
    """Cosine noise levels with zero terminal signal, v-prediction, timesteps from the end ("trailing")."""
    return DDIMScheduler(timestep_spacing="trailing", clip_sample=False, **_noise_levels())


def student_scheduler() -> LCMScheduler:
    """The same noise levels with fresh noise at every step; 1, 2, 3 or 4 steps from `TIMESTEPS`, as trained."""
    return LCMScheduler(original_inference_steps=len(TIMESTEPS), clip_sample=True, **_noise_levels())


def _noise_levels() -> dict[str, Any]:
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": "squaredcos_cap_v2",
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
    }


def train_teacher(
    digits: Digits,
    iterations: int = 1000,
    batch_size: int = 128,
    lr: float = 2e-3,
    on_progress: Callable[[int, torch.Tensor], None] = lambda iteration, loss: None,
) -> UNet2DModel:
    """Train a teacher by v-prediction; returns its averaged weights. `on_progress` gets the iteration and its loss."""
    network = teacher_network().to(digits.images.device)
    diffusion = Diffusion.from_scheduler(teacher_scheduler())
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: _warm_cosine(i, iterations, warmup=100, final=0.02)
    )
    ema = EMAModel(network.parameters(), decay=0.998, foreach=True)
    for iteration in range(1, iterations + 1):
        chosen = torch.randint(len(digits.images), (batch_size,), device=digits.images.device)
        x0, noise = digits.images[chosen], torch.randn(batch_size, 1, 8, 8, device=digits.images.device)
        # evenly spread timesteps with one random offset: less noise in the loss than independent draws
        timesteps = (
            (torch.arange(batch_size, device=x0.device) + torch.rand((), device=x0.device)) / batch_size * 1000
        ).long()
        noisy = diffusion.add_noise(x0, noise, timesteps)
        alpha, sigma = (diffusion.at(levels, timesteps, x0) for levels in (diffusion.alpha, diffusion.sigma))
        output = network(noisy, timesteps, class_labels=digits.labels[chosen]).sample
        loss = mse_loss(output, alpha * noise - sigma * x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ema.step(network.parameters())
        on_progress(iteration, loss.detach())
    ema.copy_to(network.parameters())
    return network.eval().requires_grad_(False)


def _warm_cosine(iteration: int, iterations: int, warmup: int, final: float) -> float:
    """A linear rise, and a cosine from 1 to `final`."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(iteration / iterations, 1)))
    return min(1.0, (iteration + 1) / warmup) * (final + (1 - final) * cosine)
