"""Discriminators around others: options that are given beside the inner one are the inner one's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advloss import OptionError, create_discriminator

PROJECTION: dict[str, Any] = {"width": 2, "architecture": "convolutional", "norm": "none"}
INSIDE = {"resolution": 16, "num_classes": 3, "in_channels": 4}
CASES = {
    "multiscale": ({"scales": 2}, INSIDE),
    "minibatch": ({}, INSIDE),
    "pixel-unshuffle": ({"factor": 2, "in_channels": 4}, {"resolution": 8, "num_classes": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_beside_is_as_good_as_inside(name: str) -> None:
    own, inside = CASES[name]
    beside = {option: value for option, value in INSIDE.items() if option not in own}
    made = []
    for inner, outer in ((inside, {}), ({}, beside)):
        torch.manual_seed(0)
        made.append(create_discriminator(name, discriminator=("projection", {**PROJECTION, **inner}), **own, **outer))
    samples, condition = torch.randn(2, 4, 16, 16), {"class": torch.tensor([0, 2])}
    expected, logits = (module(samples, condition) for module in made)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"discriminator": ("projection", {"num_classes": 3}), "num_classes": 4},
            "num_classes: given to 'projection' and",
        ),
        ({"discriminator": "projection", "num_classses": 4}, "'projection' has no option 'num_classses'"),
        (
            {"discriminator": 3, "num_classes": 4},
            "give a name or a .name, options. pair; num_classes can be given to no",
        ),
        ({"discriminator": lambda: None, "num_classes": 4}, "num_classes can be given to no other kind"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        create_discriminator(name, **options)


def test_a_resolution_that_is_none() -> None:
    with pytest.raises(OptionError, match="resolution='large'"):
        create_discriminator("pixel-unshuffle", discriminator="projection", resolution="large")
