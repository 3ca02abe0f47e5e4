"""``advloss new``: write a plugin as a complete distribution.

The template is a plugin called ``wavelet``; its name is what changes. Files end in ``.in`` so that no tool takes them
for part of this package.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from advloss._registry import GROUP, SCRIPT
from advloss.errors import OptionError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RENAMED = re.compile("advloss_wavelet|test_wavelet|Wavelet(?!-driven)|wavelet")  # "Wavelet-driven" is a paper's title


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write the distribution ``advloss-NAME`` into `folder`, which must not exist. Returns what was written.

    Raises:
        OptionError: a name that is no distribution's, or somebody's already, or a folder that is there or cannot be
            written.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(f"plugin name {name!r}: use lower case, digits and single hyphens, as in 'wavelet'")
    if owner := _owner(name):
        raise OptionError(f"plugin name {name!r} is taken by {owner}; choose another, so that both can be installed")
    if folder.exists():
        raise OptionError(f"{folder} is there already; name another --folder, or remove it")
    written = []
    try:
        for relative, text in template(name).items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            written.append(path)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written ({error.strerror}); name another --folder") from error
    return written


def _owner(name: str) -> str | None:
    """Who has this name here: what is installed, or in a script, would be shadowed by a plugin that has it too."""
    module = f"advloss_{name.replace('-', '_')}"
    if name == SCRIPT:
        return "the components that a script registers"
    if any(point.name == name for point in entry_points(group=GROUP)):
        return "an installed plugin"
    return f"the installed package {module}" if find_spec(module) else None


def template(name: str) -> dict[str, str]:
    """The files of the distribution ``advloss-NAME``: relative path, and text."""
    module = name.replace("-", "_")
    names = {
        "advloss_wavelet": f"advloss_{module}",
        "test_wavelet": f"test_{module}",
        "Wavelet": "".join(part.title() for part in name.split("-")),
        "wavelet": name,
    }

    def rename(text: str) -> str:
        return _RENAMED.sub(lambda found: names[found[0]], text)

    root = Path(str(files("advloss") / "_template"))
    paths = sorted(path for path in root.rglob("*.in") if path.is_file())
    return {
        rename(path.relative_to(root).as_posix().removesuffix(".in")): rename(path.read_text(encoding="utf-8"))
        for path in paths
    }
