"""An adversary inside autoencoders: diffusion's first stage, tokenizers, video VAEs."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
