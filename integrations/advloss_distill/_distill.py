"""Adversarial distillation: the loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim import Optimizer

from advloss import Adversary, Checkpoints, Report, StepGuard, TrainingState, interruptible
from advloss_distill._denoiser import Denoiser
from advloss_distill._noised_data import NoisedData
from advloss_distill._score import score_distillation
from advloss_distill._sharded import Gathered, gathered_copy, is_sharded
from advloss_distill._simulation import BackwardSimulation, Conditions, Data


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One iteration: the two players' losses, on the device until read."""

    iteration: int
    generator_loss: Tensor
    distillation_loss: Tensor | None
    report: Report

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker."""
        numbers = {"iteration": float(self.iteration), "generator_loss": float(self.generator_loss)}
        if self.distillation_loss is not None:
            numbers["distillation_loss"] = float(self.distillation_loss)
        return {**numbers, **{f"discriminator/{name}": value for name, value in self.report.as_dict().items()}}


class Distillation:
    """A student on its way to few steps: everything that changes in training, and the loop that changes it.

    Args:
        denoiser: how teacher and student are called.
        teacher: the many-step model; it is only read, and never prepared (its weights must not reach a checkpoint).
        student: starts as a copy of the teacher.
        adversary: judges samples on `denoiser.judged(condition, step)`; it is prepared here.
        simulation: the student's inputs.
        data: real samples and conditions.
        optimizer: of the student.
        scheduler: of the student's learning rate, or None.
        distillation_weight: of the teacher's term (`score_distillation`); at 0 the teacher is never run.
        ema_decay: of the averaged student.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: nn.Module,
        student: nn.Module,
        adversary: Adversary,
        simulation: BackwardSimulation | NoisedData,
        data: Data,
        optimizer: Optimizer,
        scheduler: Any = None,
        *,
        accelerator: Accelerator,
        distillation_weight: float = 0.0,
        ema_decay: float = 0.995,
    ) -> None:
        self.accelerator = accelerator
        self.denoiser, self.simulation, self.data = denoiser, simulation, data
        self.teacher = teacher.requires_grad_(False).eval().to(accelerator.device)
        self.adversary = adversary.prepare(accelerator)
        # a sharded module cannot be copied: its average goes into a plain one
        self._plain = copy.deepcopy(student).cpu() if is_sharded(accelerator) else None
        self.student, self.optimizer = accelerator.prepare(student, optimizer)
        self.guard = StepGuard(student, self.optimizer, accelerator=accelerator)
        self.scheduler = scheduler
        self.distillation_weight = distillation_weight
        self.ema = EMAModel(trained(student), decay=ema_decay, foreach=True)
        self.ema.to(accelerator.device)
        self.iteration = 0
        self.exit_status = 0

    def run(
        self,
        iterations: int,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        *,
        checkpoints: Path | None = None,
        save_every: int = 200,
    ) -> bool:
        """Train until `iterations` are done, counted from the very first; `on_progress` is called after each.

        Ctrl-C or SIGTERM, in any process, ends it after the iteration that it falls into, in all processes; with
        `checkpoints` not before that iteration is saved. `exit_status` is then 130 or 143.

        Args:
            checkpoints: folder that is saved to every `save_every` iterations, and at the end.

        Returns:
            Whether all iterations were done.
        """
        if isinstance(self.simulation, BackwardSimulation) and not self.simulation.ready:
            self.simulation.fill(self._x0, self._shape(), self.data.conditions, self.accelerator.device)
        saved = None
        with interruptible(self.accelerator) as asked_to_stop:
            while self.iteration < iterations and not asked_to_stop():
                on_progress(self.step())
                if checkpoints and self.iteration % save_every == 0:
                    self.save(checkpoints)
                    saved = self.iteration
            if checkpoints and saved != self.iteration:
                self.save(checkpoints)
        self.exit_status = asked_to_stop.exit_status
        return self.iteration >= iterations

    def step(self) -> Progress:
        """One iteration: the discriminator's turn, then the student's on the same samples.

        In this order the student follows a discriminator that has already seen these samples. On digits the other
        order, with all else equal, left about twice the distance (docs/distillation.md).
        """
        device, simulation = self.accelerator.device, self.simulation
        noise = torch.randn(simulation.fresh, *self._shape(), device=device)
        noisy, condition = simulation.inputs(noise, self.data.conditions(simulation.fresh))
        x0 = self._x0(noisy, simulation.timesteps.to(device), condition)
        simulation.advance(x0, condition)
        real = self.data.real(condition)
        judged = self.denoiser.judged(condition, simulation.steps.to(device))

        report = self.adversary.discriminator_step(real, x0, condition=judged)
        adversarial = self.adversary.generator_loss(x0, real=real, condition=judged)
        distilled = self._distillation_term(x0, condition)
        loss = adversarial if distilled is None else adversarial + distilled
        self.accelerator.backward(loss)
        self.guard.step(noisy=noisy, x0=x0, loss=loss)
        self.optimizer.zero_grad()
        if self.scheduler is not None:
            self.scheduler.step()
        self.ema.step(trained(self.student))
        self.iteration += 1
        return Progress(
            iteration=self.iteration,
            generator_loss=adversarial.detach(),
            distillation_loss=None if distilled is None else distilled.detach(),
            report=report,
        )

    def averaged_student(self) -> nn.Module:
        """A copy of the student with the averaged weights; of a sharded one on the CPU. Call it in every process."""
        if self._plain is None:
            student = copy.deepcopy(self.accelerator.unwrap_model(self.student))
            self.ema.copy_to(trained(student))
        else:
            student = gathered_copy(self._plain, self.student, self.ema.shadow_params)
        return student.eval()

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a complete one is always there. Call it in every process."""
        with Checkpoints(folder, accelerator=self.accelerator).write(self.iteration) as new:
            self._state().save(new, iteration=self.iteration)

    def load(self, folder: Path) -> None:
        """Go on from the newest checkpoint. Call it in every process.

        Raises:
            advloss.StateError: there is none, it is damaged, or it does not fit. Nothing has changed.
        """
        newest = Checkpoints(folder, accelerator=self.accelerator).newest()
        self.iteration = self._state().load(newest)["iteration"]
        self.ema.to(self.accelerator.device)

    def _state(self) -> TrainingState:
        """All that the next iteration depends on; the teacher is no part of it."""
        shared: dict[str, Any] = {
            "student": self.accelerator.unwrap_model(self.student),
            "guard": self.guard,
            "optimizer": self.optimizer,
            "ema": self.ema,
            "adversary": self.adversary,
        }
        if self.scheduler is not None:
            shared["scheduler"] = self.scheduler
        if self._plain is not None:
            shared.update({name: Gathered(shared[name]) for name in ("student", "optimizer", "ema")})
        return TrainingState(shared, {"simulation": self.simulation}, accelerator=self.accelerator)

    def _x0(self, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return self.denoiser.x0(self.student, noisy, timesteps, condition)

    def _distillation_term(self, x0: Tensor, condition: Conditions) -> Tensor | None:
        if self.distillation_weight == 0:
            return None
        return self.distillation_weight * score_distillation(self.denoiser, self.teacher, x0, condition)

    def _shape(self) -> tuple[int, ...]:
        return self.denoiser.sample_shape(self.accelerator.unwrap_model(self.student))


def trained(student: nn.Module) -> list[nn.Parameter]:
    """The parameters that change: all, or an adapter's."""
    return [parameter for parameter in student.parameters() if parameter.requires_grad]
