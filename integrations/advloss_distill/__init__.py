"""Adversarial distillation of diffusion models to 1-4 steps."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
