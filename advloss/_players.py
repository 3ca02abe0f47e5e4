"""The two players' turns with one discriminator: how it is asked in each, and what one turn leaves for the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from advloss._ahead import Ahead
from advloss._condition import Condition
from advloss._gate import Gate
from advloss._inputs import unchanged
from advloss._judge import Judge, player_of
from advloss._logits import Logits, at_least_float32, detach
from advloss._parts import Parts
from advloss._passing import PassingGradient
from advloss._random import random_stream
from advloss._regularizer import leaf
from advloss._runtime import Runtime
from advloss._seen import SeenFeatures, precision_of
from advloss._signals import EVERY, MIXED_EVERY, has_batch_norm, mixed_accuracy, sample_signals
from advloss._turn import Due, Turn, cut, take_turn
from advloss.errors import CombinationError, InputError


class Players:
    """Asks the discriminator; trains nothing, and counts no steps: those are told.

    Args:
        parts: what the adversary is made of.
        seed: of the random streams.
        compile, checkpoint, channels_last, reuse_real: as in `Adversary`.

    Attributes:
        calls: turns of each player that were taken, which their random streams depend on.
        passing: the gradient that reached the last fakes.
        runtime: where turns are taken.
        shape: of the last real samples; None before the first.
    """

    def __init__(
        self, parts: Parts, seed: int, *, compile: bool, checkpoint: bool, channels_last: bool, reuse_real: bool
    ) -> None:
        self.parts, self.seed = parts, seed
        self._player = player_of(parts.discriminator)
        self._parameters = [p for p in parts.discriminator.parameters() if p.requires_grad]
        self.calls = {"generator": 0, "discriminator": 0}
        self.passing = PassingGradient()
        self.runtime = Runtime()
        self.shape: tuple[int, ...] | None = None
        self._gate = Gate(parts.discriminator, parts.spec, channels_last)
        self._compiled = torch.compile(self._player) if compile else None
        self._checkpoint = checkpoint
        self._reuse_real, self._ahead = reuse_real, Ahead()
        self._seen = SeenFeatures()
        self._shares = self._player is not parts.discriminator and not parts.augmentations
        self._whole = set[str]()  # second-order terms that were found to have a whole graph

    @property
    def device(self) -> torch.device:
        """The discriminator's."""
        return self._parameters[0].device

    def check_generator(
        self, fake: Tensor, real: Tensor | None, condition: Condition | None, real_condition: Condition | None
    ) -> None:
        """Raise InputError unless the generator's turn can be taken."""
        self._gate.check("fake", fake, condition, self.device)
        if real is not None:
            self._gate.check("real", real, condition if real_condition is None else real_condition, self.device)
            self._gate.check_real(real, fake)
        elif getattr(self.parts.loss, "paired", False):
            raise InputError(f"the loss {type(self.parts.loss).__name__} compares fakes with real samples: pass real=")

    def check_discriminator(
        self, real: Tensor, fake: Tensor, condition: Condition | None, fake_condition: Condition | None
    ) -> None:
        """Raise InputError unless the discriminator's turn can be taken."""
        self._gate.check("real", real, condition, self.device)
        self._gate.check("fake", fake, condition if fake_condition is None else fake_condition, self.device)
        self._gate.check_real(real, fake)

    def generator_turn(
        self,
        fake: Tensor,
        real: Tensor | None,
        condition: Condition | None,
        real_condition: Condition | None,
        *,
        step: int,
        ahead: bool,
    ) -> Tensor:
        """The generator's loss. With `ahead`, the discriminator's turn of this `step` may go on from a look at `real`."""
        self._gate.check_finite(self.runtime.world, fake=(fake, condition))
        loss = self.parts.loss
        with self._stream("generator"), self.runtime.autocast(self.device):
            given, known = fake, self._seen.recall("generator", fake) if self._shares else None
            real_condition = condition if real_condition is None else real_condition
            fake, condition = self._gate.cast(fake, condition, self._dtype)
            fake = fake.view_as(fake)  # to measure this loss's gradient alone: the script's fake has others as well
            judge = self._judge({fake: known}, frozen=True, compiled=self._compiled)
            fake_logits = at_least_float32(judge(fake, condition))
            real_logits: Logits | None = None
            if getattr(loss, "paired", False) and real is not None:
                real_logits = self._logits_of_real(judge, real, real_condition, step, ahead)
            made = loss.generator(fake_logits, real_logits)
            through = self._seen.through
            self.passing.watch(fake if known is None or through is None else through, made)
            if self._shares:
                wanted = self._seen.wanted["discriminator"]
                self._seen.remember("generator", given, detach(judge.features(fake)) if wanted else None)
        self.calls["generator"] += 1
        return made

    def discriminator_turn(
        self,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None,
        fake_condition: Condition | None,
        *,
        step: int,
    ) -> Turn:
        """The discriminator's turn, from its checks to the loss; who takes it counts it in `calls` once it is done."""
        self.check_discriminator(real, fake, condition, fake_condition)
        self.shape = tuple(real.shape)
        conditions = condition, condition if fake_condition is None else fake_condition
        self._gate.check_finite(self.runtime.world, real=(real, conditions[0]), fake=(fake, conditions[1]))
        due, given = self._due(step), fake
        fake, fake_condition = self._gate.cast(fake.detach(), fake_condition, self._dtype)
        fake = leaf(fake) if "fake" in due.leaves else fake
        # gradients of gradients underflow in half precision: those steps run in full
        with self._stream("discriminator"), self.runtime.autocast(self.device, enabled=not due.second_order):
            asked = self._ahead.take(real, condition, self._moment(step))
            if asked is not None:
                judge, real, condition = asked.judge, asked.real, asked.condition
                asked.go_on()
            else:
                real, condition = self._gate.cast(real.detach(), condition, self._dtype)
                real = leaf(real) if "real" in due.leaves else real
                known = self._features_for_both(given) if self._shares and not fake.requires_grad else None
                judge = self._judge({fake: known}, **self._options(due))
            with due.differentiable():
                turn = take_turn(judge, self.parts.loss, due, real, fake, condition, fake_condition)
                self._measure(judge, turn, condition, fake_condition, step)
        self._check_double_backward(due.regularizers, turn)
        return turn

    def forget_real(self) -> None:
        """Let go of a turn that has begun: weights may be written to where nobody sees it."""
        self._ahead.forget()

    def forget_fakes(self) -> None:
        """Let go of their features."""
        self._seen.forget()

    def _logits_of_real(
        self, judge: Judge, real: Tensor, condition: Condition | None, step: int, ahead: bool
    ) -> Logits:
        """For a paired loss, in the generator's turn."""
        self._ahead.forget()
        due = self._due(step)
        given = real, condition
        real, condition = self._gate.cast(real.detach(), condition, self._dtype)
        if not (ahead and self._goes_on(due)):
            with torch.no_grad():
                return at_least_float32(judge(real, condition))
        real = leaf(real) if "real" in due.leaves else real
        with self._stream("discriminator"):  # from here on it is the discriminator's turn, as far as it needs no fakes
            judge = self._judge({}, **self._options(due))
            with due.differentiable():
                logits = at_least_float32(judge(real, condition))
            self._ahead.keep(judge, (real, condition), given, self._moment(step))
        return logits.detach() if isinstance(logits, Tensor) else detach(logits)

    def _goes_on(self, due: Due) -> bool:
        """Whether the discriminator's turn can go on from the generator's."""
        if not (self._reuse_real and torch.is_grad_enabled()):
            return False
        whole = self._player is self.parts.discriminator  # frozen features are shared otherwise
        trains = all(parameter.requires_grad for parameter in self._parameters)
        mixed = torch.is_autocast_enabled(self.device.type)
        return whole and trains and not (mixed and due.second_order)

    def _moment(self, step: int) -> tuple[Any, ...]:
        return step, self.calls["discriminator"], precision_of(self._parameters[0])

    def _due(self, step: int) -> Due:
        return Due({n: r for n, r in self.parts.regularizers.items() if step % getattr(r, "every", 1) == 0})

    def _options(self, due: Due) -> dict[str, Any]:
        """How the discriminator runs in its own turn."""
        return {
            "feature_leaves": bool(due.leaves & {"real_features", "fake_features"}),
            "compiled": None if due.second_order else self._compiled,
            "checkpoint": self._checkpoint,
        }

    def _measure(
        self, judge: Judge, turn: Turn, condition: Condition | None, fake_condition: Condition | None, step: int
    ) -> None:
        """What the samples show, in some of the steps: last in a turn, since it draws and leaves nothing."""
        conditions = condition, condition if fake_condition is None else fake_condition
        if step % EVERY == 0:
            turn.signals.update(sample_signals(turn.real, turn.fake, *conditions))
        if step % MIXED_EVERY == MIXED_EVERY - 1 and has_batch_norm(judge.player):
            mixed = mixed_accuracy(judge, self.parts.loss, turn.real, turn.fake, *conditions)
            turn.signals["mixed_accuracy"] = mixed

    def _check_double_backward(self, due: Mapping[str, Any], turn: Turn) -> None:
        """At each second-order term's first time: its graph has to reach all that it came from."""
        for name in [n for n, r in due.items() if getattr(r, "second_order", None) and n not in self._whole]:
            if cut(turn.terms[name]):
                raise CombinationError(
                    f"regularizer {name!r} differentiates the discriminator twice, and a part of the discriminator has "
                    "a backward that is once_differentiable: its gradient would be wrong. Write that backward in "
                    "differentiable operations, or use r1 or r2 with method='finite-difference'"
                )
            self._whole.add(name)

    def _features_for_both(self, fake: Tensor) -> Sequence[Tensor]:
        """Features of `fake` in the discriminator's turn: those of the generator's before it, or for that after it."""
        features, kept = self._seen.recall("discriminator", fake), None
        if features is None:
            keeps = self._seen.wanted["generator"] and fake.requires_grad
            discriminator = self.parts.discriminator
            with unchanged(fake, discriminator), torch.set_grad_enabled(keeps):
                through = self._gate.cast(fake, None, self._dtype)[0]
                through = through.view_as(through)  # as in the generator's turn, to measure what passes
                features = discriminator.features(through)
            kept, self._seen.through = (features, through) if keeps else (None, None)
        self._seen.remember("discriminator", fake, kept)
        return detach(features)

    def _judge(self, known: Mapping[Tensor, Sequence[Tensor] | None], **options: Any) -> Judge:
        return Judge(self.parts.discriminator, self._augment, known_features=known.get, **options)

    def _augment(self, samples: Tensor) -> Tensor:
        for augmentation in self.parts.augmentations.values():
            samples = augmentation(samples)
        return samples

    def _stream(self, player: str) -> AbstractContextManager[None]:
        return random_stream(self.device, self.seed, self.runtime.rank, player, self.calls[player])

    @property
    def _dtype(self) -> torch.dtype:
        return self._parameters[0].dtype
