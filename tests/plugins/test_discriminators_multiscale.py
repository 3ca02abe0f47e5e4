"""The pyramid: what is pooled, what is not, and for which discriminators it can be built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import advloss_discriminators as plugin
from advloss import InputError, OptionError
from advloss_discriminators import MultiscaleDiscriminator

PATCH = ("patch", {"width": 2, "depth": 1, "norm": "none"})


class Recorder(nn.Module):
    """Says what it was given, and nothing of what it takes."""

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.seen = samples, condition
        return samples.flatten(1).mean(1)


def halved(images: Tensor) -> Tensor:
    return avg_pool2d(images, 3, 2, 1, count_include_pad=False)


def test_levels_see_halves_and_quarters() -> None:
    module = MultiscaleDiscriminator(discriminator=PATCH)
    images = torch.randn(2, 3, 33, 24)
    expected = [
        module.levels[0](images),
        module.levels[1](halved(images)),
        module.levels[2](halved(halved(images))),
    ]
    for ours, theirs in zip(module(images), expected):
        torch.testing.assert_close(ours, theirs)
    assert not torch.equal(module.levels[0].layers[0].weight, module.levels[1].layers[0].weight)


def test_constant_images_stay_constant_at_the_edges() -> None:
    module = MultiscaleDiscriminator(discriminator=Recorder)
    module(torch.ones(1, 3, 9, 9))
    assert all(torch.equal(level.seen[0], torch.ones_like(level.seen[0])) for level in module.levels)


def test_images_among_conditions_are_pooled_and_others_are_not() -> None:
    module = MultiscaleDiscriminator(discriminator=Recorder, scales=2)
    samples, image, vector = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8), torch.randn(2, 5)
    module(samples, {"image": image, "vector": vector})
    seen = module.levels[1].seen[1]
    assert torch.equal(seen["image"], halved(image))
    assert seen["vector"] is vector
    module(samples, image)
    assert torch.equal(module.levels[1].seen[1], halved(image))
    module(samples, vector)
    assert module.levels[1].seen[1] is vector


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("scales", [1, 2])
def test_smallest_size(dims: int, scales: int) -> None:
    module = MultiscaleDiscriminator(
        discriminator=("patch", {"width": 2, "depth": 1, "dims": dims, "condition_channels": 1}), scales=scales
    )
    assert (module.smallest, module.dims, module.condition_channels) == ({1: 6, 2: 11}[scales], dims, 1)
    for side in (module.smallest, module.smallest + 1):
        logits = module(torch.randn(1, 3, *[side] * dims), torch.randn(1, 1, *[side] * dims))
        assert [len(scale) for scale in logits] == [1] * scales
    side = module.smallest - 1
    with pytest.raises((RuntimeError, ValueError)):  # torch's, by layer
        module(torch.randn(1, 3, *[side] * dims), torch.randn(1, 1, *[side] * dims))


def test_each_level_is_built_for_its_resolution() -> None:
    inner = ("projection", {"width": 2, "resolution": 32, "num_classes": 3})
    module = MultiscaleDiscriminator(discriminator=inner, scales=3)
    assert [level.resolution for level in module.levels] == [32, 16, 8]
    assert (module.resolution, module.num_classes, module.batch_coupled) == (32, 3, False)
    assert [scale.shape for scale in module(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))] == [(2,)] * 3
    with pytest.raises(OptionError, match="resolution=4"):
        MultiscaleDiscriminator(discriminator=inner, scales=4)


def test_what_the_inner_one_does_not_declare_is_not_declared() -> None:
    module = MultiscaleDiscriminator(discriminator=Recorder)
    assert not any(hasattr(module, name) for name in ("dims", "in_channels", "smallest", "resolution", "num_classes"))
    assert module.batch_coupled is False
    assert MultiscaleDiscriminator(discriminator=("patch", {"width": 2})).batch_coupled is True


ONE = Recorder()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": 0}, "scales=0"),
        ({"discriminator": 3}, "give a name"),
        ({"discriminator": ("patch", 3)}, "give a name"),
        ({"discriminator": ("patch", {"no": 3})}, "no option 'no'"),
        ({"discriminator": "mlp"}, "takes vectors"),
        ({"discriminator": Recorder()}, "makes a new one"),
        ({"discriminator": lambda: ONE}, "one module twice"),
        ({"discriminator": lambda: 3}, "returned a int"),
        ({"discriminator": lambda: plugin.VGGDiscriminator(width=2, resolution=8)}, "one resolution only"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        MultiscaleDiscriminator(**options)


def test_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="no scales"):
        MultiscaleDiscriminator(discriminator=Recorder)(torch.zeros(2, 3))
