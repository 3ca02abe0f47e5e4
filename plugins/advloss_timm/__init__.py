"""Discriminators on frozen, pretrained image features from timm (``pip install "advloss[timm]"``)."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
