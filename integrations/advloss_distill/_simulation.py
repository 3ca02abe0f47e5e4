"""Backward simulation: the student trains on the inputs that it meets when it samples, its own (DMD2, arXiv:2405.14867).

Trained on noised real images only, a student of several steps never sees what its earlier steps make, and its errors
add up. Rolling it out for every batch costs a forward for each earlier step. Here it costs none: a batch holds samples
at every step of every sampling path, and what the student makes of a sample in one iteration, noised again, is the
input of that path's next step in the next iteration. Such inputs are one iteration old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from advloss import OptionError, StateError
from advloss_distill._diffusion import Diffusion

SamplingPath: TypeAlias = tuple[float, ...]
"""Timesteps from noise down; whole numbers but where a flow-matching sampler visits others."""
Conditions: TypeAlias = dict[str, Tensor]
"""What samples are made for, by name; the first axis of each tensor is the sample."""
Predict: TypeAlias = Callable[[Tensor, Tensor, Conditions], Tensor]


class Data(Protocol):
    """What the student is to make, and what it is compared with."""

    def conditions(self, count: int) -> Conditions:
        """Conditions to make `count` samples for."""

    def real(self, condition: Conditions) -> Tensor:
        """Real samples `(N, ...)` of these conditions."""


@dataclass(frozen=True)
class Steps:
    """The distinct steps of some sampling paths: a step is the timesteps taken up to and including it.

    Paths that begin alike share their first steps: (999,), (999, 499) and (999, 749, 499, 249) make five steps.
    """

    paths: tuple[SamplingPath, ...]

    @property
    def all(self) -> tuple[SamplingPath, ...]:
        """Steps in order of their length."""
        return tuple(
            sorted({path[: i + 1] for path in self.paths for i in range(len(path))}, key=lambda s: (len(s), s))
        )


class BackwardSimulation:
    """Student inputs at all steps of all paths.

    Args:
        diffusion: noise levels.
        paths: timesteps of each sampling path, from noise down, for example ``[(999,), (999, 499)]``.
        counts: samples of a batch at each step, keyed by the step; a step needs at least as many as each of its children.

    Attributes:
        timesteps: `(N,)`, of the samples in a batch.
        steps: `(N,)`, the index of each sample's step in `Steps.all`: a condition for the discriminator.
    """

    def __init__(self, diffusion: Diffusion, paths: Sequence[SamplingPath], counts: dict[SamplingPath, int]) -> None:
        tree = Steps(tuple(paths))
        _check(diffusion, tree, counts)
        self.diffusion = diffusion
        self.counts = [counts[step] for step in tree.all]
        sizes = torch.tensor(self.counts)
        self.steps = torch.arange(len(tree.all)).repeat_interleave(sizes)
        self.timesteps = torch.tensor([step[-1] for step in tree.all]).repeat_interleave(sizes)
        self.fresh = counts[tree.all[0]]
        self._parents = _parents(tree, self.counts)
        self._depth = max(map(len, tree.all))
        self._carried: tuple[Tensor, Conditions] | None = None

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def num_steps(self) -> int:
        """How many steps there are."""
        return len(self.counts)

    @property
    def ready(self) -> bool:
        """Whether there are inputs for the later steps: after `fill`, or a loaded state."""
        return self._carried is not None

    @torch.no_grad()
    def fill(
        self, predict: Predict, shape: Sequence[int], draw: Callable[[int], Conditions], device: torch.device
    ) -> None:
        """Roll the student out once, so that the first batch finds inputs for all steps.

        Args:
            predict: from noisy samples, timesteps and conditions to ``x_0``.
            shape: of one sample.
            draw: from a number to so many conditions.
            device: where samples live.
        """
        noisy, condition = torch.randn(len(self) - self.fresh, *shape, device=device), draw(len(self) - self.fresh)
        self._carried = noisy, condition
        for _ in range(self._depth):
            noisy, condition = self.inputs(torch.randn(self.fresh, *shape, device=device), draw(self.fresh))
            self.advance(predict(noisy, self.timesteps.to(device), condition), condition)

    def inputs(self, noise: Tensor, condition: Conditions) -> tuple[Tensor, Conditions]:
        """A batch `(N, ...)` of noisy inputs, from fresh noise `(fresh, ...)` and what the last batch left behind."""
        if self._carried is None:
            raise RuntimeError("call fill() before the first batch")
        noisy, carried = self._carried
        told = {name: together(value, carried.get(name), name) for name, value in condition.items()}
        return together(noise, noisy, "samples"), told

    @torch.no_grad()
    def advance(self, x0: Tensor, condition: Conditions) -> None:
        """Take the student's outputs `(N, ...)` for the last inputs on to their next steps, with fresh noise."""
        parents = self._parents.to(x0.device)
        timesteps = self.timesteps[self.fresh :]
        x0 = x0.detach()[parents]
        noisy = self.diffusion.add_noise(x0, torch.randn_like(x0), timesteps)
        self._carried = noisy, {name: value[parents] for name, value in condition.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the next batch takes from the last one."""
        if self._carried is None:
            return {}
        noisy, condition = self._carried
        return {"noisy": noisy, "condition": condition}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            StateError: it is of a simulation with other counts. Nothing has changed.
        """
        if state and len(state["noisy"]) != len(self) - self.fresh:
            raise StateError(
                f"the state has {len(state['noisy'])} samples at later steps, this simulation {len(self) - self.fresh}; "
                "build it with the paths and counts it was saved with"
            )
        self._carried = (state["noisy"], state["condition"]) if state else None


def together(new: Tensor, kept: Tensor | None, what: str) -> Tensor:
    """`new`, followed by what is `kept` from the batch before.

    Raises:
        StateError: they are of other shapes, since the batch before was of other data.
    """
    if kept is None or kept.shape[1:] != new.shape[1:]:
        found = "missing" if kept is None else f"of shape {tuple(kept.shape[1:])}"
        raise StateError(
            f"{what} of this run's data are of shape {tuple(new.shape[1:])}, those of the checkpoint that it goes on from are {found}: "
            "resume it with the data that it was begun with"
        )
    return torch.cat([new, kept.to(new.device)])


def _parents(tree: Steps, counts: list[int]) -> Tensor:
    """For each sample that is not fresh, the place in the batch of the sample whose output it takes.

    Children of one step take its samples in turn, beginning again when they run out.
    """
    starts = dict(zip(tree.all, torch.tensor([0, *counts]).cumsum(0).tolist()))
    sizes, taken = dict(zip(tree.all, counts)), dict.fromkeys(tree.all, 0)
    places: list[Tensor] = []
    for step in tree.all[1:]:
        parent = step[:-1]
        places.append(starts[parent] + (taken[parent] + torch.arange(sizes[step])) % sizes[parent])
        taken[parent] += sizes[step]
    return torch.cat(places) if places else torch.zeros(0, dtype=torch.long)


def _check(diffusion: Diffusion, tree: Steps, counts: dict[SamplingPath, int]) -> None:
    if not tree.all or len({step[0] for step in tree.all}) != 1:
        raise OptionError(f"paths {tree.paths}: give at least one, all beginning at the same timestep")
    for path in tree.paths:
        if (
            not path
            or list(path) != sorted(set(path), reverse=True)
            or not 0 <= path[-1] <= path[0] < len(diffusion.alpha)
        ):
            raise OptionError(f"path {path}: timesteps fall, from at most {len(diffusion.alpha) - 1} to at least 0")
    if counts.keys() != set(tree.all):
        raise OptionError(f"counts are given for {sorted(counts)}; the steps of these paths are {list(tree.all)}")
    for step in tree.all[1:]:
        if not 1 <= counts[step] <= counts[step[:-1]]:
            raise OptionError(
                f"counts[{step}]={counts[step]}: give 1 to {counts[step[:-1]]}, the count of the step before it"
            )
