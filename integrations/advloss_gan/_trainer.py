"""The game of a generator and an adversary, whole in one function."""

from __future__ import annotations

import functools
import json
import math
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
    real: Iterable[Tensor],
    *,
    latent_features: int,
    steps: int,
    discriminator_steps: int = 1,
    generator_optimizer: MakeOptimizer = DEFAULT_OPTIMIZER,
    generator_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    ema_decay: float = 0.999,
    accelerator: Accelerator | None = None,
    log: Path | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
    checkpoints: Path | None = None,
    save_every: int = 500,
    resume: bool = False,
) -> GANResult:
    """Train `generator` in place against `adversary`.

    Ctrl-C or SIGTERM, in any process, ends the training after the step it falls into, in all processes; with
    `checkpoints` not before that step is saved.

    Args:
        generator: ``generator(latent)`` -> samples, from standard normal noise `(N, latent_features)`.
        adversary: the other player; it is prepared here.
        real: this process's batches `(N, ...)`; read again from its start when it ends. To resume, its current pass
            is read up to where it was (`advloss.EndlessBatches`).
        latent_features: length of the noise.
        steps: generator steps.
        discriminator_steps: discriminator steps before each of them, every one on a fresh batch.
        generator_optimizer: from parameters to the generator's optimizer.
        generator_scheduler: from that optimizer to a learning-rate scheduler, stepped with it.
        ema_decay: of the moving average of the generator's weights, by generator step.
        accelerator: device, precision and processes; default `Accelerator()`.
        log: a file that gets a JSON line a step: the generator's loss and the last discriminator step's report,
            as the main process sees them.
        on_step: called on the main process after each step, with its number (from 1) and the averaged generator.
        checkpoints: a folder that is saved to every `save_every` steps, and at the end.
        save_every: steps between checkpoints.
        resume: go on from the newest one.

    Raises:
        OptionError: a number of steps below 1, or a decay outside [0, 1).
        InputError: `real` has ended and cannot be read again, or its samples do not suit the discriminator.
        NonFiniteError: the training has diverged.
        StateError: there is no checkpoint to resume from, it is damaged, or it is of a run built otherwise.
    """
    _check(steps, discriminator_steps, ema_decay, save_every)
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

    def draw() -> tuple[Tensor, Tensor]:
        batch = next(batches).to(accelerator.device)
        return batch, torch.randn(len(batch), latent_features, device=accelerator.device)

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
            for _ in range(discriminator_steps):
                batch, latent = draw()
                with torch.no_grad():
                    fake = model(latent)
                report = adversary.discriminator_step(batch, fake)

            batch, latent = draw()
            loss = adversary.generator_loss(model(latent), batch)
            if loss.requires_grad:  # not before the adversary's start step
                accelerator.backward(loss)
                guard.step(loss=loss)
                optimizer.zero_grad()
                if scheduler:
                    scheduler.step()
                ema.update_parameters(generator)

            done += 1
            bar.update()
            if lines:
                about = {
                    **adversary.describe(),
                    "discriminator_steps": discriminator_steps,
                    "generator_lr": learning_rate,
                }
                print(_line(done, loss, report, {"about": about} if done == 1 else {}), file=lines)
            if on_step and accelerator.is_main_process:
                on_step(done, ema.module)
            if done % save_every == 0:
                save()
        save()

    seconds = time.perf_counter() - start
    return GANResult(generator=ema.module, steps=done, seconds=seconds, exit_status=asked_to_stop.exit_status)


def _check(steps: int, discriminator_steps: int, ema_decay: float, save_every: int) -> None:
    counts = {"steps": steps, "discriminator_steps": discriminator_steps, "save_every": save_every}
    for name, value in counts.items():
        if value < 1:
            raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")
    if not 0 <= ema_decay < 1:
        raise OptionError(f"ema_decay={ema_decay!r}: give a number from 0 (no average) to below 1, such as 0.999")


def _line(step: int, loss: Tensor, report: Report, about: dict[str, Any]) -> str:
    """A step as JSON; a value that is not finite is null."""
    numbers = {f"discriminator/{name}": value for name, value in report.as_dict().items() if name != "step"}
    numbers = {"generator/loss": float(loss.detach()), **numbers}
    return json.dumps({"step": step, **{name: v if math.isfinite(v) else None for name, v in numbers.items()}, **about})
