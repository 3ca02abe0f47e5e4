"""What cannot be right is refused with an error that says so, before any state changes."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from core_tools import SMALL, assert_same, built_in, copied, images, samples, small, snapshot
from torch import Tensor, nn

import advloss

F32 = torch.float32


def image(*shape: int) -> Tensor:
    return torch.zeros(shape or (4, 3, 8, 8)) - 0.5


def of(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: advloss.create_discriminator(name, **options)


plain = of("patch", width=4, depth=1)
classes = of("projection", width=4, resolution=8, num_classes=3)
vectors = of("projection", width=4, resolution=8, condition_features=5)
both = of("projection", width=4, resolution=8, num_classes=3, condition_features=5)
pairs = of("patch", width=4, depth=1, condition_channels=2)
points = of("mlp", in_features=2, width=4)
fixed = of("dcgan", width=4, resolution=8)

# What is wrong: the discriminator, samples of one side or a condition for both, words of the message.
BAD_SAMPLES: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "numpy": (plain, np.zeros((4, 3, 8, 8), np.float32), "are a ndarray; give a torch.Tensor"),
    "list": (plain, [0.0], "are a list; give a torch.Tensor"),
    "uint8": (plain, torch.zeros(4, 3, 8, 8, dtype=torch.uint8), r"torch.uint8.*127.5"),
    "int64": (points, torch.zeros(4, 2, dtype=torch.int64), "torch.int64"),
    "complex": (plain, torch.zeros(4, 3, 8, 8, dtype=torch.complex64), "complex64"),
    "float8": (plain, image().to(torch.float8_e4m3fn), "torch.float8_e4m3fn; give floats of 16"),
    "sparse": (plain, image().to_sparse(), r"in the layout torch.sparse_coo; give a dense tensor: x.to_dense\(\)"),
    "nested": (plain, torch.nested.nested_tensor([image(3, 8, 8)] * 4), "nested; give a dense tensor: pad it"),
    "jagged": (points, torch.nested.nested_tensor([image(2)] * 4, layout=torch.jagged), "nested; give a dense"),
    "channels-last": (plain, image(4, 8, 8, 3), "channels-last.*channels-first"),
    "channels": (plain, image(4, 1, 8, 8), r"\(4, 1, 8, 8\).*\(N, 3, height, width\)"),
    "empty": (plain, image(0, 3, 8, 8), "N >= 1"),
    "no batch": (plain, image(3, 8, 8), r"\(3, 8, 8\).*\(N, 3, height, width\)"),
    "video": (plain, image(4, 3, 2, 8, 8), r"\(N, 3, height, width\)"),
    "scalar": (plain, image(1).squeeze(), "give a batch"),
    "features": (points, image(4, 3), r"\(4, 3\).*\(N, 2\)"),
    "images for vectors": (points, image(4, 2, 8, 8), r"\(N, 2\)"),
    "too small": (plain, image(4, 3, 4, 4), "at least 6"),
    "resolution": (fixed, image(4, 3, 16, 16), "resolution=8"),
}
BAD_CONDITIONS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "missing": (classes, None, "is missing.*num_classes=3"),
    "missing vectors": (vectors, None, "is missing.*condition_features=5"),
    "uninvited": (plain, torch.zeros(4, dtype=torch.int64), "built without one.*condition_channels="),
    "too large": (classes, torch.tensor([0, 1, 2, 3]), "labels 0 to 3; there are classes 0 to 2"),
    "negative": (classes, torch.tensor([0, -1, 2, 1]), "labels -1 to 2"),
    "float labels": (classes, torch.zeros(4), "torch.float32.*class indices"),
    "bool labels": (classes, torch.zeros(4, dtype=torch.bool), "torch.bool.*class indices"),
    "one-hot": (classes, torch.zeros(4, 3, dtype=torch.int64), r"\(4, 3\).*class indices"),
    "count": (classes, torch.zeros(3, dtype=torch.int64), r"\(3,\) for 4 samples"),
    "list of labels": (classes, [0, 1, 2, 0], "is a list; give a torch.Tensor"),
    "vector length": (vectors, torch.zeros(4, 6), "5 vector channels"),
    "image channels": (pairs, image(4, 3, 8, 8), "2 image channels"),
    "short labels": (classes, torch.zeros(4, dtype=torch.int16), "torch.int16.*class indices"),
    "sparse labels": (classes, torch.tensor([0, 1, 2, 0]).to_sparse(), "torch.sparse_coo; give a dense"),
    "nested labels": (classes, torch.nested.nested_tensor([torch.arange(2)] * 4), "is nested; give a dense"),
    "float8 vectors": (vectors, torch.zeros(4, 5).to(torch.float8_e5m2), "torch.float8_e5m2; give floats"),
    "labels elsewhere": (
        classes,
        torch.zeros(4, dtype=torch.int64, device="meta"),
        "is on meta, the discriminator on cpu",
    ),
    "whole vectors": (vectors, torch.zeros(4, 5, dtype=torch.int64), "torch.int64; give floats"),
    "vectors in a row": (vectors, torch.zeros(4, 5, 1), r"\(4, 5, 1\).*5 vector channels"),
    "uint8 image": (pairs, torch.zeros(4, 2, 8, 8, dtype=torch.uint8), "torch.uint8; give floats"),
    "a part missing": (both, {"class": torch.zeros(4, dtype=torch.int64)}, "lacks vector"),
    "one of two": (both, torch.zeros(4, dtype=torch.int64), "give a mapping with class, vector"),
}


def suited(module: nn.Module) -> Tensor:
    return image(4, 2) if hasattr(module, "in_features") else image()


def suited_condition(module: nn.Module) -> Any:
    sizes = {"class": getattr(module, "num_classes", None), "vector": getattr(module, "condition_features", None)}
    parts = {"class": torch.zeros(4, dtype=torch.int64), "vector": torch.zeros(4, 5)}
    found = {kind: parts[kind] for kind, size in sizes.items() if size}
    if getattr(module, "condition_channels", 0):
        found = {"image": image(4, 2, 8, 8)}
    return found or None


def refused(
    adversary: advloss.Adversary, call: Callable[[], Any], message: str, error: Any = advloss.InputError
) -> None:
    before = snapshot(adversary)
    with pytest.raises(error, match=message):
        call()
    assert_same(snapshot(adversary), before)


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_samples(case: str) -> None:
    make, bad, message = BAD_SAMPLES[case]
    adversary = advloss.Adversary(make(), "hinge", ["lecam"], seed=0)
    good = suited(adversary.discriminator)
    refused(adversary, lambda: adversary.generator_loss(bad), f"^fake samples .*{message}")
    refused(adversary, lambda: adversary.generator_loss(good, bad), f"^real samples .*{message}")
    refused(adversary, lambda: adversary.discriminator_step(bad, good), f"^real samples .*{message}")
    refused(adversary, lambda: adversary.discriminator_step(good, bad), f"^fake samples .*{message}")
    refused(adversary, lambda: adversary.discriminator_loss(good, bad), f"^fake samples .*{message}")
    adversary.discriminator_step(good, good)


@pytest.mark.parametrize("case", BAD_CONDITIONS)
def test_bad_conditions(case: str) -> None:
    make, bad, message = BAD_CONDITIONS[case]
    adversary = advloss.Adversary(make(), "hinge", ["lecam"], seed=0)
    good, condition = suited(adversary.discriminator), suited_condition(adversary.discriminator)
    refused(adversary, lambda: adversary.generator_loss(good, None, bad), f"fake condition.*{message}|{message}")
    refused(adversary, lambda: adversary.discriminator_step(good, good, bad), f"real condition.*{message}|{message}")
    if bad is not None:
        step = adversary.discriminator_step
        refused(adversary, lambda: step(good, good, condition, fake_condition=bad), f"fake condition.*{message}")
    adversary.discriminator_step(good, good, condition)


@pytest.mark.parametrize(("make", "shape"), [(vectors, (4, 5)), (pairs, (4, 2, 8, 8))])
def test_conditions_that_are_not_finite(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    adversary = advloss.Adversary(make(), seed=0)
    good, bad = suited(adversary.discriminator), torch.full(shape, torch.nan)
    refused(adversary, lambda: adversary.generator_loss(good, None, bad), "NaN or infinity", advloss.NonFiniteError)
    step = adversary.discriminator_step
    refused(adversary, lambda: step(good, good, bad), "NaN or infinity", advloss.NonFiniteError)


@pytest.mark.parametrize(
    "name", [row.name for row in advloss.list_components("discriminator") if not row.spec.conditions]
)
def test_condition_that_would_be_ignored(name: str) -> None:
    adversary = advloss.Adversary((name, SMALL[name][0]), seed=0)
    labels, good = torch.zeros(4, dtype=torch.int64), samples(name)
    refused(adversary, lambda: adversary.generator_loss(good, None, labels), "takes none")
    refused(adversary, lambda: adversary.discriminator_step(good, good, labels), "takes none")


def test_bad_input_is_refused_before_the_start_step_too() -> None:
    """A script with a mistake fails at its first step, not after days."""
    adversary = advloss.Adversary(plain(), start_step=100_000, seed=0)
    refused(adversary, lambda: adversary.generator_loss(image(4, 8, 8, 3)), "channels-last")
    refused(adversary, lambda: adversary.discriminator_step(image(), image(4, 8, 8, 3)), "channels-last")


@pytest.mark.parametrize("name", ["patch", "projection", "projected"])
def test_samples_made_in_inference_mode(name: str) -> None:
    """A script that samples its model in inference mode gets what it would get without."""
    given = [samples(name) for _ in range(2)]
    labels = torch.tensor([0, 1, 2, 0]) if name == "projection" else None
    with torch.inference_mode():
        made = [tensor.clone() for tensor in given]
        made_labels = None if labels is None else labels.clone()
    plain_one, other = (advloss.Adversary(small(name), "relativistic", ["lecam"], seed=0) for _ in range(2))
    other.load_state_dict(plain_one.state_dict())
    for real, fake, condition, adversary in ((*given, labels, plain_one), (*made, made_labels, other)):
        with torch.inference_mode():
            adversary.generator_loss(fake, real, condition)
        adversary.generator_loss(fake, real, condition)
        adversary.discriminator_step(real, fake, condition)
    assert_same(other.state_dict(), plain_one.state_dict())


@pytest.mark.parametrize(("make", "shape"), [(vectors, (4, 5)), (both, (4, 5)), (pairs, (4, 2, 8, 8))])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_conditions_are_cast_as_samples_are(
    make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    condition: Any = torch.full(shape, 0.5)
    cast: Any = condition.to(dtype)
    if make is both:
        labels = torch.tensor([0, 1, 2, 0])
        condition, cast = {"class": labels, "vector": condition}, {"class": labels, "vector": cast}
    one = advloss.Adversary(make(), "relativistic", seed=0)
    other = advloss.Adversary(copy.deepcopy(one.discriminator), "relativistic", seed=0)
    good = suited(one.discriminator)
    assert torch.equal(one.generator_loss(good, good, condition), other.generator_loss(good, good, cast))
    one.discriminator_step(good, good, condition)
    other.discriminator_step(good, good, cast)
    assert_same(other.state_dict(), one.state_dict())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_step_where_autograd_records_nothing(mode: Any) -> None:
    adversary = advloss.Adversary(plain(), "hinge", seed=0)

    def step() -> None:
        with mode():
            adversary.discriminator_step(image(), image())

    refused(adversary, step, "under torch.no_grad.*call it outside")


def test_real_and_fake_of_different_shapes() -> None:
    adversary = advloss.Adversary(plain(), seed=0)
    message = r"real samples have shape \(4, 3, 8, 8\), fake ones \(4, 3, 8, 16\)"
    refused(adversary, lambda: adversary.discriminator_step(image(), image(4, 3, 8, 16)), message)
    refused(adversary, lambda: adversary.generator_loss(image(4, 3, 8, 16), image()), message)


def test_numbers_of_real_and_fake_may_differ_unless_the_loss_pairs_them() -> None:
    advloss.Adversary(plain(), "hinge", ["r1", "r2"]).discriminator_step(image(), image(2, 3, 8, 8))
    paired = advloss.Adversary(plain(), "relativistic", ["lecam"], seed=0)
    refused(paired, lambda: paired.discriminator_step(image(), image(2, 3, 8, 8)), "as many real as fake")
    refused(paired, lambda: paired.generator_loss(image(2, 3, 8, 8), image()), "as many real as fake")
    refused(paired, lambda: paired.generator_loss(image()), "real")
    penalized = advloss.Adversary(plain(), "wgan-gp", seed=0)
    refused(penalized, lambda: penalized.discriminator_step(image(), image(2, 3, 8, 8)), "gradient penalty")


class Scales(nn.Module):
    """As many scales of logits as the samples have features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor, condition: Any = None) -> list[Tensor]:
        return [self.weight * samples.mean(1)] * (2 if bool((samples > 0).any()) else 1)


def test_logits_that_do_not_match() -> None:
    adversary = advloss.Adversary(Scales(), seed=0)
    refused(adversary, lambda: adversary.discriminator_step(torch.ones(2, 3), -torch.ones(2, 3)), "2 scales")


# -- options and names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"discriminator": "pacth"}, advloss.UnknownComponentError, "Did you mean 'patch'"),
        ({"loss": "hing"}, advloss.UnknownComponentError, "Did you mean 'hinge'"),
        ({"regularizers": ["r3"]}, advloss.UnknownComponentError, "Did you mean 'r"),
        ({"augmentations": "difaugment"}, advloss.UnknownComponentError, "Did you mean 'diffaugment'"),
        ({"loss": "zzzzzz"}, advloss.UnknownComponentError, "There are: hinge"),
        ({"discriminator": ("patch", {"widht": 3})}, advloss.OptionError, "did you mean 'width'"),
        ({"regularizers": {"r1": {"wieght": 3}}}, advloss.OptionError, "did you mean 'weight'"),
        ({"loss": ("hinge", {"zzz": 3})}, advloss.OptionError, "it takes scale"),
        ({"loss": ("hinge", 3)}, advloss.OptionError, "give a mapping"),
        ({"loss": 3}, advloss.OptionError, "give a name, a .name, options. pair, or an object"),
        ({"discriminator": nn.functional.relu}, advloss.OptionError, "torch.nn.Module"),
        ({"regularizers": [3]}, advloss.OptionError, "callable"),
        ({"augmentations": [lambda x: x]}, advloss.OptionError, "torch.nn.Module"),
        ({"regularizers": {"r1": {"weight": -1}}}, advloss.OptionError, "weight=-1"),
        ({"regularizers": {"r1": {"weight": float("inf")}}}, advloss.OptionError, "weight=inf; give a finite number"),
        ({"regularizers": {"r1": {"every": 0}}}, advloss.OptionError, "every=0"),
        ({"regularizers": {"r1": {"every": 1.5}}}, advloss.OptionError, "every=1.5"),
        ({"loss": ("hinge", {"scales": "max"})}, advloss.OptionError, "scales='max'"),
        ({"regularizers": {"r1": {"inputs": "features"}}}, advloss.CombinationError, "inputs='samples'"),
        ({"discriminator": ("mlp", {}), "augmentations": "diffaugment"}, advloss.CombinationError, "instance-noise"),
    ],
)
def test_names_and_options_that_cannot_be_built(arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        advloss.Adversary(**{"discriminator": plain(), **arguments})
    assert isinstance(raised.value, advloss.AdvlossError)


def test_second_order_terms_are_refused_where_there_is_no_double_backward() -> None:
    small_dino = ("dino", {"backbone": "test_vit", "pretrained": False, "resolution": 32, "blocks": (0,)})
    with pytest.raises(advloss.CombinationError, match="inputs='features' or method='finite-difference'"):
        advloss.Adversary(small_dino, regularizers=["r1"])
    for way_out in ({"inputs": "features"}, {"method": "finite-difference"}):
        adversary = advloss.Adversary(small_dino, "hinge", {"r1": way_out})
        assert not adversary.discriminator_step(samples("dino"), samples("dino")).skipped


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_every_discriminator_says_what_it_takes(name: str) -> None:
    """Channels or features of a wrong number are refused by the core, not by a convolution's own words."""
    discriminator = small(name)
    adversary = advloss.Adversary(discriminator, seed=0)
    wrong = torch.cat([samples(name), samples(name)[:, :1]], 1)
    condition = torch.zeros(4, dtype=torch.int64) if name == "projection" else None
    refused(adversary, lambda: adversary.discriminator_step(wrong, wrong, condition), "samples have shape")


# -- the range ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["generator_loss", "discriminator_step", "discriminator_loss"])
@pytest.mark.parametrize(("scale", "seen"), [(1.0, r"\[0, 1\]"), (255.0, r"\[0, 255\]")])
def test_images_that_are_not_in_range_warn_once(scale: float, seen: str, first: str) -> None:
    adversary = advloss.Adversary(("patch", {"width": 4, "depth": 1}), seed=0)
    unit = torch.rand(4, 3, 8, 8) * scale
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(adversary, first)(unit, unit)
        for _ in range(3):
            adversary.generator_loss(unit, unit)
            adversary.discriminator_step(unit, unit)
    (warning,) = caught
    assert re.search(f"look like {seen}.*scale them", str(warning.message))
    assert warning.filename == __file__


def test_images_in_range_vectors_and_own_modules_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = advloss.Adversary(("patch", {"width": 4, "depth": 1}), seed=0)
        named.discriminator_step(images(dtype=F32), images(dtype=F32))
        advloss.Adversary("mlp").discriminator_step(torch.rand(4, 2), torch.rand(4, 2))
        own = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
        advloss.Adversary(own).discriminator_step(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8))


def test_inputs_are_never_changed() -> None:
    given = (image(), image())
    before = copied(given)
    with pytest.raises(advloss.InputError):
        advloss.Adversary(plain()).discriminator_step(given[0], given[1][:, :1])
    assert_same(given, before)
