"""The scheduler that a student is saved with. Training takes its timesteps from it, so that the two cannot differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LCMScheduler

from advloss import OptionError
from advloss_distill._diffusion import Diffusion
from advloss_distill._family import Family
from advloss_distill._simulation import SamplingPath, Steps

LEVELS = (
    *("num_train_timesteps", "prediction_type", "rescale_betas_zero_snr"),
    *("beta_schedule", "beta_start", "beta_end", "trained_betas"),
)
LAST = 0.25  # noise level of the last step, before the teacher's shift: LADD's (arXiv:2403.12015) at four steps


def student_scheduler(family: Family, steps: int = 4) -> Any:
    """A diffusers scheduler for a student of 1 to `steps` steps, with fresh noise between two, as training has it.

    Of a diffusion teacher: an `LCMScheduler` with the teacher's noise levels, which visits 999, 749, 499, 249 and parts
    of these. Of a flow: a `FlowMatchEulerDiscreteScheduler` whose noise levels fall by one factor a step from 1 to 0.25
    (at four steps 1, 0.63, 0.4, 0.25; at two 1, 0.25), moved as the teacher's `shift` moves 0.25. Its own levels would end
    next to 0, with a step that has nothing left to do.
    """
    config = family.teacher_scheduler.config
    if not 1 <= steps <= config.num_train_timesteps:
        raise OptionError(
            f"steps={steps}; a student has from 1 to {config.num_train_timesteps}, the teacher's timesteps"
        )
    if family.diffusion.prediction != "flow":
        return _lcm(family, steps)
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=config.num_train_timesteps, stochastic_sampling=True, use_exponential_sigmas=True
    )
    shift = _shift(config)
    scheduler.register_to_config(sigma_min=shift * LAST / (1 + (shift - 1) * LAST))
    return scheduler


def sampling_paths(scheduler: Any, steps: Iterable[int] = (1, 2, 4)) -> tuple[SamplingPath, ...]:
    """The timesteps that `scheduler` visits at each of these numbers of steps.

    Raises:
        OptionError: a number is given twice, or is not within the schedule.
    """
    numbers, paths = list(steps), []
    most = scheduler.config.get("original_inference_steps") or scheduler.config.num_train_timesteps
    if not numbers or len(set(numbers)) < len(numbers) or not all(1 <= number <= most for number in numbers):
        raise OptionError(f"steps {numbers}: give numbers of steps from 1 to {most}, none of them twice")
    for number in numbers:
        scheduler.set_timesteps(number)
        visited = [float(t) for t in scheduler.timesteps]
        paths.append(tuple(int(t) if t == int(t) else t for t in visited))
    return tuple(paths)


def spread(paths: Sequence[SamplingPath], batch_size: int, first: float = 0.5) -> dict[SamplingPath, int]:
    """How many of a batch are at each step of `paths`: a share `first` of it at the first, the others even.

    Raises:
        OptionError: the batch is too small for the steps.
    """
    first_step, *later = Steps(tuple(paths)).all
    if not later:
        return {first_step: batch_size}
    each = max(1, int((1 - first) * batch_size / len(later)))
    counts = {first_step: batch_size - each * len(later), **dict.fromkeys(later, each)}
    if counts[first_step] < each:
        raise OptionError(
            f"a batch of {batch_size} is too small for the {len(later) + 1} steps of sampling in "
            f"{' and in '.join(str(len(path)) for path in paths)}: give at least {len(later) + 1}, or train for fewer steps"
        )
    return counts


def _lcm(family: Family, steps: int) -> LCMScheduler:
    """With the teacher's noise levels, which it knows by three of diffusers' schedules or one by one."""
    config, name = family.teacher_scheduler.config, type(family.teacher_scheduler).__name__
    levels = {
        option: config[option] for option in LEVELS if option in config
    }  # from_config leaves defaults to each class
    try:
        scheduler = LCMScheduler.from_config(config, original_inference_steps=steps, clip_sample=False, **levels)
    except NotImplementedError as error:
        raise OptionError(
            f"the student's LCMScheduler knows no beta_schedule={config.beta_schedule!r}, which the teacher's {name} has: set "
            "trained_betas in the teacher's scheduler, a number a timestep"
        ) from error
    ours, theirs = Diffusion.from_scheduler(scheduler).alpha, family.diffusion.alpha
    if not torch.equal(ours, theirs):
        at = int((ours - theirs).abs().argmax())
        raise OptionError(
            f"the student's LCMScheduler has other noise levels than the teacher's {name} (at timestep {at} an alpha of "
            f"{ours[at]:.4g} in place of {theirs[at]:.4g}), although their settings are the same: load the teacher with a DDPM, "
            "DDIM, Euler or DPM-Solver scheduler of these settings"
        )
    return scheduler


def _shift(config: Any) -> float:
    """How far a flow teacher's schedule is moved towards noise: ``s -> shift s / (1 + (shift - 1) s)``."""
    if config.get("use_dynamic_shifting"):
        return math.exp(config.max_shift)
    return float(config.get("shift", config.get("flow_shift")) or 1.0)
