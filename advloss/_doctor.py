"""``advloss doctor``: what a bug report needs, and what cannot be used and why."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from advloss import __version__
from advloss._registry import OK, list_components, shared_names

_PACKAGES = ("torch", "pluggy", "safetensors", "accelerate", "diffusers", "timm", "torchmetrics")


def report(*, as_json: bool) -> int:
    """Print versions, everything whose status is not "ok", and shared short names. Returns 1 when a plugin could not be loaded."""
    versions = {"advloss": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    settings = {
        name: value for name in ("ADVLOSS_PLUGINS", "ADVLOSS_DISABLE_PLUGINS") if (value := os.environ.get(name))
    }
    rows = list_components()
    problems = {f"{row.kind} {row.full_name} ({row.distribution})": row.status for row in rows if row.status != OK}
    shared = {f"{kind} {name}": names for (kind, name), names in shared_names().items()}
    if as_json:
        found = {"versions": versions, "settings": settings, "problems": problems, "shared_names": shared}
        print(json.dumps(found, indent=2))
    else:
        for name, value in {**versions, **settings}.items():
            print(f"{name:24} {value}")
        print(f"{'components':24} {sum(row.status == OK for row in rows)} can be used")
        for name, status in problems.items():
            print(f"! {name}: {status}")
        for name, names in shared.items():
            print(f"! {name}: short name shared: write {' or '.join(names)}")
    return 1 if any(row.kind == "plugin" for row in rows) else 0
