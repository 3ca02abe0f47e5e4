"""What a plugin says about a family of teachers, as plain data: no torch is imported here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from advloss import OptionError

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """A family of teachers.

    Attributes:
        name: lower case with hyphens, for example ``"stable-diffusion-xl"``.
        pipelines: class names of the diffusers pipelines that it stands for.
        target: ``"module:Class"``, a `Family`; imported when a pipeline of these is found.
        summary: one line.
    """

    name: str
    pipelines: tuple[str, ...]
    target: str
    summary: str

    def __post_init__(self) -> None:
        if not isinstance(self.pipelines, tuple) or not all(isinstance(name, str) for name in self.pipelines):
            raise OptionError(f"family {self.name!r}: pipelines={self.pipelines!r}; give a tuple of class names")
        if not isinstance(self.target, str) or not _TARGET.fullmatch(self.target):
            raise OptionError(f"family {self.name!r}: target={self.target!r}; give 'package.module:Class'")
