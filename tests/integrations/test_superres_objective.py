"""The objective beside its terms written out, with and without an adversary; the image pool."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from superres_tools import PATCH, adversary
from torch import Tensor, nn
from torch.nn.functional import interpolate

from advloss import Adversary, CombinationError, FeatureMatching, InputError, OptionError
from advloss_superres import ImagePool, Objective, charbonnier, resize


def batch(side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """What is made, the originals and what was given."""
    made, originals = (torch.rand(2, 3, side, side) * 2 - 1 for _ in range(2))
    return made.requires_grad_(), originals, torch.rand(2, 3, side // 2, side // 2) * 2 - 1


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ("l1", lambda a, b: (a - b).abs().mean()),
        ("l2", lambda a, b: (a - b).pow(2).mean()),
        ("charbonnier", lambda a, b: ((a - b).pow(2) + 1e-6).sqrt().mean()),
        (lambda a, b: (a - b).pow(4).mean(), lambda a, b: (a - b).pow(4).mean()),
    ],
)
def test_a_psnr_phase_is_its_pixel_loss(pixel: Any, expected: Any) -> None:
    made, originals, given = batch()
    objective = Objective(pixel=pixel, pixel_weight=3.0)
    losses = objective(made, originals, given)
    torch.testing.assert_close(losses.pixel, expected(made, originals))
    torch.testing.assert_close(losses.total, 3 * losses.pixel)
    assert set(losses.as_dict()) == {"total", "pixel"}
    assert objective.discriminator_step(made, originals, given) is None


def test_charbonnier_is_smooth_at_zero() -> None:
    made = torch.zeros(1, requires_grad=True)
    charbonnier(made, torch.zeros(1)).backward()
    assert float(made.grad) == 0


@pytest.mark.parametrize("loss", ["relativistic", "hinge"])
def test_the_whole_is_the_sum_of_its_weighted_terms(loss: str) -> None:
    made, originals, given = batch()
    judge, twin = (adversary(loss=loss, regularizers=(), weight=0.3) for _ in range(2))
    objective = Objective(
        judge,
        pixel_weight=0.01,
        perceptual=lambda a, b: (a - b).square().flatten(1).mean(1),
        perceptual_weight=2.0,
        feature_matching=5.0,
    )
    losses = objective(made, originals, given)
    seen: list[Tensor] = []
    convolutions = [m for m in twin.discriminator.modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions[:-1]:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    twin.discriminator(made)
    twin.discriminator(originals)
    half = len(seen) // 2
    matching = sum((a - b.detach()).abs().mean() for a, b in zip(seen[:half], seen[half:], strict=True)) / half
    adversarial = twin.generator_loss(made, originals)
    perceptual = (made - originals).square().mean()
    torch.testing.assert_close(losses.feature_matching, matching)
    torch.testing.assert_close(losses.adversarial, adversarial)
    expected = 0.01 * (made - originals).abs().mean() + 2 * perceptual + adversarial + 5 * matching
    torch.testing.assert_close(losses.total, expected)
    (gradient,) = torch.autograd.grad(losses.total, [made], retain_graph=True)
    (slow,) = torch.autograd.grad(expected, [made])
    torch.testing.assert_close(gradient, slow)
    assert all(parameter.grad is None for parameter in judge.discriminator.parameters())


def test_feature_matching_reads_what_a_paired_loss_has_looked_at() -> None:
    made, originals, _ = batch()
    for loss, forwards in (("relativistic", 2), ("hinge", 2)):
        judge, calls = adversary(loss=loss, regularizers=()), []
        judge.discriminator.register_forward_hook(lambda *unused, calls=calls: calls.append(1))
        FeatureMatching(judge)(made, originals)
        assert len(calls) == forwards


def test_before_the_start_step_the_adversary_is_silent() -> None:
    made, originals, given = batch()
    objective = Objective(adversary(start_step=1), feature_matching=1.0)
    losses = objective(made, originals, given)
    assert float(losses.adversarial) == 0
    assert losses.feature_matching is None
    torch.testing.assert_close(losses.total, losses.pixel)
    objective.discriminator_step(made, originals, given)
    assert objective(made, originals, given).feature_matching is not None


def test_a_conditional_discriminator_sees_what_the_network_was_given() -> None:
    made, originals, given = batch()
    seen: list[Tensor] = []

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(6, 1, 3)

        def forward(self, samples: Tensor, condition: Tensor) -> Tensor:
            seen.append(condition.detach())
            return self.layer(torch.cat([samples, condition], 1))

    objective = Objective(Adversary(Looking(), "hinge"), conditional=True)
    objective(made, originals, given)
    objective.discriminator_step(made, originals, given)
    assert len(seen) >= 2
    expected = resize(given, (16, 16))
    torch.testing.assert_close(expected, interpolate(given, scale_factor=2, mode="bicubic", antialias=True))
    assert all(torch.equal(condition, expected) for condition in seen)
    objective(made, originals, originals)
    assert torch.equal(seen[-1], originals)
    patch = Adversary(("patch", {"width": 4, "depth": 1, "norm": "none", "condition_channels": 3}), "hinge")
    assert Objective(patch, conditional=True).discriminator_step(made, originals, given).loss is not None


@pytest.mark.parametrize(
    ("name", "options"), [("esrgan", {"resolution": 16, "width": 2}), ("real-esrgan", {"width": 2}), ("pix2pix", {})]
)
def test_recipes_of_the_papers(name: str, options: dict[str, Any]) -> None:
    options.pop("width", None)
    made, originals, given = batch(32 if name == "pix2pix" else 16)
    objective = Objective(Adversary.from_recipe(name, **options), conditional=name == "pix2pix")
    objective(made, originals, given).total.backward()
    report = objective.discriminator_step(made, originals, given)
    assert report is not None
    assert bool(report.loss.isfinite())
    assert float(made.grad.abs().sum()) > 0


def test_a_network_of_another_scale_is_named() -> None:
    made, originals, given = batch()
    with pytest.raises(InputError, match="its scale is not that of the data"):
        Objective()(made[..., :8], originals, given)


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="pixel='l3'"):
        Objective(pixel="l3")  # type: ignore[arg-type]
    for option in ({"feature_matching": 1.0}, {"conditional": True}):
        with pytest.raises(OptionError, match="give an adversary too"):
            Objective(**option)  # type: ignore[arg-type]
    with pytest.raises(CombinationError, match="leave the augmentations out"):
        Objective(Adversary(PATCH, augmentations="diffaugment"), feature_matching=1.0)
    with pytest.raises(CombinationError, match="no inner convolution"):
        Objective(Adversary(nn.Sequential(nn.Flatten(), nn.Linear(4, 1))), feature_matching=1.0)


@pytest.mark.parametrize(
    "options",
    [{"pixel_weight": float("nan")}, {"perceptual_weight": -1.0}, {"feature_matching": "10"}, {"pixel_weight": True}],
)
def test_weights_that_no_objective_has(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(options))}=.*give a finite number"):
        Objective(Adversary(PATCH), **options)


def test_pixel_losses_are_scalars() -> None:
    with pytest.raises(InputError, match=r"the pixel loss is of shape \(.*return a scalar"):
        Objective(pixel=lambda a, b: (a - b).abs())(*batch())
    with pytest.raises(InputError, match="the pixel loss is a float"):
        Objective(pixel=lambda a, b: 0.5)(*batch())  # type: ignore[arg-type, return-value]


def test_a_perceptual_module_is_frozen() -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, made: Tensor, originals: Tensor) -> Tensor:
            return (self.layer(made) - self.layer(originals)).square().mean()

    network, (made, originals, given) = Distance(), batch()
    Objective(perceptual=network)(made, originals, given).total.backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert float(made.grad.abs().sum()) > 0


def test_the_pool_returns_new_and_kept_images() -> None:
    pool, before = ImagePool(4, seed=0), torch.get_rng_state()
    images = torch.arange(400.0).view(100, 4, 1, 1, 1)
    returned = torch.stack([pool(group) for group in images])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(returned[0], images[0])  # the pool was empty
    kept = returned[1:] != images[1:]
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert len(returned.unique()) > 0.9 * 400  # each comes out once, but for those still kept
    assert not ImagePool(4)(torch.rand(2, 3, requires_grad=True)).requires_grad


def test_the_pool_resumes() -> None:
    images = torch.rand(40, 1, 2)
    whole, first, second = ImagePool(5, seed=3), ImagePool(5, seed=3), ImagePool(5, seed=9)
    expected = [whole(image) for image in images]
    found = [first(image) for image in images[:20]]
    random.seed(1)
    second.load_state_dict(first.state_dict())
    found += [second(image) for image in images[20:]]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_pool_of_nothing_passes_on() -> None:
    images = torch.rand(3, 2)
    assert torch.equal(ImagePool(0)(images), images)
    with pytest.raises(OptionError, match="size=-1"):
        ImagePool(-1)
