"""Real distributions of plugins, as pip would lay them out, and Python processes that see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any


def install(
    folder: Path,
    distribution: str,
    source: str,
    *,
    name: str | None = None,
    module: str | None = None,
    version: str = "1.2.3",
) -> None:
    """Put a module and its metadata into `folder`: what an installer leaves behind."""
    name = name or distribution.removeprefix("advloss-")
    module = module or distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[advloss]\n{name} = {module}\n")


def run(folder: Path, code: str, **environment: str) -> str:
    """What `code` prints in a fresh Python that finds `folder`."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows(folder: Path, **environment: str) -> list[dict[str, Any]]:
    """The catalogue as a fresh Python sees it."""
    code = """
        import json, sys
        from advloss import list_components
        print(json.dumps([{k: getattr(r, k) for k in ("kind", "name", "plugin", "summary", "status", "distribution")}
                          for r in list_components()]))
        assert "torch" not in sys.modules
    """
    return json.loads(run(folder, code, **environment))
