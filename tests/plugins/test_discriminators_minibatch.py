"""Minibatch discrimination: against loops over pairs, and before the last layer of every discriminator here."""

import math

import pytest
import torch
from core_tools import SMALL, built_in, condition_for, samples, small
from torch import nn

from advloss import OptionError, as_scales, create_discriminator
from advloss_discriminators import MinibatchDiscrimination, MinibatchDiscriminator


def textbook(features, matrix, kernels, size):
    count = len(features)
    result = torch.zeros(count, kernels, dtype=features.dtype)
    for i in range(count):
        for j in range(count):
            for b in range(kernels):
                rows = matrix[b * size : (b + 1) * size]
                distance = sum(abs(float((row @ (features[i] - features[j])).detach())) for row in rows)
                result[i, b] += 0.0 if i == j else math.exp(-distance)
    return result


def test_lock_step():
    torch.manual_seed(0)
    layer, features = MinibatchDiscrimination(6, kernels=3, kernel_features=2).double(), torch.randn(5, 6).double()
    torch.testing.assert_close(layer(features), textbook(features, layer.project.weight, 3, 2))
    torch.testing.assert_close(layer(features[:1].expand(4, 6)), torch.full((4, 3), 3.0).double())
    assert torch.equal(layer(features[:1]), torch.zeros(1, 3).double())


def test_it_is_the_papers_concatenation():
    """A last dense layer over features and nearness together."""
    torch.manual_seed(0)
    inner = create_discriminator("mlp", width=4)
    module = MinibatchDiscriminator(discriminator=inner, kernels=3)
    nn.init.normal_(module.dense.weight)
    points = torch.randn(5, 2)
    features = inner.layers(points)
    last = nn.Linear(4 + 3, 1)
    last.weight.data = torch.cat([inner.dense.weight, module.dense.weight], dim=1)
    last.bias.data = inner.dense.bias.data
    expected = last(torch.cat([features, module.compare(features)], dim=1)).squeeze(1)
    torch.testing.assert_close(module(points), expected)


@pytest.mark.parametrize("name", [name for name in built_in("discriminator") if name != "minibatch"])
def test_every_discriminator_can_take_it(name):
    """At first it changes nothing; afterwards a sample's logits depend on the others of its batch."""
    torch.manual_seed(0)
    module = MinibatchDiscriminator(discriminator=small(name), kernels=4).eval()
    batch, condition = samples(name), condition_for(name)
    arguments = (batch,) if condition is None else (batch, condition)
    with torch.no_grad():
        for ours, inner in zip(as_scales(module(*arguments)), as_scales(module.inner(*arguments))):
            assert torch.equal(ours, inner)
        nn.init.ones_(module.dense.weight)
        alike = [scale[0] for scale in as_scales(module(batch[:1].expand_as(batch), *arguments[1:]))]
        apart = [scale[0] for scale in as_scales(module(*arguments))]
    assert all(not torch.equal(one, other) for one, other in zip(alike, apart))


def test_what_the_inner_one_takes_is_known():
    module = MinibatchDiscriminator(discriminator=("projection", SMALL["projection"][0]))
    assert (module.dims, module.in_channels, module.resolution, module.num_classes) == (2, 3, 8, 3)
    assert module.layer == "dense"


@pytest.mark.parametrize(
    "options", [{"layer": "nowhere"}, {"layer": "layers"}, {"kernels": 0}, {"discriminator": nn.Flatten()}]
)
def test_bad_options(options):
    with pytest.raises(OptionError):
        MinibatchDiscriminator(**options)
