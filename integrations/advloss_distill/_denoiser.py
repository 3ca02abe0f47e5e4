"""How a family of networks is called: what distillation needs to know about teacher and student."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from advloss import Condition
from advloss_distill._diffusion import Diffusion
from advloss_distill._simulation import Conditions


class Denoiser(ABC):
    """Calls a network of one family and reads its output as ``x_0``.

    Args:
        diffusion: noise levels and prediction type.
        clip: samples lie in [-clip, clip], and so do the ``x_0`` returned; None where there is no such range (latents).
            A discriminator otherwise tells fakes by values that no real sample has.

    Attributes:
        breaks_in: mixed precisions (``"fp16"``, ``"bf16"``) in which networks of this family give NaN.
        apart: names of modules that a network calls from outside of the block they lie in; FSDP2 gathers them by themselves.
    """

    breaks_in: ClassVar[tuple[str, ...]] = ()
    apart: ClassVar[tuple[str, ...]] = ()

    def __init__(self, diffusion: Diffusion, clip: float | None = None) -> None:
        self.diffusion = diffusion
        self.clip = clip

    @abstractmethod
    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        """The network's raw output for `noisy` `(N, ...)` at `timesteps` `(N,)`."""

    @abstractmethod
    def judged(self, condition: Conditions, steps: Tensor) -> Condition:
        """What the discriminator is told: the condition, and which step of the student made a sample `(N,)`."""

    def sample_shape(self, network: nn.Module) -> tuple[int, ...]:
        """The shape of one sample, by the configuration of the (unwrapped) network."""
        config: Any = network.config
        return config.in_channels, config.sample_size, config.sample_size

    def x0(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        """``x_0`` that the network makes of `noisy`."""
        x0 = self.diffusion.to_x0(self.output(network, noisy, timesteps, condition), noisy, timesteps)
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)


@final
class ClassConditional(Denoiser):
    """A diffusers `UNet2DModel` with class embeddings; conditions are ``{"class_labels": (N,)}``."""

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return network(noisy, timesteps, class_labels=condition["class_labels"]).sample

    def judged(self, condition: Conditions, steps: Tensor) -> Condition:
        return {"class": condition["class_labels"], "time": steps}


@torch.no_grad()
def sample(
    network: nn.Module,
    denoiser: Denoiser,
    scheduler: Any,
    noise: Tensor,
    condition: Conditions,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples `(N, ...)` by a diffusers scheduler in so many steps, from standard normal `noise`."""
    scheduler.set_timesteps(steps, device=noise.device)
    samples = noise * getattr(scheduler, "init_noise_sigma", 1.0)  # flow-matching ones scale neither noise nor input
    scale = getattr(scheduler, "scale_model_input", lambda samples, timestep: samples)
    extra = {"generator": generator} if generator is not None else {}
    for timestep in scheduler.timesteps:
        model_input = scale(samples, timestep)
        output = denoiser.output(network, model_input, timestep.expand(len(samples)), condition)
        samples = scheduler.step(output, timestep, samples, **extra).prev_sample
    return samples
