"""The teacher: Stable Diffusion in miniature, a VAE and a UNet with cross-attention, each trained in minutes."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

import advloss
from advloss_autoencoder import AutoencoderTraining, Objective
from advloss_distill import Diffusion, LatentData
from benchmarks.shapes.data import WORDS, Images
from benchmarks.shapes.sizes import Sizes


def train_vae(images: Images, sizes: Sizes) -> AutoencoderKL:
    """8 x 8 x 4 latents, by `advloss_autoencoder`: L2, a little KL, and a patch discriminator at the end."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        norm_num_groups=1,
        layers_per_block=1,
        mid_block_add_attention=False,
        sample_size=images.images.shape[-1],
    )
    with torch.no_grad():
        model.quant_conv.bias[4:] = -6.0  # little noise to begin with
    adam = functools.partial(torch.optim.Adam, lr=5e-4, betas=(0.5, 0.99))
    adversary = advloss.Adversary(
        ("patch", {"width": 16, "depth": 2}),
        loss="hinge",
        optimizer=adam,
        weight=0.003,
        start_step=sizes.vae_steps * 3 // 4,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    training = AutoencoderTraining(
        model,
        Objective(adversary, pixel=_with_colours, regularization_weight=1e-4),
        DataLoader(images.images, batch_size=16, shuffle=True, drop_last=True),
        optimizer,
        cosine(optimizer, sizes.vae_steps),
        accelerator=Accelerator(cpu=True),
        ema_decay=0.99,
    )
    if not training.run(sizes.vae_steps, lambda progress: show("vae", progress.step, progress.losses.as_dict())):
        sys.exit(training.exit_status)  # Ctrl-C: half a VAE is not kept
    vae: Any = training.averaged_model().requires_grad_(False)
    with torch.no_grad():
        spread = vae.encode(images.images[:360]).latent_dist.sample().std()
    vae.register_to_config(scaling_factor=1 / float(spread))
    return vae


def _with_colours(made: Tensor, images: Tensor) -> Tensor:
    """L2 in which colours count six times what grey counts: grey detail otherwise takes all latents, and keeps them."""
    away = made - images
    grey = away.mean(1, keepdim=True)
    return grey.square().mean() + 6 * (away - grey).square().mean()


def unet(sizes: Sizes) -> UNet2DConditionModel:
    """Untrained, for latents `(N, 4, 8, 8)` and prompts `(N, 2, 16)`."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=sizes.widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=WORDS,
    )


def noise_levels() -> DDIMScheduler:
    """Zero terminal signal, v-prediction, timesteps from the end."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
    )


def pipeline_of(vae: AutoencoderKL, network: UNet2DConditionModel) -> StableDiffusionPipeline:
    """Without text encoder: prompts are given as embeddings."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=network,
        scheduler=noise_levels(),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_teacher(data: LatentData, sizes: Sizes) -> UNet2DConditionModel:
    """By v-prediction; averaged weights."""
    torch.manual_seed(0)
    network, diffusion = unet(sizes), Diffusion.from_scheduler(noise_levels())
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    schedule = cosine(optimizer, sizes.teacher_iterations, warmup=50)
    ema = EMAModel(network.parameters(), decay=0.995, foreach=True)
    count = sizes.batch_size
    for iteration in range(1, sizes.teacher_iterations + 1):
        told = data.conditions(count)
        x0 = data.real(told)
        noise = torch.randn_like(x0)
        # evenly spread with one random offset: less noise in the loss than independent draws
        timesteps = ((torch.arange(count) + torch.rand(())) / count * 1000).long()
        output = network(diffusion.add_noise(x0, noise, timesteps), timesteps, told["prompt_embeds"]).sample
        loss = mse_loss(output, diffusion.target(x0, noise, timesteps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ema.step(network.parameters())
        show("teacher", iteration, {"loss": float(loss.detach())})
    ema.copy_to(network.parameters())
    return network.eval().requires_grad_(False)


def cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: int = 20) -> torch.optim.lr_scheduler.LambdaLR:
    """A short rise, and half a cosine down to a fiftieth."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / warmup) * (0.51 + 0.49 * math.cos(math.pi * min(i / steps, 1.0)))
    )


def show(name: str, step: int, numbers: dict[str, float]) -> None:
    """A line now and then."""
    if step % 50 == 0:
        print(name, step, {key: round(value, 4) for key, value in numbers.items()}, flush=True)
