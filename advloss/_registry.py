"""The catalogue: which components there are, found in three stages.

1. Metadata: the entry points of the group ``advloss``, read without importing anything.
2. Hooks: each plugin's hook module is imported on its own, guarded, and returns specs.
3. Targets: a component's class is imported when it is built (`_create`).

A plugin that fails is a row with a one-line reason and hides no other.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import isclass, isfunction
from typing import Any, TypeVar

import pluggy

from advloss import hookspecs
from advloss.errors import OptionError, UnknownComponentError
from advloss.specs import API_VERSION, SPEC_OF, Kind, Spec

GROUP = "advloss"
BUILT_IN = "advloss"
SCRIPT = "script"
OK = "ok"

_HOOKS: dict[Kind, str] = {
    "discriminator": "advloss_discriminators",
    "loss": "advloss_losses",
    "regularizer": "advloss_regularizers",
    "augmentation": "advloss_augmentations",
    "recipe": "advloss_recipes",
}
_POINT = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?\s*")
_NEWER = re.compile(  # what the policy lets a later advloss have: another field, hook or public name
    r"(Spec|Paper)\.__init__\(\) got an unexpected keyword argument|unknown hook 'advloss_"
    r"|are declared in the hookimpl but can not be found in the hookspec"
    r"|cannot import name '\w+' from 'advloss[.']|No module named 'advloss\.|module 'advloss[.'].* has no attribute"
)
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue: a component, or a plugin that could not be loaded (`kind` ``"plugin"``).

    `status` is ``"ok"`` or one line that says what is wrong; `distribution` is a name with its version;
    `target` is what an in-script registration holds in its hand.
    """

    kind: str
    name: str
    plugin: str
    summary: str
    status: str
    distribution: str
    spec: Spec | None = None
    target: Callable[..., Any] | None = None

    @property
    def full_name(self) -> str:
        return f"{self.plugin}/{self.name}"


_script: dict[tuple[str, str], Entry] = {}


@dataclass(frozen=True)
class _Selection:
    """Which plugins to load; fields that are None leave it to the environment."""

    only: frozenset[str] | None = None
    built_in_only: bool | None = None


_selection = _Selection()


def list_components(kind: Kind | None = None, pattern: str = "*") -> list[Entry]:
    """Rows of the catalogue, sorted by kind and name.

    Args:
        kind: ``"discriminator"``, ``"loss"``, ``"regularizer"``, ``"augmentation"`` or ``"recipe"``; None for all,
            plugins that could not be loaded among them.
        pattern: a shell-style pattern that the short or the full name must match.
    """
    if kind is not None and kind not in _HOOKS:
        raise UnknownComponentError(f"no kind of component is called {kind!r}; there are {', '.join(_HOOKS)}")
    rows = [
        row
        for row in (*_installed(), *_script.values())
        if kind in (None, row.kind) and (fnmatch(row.name, pattern) or fnmatch(row.full_name, pattern))
    ]
    return sorted(rows, key=lambda row: (row.kind, row.name, row.plugin))


def find(kind: Kind, name: str) -> Entry:
    """The row that `name` (short, or ``"plugin/name"``) stands for, whatever its status.

    Raises:
        UnknownComponentError: none has this name, or several plugins provide the short one.
    """
    rows = list_components(kind)
    matches = [row for row in rows if name in (row.name, row.full_name)]
    if len({row.full_name for row in matches}) == 1:  # one that is declared twice has a status that says so
        return matches[0]
    if matches:
        given = " and ".join(f"{row.full_name} ({row.distribution})" for row in matches)
        raise UnknownComponentError(f"{kind} {name!r} is provided by {given}; write the full name of the one you mean")
    raise unknown(kind, name, rows)


def shared_names() -> dict[tuple[str, str], list[str]]:
    """Short names that several plugins provide, by kind and name: the full names, one of which must be written."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for row in list_components():
        names.setdefault((row.kind, row.name), {})[row.full_name] = None
    return {key: list(full) for key, full in names.items() if len(full) > 1}


def unknown(kind: str, name: str, rows: list[Entry]) -> UnknownComponentError:
    """The error for a name that none of `rows` has."""
    return UnknownComponentError(f"no {kind} is called {name!r}. {_nearest(name, rows)}{_broken()}")


def select_plugins(only: Iterable[str] | None = None, *, built_in_only: bool | None = None) -> None:
    """Choose which plugins are loaded from here on, in place of the environment variables.

    Also reads the installed plugins again, as is needed after installing one in a running session.

    Args:
        only: names of plugins, as `ADVLOSS_PLUGINS` lists them; None leaves it to that variable.
        built_in_only: as `ADVLOSS_DISABLE_PLUGINS`; None leaves it to that variable.

    Raises:
        OptionError: `only` is one name.
    """
    global _selection
    if isinstance(only, str):
        raise OptionError(f"only={only!r}; give a list of plugins, as in [{only!r}]")
    _selection = _Selection(None if only is None else frozenset(only), built_in_only)
    _installed.cache_clear()


def _nearest(name: str, rows: list[Entry]) -> str:
    names = sorted({row.name for row in rows})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"There are: {', '.join(names)}." if names else "No plugin provides any; is advloss installed (pip install)?"


def _broken() -> str:
    broken = [f"{row.plugin} ({row.status})" for row in _installed() if row.kind == "plugin"]
    return f" Plugins that could not be loaded: {'; '.join(broken)}." if broken else ""


@cache
def _installed() -> tuple[Entry, ...]:
    points = entry_points(group=GROUP)  # a distribution that is found twice on the path counts once
    only, built_in_only = _selection.only, _selection.built_in_only
    if only is None:
        only = frozenset(name.strip() for name in os.environ.get("ADVLOSS_PLUGINS", "").split(",")) - {""} or None
    if built_in_only is None:
        built_in_only = os.environ.get("ADVLOSS_DISABLE_PLUGINS", "") not in ("", "0")
    chosen = [
        ep
        for ep in points
        if (only is None or ep.name in only) and not (built_in_only and ep.dist and ep.dist.name != BUILT_IN)
    ]
    owners = Counter(ep.name for ep in chosen)
    missing = sorted((only or frozenset()) - {ep.name for ep in points})
    rows = [
        Entry("plugin", name, name, "could not be loaded", "asked for, but not installed", "no distribution")
        for name in missing
    ]
    for ep in chosen:
        if owners[ep.name] > 1:
            others = " and ".join(sorted(_distribution(other) for other in chosen if other.name == ep.name))
            rows.append(_failed(ep, f"entry point {ep.name!r} is claimed by {others}; uninstall one"))
        else:
            rows.extend(_load(ep))
    return tuple(rows)


def _load(ep: EntryPoint) -> list[Entry]:
    """A plugin's rows. One PluginManager a plugin: a failure in one stays there, and so does what it prints."""
    if not _POINT.fullmatch(ep.value):
        return [_failed(ep, f"its entry point's value {ep.value!r} is not module[:attribute]")]
    try:
        with redirect_stdout(sys.stderr):  # the output may be JSON
            rows = list(_offers(ep))
    except (Exception, SystemExit) as error:  # whatever a stranger's module does on import
        return [_failed(ep, _one_line(error))]
    if not rows:
        return [_failed(ep, "offers nothing: its hooks return no specs")]
    times = Counter((row.kind, row.name) for row in rows)
    return [
        replace(row, status=f"declared {n} times in this plugin") if (n := times[row.kind, row.name]) > 1 else row
        for row in rows
    ]


def _offers(ep: EntryPoint) -> Iterator[Entry]:
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    module = ep.load()
    manager.register(module, ep.name)
    manager.check_pending()
    _check_hooks(module)
    for kind, hook in _HOOKS.items():
        if hasattr(module, hook):
            for spec in _checked(getattr(manager.hook, hook)(), kind, hook):
                yield _row(ep, kind, spec)


def _check_hooks(module: Any) -> None:
    """A hook that pluggy would pass over in silence is an error."""
    hooks = [hook for hook in _HOOKS.values() if hasattr(module, hook)]
    if not hooks:
        raise TypeError(f"it has no hook; define {', '.join(_HOOKS.values())}, or one of them")
    unmarked = [hook for hook in hooks if not hasattr(getattr(module, hook), f"{GROUP}_impl")]
    if unmarked:
        raise TypeError(f"{', '.join(unmarked)} lacks @advloss.hookimpl")


def _checked(results: list[Any], kind: Kind, hook: str) -> Iterable[Spec]:
    if not results:  # pluggy leaves None out
        raise TypeError(f"{hook} returned None; return a list of {SPEC_OF[kind].__name__} objects")
    (specs,) = results
    if isinstance(specs, Spec):
        raise TypeError(f"{hook} returned one {type(specs).__name__}; return a list of them")
    for spec in specs:
        if not isinstance(spec, SPEC_OF[kind]):
            raise TypeError(f"{hook} returned a {type(spec).__name__}; return {SPEC_OF[kind].__name__} objects")
        yield spec


def _row(ep: EntryPoint, kind: Kind, spec: Spec) -> Entry:
    status = OK
    if spec.api != API_VERSION:
        way_out = "upgrade advloss" if spec.api > API_VERSION else f"upgrade {ep.dist.name if ep.dist else ep.name}"
        status = f"written for plugin API {spec.api}; this advloss speaks {API_VERSION}: {way_out}"
    elif missing := [name for name in spec.requires if _is_missing(name)]:
        status = f"needs {', '.join(missing)}: {install_line(spec, ep.dist.name if ep.dist else GROUP)}"
    return Entry(kind, spec.name, ep.name, spec.summary, status, _distribution(ep), spec)


def install_line(spec: Spec, distribution: str) -> str:
    """What brings a component's missing packages."""
    if spec.extra:
        return f"pip install '{distribution}[{spec.extra}]'"
    packages = list(dict.fromkeys(name.partition(".")[0] for name in spec.requires))
    return f"pip install {' '.join([name for name in packages if _is_missing(name)] or packages)}"


def _is_missing(name: str) -> bool:
    package = name.partition(".")[0]
    return sys.modules.get(package) is None and find_spec(package) is None


def _failed(ep: EntryPoint, reason: str) -> Entry:
    return Entry("plugin", ep.name, ep.name, "could not be loaded", reason, _distribution(ep))


def _distribution(ep: EntryPoint) -> str:
    return f"{ep.dist.name} {ep.dist.version}" if ep.dist else "unknown distribution"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    line = f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
    return f"{line}; perhaps written for a newer advloss: upgrade advloss" if _NEWER.search(text) else line


def _register(kind: Kind, name: str, declared: dict[str, Any]) -> Callable[[T], T]:
    if not isinstance(name, str):
        raise OptionError(f"register_{kind} was given {name!r} for a name; write @register_{kind}('name') on a class")

    def decorate(target: T) -> T:
        if not (isclass(target) or isfunction(target)):
            raise OptionError(f"@register_{kind}({name!r}) is on {target!r}; put it on a class, or on a function")
        lines = (target.__doc__ or "").strip().splitlines()
        told = {"summary": " ".join(lines[0].split()) if lines else "registered in this script", **declared}
        try:
            spec = SPEC_OF[kind](name=name, target=f"{SCRIPT}:{target.__name__}", **told)
        except TypeError as error:
            raise OptionError(f"{kind} {name!r}: {error}; fields are those of {SPEC_OF[kind].__name__}") from error
        _script[kind, name] = Entry(kind, name, SCRIPT, spec.summary, OK, "this script", spec, target)
        return target

    return decorate


def register_discriminator(name: str, **declared: Any) -> Callable[[T], T]:
    """Class decorator: `name` is a discriminator from here on. `declared` are fields of `DiscriminatorSpec`."""
    return _register("discriminator", name, declared)


def register_loss(name: str, **declared: Any) -> Callable[[T], T]:
    """Class decorator: `name` is a loss from here on. `declared` are fields of `LossSpec`."""
    return _register("loss", name, declared)


def register_regularizer(name: str, **declared: Any) -> Callable[[T], T]:
    """Class decorator: `name` is a regularizer from here on. `declared` are fields of `RegularizerSpec`."""
    return _register("regularizer", name, declared)


def register_augmentation(name: str, **declared: Any) -> Callable[[T], T]:
    """Class decorator: `name` is an augmentation from here on. `declared` are fields of `AugmentationSpec`."""
    return _register("augmentation", name, declared)
