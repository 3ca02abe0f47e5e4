"""The teacher's term: score distillation in the space of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._denoiser import Denoiser
from advloss_distill._diffusion import Diffusion
from advloss_distill._guidance import Guidance, repeated
from advloss_distill._simulation import Conditions
from advloss_distill._term import Made

Weights = Literal["exponential", "sds", "nfsd"]
Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
LITTLE_NOISE = 0.2  # of the schedule: below, noise-free score distillation takes no negative prompt


def score_distillation(
    denoiser: Denoiser,
    teacher: nn.Module,
    x0: Tensor,
    condition: Conditions,
    timesteps: Tensor | None = None,
    *,
    weights: Weights = "exponential",
    guidance: Guidance | None = None,
    negative: Conditions | None = None,
    decode: Pair = lambda x0, target: (x0, target),
) -> Tensor:
    """``E c_t mean ||d(x_0) - d(target)||^2``, ADD's term (arXiv:2311.17042, eq. 3-4); d is `decode`.

    The student's sample is noised to a timestep of its own, uniform over the schedule, and the teacher's one-step answer
    is its target; no gradient flows through the teacher. The weights c_t, and the gradient by x_0 times the number of elements
    (where d is the identity):

    - ``"exponential"``: ``c_t = alpha_t``; ``2 alpha_t (x_0 - x_teacher)``.
    - ``"sds"``: ``c_t = alpha_t / (2 sigma_t) w_t`` with ``w_t = sigma_t^2``; ``w_t (eps_teacher - eps)``, score distillation
      sampling (DreamFusion, arXiv:2209.14988).
    - ``"nfsd"``: the same c_t; ``w_t (delta_D + s delta_C)``, noise-free score distillation (arXiv:2310.17590), where
      ``delta_C = eps(prompt) - eps()`` and ``delta_D = eps() - eps(negative prompt)``, in the first fifth of the schedule
      ``delta_D = eps()``. Three evaluations of the teacher.

    Args:
        x0: what the student made `(N, ...)`, with its graph.
        timesteps: `(N,)`; drawn when None.
        guidance: of the teacher, one more evaluation; NFSD's s (7.5 there) and ``eps()``, and without it there is none.
        negative: NFSD's negative prompt, of one sample.
        decode: to where distances are measured, such as `Pixels.pair`.
    """
    diffusion = denoiser.diffusion
    if weights not in get_args(Weights):
        raise OptionError(f"weights={weights!r}: there are {', '.join(get_args(Weights))}")
    if timesteps is None:
        timesteps = torch.randint(len(diffusion.alpha), (len(x0),), device=x0.device)
    with torch.no_grad():
        noise = torch.randn_like(x0)
        noisy = diffusion.add_noise(x0, noise, timesteps)
        if weights == "nfsd":
            target = _noise_free(denoiser, teacher, x0, noise, timesteps, condition, guidance, negative)
        elif guidance is None:
            target = denoiser.x0(teacher, noisy, timesteps, condition)
        else:
            target = guidance.x0(denoiser, teacher, noisy, timesteps, condition)
    made, target = decode(x0, target)
    return (_factor(diffusion, weights, timesteps, made) * (made - target).square()).mean()


@final
class ScoreDistillation:
    """`score_distillation` as a term of the student's loss."""

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: nn.Module,
        *,
        weights: Weights = "exponential",
        guidance: Guidance | None = None,
        negative: Conditions | None = None,
        decode: Pair = lambda x0, target: (x0, target),
    ) -> None:
        if weights == "nfsd" and (guidance is None or negative is None):
            raise OptionError("noise-free score distillation needs guidance and a negative prompt: give both")
        self.denoiser, self.teacher = denoiser, teacher
        self.weights: Weights = weights
        self.guidance, self.negative, self.decode = guidance, negative, decode

    def __call__(self, made: Made) -> Tensor:
        return score_distillation(
            self.denoiser,
            self.teacher,
            made.x0,
            made.condition,
            weights=self.weights,
            guidance=self.guidance,
            negative=self.negative,
            decode=self.decode,
        )


def _factor(diffusion: Diffusion, weights: Weights, timesteps: Tensor, like: Tensor) -> Tensor:
    """``c_t``."""
    alpha = diffusion.at(diffusion.alpha, timesteps, like)
    return alpha if weights == "exponential" else alpha * diffusion.at(diffusion.sigma, timesteps, like) / 2


def _noise_free(
    denoiser: Denoiser,
    teacher: nn.Module,
    x0: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    condition: Conditions,
    guidance: Guidance | None,
    negative: Conditions | None,
) -> Tensor:
    """``x_0 - sigma / alpha (delta_D + s delta_C)``, written in the teacher's answers: alpha divides where it is large."""
    if guidance is None or negative is None:
        raise OptionError("noise-free score distillation needs guidance and a negative prompt: give both")
    diffusion = denoiser.diffusion
    noisy = diffusion.add_noise(x0, noise, timesteps)
    told = denoiser.x0(teacher, noisy, timesteps, condition)
    untold = denoiser.x0(teacher, noisy, timesteps, repeated(guidance.nothing, noisy))
    unwanted = denoiser.x0(teacher, noisy, timesteps, repeated(negative, noisy))
    little = (timesteps < LITTLE_NOISE * (len(diffusion.alpha) - 1)).view(-1, *[1] * (x0.ndim - 1))
    alpha, sigma = (diffusion.at(levels, timesteps, x0) for levels in (diffusion.alpha, diffusion.sigma))
    whole = untold - x0 - sigma / alpha * noise
    return x0 + torch.where(little, whole, untold - unwanted) + guidance.scale * (told - untold)
