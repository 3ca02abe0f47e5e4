"""Methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from advloss import OptionError
from advloss_distill._memory import Judged
from advloss_distill.methods._add import add
from advloss_distill.methods._adversarial import adversarial
from advloss_distill.methods._dmd2 import dmd2
from advloss_distill.methods._ladd import ladd
from advloss_distill.methods._lcm import lcm, lcm_ladd
from advloss_distill.methods._setup import Method, Setup

METHODS: dict[str, Callable[..., Method]] = {
    "ladd": ladd,
    "add": add,
    "adversarial": adversarial,
    "dmd2": dmd2,
    "lcm": lcm,
    "lcm-ladd": lcm_ladd,
}


def build_method(name: str, setup: Setup, **options: Any) -> Method:
    """The method of this name.

    Args:
        options: of the method's function.

    Raises:
        OptionError: there is no such method, it takes no such option, or it does not fit the family.
        UnknownComponentError, PluginError, CombinationError: a component cannot be built.
    """
    if name not in METHODS:
        raise OptionError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    takes = [option for option in inspect.signature(METHODS[name]).parameters if option != "setup"]
    if strange := [option for option in options if option not in takes]:
        raise OptionError(f"the method {name} takes no {', '.join(strange)}; it takes {', '.join(takes)}")
    return METHODS[name](setup, **options)


def memory_options(name: str, **options: Any) -> dict[str, Any]:
    """What `estimate_memory` is to know of the method and its options."""
    by: dict[str, Judged] = {"lcm": "nothing", "dmd2": "copy", "add": "images", "adversarial": "nothing"}
    judged_by = "images" if options.get("pixels") else by.get(name, "teacher")
    return {"judged_by": judged_by, "crop": options.get("crop"), "chunk": options.get("chunk")}
