"""Families of diffusers pipelines as teachers. Each is found through the hook that a stranger's plugin implements, too."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
