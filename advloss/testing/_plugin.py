"""The checks of a plugin as a whole."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

from advloss._registry import GROUP, OK, Entry, list_components
from advloss.specs import API_VERSION
from advloss.testing._component import lacks_package
from advloss.testing._expect import expect

_HOOK_IMPORTS = """
import contextlib, sys
from importlib.metadata import entry_points
with contextlib.redirect_stdout(sys.stderr):  # what the plugin prints is no answer
    for point in entry_points(group={group!r}):
        if point.name == {name!r}:
            module = point.load()
            for hook in [value for key, value in vars(module).items() if hasattr(value, "advloss_impl")]:
                list(hook() or ())
print(" ".join(name for name in ("torch", "timm", "diffusers", "transformers", "numpy") if name in sys.modules))
"""


class PluginTests:
    """Name a plugin (its entry point) in a subclass."""

    name: ClassVar[str]

    @property
    def rows(self) -> list[Entry]:
        """The plugin's rows in the catalogue."""
        return [row for row in list_components() if row.plugin == self.name]

    def test_status(self) -> None:
        """It is installed, loads, and all that it offers can be used, or lacks a package that it says it requires."""
        expect(self.rows, f"no plugin {self.name!r} is installed; see `advloss list`")
        for row in self.rows:
            expect(
                row.status == OK or lacks_package(row), f"{row.kind} {row.full_name} ({row.distribution}): {row.status}"
            )

    def test_hooks_are_light(self) -> None:
        """Its hook module imports no torch, so that listing stays fast."""
        code = _HOOK_IMPORTS.format(group=GROUP, name=self.name)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
        expect(done.returncode == 0, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it exits")
        loaded = done.stdout.split()
        expect(not loaded, f"its hook module imports {', '.join(loaded)}: name classes as 'module:Class' in targets")

    def test_specs(self) -> None:
        """Specs have a one-line summary and an API version that this advloss speaks."""
        for row in self.rows:
            if row.spec is not None:
                line = row.spec.summary.strip()
                expect(
                    line and "\n" not in line, f"{row.full_name}: the summary is {row.spec.summary!r}; give one line"
                )
                expect(row.spec.api <= API_VERSION, f"{row.full_name}: api={row.spec.api}, and there is {API_VERSION}")
