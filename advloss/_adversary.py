"""The adversary: a discriminator with its loss, regularizers, augmentations and optimizer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from advloss import _accelerate, _state
from advloss._about import describe
from advloss._condition import Condition
from advloss._create import check_known, create_recipe, load_target, options_of
from advloss._followers import Followers
from advloss._guard import Guard, causes
from advloss._inputs import check_recording
from advloss._interrupt import uninterrupted
from advloss._judge import differentiable_twice, player_of
from advloss._logits import as_scales, detach
from advloss._numbers import check_numbers
from advloss._parts import Components, build_parts
from advloss._players import Players
from advloss._recipe import Component, MakeOptimizer
from advloss._registry import find
from advloss._report import Report
from advloss._runtime import Runtime
from advloss._steps import check_parameters, check_steps
from advloss._turn import Turn, report_of
from advloss._update import Applied, Gathered, Update, commit
from advloss._warn import warn_user
from advloss.errors import CombinationError, OptionError, StateError

DEFAULT_OPTIMIZER: MakeOptimizer = functools.partial(torch.optim.Adam, lr=2e-4, betas=(0.0, 0.99), fused=True)


class Adversary:
    """What a training script holds: `generator_loss` for its model, `discriminator_step` for the other player.

    Each component is a name, a ``(name, options)`` pair, or an object of your own; regularizers and augmentations
    also a mapping from names to options.

    Args:
        discriminator: `forward(samples, condition=None)` -> logits.
        loss: the game.
        regularizers: terms of the discriminator's loss; a loss may bring its own (``"wgan-gp"``).
        augmentations: transforms that the discriminator sees, in this order.
        weight: factor of `generator_loss`.
        optimizer: from parameters to the discriminator's optimizer; default Adam(lr 2e-4, betas (0, 0.99)).
        scheduler: from that optimizer to a learning-rate scheduler, stepped with it.
        max_grad_norm: clip the discriminator's gradient to this 2-norm.
        start_step: `generator_loss` is 0 until so many discriminator steps were counted.
        discriminator_start_step: the discriminator trains from this step on; default `start_step`.
        max_skipped: steps in a row that may be skipped because a value is not finite, before NonFiniteError.
        compile: run the discriminator through `torch.compile`, but for steps on which an exact second-order term is due.
        checkpoint: in the discriminator's step keep no activations, and compute them again in backward, one side at a
            time: less memory, more time, the same result.
        channels_last: keep the discriminator and its samples in that memory format.
        reuse_real: where a paired loss looks at the real samples in the generator's turn, and the discriminator's comes next on
            the same ones, go on from there: one forward less, the same result; their graph is kept until then. A promise that
            nothing the discriminator computes with is changed in between (weights, hooks, attributes, augmentations).
        seed: of the adversary's own random numbers (first weights of a discriminator by name, augmentations, penalties,
            dropout); torch's global generator is then never touched. Default: weights and one draw from that generator.

    Raises:
        UnknownComponentError, OptionError, PluginError: a component cannot be built.
        CombinationError: components that cannot work together.
    """

    def __init__(
        self,
        discriminator: Component,
        loss: Component = "losses/non-saturating",
        regularizers: Components = (),
        augmentations: Components = (),
        *,
        weight: float = 1.0,
        optimizer: MakeOptimizer | None = None,
        scheduler: Callable[[Optimizer], Any] | None = None,
        max_grad_norm: float | None = None,
        start_step: int = 0,
        discriminator_start_step: int | None = None,
        max_skipped: int = 10,
        compile: bool = False,
        checkpoint: bool = False,
        channels_last: bool = False,
        reuse_real: bool = False,
        seed: int | None = None,
    ) -> None:
        check_numbers(
            weight=weight,
            max_grad_norm=max_grad_norm,
            start_step=start_step,
            discriminator_start_step=discriminator_start_step,
            max_skipped=max_skipped,
        )
        for name, made in (("optimizer", optimizer), ("scheduler", scheduler)):
            if made is not None and not callable(made):
                raise OptionError(
                    f"{name}={made!r}; give a callable, such as functools.partial(torch.optim.Adam, lr=1e-4)"
                )
        parts = build_parts(discriminator, loss, regularizers, augmentations, seed)
        self._coupled = parts.batch_coupled
        self.weight = weight
        self.start_step = start_step
        self.discriminator_start_step = start_step if discriminator_start_step is None else discriminator_start_step
        self.step = 0
        self._guard = Guard(max_skipped)
        self._players = Players(
            parts,
            int(torch.randint(2**62, ()) if seed is None else seed),
            compile=compile,
            checkpoint=checkpoint,
            channels_last=channels_last,
            reuse_real=reuse_real,
        )
        self._stateful = nn.ModuleDict(
            {
                "discriminator": player_of(self.discriminator),
                "regularizers": nn.ModuleDict({n: r for n, r in self.regularizers.items() if isinstance(r, nn.Module)}),
            }
        )
        parameters = {n: p for n, p in self.discriminator.named_parameters() if p.requires_grad}
        if not parameters:
            raise OptionError("no parameter of the discriminator requires gradients; there is nothing to train")
        built = (optimizer or DEFAULT_OPTIMIZER)(list(parameters.values()))
        check_steps("optimizer", built, "param_groups")
        check_parameters(built, parameters)
        self._scheduler = scheduler(built) if scheduler else None
        if self._scheduler is not None:
            check_steps("scheduler", self._scheduler)
        self._update = Update(parameters, built, max_grad_norm, dict(self._stateful.named_buffers()))
        self._followers = Followers((*self.regularizers.values(), *self.augmentations.values()), self.discriminator)

    @property
    def discriminator(self) -> Any:
        """The module."""
        return self._players.parts.discriminator

    @property
    def loss(self) -> Any:
        """The game."""
        return self._players.parts.loss

    @property
    def regularizers(self) -> Mapping[str, Any]:
        """By short name, those that the loss brings along included."""
        return MappingProxyType(self._players.parts.regularizers)

    @property
    def augmentations(self) -> Mapping[str, nn.Module]:
        """By short name, in the order in which they are applied."""
        return MappingProxyType(self._players.parts.augmentations)

    @property
    def optimizer(self) -> Optimizer:
        """The discriminator's."""
        return self._update.optimizer

    @property
    def scheduler(self) -> Any:
        """Of that optimizer; None where there is none."""
        return self._scheduler

    @classmethod
    def from_recipe(cls, name: str, **changes: Any) -> Adversary:
        """A paper's whole combination. `changes` are options of the recipe (`advloss show`) or arguments of `Adversary`."""
        known = options_of(load_target(find("recipe", name)))
        check_known(f"recipe {name!r}", changes, {**known, **options_of(cls)})
        recipe = create_recipe(name, **{key: value for key, value in changes.items() if key in known})
        return cls(**{**recipe.adversary_arguments(), **{k: v for k, v in changes.items() if k not in known}})

    def generator_loss(
        self,
        fake: Tensor,
        real: Tensor | None = None,
        condition: Condition | None = None,
        *,
        real_condition: Condition | None = None,
    ) -> Tensor:
        """The generator's adversarial loss, weighted: a scalar whose gradient flows into `fake` and nothing else.

        Leaves every parameter, gradient, buffer, flag and random state of the discriminator as it was. Before
        `start_step` it is 0 and runs no discriminator; it has no graph then, so that a script with no other loss skips
        its backward and its optimizer (``if loss.requires_grad:``).

        Args:
            fake: what the model made `(N, C, ...)`.
            real: real samples of the same shape; paired losses need them.
            condition: what `fake` is conditioned on.
            real_condition: the same for `real`; None means `condition`.

        Raises:
            InputError: samples or conditions that do not suit the discriminator, or a paired loss without `real`.
        """
        self._players.check_generator(fake, real, condition, real_condition)
        if self.step < self.start_step:
            return fake.new_zeros(())
        trains = self.step >= self.discriminator_start_step
        return self.weight * self._players.generator_turn(
            fake, real, condition, real_condition, step=self.step, ahead=trains
        )

    def discriminator_step(
        self,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        *,
        fake_condition: Condition | None = None,
    ) -> Report:
        """One step of the discriminator on detached samples; inside Accelerate's `accumulate`, one micro-batch of it.

        Args:
            real: real samples `(N, C, ...)`.
            fake: what the model made `(M, C, ...)`; it is detached here.
            condition: what `real` is conditioned on.
            fake_condition: the same for `fake`; None means `condition`.

        Raises:
            InputError: samples, conditions or logits that cannot be right, or a call under `torch.no_grad()`. Nothing has
                changed.
            NonFiniteError: more than `max_skipped` steps in a row had to be skipped. In one process on the CPU, where
                looking is free, also at once: samples hold NaN or infinity, and nothing has changed.
        """
        check_recording("discriminator_step")
        sync = self._runtime.sync
        if self.step < self.discriminator_start_step:
            self._players.check_discriminator(real, fake, condition, fake_condition)
            report = Report(step=self.step)
            self.step += sync
            return report
        with ExitStack() as stack:
            with self._update.restored_on_error():
                turn = self._players.discriminator_turn(real, fake, condition, fake_condition, step=self.step)
                self._gather(turn)
                if sync:
                    self._settle(turn)  # the step before this one, where the device decided on it
                    gathered = self._update.gathered.mean(self._runtime)
                    stack.enter_context(uninterrupted())
                    applied = self._update.apply(gathered, self._stateful)
            self._players.calls["discriminator"] += 1
            if sync:
                return self._finish(turn, applied)
            return report_of(turn, self.loss, self.step, fake_grad_norm=self._players.passing.norm)

    def discriminator_loss(
        self,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        *,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        """The discriminator's whole loss, for a script that owns the second optimizer. Arguments and errors as above.

        Counts a step, for lazy regularizers; buffers are updated as by any forward.

        Raises:
            CombinationError: under several processes, where nobody would average the gradients; with a regularizer that
                acts after a step (weight clipping).
        """
        if self._runtime.world > 1:
            raise CombinationError(
                "discriminator_loss does not average gradients over processes; use discriminator_step"
            )
        if following := Followers(self.regularizers.values(), self.discriminator):
            raise CombinationError(
                f"{following} would never act: it follows a step of the optimizer, which discriminator_loss does not "
                "take; use discriminator_step"
            )
        check_recording("discriminator_loss")
        self._players.forget_real()  # the script's own optimizer may write to weights where nobody sees it
        turn = self._players.discriminator_turn(real, fake, condition, fake_condition, step=self.step)
        commit(self._stateful, turn.buffers, self._update.finite(turn.loss, turn.buffers))
        augmentations = Followers(self.augmentations.values(), self.discriminator)
        augmentations.after_step(True, detach(turn.real_logits), detach(turn.fake_logits))
        self._players.calls["discriminator"] += 1
        self.step += self._runtime.sync
        return turn.loss

    def prepare(self, accelerator: Any) -> Adversary:
        """Fit an `accelerate.Accelerator`: its device, precision, accumulation, processes and checkpoints.

        The adversary does not join the accelerator's models: `save_state` and `load_state` carry it in a file of its
        own, written by the main process without a collective call. Call it once, in every process.

        Raises:
            OptionError: it is something else; to move the adversary alone there is `to`.
        """
        if not hasattr(accelerator, "register_save_state_pre_hook"):
            raise OptionError(f"prepare({accelerator!r}): give an accelerate.Accelerator; a device goes to `to`")
        self.to(accelerator.device)
        self._players.runtime = _accelerate.attach(self, accelerator)
        self._update.use_scaler(torch.amp.GradScaler(accelerator.device.type, enabled=self._runtime.half))
        return self

    def to(self, device: torch.device | str) -> Adversary:
        """Move everything to `device`."""
        for module in (self.discriminator, self._stateful, *self.augmentations.values()):
            module.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """What it was built from, in plain data: put it under ``"about"`` into a log's first line, for `advloss doctor`."""
        return describe(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: weights, buffers, optimizer, counters, unfinished accumulation."""
        self._settle()
        return {
            "discriminator": self.discriminator.state_dict(),
            "regularizers": {n: r.state_dict() for n, r in self.regularizers.items() if isinstance(r, nn.Module)},
            "augmentations": {name: module.state_dict() for name, module in self.augmentations.items()},
            "update": self._update.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "fake_grad_norm": self._players.passing.number(),
            "counters": {
                "step": self.step,
                "skipped": self._guard.in_a_row,
                "seed": self._players.seed,
                **self._players.calls,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            StateError: it is from an adversary built otherwise, or holds NaN. Nothing has changed.
        """
        before, begun = copy.deepcopy(self.state_dict()), False
        try:
            _state.check_fits(before, state)
            begun = True
            self._take_up(state)
        except Exception as error:
            if begun:
                self._take_up(before)
            if isinstance(error, StateError):
                raise
            raise StateError(f"this is no adversary's state ({type(error).__name__}: {error})") from error

    @property
    def _runtime(self) -> Runtime:
        return self._players.runtime

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        for name, module in self._stateful["regularizers"].items():  # type: ignore[operator]
            module.load_state_dict(state["regularizers"][name])
        for name, module in self.augmentations.items():
            module.load_state_dict(state["augmentations"][name])
        self._update.load_state_dict(state["update"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        self._players.passing.take_up(state["fake_grad_norm"])
        counters = state["counters"]
        self.step, self._guard.in_a_row = counters["step"], counters["skipped"]
        self._players.seed = counters["seed"]
        self._players.calls = {player: counters[player] for player in self._players.calls}
        self._guard.forget()
        self._players.forget_fakes()

    def _gather(self, turn: Turn) -> None:
        if self._coupled and self._runtime.accumulation_steps > 1:
            warn_user(
                f"{', '.join(self._coupled)}: what looks at a whole batch sees one micro-batch at a time, so that "
                f"{self._runtime.accumulation_steps} micro-batches do not equal one large batch"
            )
            self._coupled = []
        logits = (*detach(turn.real_logits), *detach(turn.fake_logits)) if self._followers else ()
        with differentiable_twice() if turn.second_order else nullcontext():  # checkpointed parts are computed again
            self._update.add(turn.loss, turn.buffers, self._runtime.accumulation_steps, logits)

    def _finish(self, turn: Turn, applied: Applied) -> Report:
        """What follows an update that was made, or skipped."""
        good, logits, scales = applied.good, applied.gathered.logits, len(as_scales(turn.real_logits))
        skipped = ~good if isinstance(good, Tensor) else not good
        pull = self._players.passing.norm
        report = report_of(turn, self.loss, self.step, applied.norm, skipped=skipped, fake_grad_norm=pull)
        self.step += 1
        self._guard.watch(good)
        self._followers.after_step(good, logits[:scales], logits[scales:])
        if isinstance(good, bool):
            self._settle(turn, applied.gathered)
        return report

    def _settle(self, turn: Turn | None = None, gathered: Gathered | None = None) -> None:
        """Count the last step once it is known whether it was made; of `turn` comes the cause when it was not."""
        if self._guard.settle() and self.scheduler is not None:
            self.scheduler.step()
        if turn is not None and self._guard.in_a_row:  # a healthy step makes no lists
            self._guard.check(causes(turn, self.discriminator), self._update.results(gathered))
