"""What advloss raises. Every message says what is wrong, what was given and what to do."""

from __future__ import annotations


class AdvlossError(Exception):
    """Base of every error that advloss raises on purpose."""


class UnknownComponentError(AdvlossError, LookupError):
    """No component has this name, or more than one has."""


class OptionError(AdvlossError, TypeError):
    """A component was given an option that it does not take, or a value that it cannot use."""


class InputError(AdvlossError, ValueError):
    """Samples, conditions or logits that cannot be right. Raised before any state changes."""


class CombinationError(AdvlossError, ValueError):
    """Components that cannot work together; the message names the nearest combination that can."""


class PluginError(AdvlossError, ImportError):
    """A plugin, or the component that it promises, could not be loaded."""


class NonFiniteError(AdvlossError, FloatingPointError):
    """NaN or infinity where training cannot go on; the message names the tensor."""


class StateError(AdvlossError, ValueError):
    """Saved state that does not fit. Raised before any state changes."""


class LogError(AdvlossError, ValueError):
    """A run's log, or its samples, that cannot be read as such."""
