"""The game of a generator and an adversary, whole in one function."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from advloss import (
    Adversary,
    Checkpoints,
    EndlessBatches,
    MakeOptimizer,
    OptionError,
    Report,
    StepGuard,
    TrainingState,
    interruptible,
    open_step_log,
)
from advloss_gan._draws import Batch, Draws, check_generator
from advloss_gan._growth import Growth
from advloss_gan._step_line import record

DEFAULT_OPTIMIZER: MakeOptimizer = functools.partial(torch.optim.Adam, lr=2e-4, betas=(0.0, 0.99))


@dataclass(frozen=True, kw_only=True)
class GANResult:
    """What a training has made.

    Attributes:
        generator: the moving average of the generator, in eval mode, on the device of the training.
        steps: generator steps that were taken.
        seconds: wall-clock time of the loop.
        exit_status: 0, or 130 when Ctrl-C ended it and 143 when SIGTERM did: what the script should exit with.
    """

    generator: nn.Module
    steps: int
    seconds: float
    exit_status: int

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_status != 0


def train_gan(
    generator: nn.Module,
    adversary: Adversary,
    real: Iterable[Batch],
    *,
    latent_features: int,
    steps: int,
    num_classes: int | None = None,
    discriminator_steps: int = 1,
    generator_optimizer: MakeOptimizer = DEFAULT_OPTIMIZER,
    generator_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    ema_decay: float = 0.999,
    growth: Growth | None = None,
    accelerator: Accelerator | None = None,
    log: Path | None = None,
    track_every: int = 10,
    on_step: Callable[[int, nn.Module], None] | None = None,
    on_report: Callable[[Report], object] | None = None,
    checkpoints: Path | None = None,
    save_every: int = 500,
    resume: bool = False,
) -> GANResult:
    """Train `generator` in place against `adversary`.

    Ctrl-C or SIGTERM, in any process, ends the training after the step it falls into, in all processes; with
    `checkpoints` not before that step is saved.

    Args:
        generator: ``generator(latent)`` -> samples, from standard normal noise `(N, latent_features)`; with classes
            ``generator(latent, labels)``.
        adversary: the other player; it is prepared here.
        real: this process's batches: samples `(N, ...)`, or samples and labels `(N,)`; read again from its start when it ends. To resume, its current pass
            is read up to where it was (`advloss.EndlessBatches`).
        latent_features: length of the noise.
        steps: generator steps.
        num_classes: both players are conditioned on the labels, 0 to `num_classes` - 1; None leaves labels aside.
        discriminator_steps: discriminator steps before each of them, every one on a fresh batch.
        generator_optimizer: from parameters to the generator's optimizer.
        generator_scheduler: from that optimizer to a learning-rate scheduler, stepped with it.
        ema_decay: of the moving average of the generator's weights, by generator step.
        growth: train on coarse images first; takes a generator that can grow.
        accelerator: device, precision, processes and trackers; default `Accelerator()`.
        log: a file that gets a JSON line a step: the generator's loss and the last discriminator step's report,
            as the main process sees them.
        track_every: steps between the same numbers for the accelerator's trackers.
        on_step: called on the main process after each step, with its number (from 1) and the averaged generator.
        on_report: called on the main process with each report, such as `advloss.HealthMonitor(adversary)`.
        checkpoints: a folder that is saved to every `save_every` steps, and at the end.
        save_every: steps between checkpoints.
        resume: go on from the newest one.

    Raises:
        OptionError: a number of steps below 1, a decay outside [0, 1), or a generator built for other latents or classes.
        InputError: `real` has ended and cannot be read again, or its samples or labels do not suit the players.
        NonFiniteError: the training has diverged.
        StateError: there is no checkpoint to resume from, it is damaged, or it is of a run built otherwise.
    """
    _check(
        ema_decay, steps=steps, discriminator_steps=discriminator_steps, save_every=save_every, track_every=track_every
    )
    check_generator(generator, latent_features, num_classes)
    if growth:
        growth.check(generator)
    if resume and checkpoints is None:
        raise OptionError("resume=True: give the folder of the checkpoints")
    accelerator = accelerator or Accelerator()
    ema = AveragedModel(generator, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)).eval()
    own_optimizer = generator_optimizer(generator.parameters())
    learning_rate = float(own_optimizer.param_groups[0]["lr"])
    scheduler = generator_scheduler(own_optimizer) if generator_scheduler else None
    model, optimizer = accelerator.prepare(generator, own_optimizer)
    adversary.prepare(accelerator)
    guard = StepGuard(generator, optimizer, accelerator=accelerator)
    batches = EndlessBatches(real)
    draw = Draws(batches, latent_features, num_classes, accelerator.device)
    parts: dict[str, Any] = {"generator": generator, "guard": guard, "optimizer": optimizer, "ema": ema}
    parts["adversary"] = adversary
    if scheduler:
        parts["scheduler"] = scheduler
    state = TrainingState(parts, {"batches": batches}, accelerator=accelerator)
    folders = Checkpoints(checkpoints, accelerator=accelerator) if checkpoints else None
    done, start = 0, time.perf_counter()
    if resume and folders:
        done = state.load(folders.newest())["step"]
    saved = done

    def seen(images: Tensor) -> Tensor:
        return growth.coarsen(images, generator) if growth else images

    def save() -> None:
        nonlocal saved
        if folders and saved != done:
            with folders.write(done) as folder:
                state.save(folder, step=done)
            saved = done

    with ExitStack() as stack:
        asked_to_stop = stack.enter_context(interruptible(accelerator))
        lines = stack.enter_context(open_step_log(log, done)) if log and accelerator.is_main_process else None
        disable = None if accelerator.is_main_process else True
        bar = stack.enter_context(tqdm(total=steps, initial=done, disable=disable))
        while done < steps and not asked_to_stop():
            if growth:
                growth.grow(done, generator, ema.module)
            for _ in range(discriminator_steps):
                drawn = draw()
                with torch.no_grad():
                    fake = model(*drawn.inputs)
                report = adversary.discriminator_step(seen(drawn.real), fake, drawn.labels)
                if on_report and accelerator.is_main_process:
                    on_report(report)

            drawn = draw()
            loss = adversary.generator_loss(model(*drawn.inputs), seen(drawn.real), drawn.labels)
            if loss.requires_grad:  # not before the adversary's start step
                accelerator.backward(loss)
                guard.step(loss=loss)
                optimizer.zero_grad()
                if scheduler:
                    scheduler.step()
                ema.update_parameters(generator)

            done += 1
            bar.update()
            if accelerator.is_main_process:
                rates = {"discriminator_steps": discriminator_steps, "generator_lr": learning_rate}
                about = {**adversary.describe(), **rates} if done == 1 else None
                record(done, loss, report, lines, accelerator, track_every, about)
            if on_step and accelerator.is_main_process:
                on_step(done, ema.module)
            if done % save_every == 0:
                save()
        save()

    seconds = time.perf_counter() - start
    return GANResult(generator=ema.module, steps=done, seconds=seconds, exit_status=asked_to_stop.exit_status)


def _check(ema_decay: float, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")
    if not 0 <= ema_decay < 1:
        raise OptionError(f"ema_decay={ema_decay!r}: give a number from 0 (no average) to below 1, such as 0.999")
