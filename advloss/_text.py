"""Components as a person writes them on a command line."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from advloss.errors import OptionError, PluginError

CONSTANTS = {"True": "true", "False": "false", "None": "null"}
QUOTED_OR_CONSTANT = re.compile(rf'"(?:[^"\\]|\\.)*"|\b(?:{"|".join(CONSTANTS)})\b')


def parse_component(text: str) -> tuple[str | Callable[..., Any], dict[str, Any]]:
    """A component as a person writes it on a command line: what to build, and its options.

    ``name``, ``plugin/name``, ``package.module:Class`` or ``./file.py:Class``, each with options behind another colon:
    ``r1:weight=0.1,every=4``. Values are JSON, where True, False and None may be spelled as in Python, or else text: for
    text that looks like one of these, quote it (``name="False"``). The last two run that code: use this on what the
    person at the keyboard has typed, never on configuration or checkpoints.

    Returns:
        A name, or the class, and its options: a pair that `Adversary` takes in place of a component.

    Raises:
        OptionError: it cannot be read.
        PluginError: there is no such file, module or class.
    """
    head, _, rest = text.partition(":")
    target: str | Callable[..., Any] = head
    if head.endswith(".py") or (rest and "=" not in rest.partition(":")[0]):
        attribute, _, rest = rest.partition(":")
        target = _import_class(head, attribute)
    options = {}
    for part in filter(None, _split(rest)):
        option, equals, value = part.partition("=")
        if not equals:
            raise OptionError(f"{text!r}: write options as name:option=value,option=value")
        options[option] = _value(value)
    return target, options


def _value(text: str) -> Any:
    """What JSON, or Python's spelling of its constants, says; else `text` itself."""
    try:
        return json.loads(QUOTED_OR_CONSTANT.sub(lambda found: CONSTANTS.get(found[0], found[0]), text))
    except json.JSONDecodeError:
        return text


def _split(text: str) -> list[str]:
    """`text` at its commas, but for those within brackets or quotes."""
    return re.findall(r"(?:\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|[^,])+", text)


def _import_class(module: str, attribute: str) -> Callable[..., Any]:
    try:
        if module.endswith(".py"):
            path = Path(module).resolve(strict=True)
            spec = importlib.util.spec_from_file_location(str(path), path)
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded  # dataclasses look there; the path is a name that no import can write
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        target = attrgetter(attribute)(loaded)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module and "." not in module:
            raise OptionError(f"'{module}:{attribute}': write options as {module}:option=value,option=value") from error
        raise PluginError(f"{module}:{attribute} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(target):
        raise PluginError(f"{module}:{attribute} is no class or function")
    return cast(Callable[..., Any], target)
