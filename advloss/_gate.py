"""The checks that an adversary's samples pass before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advloss import _inputs
from advloss._condition import Condition
from advloss.specs import DiscriminatorSpec, Spec


class Gate:
    """Knows what a discriminator takes, from its attributes and its spec.

    Args:
        discriminator: whose samples are checked.
        spec: its spec, or None for a module of the user's own.
        channels_last: whether the discriminator takes samples in that memory format; it is put into it here.
    """

    def __init__(self, discriminator: nn.Module, spec: Spec | None, channels_last: bool = False) -> None:
        self.discriminator = discriminator
        self._channels_last = channels_last
        if channels_last:
            discriminator.to(memory_format=torch.channels_last)
        declared = isinstance(spec, DiscriminatorSpec)
        self._unconditional = declared and not spec.conditions  # type: ignore[union-attr]
        self._warns = declared and spec.value_range == (-1.0, 1.0)  # type: ignore[union-attr]

    def check(self, name: str, samples: Tensor, condition: Condition | None, device: torch.device) -> None:
        """Raise InputError unless `samples` and their `condition` suit the discriminator on `device`."""
        _inputs.check_samples(name, samples, self.discriminator)
        _inputs.check_device(name, samples, device)
        _inputs.check_condition(name, condition, len(samples), self.discriminator, self._unconditional)

    def cast(self, samples: Tensor, condition: Condition | None, dtype: torch.dtype) -> tuple[Tensor, Condition | None]:
        """Samples and condition in the discriminator's `dtype`, in tensors that autograd can keep."""
        samples = _inputs.cast(samples, dtype)
        if self._channels_last and samples.ndim == 4:
            samples = samples.contiguous(memory_format=torch.channels_last)
        return samples, _inputs.cast_condition(condition, self.discriminator, dtype)

    def check_real(self, real: Tensor, fake: Tensor) -> None:
        """Raise InputError unless real and fake samples match; warn once about images in a range that looks wrong."""
        _inputs.check_pair(real, fake)
        if self._warns and real.ndim == 4:
            _inputs.warn_about_range(real)
        self._warns = False

    def check_finite(self, processes: int, **given: tuple[Tensor, Condition | None]) -> None:
        """Raise NonFiniteError, where reading a value costs no synchronization and leaves no other process waiting."""
        for name, (samples, condition) in given.items():
            if processes == 1 and samples.device.type == "cpu":
                _inputs.check_finite(name, samples)
                _inputs.check_finite_condition(name, condition)
