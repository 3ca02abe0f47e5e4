"""An adversary inside super-resolution, restoration and translation: networks from images to images."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
