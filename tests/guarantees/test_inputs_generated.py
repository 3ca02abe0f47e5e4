"""Guarantee 10: what cannot be right is a named error before any state changes, and no other exception.

The classes of bad input, one by one with their messages, are in tests/core/test_inputs.py; here they are generated.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from core_tools import assert_same, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import advloss

DISCRIMINATORS: list[tuple[str, dict[str, Any]]] = [
    ("patch", {"width": 2, "depth": 1}),
    ("patch", {"width": 2, "depth": 1, "dims": 1, "norm": "none"}),
    ("patch", {"width": 2, "depth": 1, "condition_channels": 2, "norm": "spectral"}),
    ("mlp", {"in_features": 3, "width": 2}),
    ("mlp", {"in_features": 3, "width": 2, "num_classes": 3}),
    ("projection", {"width": 2, "resolution": 8, "num_classes": 3, "condition_features": 4}),
    ("dcgan", {"width": 2, "resolution": 8}),
    ("stylegan2", {"width": 2, "resolution": 8}),
    ("unet", {"width": 2}),
]
LOSSES = ["hinge", "relativistic", "relativistic-average"]
REGULARIZERS = [[], ["lecam"], ["r1"], ["gradient-penalty"]]

dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64]
)
sides = st.sampled_from([0, 1, 2, 3, 4, 8, 9, 16])
shapes = st.one_of(
    st.sampled_from([(4, 3, 8, 8), (2, 3, 8, 8), (4, 3), (4, 3, 8), (4, 8, 8, 3), (4, 3, 16, 16), (4,), ()]),
    st.lists(sides, max_size=5).map(tuple),
)
values = st.sampled_from([0.5, -0.5, 1.0, 200.0, float("nan"), float("inf"), 1e30])
tensors = st.builds(lambda shape, dtype, value: filled(shape, dtype, value), shapes, dtypes, values)
strangers = st.sampled_from(
    [None, 1, "image", [0.0], (), {}, np.zeros((4, 3, 8, 8), np.float32), torch.nn.Linear(1, 1)]
)
samples = st.one_of(tensors, tensors, tensors, strangers)
labels = st.one_of(
    st.none(),
    st.lists(st.integers(-2, 5), min_size=0, max_size=5).map(lambda x: torch.tensor(x, dtype=torch.int64)),
    tensors,
    strangers,
)
conditions = st.one_of(
    labels, st.dictionaries(st.sampled_from(["class", "vector", "image", "time", "text"]), labels, max_size=3)
)


def filled(shape: tuple[int, ...], dtype: torch.dtype, value: float) -> torch.Tensor:
    whole = dtype in (torch.uint8, torch.int64, torch.bool)
    return torch.full(shape, (1 if value != value or abs(value) > 255 else abs(int(value))) if whole else value).to(
        dtype
    )


def check(which: int, loss: str, regularizers: list[str], real: Any, fake: Any, condition: Any, other: Any) -> None:
    """Each call either works or raises an AdvlossError and has changed nothing."""
    torch.manual_seed(0)
    adversary = advloss.Adversary(DISCRIMINATORS[which], loss, regularizers, seed=0)
    calls = [
        lambda: adversary.generator_loss(fake, real, condition, real_condition=other),
        lambda: adversary.discriminator_step(real, fake, condition, fake_condition=other),
        lambda: adversary.discriminator_loss(real, fake, condition, fake_condition=other),
    ]
    for call in calls:
        before = snapshot(adversary)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refused = None
            try:
                call()
            except advloss.AdvlossError as error:
                refused = error
        if refused is not None:
            assert len(str(refused)) > 20
            assert_same(snapshot(adversary), before)


case = given(
    which=st.integers(0, len(DISCRIMINATORS) - 1),
    loss=st.sampled_from(LOSSES),
    regularizers=st.sampled_from(REGULARIZERS),
    real=samples,
    fake=samples,
    condition=conditions,
    other=st.one_of(st.none(), conditions),
)
common = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)


@settings(common, max_examples=150)
@case
def test_any_input_is_taken_or_refused_by_name(**case: Any) -> None:
    check(**case)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(common, max_examples=10_000)
@case
def test_any_of_ten_thousand_inputs_is_taken_or_refused_by_name(**case: Any) -> None:
    check(**case)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("unet", {"width": 2}, (4, 3, 8, 8)),
        ("vgg", {"width": 2, "resolution": 8}, (4, 3, 8, 8)),
        ("spectral-norm", {"width": 2, "resolution": 8}, (4, 3, 8, 8)),
        ("stylegan2", {"width": 2, "resolution": 8}, (4, 3, 8, 8)),
    ],
)
def test_an_object_is_held_to_what_its_spec_says(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    """A condition that would be ignored in silence is refused, by name and as an object alike."""
    good, classes = torch.rand(shape) * 2 - 1, torch.zeros(4, dtype=torch.int64)
    for discriminator in ((name, options), advloss.create_discriminator(name, **options)):
        adversary = advloss.Adversary(discriminator, seed=0)
        with pytest.raises(advloss.InputError, match="condition is given"):
            adversary.discriminator_step(good, good, classes)
