"""The watch over steps that were skipped because a value was not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from advloss._late import Late
from advloss._logits import as_scales
from advloss._turn import Turn
from advloss.errors import NonFiniteError


class Flag:
    """Whether a step was good. On a GPU it travels to the host behind the step; it is read when the next one's work is on its
    way there, which goes on meanwhile."""

    def __init__(self, good: bool | Tensor) -> None:
        self._good = Late(good) if isinstance(good, Tensor) else good

    def read(self) -> bool:
        """The flag."""
        return bool(self._good.read()) if isinstance(self._good, Late) else self._good


class Guard:
    """Counts skipped steps in a row.

    Args:
        most: so many may be skipped in a row.
        whose: the steps' player, for the error.
    """

    def __init__(self, most: int, whose: str = "discriminator") -> None:
        self.most = most
        self.whose = whose
        self.in_a_row = 0
        self._last: Flag | None = None

    def watch(self, good: bool | Tensor) -> None:
        """Take the flag of the step that was just made, for `settle`."""
        self._last = Flag(good)

    def settle(self) -> bool | None:
        """Read and count the flag of the last step, once. None when there is none to read."""
        if self._last is None:
            return None
        good, self._last = self._last.read(), None
        self.in_a_row = 0 if good else self.in_a_row + 1
        return good

    def check(self, *values: Mapping[str, Sequence[Tensor]]) -> None:
        """Raise NonFiniteError when too many were skipped; the cause is looked for in `values`, the first of them first.

        Args:
            values: tensors by name, causes before effects: those of a later mapping are named only where no earlier
                one holds what is not finite.
        """
        if self.in_a_row > self.most:
            bad = next(filter(None, map(_bad, values)), ["a value of an earlier batch"])
            raise NonFiniteError(
                f"{self.in_a_row} {self.whose} steps in a row were skipped; not finite: {', '.join(bad[:5])}"
                f"{f' and {len(bad) - 5} more' if len(bad) > 5 else ''}. "
                "Weights are as before the first of them. Lower the learning rate, or resume from a checkpoint"
            )

    def forget(self) -> None:
        """Drop a flag that was not read."""
        self._last = None


def causes(turn: Turn, module: nn.Module) -> dict[str, Sequence[Tensor]]:
    """What a discriminator's gradients come from, by name."""
    values: dict[str, Sequence[Tensor]] = {f"parameter {n}": (p,) for n, p in module.named_parameters()}
    values.update({"real samples": (turn.real,), "fake samples": (turn.fake,)})
    values.update({"real logits": as_scales(turn.real_logits), "fake logits": as_scales(turn.fake_logits)})
    values.update({f"regularizer {name!r}": (term,) for name, term in turn.terms.items()})
    return {**values, "loss": (turn.loss,)}


def _bad(values: Mapping[str, Sequence[Tensor]]) -> list[str]:
    return [name for name, tensors in values.items() if not all(bool(tensor.isfinite().all()) for tensor in tensors)]
