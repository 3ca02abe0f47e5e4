"""The reference generators: shapes, classes, refusals, and styles against convolutions with weights of their own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from advloss import InputError, OptionError
from advloss_gan import GENERATORS, Growth, StyleGenerator, create_generator
from advloss_gan.generators._style import StyledConv

SMALL = {name: {} if name == "mlp" else {"width": 16, "resolution": 16} for name in GENERATORS}


def make(name, **options):
    torch.manual_seed(0)
    return create_generator(name, **{"latent_features": 5, **SMALL[name], **options})


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_and_gradients(name):
    generator = make(name)
    samples = generator(torch.randn(4, 5))
    assert samples.shape == ((4, 2) if name == "mlp" else (4, 3, 16, 16))
    assert samples.isfinite().all()
    samples.square().mean().backward()
    unused = [n for n, p in generator.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize("name", GENERATORS)
def test_the_class_matters(name):
    generator, latent = make(name, num_classes=3).eval(), torch.randn(3, 5)
    first, second = (generator(latent, torch.full((3,), label)) for label in (0, 2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", GENERATORS)
def test_inputs_that_do_not_fit(name):
    with pytest.raises(InputError, match=r"takes \(N, 5\)"):
        make(name)(torch.randn(2, 4))
    with pytest.raises(InputError, match="num_classes="):
        make(name)(torch.randn(2, 5), torch.tensor([0, 1]))
    conditional = make(name, num_classes=3)
    for labels in (None, torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(InputError, match="3 classes"):
            conditional(torch.randn(2, 5), labels)


@pytest.mark.parametrize("name", GENERATORS)
def test_options_that_cannot_be(name):
    with pytest.raises(OptionError, match="latent_features=0"):
        make(name, latent_features=0)
    with pytest.raises(OptionError, match="no option 'wdith'"):
        make(name, wdith=3)
    if name != "mlp":
        for resolution in (4, 28, 48):
            with pytest.raises(OptionError, match=f"resolution={resolution}"):
                make(name, resolution=resolution)


def test_unknown_name():
    with pytest.raises(OptionError, match="there are mlp, dcgan"):
        create_generator("dcgna")


def test_r3gan_width_is_a_multiple():
    with pytest.raises(OptionError, match="multiple of 8"):
        make("r3gan", width=12)


def test_modulation_is_a_convolution_with_weights_of_each_sample():
    """arXiv:1912.04958, equations 1 to 3, written out."""
    torch.manual_seed(0)
    layer = StyledConv(3, 4, 3, side=6, features=5).double().eval()
    nn.init.normal_(layer.strength)
    nn.init.normal_(layer.bias)
    inputs, style = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 5).double()
    scale = style @ (layer.style.weight.T / 5**0.5) + layer.style.bias
    for i in range(2):
        weight = layer.weight / 27**0.5 * scale[i][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        hidden = conv2d(inputs[i : i + 1], weight, padding=1) + layer.strength * layer.noise + layer.bias
        expected = torch.where(hidden > 0, hidden, 0.2 * hidden) * 2**0.5
        torch.testing.assert_close(layer(inputs, style)[i : i + 1], expected)


def test_styles():
    generator, latent = make("style").eval(), torch.randn(3, 5)
    styles = generator.styles(latent)
    each = styles[:, None].repeat(1, generator.layers, 1)
    torch.testing.assert_close(generator.synthesize(styles), generator.synthesize(each), rtol=0, atol=1e-5)
    torch.testing.assert_close(generator.styles(3 * latent), styles)  # the length of z does not count
    changed = each.clone()
    changed[:, -1] += 1
    assert not torch.equal(generator.synthesize(changed), generator.synthesize(each))
    with pytest.raises(InputError, match=r"w\+ \(N, 8, 5\)"):
        generator.synthesize(each[:, 1:])


def test_noise_is_fixed_in_eval_mode():
    generator, latent = make("style"), torch.randn(2, 5)
    for module in generator.modules():
        if isinstance(module, StyledConv) and module.side:
            nn.init.ones_(module.strength)
    assert not torch.equal(generator(latent), generator(latent))
    generator.eval()
    assert torch.equal(generator(latent), generator(latent))


def test_growing():
    """4 x 4 alone, half of 8 x 8, all of it: what does not run yet has no part in the image."""
    generator, latent = make("style").eval(), torch.randn(2, 5)
    assert generator.grown == 3
    whole = generator(latent)
    images = {}
    for grown in (1.0, 1.5, 2.0):
        generator.grown = grown
        images[grown] = generator(latent)
        assert images[grown].shape == whole.shape
    blocks = images[1.0].unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    coarse = images[1.0][:, :, ::4, ::4]
    double = nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(images[1.5][:, :, ::2, ::2], (double + images[2.0][:, :, ::2, ::2]) / 2)


def test_growth_follows_the_step():
    generator = make("style")
    growth, grown = Growth(steps=4), []
    growth.check(generator)
    for step in range(14):
        growth.grow(step, generator)
        grown.append(generator.grown)
    assert grown == [1, 1, 1, 1, 1, 1.5, 2, 2, 2, 2.5, 3, 3, 3, 3]


def test_real_images_are_coarsened_as_the_generator_is():
    generator = StyleGenerator(width=4, resolution=16)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(Growth.coarsen(images, generator), images)
    generator.grown = 1.0
    expected = nn.functional.avg_pool2d(images, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(Growth.coarsen(images, generator), expected)
    generator.grown = 1.25
    pooled = nn.functional.avg_pool2d(images, 2)
    smooth = nn.functional.interpolate(nn.functional.avg_pool2d(images, 4), scale_factor=2.0, mode="bilinear")
    mixed = 0.75 * smooth + 0.25 * pooled
    torch.testing.assert_close(Growth.coarsen(images, generator)[:, :, ::2, ::2], mixed)


def test_growth_that_cannot_be():
    with pytest.raises(OptionError, match="steps=1"):
        Growth(steps=1)
    with pytest.raises(OptionError, match="DCGANGenerator cannot grow"):
        Growth(steps=4).check(make("dcgan"))
