"""Training in phases: pixels first, an adversary after that, each with optimizers and data of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from advloss import (
    Checkpoints,
    EndlessBatches,
    MakeOptimizer,
    OptionError,
    Report,
    StateError,
    StepGuard,
    TrainingState,
    interruptible,
    load_state,
)
from advloss_superres._objective import Losses, Objective
from advloss_superres._pairs import Pair


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a training.

    Attributes:
        name: in logs and files, such as ``"psnr"`` or ``"adversarial"``.
        objective: with an adversary or without one.
        batches: pairs of what the network is given `(N, C, h, w)` and originals `(N, C, H, W)`, such as a DataLoader;
            read again when they end.
        steps: of the network.
        optimizer: from parameters to the network's optimizer.
        scheduler: from that optimizer to a learning-rate scheduler, stepped with it.
    """

    name: str
    objective: Objective
    batches: Iterable[Pair]
    steps: int
    optimizer: MakeOptimizer
    scheduler: Callable[[Optimizer], LRScheduler] | None = None

    @property
    def adversarial(self) -> bool:
        """Whether an adversary judges."""
        return self.objective.adversary is not None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of both players, on the device until read.

    Attributes:
        phase: its name.
        step: network steps so far, all phases together.
    """

    phase: str
    step: int
    losses: Losses
    report: Report | None

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker."""
        report = {} if self.report is None else self.report.as_dict()
        named = {f"discriminator/{name}": value for name, value in report.items() if name != "step"}
        return {"step": float(self.step), **self.losses.as_dict(), **named}


class _Running:
    """What a phase changes, besides the network."""

    def __init__(self, number: int, phase: Phase, model: nn.Module, accelerator: Accelerator, decay: float) -> None:
        self.number, self.phase, self.step = number, phase, 0
        optimizer = phase.optimizer([p for p in model.parameters() if p.requires_grad])
        self.scheduler = phase.scheduler(optimizer) if phase.scheduler else None
        self.optimizer, loader = accelerator.prepare(optimizer, phase.batches)
        self.guard = StepGuard(model, self.optimizer, accelerator=accelerator)
        self.batches: EndlessBatches[Pair] = EndlessBatches(loader)
        average = get_ema_multi_avg_fn(decay)
        self.ema = AveragedModel(model, accelerator.device, multi_avg_fn=average).eval()
        self.ema.update_parameters(model)  # the first call copies: the average begins at the phase's start


class PhasedTraining:
    """Phases one after the other; each begins with the averaged weights of the one before.

    A phase without an adversary cannot follow one that has an adversary: pixel losses would take away in a moment
    what the adversary has put there.

    Args:
        model: any network from images to images.
        phases: usually one without an adversary and one with.
        follows: the phase that the model's weights come from, as `load_weights` says; refused alike. Any but ``"psnr"`` counts as
            one with an adversary; None for weights that come from nowhere.
        ema_decay: of the averaged network; 0 for the network itself.
        max_grad_norm: clip the network's gradient to this 2-norm.

    Raises:
        OptionError: phases in the wrong order, none, a number of steps below 1, nothing to train, or a decay outside
            [0, 1).
    """

    def __init__(
        self,
        model: nn.Module,
        phases: Sequence[Phase],
        *,
        accelerator: Accelerator,
        follows: str | None = None,
        ema_decay: float = 0.999,
        max_grad_norm: float | None = None,
    ) -> None:
        _check(model, phases, follows, ema_decay)
        self.accelerator, self.model, self.phases = accelerator, model, list(phases)
        self.ema_decay, self.max_grad_norm = ema_decay, max_grad_norm
        self.network = accelerator.prepare(model)
        for phase in phases:
            if phase.objective.adversary is not None:
                phase.objective.adversary.prepare(accelerator)
            if isinstance(phase.objective.perceptual, nn.Module):
                phase.objective.perceptual.to(accelerator.device)
        self.exit_status = 0
        self._now = self._begin(0)

    @property
    def step_count(self) -> int:
        """Network steps so far, all phases together."""
        return sum(phase.steps for phase in self.phases[: self._now.number]) + self._now.step

    @property
    def phase(self) -> Phase:
        """The one that is running."""
        return self._now.phase

    def run(
        self,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_phase_end: Callable[[Phase, nn.Module], None] = lambda phase, averaged: None,
        *,
        checkpoints: Path | None = None,
        save_every: int = 500,
    ) -> bool:
        """Train until all phases are done.

        Ctrl-C or SIGTERM, in any process, ends it after the step that it falls into, in all processes; with
        `checkpoints` not before that step is saved. `exit_status` is then 130 or 143. While gradients accumulate, it is the
        step that the optimizer takes next; so it is with saving.

        Args:
            on_progress: called after each step.
            on_phase_end: called in every process after each phase, with its averaged network in eval mode; again, if
                the training is resumed right there.
            checkpoints: folder that is saved to every `save_every` steps, and at the end of every phase.

        Returns:
            Whether all steps were done.
        """
        saved = None
        with interruptible(self.accelerator) as asked_to_stop:
            while True:
                due = False
                while self._now.step < self.phase.steps and not (self.accelerator.sync_gradients and asked_to_stop()):
                    on_progress(self.step())
                    due = due or self.step_count % save_every == 0
                    if checkpoints and due and self.accelerator.sync_gradients:  # gathered gradients are not saved
                        self.save(checkpoints)
                        saved, due = self.step_count, False
                if checkpoints and saved != self.step_count:
                    self.save(checkpoints)
                    saved = self.step_count
                if self._now.step < self.phase.steps:
                    break
                on_phase_end(self.phase, self.averaged_model())
                if self._now.number == len(self.phases) - 1:
                    break
                self.next_phase()
        self.exit_status = asked_to_stop.exit_status
        return not self.exit_status

    def step(self) -> Progress:
        """One step: the network's turn, then the discriminator's on the same images."""
        now, objective = self._now, self.phase.objective
        with self.accelerator.accumulate(self.network):
            given, originals = (images.to(self.accelerator.device) for images in next(now.batches))
            made = self.network(given)
            losses = objective(made, originals, given)
            self.accelerator.backward(losses.total)
            if self.max_grad_norm is not None and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
            now.guard.step(loss=losses.total)
            now.optimizer.zero_grad()
            report = objective.discriminator_step(made, originals, given)
            if self.accelerator.sync_gradients:
                if now.scheduler is not None:
                    now.scheduler.step()
                now.ema.update_parameters(self.model)
        now.step += 1
        return Progress(phase=self.phase.name, step=self.step_count, losses=losses, report=report)

    def next_phase(self) -> None:
        """Give the network its averaged weights, and begin the next phase; an unfinished accumulation is dropped."""
        for parameter in self.model.parameters():
            parameter.grad = None
        self.accelerator.step = 0
        self.model.load_state_dict(self._now.ema.module.state_dict())
        self._now = self._begin(self._now.number + 1)

    def averaged_model(self) -> nn.Module:
        """The network in eval mode with the averaged weights of this phase; it moves on with the training."""
        return self._now.ema.module

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a complete one is always there. Call it in every process."""
        with Checkpoints(folder, accelerator=self.accelerator).write(max(1, self.step_count)) as new:
            self._state(self._now).save(new, step=self._now.step, phase=self._now.number)

    def load(self, folder: Path) -> None:
        """Go on from the newest checkpoint, in the phase that it was saved in. Call it in every process.

        Raises:
            advloss.StateError: there is none, it is damaged, or it does not fit. Nothing has changed.
        """
        newest = Checkpoints(folder, accelerator=self.accelerator).newest()
        counters = load_state(newest / f"process_{self.accelerator.process_index}.safetensors").get("counters", {})
        number = counters.get("phase")
        if not isinstance(number, int) or not 0 <= number < len(self.phases):
            raise StateError(f"{newest} is of phase {number!r}; this training has phases 0 to {len(self.phases) - 1}")
        now = self._begin(number)
        now.step = self._state(now).load(newest)["step"]
        self._now = now

    def _begin(self, number: int) -> _Running:
        return _Running(number, self.phases[number], self.model, self.accelerator, self.ema_decay)

    def _state(self, now: _Running) -> TrainingState:
        shared: dict[str, Any] = {"model": self.model, "optimizer": now.optimizer, "guard": now.guard, "ema": now.ema}
        shared |= {"scheduler": now.scheduler} if now.scheduler is not None else {}
        adversary = now.phase.objective.adversary
        shared |= {"adversary": adversary} if adversary is not None else {}
        return TrainingState(shared, {"batches": now.batches}, accelerator=self.accelerator)


def _check(model: nn.Module, phases: Sequence[Phase], follows: str | None, ema_decay: float) -> None:
    if not phases:
        raise OptionError("there is no phase; give at least one")
    for phase in phases:
        if phase.steps < 1:
            raise OptionError(f"phase {phase.name!r} has {phase.steps} steps; give 1 or more")
    kinds = [(follows, follows != "psnr")] if follows else []
    kinds += [(phase.name, phase.adversarial) for phase in phases]
    for (before, adversarial), (after, judged) in pairwise(kinds):
        if adversarial and not judged:
            raise OptionError(
                f"phase {after!r} has no adversary and would follow {before!r}, which has one: it would take the "
                "texture away again. Train on pixels first, and with the adversary from there"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError("no parameter of the network requires gradients; there is nothing to train")
    if not 0 <= ema_decay < 1:
        raise OptionError(f"ema_decay={ema_decay!r}: give a number from 0 (no average) to below 1, such as 0.999")
