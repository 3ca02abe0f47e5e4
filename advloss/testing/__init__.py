"""The conformance kit: what a spec declares, checked in both directions.

A plugin's test module has three lines a component, and runs under plain pytest::

    class TestWavelet(DiscriminatorTests):
        name = "wavelet"

`advloss check wavelet` runs the same checks on what is installed.
"""

from advloss.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
