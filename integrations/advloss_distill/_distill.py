"""Adversarial distillation: the loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim import Optimizer

from advloss import Adversary, Checkpoints, OptionError, Report, StepGuard, TrainingState, interruptible
from advloss_distill._any_timestep import AnyTimestep
from advloss_distill._average import Averaged
from advloss_distill._begun import check_new, compare, keep
from advloss_distill._denoiser import Denoiser
from advloss_distill._digest import weights_digest
from advloss_distill._misaligned import with_misaligned
from advloss_distill._noised_data import NoisedData
from advloss_distill._precision import check_precision
from advloss_distill._score import ScoreDistillation
from advloss_distill._sharded import Gathered, gathered_copy, is_sharded, prepare_sharding
from advloss_distill._simulation import BackwardSimulation, Conditions, Data
from advloss_distill._term import Made, Term

Inputs = BackwardSimulation | NoisedData | AnyTimestep
Shown = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor, Any]]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One iteration: the two players' losses, on the device until read; None where there is no such player or term."""

    iteration: int
    generator_loss: Tensor | None
    distillation_loss: Tensor | None
    report: Report | None

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker."""
        numbers = {"iteration": float(self.iteration)}
        for name in ("generator_loss", "distillation_loss"):
            if (value := getattr(self, name)) is not None:
                numbers[name] = float(value)
        report = {} if self.report is None else self.report.as_dict()
        return {**numbers, **{f"discriminator/{name}": value for name, value in report.items()}}


@dataclass(frozen=True)
class _Batch:
    """What the student made, real samples and what is told of both; `shown`: fake, real and told, as the adversary sees them."""

    made: Made
    real: Any = None
    told: Any = None
    shown: tuple[Any, Any, Any] = (None, None, None)


class Distillation:
    """A student on its way to few steps: everything that changes in training, and the loop that changes it.

    Args:
        denoiser: how teacher and student are called.
        teacher: the many-step model; it is only read, and never prepared (its weights must not reach a checkpoint).
        student: starts as a copy of the teacher.
        adversary: judges samples on `denoiser.judged(condition, step)`; it is prepared here. None trains by the term alone.
        simulation: the student's inputs.
        data: real samples and conditions.
        optimizer: of the student.
        scheduler: of the student's learning rate, or None.
        distillation_weight: of the teacher's term; at 0 it is never computed.
        ema_decay: of the averaged student.
        term: the teacher's; default `ScoreDistillation`.
        shown: from fake samples, real ones and what is told of them to what the adversary is given, such as `Pixels`.
        misaligned: add this share of the real samples, with prompts of others, to the discriminator's fakes.
        discriminator_steps: an iteration, each on samples of its own; the student moves at the last one.

    Raises:
        OptionError: there is nothing to learn from, a number is wrong, or the accelerator's precision or sharding does not go
            with the networks or the term.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: nn.Module,
        student: nn.Module,
        adversary: Adversary | None,
        simulation: Inputs,
        data: Data,
        optimizer: Optimizer,
        scheduler: Any = None,
        *,
        accelerator: Accelerator,
        distillation_weight: float = 0.0,
        ema_decay: float = 0.995,
        term: Term | None = None,
        shown: Shown = lambda fake, real, judged: (fake, real, judged),
        misaligned: float = 0.0,
        discriminator_steps: int = 1,
    ) -> None:
        check_settings(
            adversary,
            distillation_weight=distillation_weight,
            ema_decay=ema_decay,
            misaligned=misaligned,
            discriminator_steps=discriminator_steps,
        )
        check_precision(accelerator, denoiser)
        self.accelerator = accelerator
        self.denoiser, self.simulation, self.data = denoiser, simulation, data
        self.teacher = teacher.requires_grad_(False).eval().to(accelerator.device)
        self.adversary = None if adversary is None else adversary.prepare(accelerator)
        self.term = ScoreDistillation(denoiser, self.teacher) if term is None else term
        self.shown, self.misaligned, self.discriminator_steps = shown, misaligned, discriminator_steps
        # a sharded module cannot be copied: its average goes into a plain one
        self._plain = copy.deepcopy(student).cpu() if is_sharded(accelerator) else None
        if self._plain is not None:
            prepare_sharding(accelerator, denoiser, student, self.term)
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
        """One iteration: the discriminator's turn, then the student's on the same samples. Each takes one step.

        With gradients accumulated by the accelerator, an iteration is of so many batches. Their graphs would not fit together,
        so that with an adversary the student's answers to them are computed twice: for its turn once more, with a graph.

        In this order the student follows a discriminator that has already seen these samples. On digits the other
        order, with all else equal, left about twice the distance (docs/distillation.md).
        """
        parts = self.accelerator.gradient_accumulation_steps
        reports, losses = [], []
        if self.adversary is not None:
            for _ in range((self.discriminator_steps - 1) * parts):
                self._judge(self.adversary, self._draw(graph=False))
        for batch, report in self._batches(parts):
            reports.append(report)
            with self.accelerator.accumulate(self.student):
                losses.append(self._follow(batch))
        if self.scheduler is not None:
            self.scheduler.step()
        self.ema.step(trained(self.student))
        self.iteration += 1
        adversarial, distilled = map(_mean, zip(*losses))
        return Progress(
            iteration=self.iteration, generator_loss=adversarial, distillation_loss=distilled, report=reports[-1]
        )

    def averaged_student(self) -> nn.Module:
        """A copy of the student with the averaged weights; of a sharded one on the CPU. Call it in every process."""
        if self._plain is None:
            student = copy.deepcopy(self.accelerator.unwrap_model(self.student))
            self.ema.copy_to(trained(student))
        else:
            student = gathered_copy(self._plain, self.student, self.ema.shadow_params)
        return student.eval()

    def begin(self, folder: Path, *, resume: bool = False, settings: Mapping[str, Any] | None = None) -> None:
        """Go on from the newest checkpoint, or make sure that there is none yet. Call it in every process, before `run`.

        What the run is begun with is kept in `folder`, and compared when it is resumed: a checkpoint brings its own rates,
        whatever the optimizer was built with, samples that were made for its own data, and an adapter that is nothing without
        the weights it was trained on.

        Args:
            settings: of the run: text, numbers, and lists of them. Mixed precision is added, and of the data size, shapes, and
                `digest()` where they have one, and of the teacher noise levels and a digest of the weights.

        Raises:
            advloss.StateError: there are checkpoints of another run, or none to resume from; they do not fit, or settings, data
                or the teacher differ. Nothing has changed.
        """
        settings = {**(settings or {}), "mixed_precision": self.accelerator.mixed_precision, **self._shapes()}
        settings["the digest of the teacher's weights"] = weights_digest(self.teacher)
        settings["its prediction, timesteps and noise levels"] = self.denoiser.diffusion.words()
        if resume:
            compare(folder, settings)
            self.load(folder)
        else:
            check_new(folder)
            if self.accelerator.is_main_process:
                keep(folder, settings)

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
        student = self.accelerator.unwrap_model(self.student)
        shared: dict[str, Any] = {
            "student": student if all(p.requires_grad for p in student.parameters()) else _WithoutFrozen(student),
            "guard": self.guard,
            "optimizer": self.optimizer,
            "ema": self.ema,
        }
        if self.adversary is not None:
            shared["adversary"] = self.adversary
        if self.scheduler is not None:
            shared["scheduler"] = self.scheduler
        if self._plain is not None:
            shared.update({name: Gathered(shared[name]) for name in ("student", "optimizer", "ema")})
        return TrainingState(shared, {"simulation": self.simulation}, accelerator=self.accelerator)

    def _x0(self, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return self.denoiser.x0(self.student, noisy, timesteps, condition)

    def _batches(self, parts: int) -> Iterator[tuple[_Batch, Report | None]]:
        """An iteration's batches for the student; where there is a discriminator, after its step on all of them."""
        if self.adversary is None or parts == 1:
            for _ in range(parts):
                batch = self._draw()
                yield batch, None if self.adversary is None else self._judge(self.adversary, batch)
        else:  # the graphs of all of them would not fit together
            drawn = [self._draw(graph=False) for _ in range(parts)]
            reports = [self._judge(self.adversary, batch) for batch in drawn]
            yield from ((self._again(batch), reports[-1]) for batch in drawn)

    def _draw(self, graph: bool = True) -> _Batch:
        """The student's answers to its next inputs, and what the adversary is shown of them."""
        device, simulation = self.accelerator.device, self.simulation
        noise = torch.randn(simulation.fresh, *self._shape(), device=device)
        noisy, condition = simulation.inputs(noise, self.data.conditions(simulation.fresh))
        timesteps = simulation.timesteps.to(device)
        with torch.set_grad_enabled(graph):
            x0 = self._x0(noisy, timesteps, condition)
        simulation.advance(x0, condition)
        average = Averaged(self.accelerator.unwrap_model(self.student), self.ema.shadow_params)
        steps = simulation.steps.to(device)
        made = Made(noisy=noisy, timesteps=timesteps, steps=steps, x0=x0, condition=condition, average=average)
        if self.adversary is None:
            return _Batch(made)
        return self._show(_Batch(made, self.data.real(condition), self.denoiser.judged(condition, steps)))

    def _again(self, batch: _Batch) -> _Batch:
        """The same batch, with the graph of the student's answers."""
        made = batch.made
        x0 = self._x0(made.noisy, made.timesteps, made.condition)
        return self._show(replace(batch, made=replace(made, x0=x0)))

    def _show(self, batch: _Batch) -> _Batch:
        with torch.set_grad_enabled(batch.made.x0.requires_grad):
            return replace(batch, shown=self.shown(batch.made.x0, batch.real, batch.told))

    def _judge(self, adversary: Adversary, batch: _Batch) -> Report:
        """The discriminator's turn; it steps after the last batch of an accumulation."""
        fake, real, told = batch.shown
        others = told
        if self.misaligned:
            fake, others = with_misaligned(fake, real, told, self.misaligned)
        with self.accelerator.accumulate(self.student):
            return adversary.discriminator_step(real, fake, condition=told, fake_condition=others)

    def _follow(self, batch: _Batch) -> tuple[Tensor | None, Tensor | None]:
        """The student's turn; it steps after the last batch of an accumulation. Its two losses, where there are any."""
        made, adversarial, distilled = batch.made, None, None
        if self.adversary is not None:
            fake, real, told = batch.shown
            adversarial = self.adversary.generator_loss(fake, real=real, condition=told)
        if self.distillation_weight:
            with self.accelerator.autocast():  # networks in it are no part of what was prepared
                distilled = self.distillation_weight * self.term(made)
        loss = sum(term for term in (adversarial, distilled) if term is not None)
        assert isinstance(loss, Tensor)
        self.accelerator.backward(loss)
        self.guard.step(noisy=made.noisy, x0=made.x0, loss=loss)
        self.optimizer.zero_grad()
        return tuple(None if term is None else term.detach() for term in (adversarial, distilled))  # type: ignore[return-value]

    def _shapes(self) -> dict[str, Any]:
        """Of the data, and what tells them from others (`LatentData.digest`), where they say; random numbers stay as they are."""
        with torch.random.fork_rng(), torch.no_grad():
            told = self.data.conditions(1)
        shapes = {f"{name} of a sample": list(value.shape[1:]) for name, value in told.items()}
        size = {"samples": len(self.data)} if isinstance(self.data, Sized) else {}
        digest = getattr(self.data, "digest", None)
        content = {"the data's digest": digest()} if callable(digest) else {}
        return {**size, "a sample": list(self._shape()), **shapes, **content}

    def _shape(self) -> tuple[int, ...]:
        return self.denoiser.sample_shape(self.accelerator.unwrap_model(self.student))


def check_settings(
    adversary: Adversary | None,
    *,
    distillation_weight: float = 0.0,
    ema_decay: float = 0.995,
    misaligned: float = 0.0,
    discriminator_steps: int = 1,
    **others: object,
) -> None:
    """Raise OptionError where a `Distillation` of these would: there is nothing to learn from, or a number is wrong."""
    if not 0 <= distillation_weight < math.inf:
        raise OptionError(f"distillation_weight={distillation_weight}: give a finite number that is not negative")
    if adversary is None and distillation_weight == 0:
        raise OptionError("there is neither an adversary nor a teacher's term: give one, or a distillation_weight")
    if not 0 <= misaligned <= 1:
        raise OptionError(f"misaligned={misaligned}: give a share of the batch from 0 to 1")
    if misaligned and getattr(getattr(adversary, "loss", None), "paired", False):
        raise OptionError(
            f"misaligned={misaligned} adds fakes, and a {type(adversary.loss).__name__} compares as many fakes as real "  # type: ignore[union-attr]
            "samples: leave it out, or take a loss that is not paired, such as hinge"
        )
    if not 0 <= ema_decay < 1:
        raise OptionError(f"ema_decay={ema_decay}: give a number from 0 (no average) to less than 1")
    if discriminator_steps < 1:
        raise OptionError(f"discriminator_steps={discriminator_steps}: give 1 or more")


def trained(student: nn.Module) -> list[nn.Parameter]:
    """The parameters that change: all, or an adapter's."""
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


class _WithoutFrozen:
    """The state of a student without weights that never change: of an adapter, the adapter alone."""

    def __init__(self, student: nn.Module) -> None:
        self._student = student
        self._frozen = {name for name, parameter in student.named_parameters() if not parameter.requires_grad}

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self._student.state_dict().items() if name not in self._frozen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._student.load_state_dict(state, strict=False)  # names were compared before


def _mean(losses: Sequence[Tensor | None]) -> Tensor | None:
    """Over an iteration's batches; None where there are none."""
    found = [loss for loss in losses if loss is not None]
    return torch.stack(found).mean() if found else None
