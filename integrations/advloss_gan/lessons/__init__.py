"""What goes wrong in GAN training and what helps, each as a small experiment with a known outcome.

Public names load on first use; `__init__.pyi` lists them.
"""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
