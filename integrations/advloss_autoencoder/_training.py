"""Training an autoencoder with an adversary: the loop."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim import Optimizer

from advloss import Checkpoints, EndlessBatches, OptionError, Report, StepGuard, TrainingState, interruptible
from advloss_autoencoder._autoencoder import Autoencoder
from advloss_autoencoder._objective import Losses, Objective


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of both players, on the device until read."""

    step: int
    losses: Losses
    report: Report

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker."""
        report = {f"discriminator/{name}": value for name, value in self.report.as_dict().items() if name != "step"}
        return {"step": float(self.step), **self.losses.as_dict(), **report}


class AutoencoderTraining:
    """Everything that changes in training, and the loop that changes it.

    Args:
        model: a diffusers autoencoder, or any other that `Autoencoder` can call; parameters that require no gradient
            stay as they are (`freeze_encoder`).
        objective: its adversary is prepared here.
        batches: images `(N, C, ...)` in [-1, 1], such as a DataLoader; read again when they end. Under several
            processes each is given its own part, as Accelerate prepares it.
        optimizer: of the model.
        scheduler: of its learning rate, or None.
        ema_decay: of the averaged model; 0 for none.
        max_grad_norm: clip the model's gradient to this 2-norm.

    Raises:
        OptionError: nothing of the model trains, or a decay outside [0, 1).
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Iterable[Tensor],
        optimizer: Optimizer,
        scheduler: Any = None,
        *,
        accelerator: Accelerator,
        ema_decay: float = 0.999,
        max_grad_norm: float | None = None,
    ) -> None:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise OptionError("no parameter of the autoencoder requires gradients; unfreeze its decoder at least")
        if not 0 <= ema_decay < 1:
            raise OptionError(f"ema_decay={ema_decay!r}: give a number from 0 (no average) to below 1, such as 0.999")
        self.accelerator, self.objective, self.scheduler = accelerator, objective, scheduler
        self.adversary = objective.adversary.prepare(accelerator)
        self.model = model
        self.autoencoder, self.optimizer, loader = accelerator.prepare(Autoencoder(model), optimizer, batches)
        if isinstance(objective.perceptual, nn.Module):
            objective.perceptual.to(accelerator.device)
        self.guard = StepGuard(model, self.optimizer, accelerator=accelerator)
        self.batches = EndlessBatches(loader)
        self.max_grad_norm = max_grad_norm
        self.ema = EMAModel(model.parameters(), decay=ema_decay, foreach=True) if ema_decay else None
        if self.ema:
            self.ema.to(accelerator.device)
        self.step_count = 0
        self.exit_status = 0

    def run(
        self,
        steps: int,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        *,
        checkpoints: Path | None = None,
        save_every: int = 500,
    ) -> bool:
        """Train until `steps` are done, counted from the very first; `on_progress` is called after each.

        Ctrl-C or SIGTERM, in any process, ends it after the step that it falls into, in all processes; with
        `checkpoints` not before that step is saved. `exit_status` is then 130 or 143. While gradients accumulate, it is the
        step that the optimizer takes next; so it is with saving.

        Args:
            checkpoints: folder that is saved to every `save_every` steps, and at the end.

        Returns:
            Whether all steps were done.

        Warns:
            A start step of the adversary, which counts steps of the optimizer, lies beyond `steps`. (At their end it is the next
            stage's.)
        """
        for name in ("start_step", "discriminator_start_step"):
            start = getattr(self.adversary, name)
            if start > steps // self.accelerator.gradient_accumulation_steps:
                warnings.warn(f"{name}={start} is never reached in {steps} steps: lower it", stacklevel=2)
        saved = None
        with interruptible(self.accelerator) as asked_to_stop:
            due = False
            while self.step_count < steps and not (self.accelerator.sync_gradients and asked_to_stop()):
                on_progress(self.step())
                due = due or self.step_count % save_every == 0
                if checkpoints and due and self.accelerator.sync_gradients:  # gathered gradients are not saved
                    self.save(checkpoints)
                    saved, due = self.step_count, False
            if checkpoints and saved != self.step_count:
                self.save(checkpoints)
        self.exit_status = asked_to_stop.exit_status
        return self.step_count >= steps

    def step(self) -> Progress:
        """One step: the autoencoder's turn, then the discriminator's on the same reconstruction."""
        with self.accelerator.accumulate(self.autoencoder):
            images = next(self.batches)
            reconstruction = self.autoencoder(images)
            losses = self.objective(reconstruction, images)
            self.accelerator.backward(losses.total)
            if self.max_grad_norm is not None and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.autoencoder.parameters(), self.max_grad_norm)
            self.guard.step(images=images, reconstruction=reconstruction.samples, loss=losses.total)
            self.optimizer.zero_grad()
            report = self.objective.discriminator_step(reconstruction, images)
            if self.accelerator.sync_gradients:
                if self.scheduler is not None:
                    self.scheduler.step()
                if self.ema:
                    self.ema.step(self.model.parameters())
        self.step_count += 1
        return Progress(step=self.step_count, losses=losses, report=report)

    def averaged_model(self) -> nn.Module:
        """A copy of the model in eval mode, with the averaged weights where an average is kept."""
        model = copy.deepcopy(self.model)
        if self.ema:
            self.ema.copy_to(model.parameters())
        return model.eval()

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a complete one is always there. Call it in every process."""
        with Checkpoints(folder, accelerator=self.accelerator).write(self.step_count) as new:
            self._state().save(new, step=self.step_count)

    def load(self, folder: Path) -> None:
        """Go on from the newest checkpoint. Call it in every process.

        Raises:
            advloss.StateError: there is none, it is damaged, or it does not fit. Nothing has changed.
        """
        newest = Checkpoints(folder, accelerator=self.accelerator).newest()
        self.step_count = self._state().load(newest)["step"]
        if self.ema:
            self.ema.to(self.accelerator.device)

    def _state(self) -> TrainingState:
        shared: dict[str, Any] = {"model": self.model, "guard": self.guard, "optimizer": self.optimizer}
        shared |= {"adversary": self.adversary}
        shared |= {"scheduler": self.scheduler} if self.scheduler is not None else {}
        shared |= {"ema": self.ema} if self.ema else {}
        return TrainingState(shared, {"batches": self.batches}, accelerator=self.accelerator)
