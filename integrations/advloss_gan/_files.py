"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_model
from torch import nn


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Inside, a temporary name beside `path` to write to; afterwards it is renamed, or deleted after an error."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask says; safetensors lets nobody else read
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_generator(generator: nn.Module, path: Path) -> None:
    """Write weights and buffers as safetensors; `safetensors.torch.load_model` reads them."""
    with new_file(path) as temporary:
        save_model(generator, str(temporary))
