"""The discriminator as one step sees it.

It runs on scratch copies of its buffers, so that a step that fails, is skipped or belongs to the generator leaves
spectral norm's vectors and batch norm's statistics alone; what it was asked it remembers, so that a regularizer
that looks at the same samples as the loss costs no second forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import CheckpointFunction

from advloss._condition import Condition
from advloss._features import FeatureDiscriminator
from advloss._inputs import check_logits, class_of, unchanged
from advloss._logits import Logits
from advloss._places import Places
from advloss.errors import CombinationError, InputError

FeatureMemo = Callable[[Tensor], "Sequence[Tensor] | None"]


class Judge:
    """Call it as the discriminator: ``judge(samples, condition)``. Other attributes are the discriminator's own.

    Args:
        discriminator: the module.
        augment: applied to samples first.
        frozen: parameters are constants: no weight gradient is computed (the generator's turn).
        feature_leaves: hand features out as leaves, for a regularizer that differentiates by them.
        known_features: features of samples that were computed before, or None.
        compiled: called in place of the player, whose parts it computes with (`torch.compile`).
        checkpoint: keep no activations of a forward, and compute it again in backward.

    Attributes:
        player: the part that trains: the discriminator, or the heads of one with frozen features.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        augment: Callable[[Tensor], Tensor],
        *,
        frozen: bool = False,
        feature_leaves: bool = False,
        known_features: FeatureMemo = lambda samples: None,
        compiled: Callable[..., Logits] | None = None,
        checkpoint: bool = False,
    ) -> None:
        self._module = discriminator
        self._augment = augment
        self._feature_leaves = feature_leaves
        self._known_features = known_features
        self._compiled = compiled
        self._checkpoint = checkpoint
        self.player = player_of(discriminator)
        self._call = self.player if compiled is None else compiled
        self._places = Places(self.player)
        self._overrides = {name: buffer.clone() for name, buffer in self._places.buffers.items()}
        if frozen:
            self._overrides.update((name, p.detach()) for name, p in self._places.parameters.items())
        self._memo: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def __call__(self, samples: Tensor, condition: Condition | None = None) -> Logits:
        return self._remember("logits", self._logits, samples, condition)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The scratch copies of the player's buffers, as the calls so far have left them (or put in their place)."""
        return {name: self._overrides[name].detach() for name in self._places.buffers}

    def snapshot(self) -> Judge:
        """A judge in the state of this one, without its memory; what it is asked leaves this one's buffers alone."""
        other = Judge(
            self._module,
            self._augment,
            feature_leaves=self._feature_leaves,
            known_features=self._known_features,
            compiled=self._compiled,
            checkpoint=self._checkpoint,
        )
        other._overrides = {**self._overrides, **{name: b.clone() for name, b in self.buffers.items()}}
        return other

    def features(self, samples: Tensor) -> list[Tensor]:
        """Frozen features of `samples`; without a graph unless `samples` require gradients."""
        return self._remember("features", self._features, samples)

    def heads(self, features: list[Tensor], condition: Condition | None = None) -> Logits:
        """Logits from features, by the trained heads."""
        return self._remember("heads", self._run, features, condition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def _remember(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        key = (what, torch.is_grad_enabled(), *map(id, args))
        if key not in self._memo:
            self._memo[key] = (*args, function(*args))  # holding the arguments keeps their ids their own
        return self._memo[key][-1]

    def _logits(self, samples: Tensor, condition: Condition | None) -> Logits:
        with unchanged(samples, self._module):
            if self.player is self._module:
                logits = self._run(self._augment(samples), condition)
            else:
                logits = self.heads(self.features(samples), condition)
        check_logits(logits, len(samples), self._module)
        return logits

    def _features(self, samples: Tensor) -> list[Tensor]:
        known = self._known_features(samples)
        features = None if known is None else list(known)
        if features is None:
            with torch.set_grad_enabled(samples.requires_grad and torch.is_grad_enabled()):
                features = self._module.features(self._augment(samples))  # type: ignore[operator]
        if self._feature_leaves and not samples.requires_grad:
            features = [feature.detach().requires_grad_() for feature in features]
        return features

    def _run(self, inputs: Tensor | list[Tensor], condition: Condition | None) -> Logits:
        args = (inputs,) if condition is None else (inputs, condition)
        _check_not_cached(self.player)
        run = self._run_again_in_backward if self._checkpoint and torch.is_grad_enabled() else self._run_once
        try:
            with self._no_writes():
                logits = run(args)
        finally:
            new = self._places.take_away_new_buffers()
        if new:
            raise InputError(_BUFFERS.format(module=class_of(self.player), names=", ".join(new), did="its first value"))
        for name, buffer in self._places.buffers.items():
            if not _fits(self._overrides[name], buffer):
                raise InputError(_BUFFERS.format(module=class_of(self.player), names=name, did="another shape"))
        return logits

    def _run_once(self, args: tuple[Any, ...]) -> Logits:
        with _no_recomputation(of_any_kind=bool(self._overrides)), self._places.holding(self._overrides):
            return self._call(*args)

    def _run_again_in_backward(self, args: tuple[Any, ...]) -> Logits:
        """Both times from the same buffers; what the first time leaves in them counts."""
        start, left = dict(self._overrides), dict[str, Tensor]()

        def forward(*args: Any) -> Logits:
            values = {
                name: tensor.clone() if name in self._places.buffers else tensor for name, tensor in start.items()
            }
            with _no_recomputation_inside(), self._places.holding(values):
                logits = self._call(*args)
            left.update(values)
            return logits

        logits: Logits = checkpointing.checkpoint(forward, *args, use_reentrant=False)
        self._overrides = dict(left)
        return logits

    @contextmanager
    def _no_writes(self) -> Iterator[None]:
        """Refuse a forward that writes to a parameter: in the other player's turn, and in a skipped step, too."""
        before = [(name, p, p._version) for name, p in self._places.parameters.items() if not p.is_inference()]
        yield
        if written := [name for name, parameter, version in before if parameter._version != version]:
            raise InputError(
                f"the forward of {class_of(self.player)} writes to its parameter {', '.join(written)} (an embedding's "
                "max_norm, a clamp_ in forward); parameters change in the optimizer's step alone: use the "
                "'weight-clipping' regularizer, or normalize a copy"
            )


def player_of(discriminator: nn.Module) -> nn.Module:
    """The part of a discriminator that trains."""
    return discriminator.heads if isinstance(discriminator, FeatureDiscriminator) else discriminator


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Attention inside has a double backward: its fused kernels have none. What still lacks one is named.

    Raises:
        CombinationError: something inside cannot be differentiated twice, such as a compiled function.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_DOUBLE_BACKWARD):
                raise
            raise CombinationError(
                f"a regularizer differentiates the discriminator twice, and a part of the discriminator cannot ({error}): "
                "use r1 or r2 with method='finite-difference', or leave that part uncompiled"
            ) from error


_NO_DOUBLE_BACKWARD = ("support double backward", "derivative for", "differentiate twice")


_BUFFERS = (
    "the forward of {module} gave its buffer {names} {did}: what a step leaves in buffers could not be kept. Register "
    "buffers in their final shape in __init__, or run one forward before you build the adversary"
)


def _fits(value: Tensor | None, buffer: Tensor) -> bool:
    """Whether `value` can be copied into `buffer`."""
    if value is None or value.shape == buffer.shape:
        return value is not None
    try:
        return torch.broadcast_shapes(value.shape, buffer.shape) == buffer.shape
    except RuntimeError:
        return False


def _check_not_cached(module: nn.Module) -> None:
    """Under `parametrize.cached` one turn's frozen weight would be taken in the other, which then trains nothing."""
    if getattr(parametrize, "_cache_enabled", 0) and any(map(parametrize.is_parametrized, module.modules())):
        raise CombinationError(
            "torch.nn.utils.parametrize.cached() is in force around this call, and the discriminator has parametrized "
            "weights (spectral or weight norm): they would not train; leave the `with` block first"
        )


_RECOMPUTES = (
    "the discriminator checkpoints activations (torch.utils.checkpoint): in backward it would be computed again, after "
    "this call put its parameters and buffers back. Switch checkpointing off in the discriminator, and give the adversary "
    "checkpoint=True; smaller micro-batches (gradient accumulation) or, for r1 and r2, method='finite-difference' may help too"
)


@contextmanager
def _no_recomputation(of_any_kind: bool) -> Iterator[None]:
    """Refuse reentrant checkpointing, which leaves gradients out in silence, or both kinds."""
    apply = CheckpointFunction.apply
    CheckpointFunction.apply = _refuse
    try:
        with ExitStack() as stack:
            if of_any_kind:
                with suppress(RuntimeError):  # the script's own hooks are in force around this call
                    stack.enter_context(disable_saved_tensors_hooks(_RECOMPUTES))
            yield
    except RuntimeError as error:
        if _RECOMPUTES in str(error):
            raise CombinationError(_RECOMPUTES) from error
        raise
    finally:
        CheckpointFunction.apply = apply


@contextmanager
def _no_recomputation_inside() -> Iterator[None]:
    """Refuse both kinds within a forward that is itself computed again."""
    before = CheckpointFunction.apply, checkpointing._checkpoint_hook
    CheckpointFunction.apply = checkpointing._checkpoint_hook = _refuse  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        CheckpointFunction.apply, checkpointing._checkpoint_hook = before  # type: ignore[misc]


def _refuse(*args: Any) -> Any:
    raise CombinationError(_RECOMPUTES)
