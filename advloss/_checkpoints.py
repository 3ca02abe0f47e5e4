"""Checkpoint folders, of which the newest complete one always loads.

Files are written into a folder of another name; a manifest with the size and digest of each comes last; all of it is
flushed to the disk; then the folder is renamed, and only then do older ones go.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advloss.errors import OptionError, StateError

FORMAT = "advloss-checkpoint-1"
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**24  # bytes; what is larger was not written here


class Checkpoints:
    """Checkpoints of one run: folders ``step-00000200``, ...

        checkpoints = Checkpoints("runs/checkpoints")
        with checkpoints.write(step) as folder:
            accelerator.save_state(folder)               # or advloss.save_state(..., folder / "state.safetensors")
        accelerator.load_state(checkpoints.newest())

    Args:
        folder: where they are; the same place for all processes.
        keep: how many complete ones stay. With 2 there is one to go back to when a disk damages the newest.
        accelerator: an `accelerate.Accelerator`: `write` and `newest` are then called in every process.
    """

    def __init__(self, folder: Path | str, *, keep: int = 1, accelerator: Any = None) -> None:
        if not isinstance(keep, int) or keep < 1:
            raise OptionError(f"keep={keep!r}: give the number of checkpoints that stay, 1 or more")
        self.folder = Path(folder)
        self.keep = keep
        self._accelerator = accelerator
        self._rank = 0 if accelerator is None else int(accelerator.process_index)
        self._world = 1 if accelerator is None else int(accelerator.num_processes)

    @contextmanager
    def write(self, step: int) -> Iterator[Path]:
        """Inside, a folder to write files to; afterwards it is the newest checkpoint.

        After an error in any process, or a kill at any moment, the checkpoints are as they were.

        Raises:
            OptionError: the step is no whole number, or negative.
            StateError: another process could not write its files; a file is a link, or has the manifest's name.
        """
        step = _whole_number(step)
        partial = self.folder / ".partial"
        try:
            with self._all_or_none("prepare"):
                if self._rank == 0:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
            with self._all_or_none("write"):
                yield partial
            with self._all_or_none("complete"):
                if self._rank == 0:
                    self._complete(partial, step)
        except BaseException:
            if self._rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
            raise

    def newest(self) -> Path:
        """The newest checkpoint, after every file of it was read and compared with the manifest.

        Raises:
            StateError: there is none, or a file is damaged or missing; the message names the file, and the newest
                checkpoint that is whole.
        """
        found = self._found()
        if not found:
            raise StateError(f"there is no checkpoint in {self.folder}; start without resuming")
        with self._all_or_none("verify"):
            try:
                _verify(found[-1], self._rank, self._world)
            except StateError as error:
                raise StateError(f"{error}; {_way_out(found)}") from error
        return found[-1]

    def _complete(self, partial: Path, step: int) -> None:
        """Only the main process does this; the others have written their files."""
        paths = sorted(partial.rglob("*"))
        for path in paths:
            if path.is_symlink() or path == partial / MANIFEST:
                raise StateError(f"{path.relative_to(partial)}: a checkpoint holds no links, and {MANIFEST} is its own")
        files = {p.relative_to(partial).as_posix(): _fingerprint(p) for p in paths if p.is_file()}
        before = self._found()
        numbers = [manifest["number"] for manifest in map(_manifest_or_none, before) if manifest]
        content = {"format": FORMAT, "step": step, "number": 1 + max(numbers, default=0), "files": files}
        (partial / MANIFEST).write_text(json.dumps({**content, "digest": _digest(content)}, indent=1), "utf-8")
        for path in (*paths, partial / MANIFEST, partial):
            _flush(path)

        new = self.folder / f"step-{step:08d}"
        aside = self.folder / f"{new.name}-old"
        for path in {new, aside} - set(before):  # no folders: they could not be replaced
            _set_aside(path)
        if new in before:  # the same step again: the one that is there stays complete, under another name
            self._discard(aside)
            new.rename(aside)
            before = [aside if path == new else path for path in before if path != aside]
        partial.rename(new)
        _flush(self.folder)
        older = sorted(filter(_number, before), key=_number)
        for path in older[: max(0, len(older) - (self.keep - 1))]:
            self._discard(path)
        for path in before:
            if not _number(path):  # whatever it is, it is not in the way of the new one
                _set_aside(path)

    def _discard(self, path: Path) -> None:
        """Out of sight in one step, so that a kill leaves no half of it among the checkpoints."""
        if path.exists():
            gone = self.folder / ".gone"
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _found(self) -> list[Path]:
        """Checkpoints in the order of their writing; where a manifest cannot be read, nobody knows: those come last."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        named = sorted(path for path in paths if re.fullmatch(r"step-\d{8,}(-old)?", path.name) and path.is_dir())
        return sorted(named, key=lambda path: _number(path) or float("inf"))

    @contextmanager
    def _all_or_none(self, what: str) -> Iterator[None]:
        """All processes pass, or all raise."""
        try:
            yield
        except BaseException:
            self._any(True)
            raise
        if self._any(False):
            raise StateError(f"another process could not {what} the checkpoint in {self.folder}; its message says why")

    def _any(self, failed: bool) -> bool:
        if self._world == 1:
            return failed
        import torch

        flag = torch.tensor([failed], dtype=torch.int32, device=self._accelerator.device)
        return bool(self._accelerator.gather(flag).any())


def _whole_number(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise OptionError(f"step={step!r}: a checkpoint's step is a whole number, 0 or more")
    return number


def _verify(checkpoint: Path, rank: int = 0, world: int = 1) -> None:
    """Raise StateError unless this process's share of the files is as the manifest says."""
    files = _manifest(checkpoint)["files"]
    for name in sorted(files)[rank::world]:
        try:
            _verify_file(checkpoint, name, files[name])
        except StateError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # names that no file can have, loops of links, ...
            raise StateError(f"{checkpoint / MANIFEST} names {name!r}, which cannot be read ({error})") from error


def _verify_file(checkpoint: Path, name: str, file: dict[str, Any]) -> None:
    path = checkpoint / name
    if not path.resolve().is_relative_to(checkpoint.resolve()):
        raise StateError(f"{checkpoint / MANIFEST} names {name!r}, which is not inside the checkpoint")
    if not path.is_file():
        raise StateError(f"{path} is missing")
    if path.stat().st_size != file["size"]:
        raise StateError(f"{path} has {path.stat().st_size} bytes, it was written with {file['size']}")
    if _fingerprint(path) != file:
        raise StateError(f"{path} is damaged: its digest is not the one that it was written with")


def _way_out(found: list[Path]) -> str:
    for older in reversed(found[:-1]):
        try:
            _verify(older)
        except StateError:
            continue
        return f"{older} is whole: remove {found[-1]} to go on from it"
    return "no other checkpoint is whole; start without resuming"


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's manifest, checked.

    Raises:
        StateError: it is missing or damaged.
    """
    path = checkpoint / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        content = json.loads(path.read_text("utf-8"))
        if content.pop("digest") != _digest(content) or content["format"] != FORMAT or content["number"] < 1:
            raise ValueError("its digest differs")
        for name, file in content["files"].items():
            if set(file) != {"size", "digest"}:
                raise ValueError(f"{name!r} has {sorted(file)}")
    except FileNotFoundError as error:
        raise StateError(f"{path} is missing") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    return content


def _manifest_or_none(checkpoint: Path) -> dict[str, Any] | None:
    try:
        return _manifest(checkpoint)
    except StateError:
        return None


def _number(checkpoint: Path) -> int:
    """Checkpoints are numbered as they are written; 0 where the manifest cannot be read."""
    manifest = _manifest_or_none(checkpoint)
    return manifest["number"] if manifest else 0


def _set_aside(path: Path) -> None:
    if os.path.lexists(path):
        path.rename(path.with_name(f"{path.name}-damaged-{path.lstat().st_ino}"))


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _fingerprint(path: Path) -> dict[str, Any]:
    digest, size = hashlib.blake2b(digest_size=16), 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
            size += len(chunk)
    return {"size": size, "digest": digest.hexdigest()}


def _flush(path: Path) -> None:
    """To the disk: what is in a file, or the names that are in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
