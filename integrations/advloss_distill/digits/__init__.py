"""A domain that needs no download: scikit-learn's digits, with a teacher to train and a judge of its own."""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
