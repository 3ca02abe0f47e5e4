"""Public names that load on first use (PEP 562), listed once: in the package's `__init__.pyi`.

A package's `__init__.py` says ``__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)``
and its stub says ``from ._hinge import Hinge as Hinge``. Type checkers read the stub; at run time a
module is imported when one of its names is first asked for. This is the convention of Scientific
Python's lazy_loader, for packages whose import must stay free of torch.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach_stub(package: str, filename: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for `package`, whose stub stands beside `filename`."""
    home = {}
    for node in ast.parse(Path(filename).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else str(node.module)
            home.update({alias.asname or alias.name: (module, alias.name) for alias in node.names})
    names = sorted(name for name in home if not name.startswith("_"))

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = home[name]
        value = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__, lambda: names, names
