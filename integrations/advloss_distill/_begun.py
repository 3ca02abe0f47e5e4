"""What a run was begun with, kept beside its checkpoints: one that is resumed otherwise is another run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advloss import StateError

NAME = "settings.json"


def check_new(folder: Path) -> None:
    """Raise StateError where there are checkpoints: a run that stops before its first save would resume from them."""
    if found := sorted(path.name for path in folder.glob("step-*")):
        raise StateError(
            f"{folder} has a checkpoint of another run ({found[-1]}): go on with that one (--resume), write elsewhere (--out), or "
            "delete it"
        )


def keep(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new run."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{NAME}"
    temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    temporary.replace(folder / NAME)


def compare(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise StateError, with all that differs, unless the run in `folder` was begun with these settings.

    Folders of earlier versions have none to compare with.
    """
    if not (path := folder / NAME).is_file():
        return
    try:
        begun, here = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(settings))
        changed = [name for name in {**begun, **here} if begun.get(name) != here.get(name)]
    except (ValueError, TypeError, AttributeError) as error:
        raise StateError(f"{path} is damaged ({error}): delete it to resume without a comparison") from error
    if changed:
        words = "; ".join(f"{name} was {begun.get(name)}, and is {here.get(name)}" for name in changed)
        raise StateError(
            f"the run in {folder} was begun otherwise: {words}. Resume it as it was, or begin another elsewhere"
        )
