"""The generators by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from advloss import OptionError
from advloss_gan.generators._dcgan import DCGANGenerator
from advloss_gan.generators._mlp import MLPGenerator
from advloss_gan.generators._r3gan import R3GANGenerator
from advloss_gan.generators._resnet import ResNetGenerator
from advloss_gan.generators._style import StyleGenerator

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLPGenerator,
    "dcgan": DCGANGenerator,
    "resnet": ResNetGenerator,
    "style": StyleGenerator,
    "r3gan": R3GANGenerator,
}


def create_generator(name: str, **options: Any) -> nn.Module:
    """The generator of this name (`GENERATORS`), with its options.

    Raises:
        OptionError: there is none of this name, or it has no such option.
    """
    if name not in GENERATORS:
        raise OptionError(f"generator {name!r}: there are {', '.join(GENERATORS)}")
    known = inspect.signature(GENERATORS[name]).parameters
    for option in options:
        if option not in known:
            raise OptionError(f"generator {name!r} has no option {option!r}; it has {', '.join(known)}")
    return GENERATORS[name](**options)
