"""Adversarial losses as plugins for other people's models.

Public names load on first use; `__init__.pyi` lists them.
"""

from advloss.lazy import attach_stub

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
