"""The student with averaged weights, without a copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from advloss import OptionError
from advloss_distill._family import bare
from advloss_distill._sharded import NO_AVERAGE


@final
class Averaged(nn.Module):
    """Calls a student with other values in place of its trained parameters, and reads whatever else it has.

    Args:
        student: unwrapped.
        values: in the order of its parameters that require gradients, for example `EMAModel.shadow_params`.
    """

    def __init__(self, student: nn.Module, values: Sequence[Tensor]) -> None:
        super().__init__()
        self._sharded = any(isinstance(value, DTensor) for value in values)
        names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
        self._student = (student,)  # in a tuple: no part of this module, but for `parameters`
        self._values = dict(zip(names, values, strict=True))

    @property
    def config(self) -> Any:
        return bare(self._student[0]).config

    def parameters(self, recurse: bool = True) -> Any:
        return self._student[0].parameters(recurse)

    @torch.no_grad()
    def forward(self, *args: Any, **options: Any) -> Any:
        if self._sharded:
            raise OptionError(NO_AVERAGE)
        return functional_call(self._student[0], self._values, args, options)
