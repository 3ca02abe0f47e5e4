"""The objective's terms against the lines that define them, and its refusals."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoder_tools import kl_model
from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, CombinationError, FeatureMatching, InputError, OptionError
from advloss_autoencoder import Autoencoder, Objective, Reconstruction, freeze_encoder, last_layer

PATCH = ("patch", {"width": 4, "depth": 1, "norm": "none"})


class Wide(nn.Module):
    """A discriminator without weights of note, that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 1))
        self.shown: list[Tensor] = []

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.shown.append(samples.detach().clone())
        return self.layers(samples)


def pair(side: int = 24) -> tuple[Reconstruction, Tensor]:
    images = torch.rand(2, 3, side, side) * 2 - 1
    return Reconstruction((images + 0.1 * torch.randn_like(images)).requires_grad_().clone(), None), images


@pytest.mark.parametrize("name", ["l1", "l2", "huber"])
def test_pixel_terms(name: Any) -> None:
    reconstruction, images = pair()
    error = reconstruction.samples - images
    expected = {
        "l1": error.abs().mean(),
        "l2": error.square().mean(),
        "huber": torch.where(error.abs() < 1, error.square() / 2, error.abs() - 0.5).mean(),
    }
    losses = Objective(Adversary(PATCH, start_step=1), pixel=name)(reconstruction, images)
    torch.testing.assert_close(losses.pixel, expected[name])
    assert losses.total is losses.pixel


def test_all_terms_together() -> None:
    reconstruction, images = pair()
    reconstruction = Reconstruction(reconstruction.samples, torch.tensor(7.0))
    adversary = Adversary(PATCH, "hinge", weight=0.5, seed=0)

    def perceptual(made: Tensor, given: Tensor) -> Tensor:
        return (made[:, :1] - given[:, :1]).square().mean((1, 2, 3))

    objective = Objective(adversary, perceptual=perceptual, perceptual_weight=2.0, regularization_weight=0.1)
    losses = objective(reconstruction, images)
    fake = reconstruction.samples
    generator = -0.5 * adversary.discriminator(fake).mean()
    total = functional.l1_loss(fake, images) + 2 * perceptual(fake, images).mean() + 0.1 * 7 + generator
    torch.testing.assert_close(losses.total, total)
    torch.testing.assert_close(losses.adversarial, generator)
    assert losses.adaptive_weight is None
    assert set(losses.as_dict()) == {"total", "pixel", "perceptual", "regularization", "adversarial"}


def test_the_adversary_rises_within_its_ramp() -> None:
    reconstruction, images = pair()
    adversary = Adversary(PATCH, "hinge", weight=2.0, start_step=2, seed=0)
    objective = Objective(adversary, ramp_steps=4)
    shares = []
    for step in range(8):
        adversary.step = step
        losses = objective(reconstruction, images)
        adversarial = 0.0 if losses.adversarial is None else float(losses.adversarial.detach())
        shares.append(float((losses.total - losses.pixel).detach()) / adversarial if adversarial else 0.0)
    assert shares == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1], abs=1e-4)


def test_the_ramp_counts_with_the_adaptive_weight_too() -> None:
    torch.manual_seed(0)
    model, images = kl_model(), pair(16)[1]
    adversary = Adversary(PATCH, "hinge", weight=0.5, seed=0)
    pulls, ratios = [], []
    for ramp_steps in (0, 4):
        objective = Objective(adversary, last_layer(model), ramp_steps=ramp_steps)
        reconstruction = Autoencoder(model, sample_posterior=False)(images)
        losses = objective(reconstruction, images)
        rec = losses.pixel + 1e-6 * losses.regularization
        pulls.append(float((losses.total - rec).detach()))
        ratios.append(float(losses.adaptive_weight))
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-5)
    assert pulls[1] == pytest.approx(pulls[0] / 4, rel=1e-3)


def test_players_start_on_their_own() -> None:
    reconstruction, images = pair()
    adversary = Adversary(PATCH, "hinge", start_step=3, discriminator_start_step=1)
    objective = Objective(adversary)
    begun = []
    for _ in range(5):
        losses = objective(reconstruction, images)
        report = objective.discriminator_step(reconstruction, images)
        begun.append((losses.adversarial is not None, report.loss is not None))
    assert begun == [(False, False), (False, True), (False, True), (True, True), (True, True)]


def test_the_adversary_sees_one_window_of_both() -> None:
    reconstruction, images = pair(24)
    judge = Wide()
    adversary = Adversary(judge, "hinge")
    objective = Objective(adversary, crop=8)
    places = set()
    state = torch.get_rng_state()
    for _ in range(6):
        judge.shown.clear()
        objective(reconstruction, images)
        objective.discriminator_step(reconstruction, images)
        generator_fake, real, fake = judge.shown
        assert {tuple(shown.shape) for shown in judge.shown} == {(2, 3, 8, 8)}
        windows = images.unfold(2, 8, 1).unfold(3, 8, 1)
        (row, column) = (windows - real[:, :, None, None]).abs().amax((0, 1, 4, 5)).eq(0).nonzero()[0].tolist()
        assert torch.equal(fake, reconstruction.samples[..., row : row + 8, column : column + 8])
        assert not torch.equal(generator_fake, fake)
        places.add((row, column))
    assert len(places) > 2
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_stays_within_the_window() -> None:
    reconstruction, images = pair(24)
    losses = Objective(Adversary(Wide(), "hinge"), crop=8)(reconstruction, images)
    (gradient,) = torch.autograd.grad(losses.adversarial, [reconstruction.samples])
    assert int((gradient != 0).any(1).any(0).sum()) == 64


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_feature_matching(loss: str) -> None:
    reconstruction, images = pair()
    judge = Wide()
    objective = Objective(Adversary(judge, loss, weight=0.5), feature_matching=10.0)
    losses = objective(reconstruction, images)
    first = judge.layers[0]
    expected = (first(reconstruction.samples) - first(images)).abs().mean()
    torch.testing.assert_close(losses.feature_matching, expected)
    torch.testing.assert_close(losses.total, losses.pixel + losses.adversarial + 10 * expected)
    (gradient,) = torch.autograd.grad(losses.feature_matching, [reconstruction.samples], retain_graph=True)
    (textbook,) = torch.autograd.grad(expected, [reconstruction.samples])
    torch.testing.assert_close(gradient, textbook)
    assert len(judge.shown) == 2  # one forward for each side
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert not any(module._forward_hooks for module in judge.modules())


def test_feature_matching_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(CombinationError, match="instance-noise"):
        FeatureMatching(Adversary(PATCH, augmentations=["instance-noise"]))
    with pytest.raises(CombinationError, match="no inner"):
        FeatureMatching(Adversary(nn.Conv2d(3, 1, 1)))


def test_videos_are_perceived_frame_by_frame() -> None:
    shapes = []

    def perceptual(made: Tensor, given: Tensor) -> Tensor:
        shapes.append((made.shape, given.shape))
        return (made - given).square().mean((1, 2, 3), keepdim=True)  # as LPIPS returns it

    video = torch.rand(2, 3, 5, 8, 8)
    made = Reconstruction((video * 0.5).requires_grad_(), None)
    adversary = Adversary(("patch", {"dims": 3, "width": 4, "depth": 1}), start_step=1)
    losses = Objective(adversary, perceptual=perceptual)(made, video)
    assert shapes == [((10, 3, 8, 8), (10, 3, 8, 8))]
    torch.testing.assert_close(losses.perceptual, (made.samples - video).square().mean())


def test_a_perceptual_module_is_frozen() -> None:
    class Perceptual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, made: Tensor, given: Tensor) -> Tensor:
            return (self.layer(made) - self.layer(given)).square().mean()

    perceptual = Perceptual().train()
    reconstruction, images = pair()
    Objective(Adversary(PATCH, start_step=1), perceptual=perceptual)(reconstruction, images).total.backward()
    assert perceptual.layer.weight.grad is None
    assert not perceptual.training


def test_errors_say_what_to_pass() -> None:
    reconstruction, images = pair()
    adversary = Adversary(PATCH)
    with pytest.raises(InputError, match=r"downsampling divides"):
        Objective(adversary)(Reconstruction(reconstruction.samples[..., :-4], None), images)
    with pytest.raises(InputError, match="not latents"):
        Objective(adversary)(reconstruction, torch.zeros(2, 4, 3, 3))
    with pytest.raises(InputError, match=r"returned a map of shape \(2, 3, 24, 24\)"):
        Objective(adversary, perceptual=lambda a, b: (a - b).square())(reconstruction, images)
    with pytest.raises(OptionError, match="l1, l2, huber"):
        Objective(adversary, pixel="l3")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="ramp_steps=-1"):
        Objective(adversary, ramp_steps=-1)


@pytest.mark.parametrize(
    "options",
    [
        {"perceptual_weight": float("nan")},
        {"regularization_weight": -1e-6},
        {"feature_matching": float("inf")},
        {"feature_matching": "10"},
        {"ramp_steps": "5"},
        {"ramp_steps": 0.5},
        {"crop": "64"},
    ],
)
def test_numbers_that_no_objective_has(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Objective(Adversary(PATCH), **options)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("start_step", [0, 9])
def test_terms_are_scalars(adaptive: bool, start_step: int) -> None:
    model, images = kl_model(), pair(16)[1]
    adversary, layer = Adversary(PATCH, start_step=start_step), last_layer(model) if adaptive else None
    reconstruction = Autoencoder(model)(images)
    with pytest.raises(InputError, match=r"the pixel loss is of shape \(2, 3, 16, 16\): return a scalar"):
        Objective(adversary, layer, pixel=lambda a, b: (a - b).abs())(reconstruction, images)
    with pytest.raises(InputError, match="the pixel loss is a float"):
        Objective(adversary, layer, pixel=lambda a, b: 0.5)(reconstruction, images)  # type: ignore[arg-type, return-value]
    each = Reconstruction(reconstruction.samples, torch.ones(2))
    with pytest.raises(InputError, match=r"the regularization is of shape \(2,\)"):
        Objective(adversary, layer)(each, images)


def test_a_decoder_that_is_frozen_later_is_named_in_the_first_step() -> None:
    model, images = kl_model(), pair(16)[1]
    objective = Objective(Adversary(PATCH, start_step=1000), last_layer(model))
    model.decoder.requires_grad_(False)
    with (
        pytest.warns(UserWarning, match=r"the decoder of this AutoencoderKL is frozen"),
        pytest.raises(InputError, match="frozen after it had been given"),
    ):
        objective(Autoencoder(model)(images), images)


def test_a_frozen_decoder_beside_a_fixed_weight_is_warned_of() -> None:
    model, images = kl_model(), pair(16)[1]
    model.decoder.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"decoder\.requires_grad_\(True\)") as seen:
        Objective(Adversary(PATCH))(Autoencoder(model)(images), images)
    assert [Path(warning.filename).name for warning in seen] == [Path(__file__).name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Autoencoder(freeze_encoder(kl_model()))(images)
        Autoencoder(kl_model().requires_grad_(False))(images)  # only looked at
        with torch.no_grad():
            Autoencoder(model)(images)
