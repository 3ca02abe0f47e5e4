"""From a name and options to a component; the third stage of discovery."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

from advloss._recipe import Component, Recipe
from advloss._registry import OK, Entry, find, install_line, list_components
from advloss.errors import AdvlossError, OptionError, PluginError
from advloss.specs import Kind, Spec

if TYPE_CHECKING:
    from advloss._loss import Loss

T = TypeVar("T")


def create_discriminator(name: str, **options: Any) -> nn.Module:
    """Build a discriminator: `module(samples, condition=None)` -> logits.

    Raises:
        UnknownComponentError: no discriminator has this name, or several have.
        OptionError: it takes no such option, or not this value.
        PluginError: its plugin or a package that it needs cannot be loaded.
    """
    return cast(nn.Module, create("discriminator", name, options))


def create_loss(name: str, **options: Any) -> Loss:
    """Build a loss. Raises as `create_discriminator` does."""
    return cast("Loss", create("loss", name, options))


def create_regularizer(name: str, **options: Any) -> nn.Module:
    """Build a regularizer: `regularizer(discriminator, real, fake, condition=None)` -> the weighted term.

    Raises as `create_discriminator` does.
    """
    return cast(nn.Module, create("regularizer", name, options))


def create_augmentation(name: str, **options: Any) -> nn.Module:
    """Build an augmentation: `augmentation(samples)` -> samples. Raises as `create_discriminator` does."""
    return cast(nn.Module, create("augmentation", name, options))


def create_recipe(name: str, **options: Any) -> Recipe:
    """A paper's combination, with the settings that the recipe leaves open. Raises as `create_discriminator` does."""
    return cast(Recipe, create("recipe", name, options))


def create(kind: Kind, name: str, options: Mapping[str, Any]) -> Any:
    """Build the component of this kind and name."""
    entry = find(kind, name)
    target = load_target(entry)
    _check_options(f"{kind} {entry.name!r}", target, options)
    made = _make(f"{kind} {entry.full_name} ({entry.distribution})", target, options)
    _check_type(entry, made)
    return made


def _make(what: str, target: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return target(**options)
    except AdvlossError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's class does
        given = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "its defaults"
        raise PluginError(f"{what} could not be built with {given}: {type(error).__name__}: {error}") from error


def build(kind: Kind, component: Component) -> tuple[Any, str, Spec | None]:
    """`component` (a name, a `(name, options)` pair, or an object) as the object, its full name, and its spec if any."""
    if isinstance(component, str):
        component = (component, {})
    if _is_pair(component):
        name, options = component
        if not isinstance(options, Mapping):
            raise OptionError(f"options of {kind} {name!r} are {options!r}; give a mapping, as in ({name!r}, {{...}})")
        if not isinstance(name, str):
            what = f"{kind} {name.__qualname__}"
            _check_options(what, name, options)
            return build(kind, _make(what, name, options))
        entry = find(kind, name)
        return create(kind, name, options), entry.full_name, entry.spec
    wrong = _wrong_type(kind, component)
    if wrong:
        raise OptionError(f"{kind}={component!r}: give a name, a (name, options) pair, or an object; {wrong}")
    return component, type(component).__name__, _spec_of(kind, component)


def _spec_of(kind: Kind, made: Any) -> Spec | None:
    """The spec whose class an object is of: what holds of a component by name holds of the object as well."""
    target = f"{type(made).__module__}:{type(made).__qualname__}"
    found = [
        row.spec
        for row in list_components(kind)
        if row.target is type(made) or (row.spec is not None and row.spec.target == target)
    ]
    return found[0] if len(found) == 1 else None


def build_all(
    kind: Kind, components: Mapping[str, Mapping[str, Any]] | Sequence[Component] | Component
) -> dict[str, tuple[Any, Spec | None]]:
    """Several components by full name, from a mapping of options, a sequence of components, or one component."""
    given: Iterable[Component]
    if isinstance(components, Mapping):
        given = list(components.items())
    elif isinstance(components, str) or not isinstance(components, Sequence):
        given = [components]
    elif _is_pair(tuple(components)) and isinstance(components[1], Mapping):
        given = [tuple(components)]
    else:
        given = components
    built: dict[str, tuple[Any, Spec | None]] = {}
    for component in given:
        made, name, spec = build(kind, component)
        if name in built:
            raise OptionError(f"{kind} {name!r} is given twice")
        built[name] = made, spec
    return built


def by_short_name(built: Mapping[str, T]) -> dict[str, T]:
    """`built`, by the names that reports and saved state show: the plugin's belongs to those that two of them share.

    What else is installed does not count, so that a checkpoint fits wherever it is loaded.
    """
    short = [name.rpartition("/")[2] for name in built]
    return {name if short.count(end) > 1 else end: made for (name, made), end in zip(built.items(), short)}


def _is_pair(component: Any) -> bool:
    """Whether this is a name, or a class or function, with options."""
    if not (isinstance(component, tuple) and len(component) == 2):
        return False
    return isinstance(component[0], str) or inspect.isclass(component[0]) or inspect.isfunction(component[0])


def load_target(entry: Entry) -> Callable[..., Any]:
    """Import what `entry` names."""
    if entry.status != OK:
        raise PluginError(f"{entry.kind} {entry.full_name} ({entry.distribution}) cannot be used: {entry.status}")
    if entry.target is not None:
        return entry.target
    assert entry.spec is not None
    module, _, attribute = entry.spec.target.partition(":")
    try:
        target = attrgetter(attribute)(importlib.import_module(module))
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and entry.spec.requires:
            hint = f". Try: {install_line(entry.spec, entry.distribution.split()[0])}"
        raise PluginError(
            f"{entry.kind} {entry.full_name} ({entry.distribution}) cannot be imported from {entry.spec.target}: "
            f"{type(error).__name__}: {error}{hint}"
        ) from error
    if not callable(target):
        raise PluginError(f"{entry.spec.target} of {entry.full_name} ({entry.distribution}) is no class or function")
    return cast(Callable[..., Any], target)


def options_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options that a target takes, by name."""
    return dict(inspect.signature(target).parameters)


def check_known(what: str, options: Iterable[str], known: Mapping[str, inspect.Parameter]) -> None:
    """Raise OptionError unless all names of `options` are among `known`."""
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise OptionError(f"{what} has no option {name!r}; {hint}")


def _check_options(what: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = options_of(target)
    check_known(what, options, known)
    missing = [
        name
        for name, p in known.items()
        if p.default is p.empty and name not in options and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if missing:
        raise OptionError(f"{what} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _wrong_type(kind: Kind, made: Any) -> str | None:
    """Why `made` cannot serve as this kind, or None."""
    if kind in ("discriminator", "augmentation"):
        return (
            None if isinstance(made, nn.Module) else f"a {kind} is a torch.nn.Module, this is a {type(made).__name__}"
        )
    if kind == "loss":
        missing = [name for name in ("discriminator", "generator") if not callable(getattr(made, name, None))]
        return (
            f"a loss has methods discriminator and generator, this has no {' and no '.join(missing)}"
            if missing
            else None
        )
    if kind == "regularizer":
        return None if callable(made) else f"a regularizer is callable, this is a {type(made).__name__}"
    return (
        None
        if isinstance(made, Recipe)
        else f"a recipe function returns an advloss.Recipe, this is a {type(made).__name__}"
    )


def _check_type(entry: Entry, made: Any) -> None:
    wrong = _wrong_type(cast(Kind, entry.kind), made)
    if wrong:
        raise PluginError(f"{entry.full_name} ({entry.distribution}) is broken: {wrong}")
