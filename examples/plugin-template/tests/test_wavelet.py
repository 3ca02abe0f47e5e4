"""What the specs declare holds: three lines a component. Below, what only this plugin knows about itself."""

import torch

from advloss.testing import DiscriminatorTests, LossTests, PluginTests
from advloss_wavelet._discriminator import haar


class TestPlugin(PluginTests):
    name = "wavelet"


class TestDiscriminator(DiscriminatorTests):
    name = "wavelet/wavelet"


class TestLoss(LossTests):
    name = "wavelet/wavelet-smooth"


def test_haar_keeps_energy():
    images = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    bands = haar(images)
    assert bands.shape == (2, 12, 4, 3)
    torch.testing.assert_close(bands.square().sum(), images.square().sum())
