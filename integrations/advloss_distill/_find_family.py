"""Which families of teachers there are: those of the entry-point group ``advloss_distill``, ours among them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pluggy

from advloss import OptionError, PluginError, UnknownComponentError
from advloss_distill import hookspecs
from advloss_distill._family import Family
from advloss_distill._family_spec import FamilySpec


@dataclass(frozen=True)
class Families:
    """Attributes:
    found: families with the plugin that each comes from.
    broken: by plugin, why it could not be loaded, in one line.
    """

    found: tuple[tuple[str, FamilySpec], ...]
    broken: dict[str, str]


def list_families() -> Families:
    """Families of all installed plugins; one that cannot be loaded hides no other."""
    found: list[tuple[str, FamilySpec]] = []
    broken: dict[str, str] = {}
    for point in entry_points(group=hookspecs.GROUP):
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(point.load(), point.name)
            manager.check_pending()
            offered = [spec for specs in manager.hook.advloss_distill_families() for spec in specs]
            if not offered:
                raise TypeError(
                    "its hook advloss_distill_families, with @advloss_distill.hookimpl, returned no families"
                )
            if wrong := [type(spec).__name__ for spec in offered if not isinstance(spec, FamilySpec)]:
                raise TypeError(f"advloss_distill_families returned a {wrong[0]}; return FamilySpec objects")
        except (Exception, SystemExit) as error:  # whatever a stranger's module does on import
            broken[point.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            found += [(point.name, spec) for spec in offered]
    return Families(tuple(found), broken)


def family_of(pipeline: Any, **options: Any) -> Family:
    """The family of a loaded diffusers pipeline, built for it.

    Args:
        pipeline: its class decides.
        options: of the family, such as ``resolution=512``.

    Raises:
        UnknownComponentError: no family, or more than one, stands for this class.
        PluginError: the family's module cannot be imported.
        OptionError: the pipeline is none to distil, or an option is wrong.
    """
    name, families = type(pipeline).__name__, list_families()
    matches = [(plugin, spec) for plugin, spec in families.found if name in spec.pipelines]
    if len(matches) > 1:
        given = " and ".join(f"{spec.name} of plugin {plugin}" for plugin, spec in matches)
        raise UnknownComponentError(f"a {name} is claimed by the families {given}; uninstall one of the plugins")
    if not matches:
        known = ", ".join(sorted({known for _, spec in families.found for known in spec.pipelines}))
        broken = "".join(f" Plugin {plugin} could not be loaded ({why})." for plugin, why in families.broken.items())
        raise UnknownComponentError(
            f"no family of teachers stands for a {name}; there are some for {known or 'no pipeline at all'}. Implement the "
            "hook advloss_distill_families, in an entry point of the group advloss_distill, that returns a FamilySpec "
            f"for it (docs/pipelines.md).{broken}"
        )
    return _load(*matches[0])(pipeline, **options)


def _load(plugin: str, spec: FamilySpec) -> type[Family]:
    module, _, attribute = spec.target.partition(":")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"family {spec.name!r} of plugin {plugin}: {spec.target} cannot be imported: {error}"
        ) from error
    if not (isinstance(target, type) and issubclass(target, Family)):
        raise OptionError(
            f"family {spec.name!r} of plugin {plugin}: {spec.target} is no subclass of advloss_distill.Family"
        )
    return target
