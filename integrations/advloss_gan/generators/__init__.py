"""Reference generators: ``generator(latent)``, or ``generator(latent, labels)`` for one with classes.

Public names load on first use; `__init__.pyi` lists them.
"""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
