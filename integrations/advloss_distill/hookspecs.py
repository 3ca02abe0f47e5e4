"""The hook of the entry-point group ``advloss_distill``: families of teachers. None runs in a training step."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from advloss_distill._family_spec import FamilySpec

GROUP = "advloss_distill"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def advloss_distill_families() -> Iterable[FamilySpec]:
    """Families of teachers: how the network of a diffusers pipeline is called."""
    raise AssertionError("a hook specification is never called")
