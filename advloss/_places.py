"""Where a module keeps its parameters and buffers, found in one pass; and other tensors in their place for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Table = dict[str, Any]  # a module's own `_parameters` or `_buffers`


class Places:
    """Of one module, for as long as it keeps its parts: a turn.

    `holding` is what `torch.func.functional_call` does, which goes over the whole module several times a call.

    Attributes:
        parameters, buffers: by name; what hangs in several places by its first.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self._entries: list[tuple[Table, str, str]] = []
        self._before: list[tuple[Table, Table]] = []
        names: dict[int, str] = {}
        for prefix, part in module.named_modules():
            self._before.append((part._buffers, dict(part._buffers)))
            for table, found in ((part._parameters, self.parameters), (part._buffers, self.buffers)):
                for key, tensor in table.items():
                    if tensor is not None:
                        name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                        found[name] = tensor
                        self._entries.append((table, key, name))

    @contextmanager
    def holding(self, values: dict[str, Tensor]) -> Iterator[None]:
        """Inside, the module has `values` in place of its own; afterwards they are what it left there."""
        entries = [entry for entry in self._entries if entry[2] in values]
        own = [table[key] for table, key, _ in entries]
        for table, key, name in entries:
            table[key] = values[name]
        try:
            yield
        finally:
            for (table, key, name), tensor in zip(entries, own):
                values[name] = table.get(key)  # type: ignore[assignment]
                table[key] = tensor

    def take_away_new_buffers(self) -> list[str]:
        """Undo what filled an empty buffer or registered one; the names of such."""
        new = []
        for table, before in self._before:
            if added := [key for key, buffer in table.items() if buffer is not None and before.get(key) is None]:
                table.clear()
                table.update(before)
                new += added
        return new
