"""What goes wrong in published autoencoder scripts cannot go wrong here; each test is named after a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoder_tools import PATCH, alike, tiny_model, tiny_training, weights
from torch import Tensor, nn

from advloss import Adversary, create_discriminator
from advloss_autoencoder import Objective, Reconstruction

Make = Callable[..., Any]


def pair(side: int = 24) -> tuple[Reconstruction, Tensor]:
    images = torch.rand(2, 3, side, side) * 2 - 1
    decoder = nn.Conv2d(3, 3, 3, padding=1)
    return Reconstruction(decoder(images), None), images


def test_diffusers_autoencoderkl_the_perceptual_loss_trains() -> None:
    """It runs under no_grad there."""
    reconstruction, images = pair()
    objective = Objective(Adversary(PATCH, start_step=1), perceptual=lambda a, b: (a - b).pow(4).mean())
    losses = objective(reconstruction, images)
    (gradient,) = torch.autograd.grad(losses.perceptual, [reconstruction.samples])
    assert float(gradient.abs().sum()) > 0


def test_diffusers_autoencoderkl_the_discriminators_turn_does_not_train_the_autoencoder(make_accelerator: Make) -> None:
    """The reconstruction is not detached there, so that the autoencoder also learns to help the discriminator."""
    training = tiny_training(make_accelerator())
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    before = weights(training.model)
    training.objective.adversary.step = 5
    training.objective.discriminator_step(training.autoencoder(images), images)
    assert all(parameter.grad is None for parameter in training.model.parameters())
    assert alike(weights(training.model), before)


def test_diffusers_autoencoderkl_every_batch_trains_both(make_accelerator: Make) -> None:
    """Each batch trains one of the two networks there."""
    training = tiny_training(make_accelerator(), start_step=0)
    for _ in range(3):
        before = weights(training.model), weights(training.adversary.discriminator)
        training.step()
        assert not alike(weights(training.model), before[0])
        assert not alike(weights(training.adversary.discriminator), before[1])


def test_diffusers_autoencoderkl_the_model_is_called_as_it_was_prepared(make_accelerator: Make) -> None:
    """It is called through unwrap there, past DDP. Two processes are in test_autoencoder_processes."""
    training, calls = tiny_training(make_accelerator()), []
    training.autoencoder.register_forward_hook(lambda *unused: calls.append(1))
    training.step()
    assert calls == [1]


def test_diffusers_vqgan_the_hinge_saturates() -> None:
    """A sigmoid before the hinge keeps logits below its margin there."""
    adversary = Adversary(PATCH, "hinge")
    final = [m for m in adversary.discriminator.modules() if isinstance(m, nn.Conv2d)][-1]
    reconstruction, images = pair()
    with torch.no_grad():
        final.weight.mul_(1e3)
    report = Objective(adversary).discriminator_step(reconstruction, images)
    assert max(abs(float(report.real_logits)), abs(float(report.fake_logits))) > 1


def test_diffusers_vqgan_and_sana_the_discriminator_is_frozen_in_the_generators_turn() -> None:
    reconstruction, images = pair()
    adversary = Adversary(PATCH, "hinge", weight=0.5)
    Objective(adversary)(reconstruction, images).total.backward()
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in adversary.discriminator.parameters())


def test_llamagen_the_generator_loss_pulls(make_accelerator: Make) -> None:
    """Input and target of the cross entropy are swapped there: its gradient is exactly zero."""
    reconstruction, images = pair()
    adversary = Adversary(PATCH, "non-saturating")
    losses = Objective(adversary)(reconstruction, images)
    (gradient,) = torch.autograd.grad(losses.adversarial, [reconstruction.samples])
    stronger = adversary.generator_loss(reconstruction.samples.detach() - 10 * gradient)
    assert float(gradient.abs().sum()) > 0
    assert bool(stronger < losses.adversarial)


def test_magvit2_every_scale_is_asked() -> None:
    """The multi-scale generator loss never calls its discriminators there."""
    discriminator = create_discriminator("multiscale", discriminator=("patch", {"width": 4, "depth": 1}))
    calls: list[str] = []
    for name, module in discriminator.named_modules():
        if type(module).__name__ == "PatchDiscriminator":
            module.register_forward_hook(lambda *unused, name=name: calls.append(name))
    reconstruction, images = pair(96)
    losses = Objective(Adversary(discriminator, "hinge"))(reconstruction, images)
    (gradient,) = torch.autograd.grad(losses.adversarial, [reconstruction.samples])
    assert len(set(calls)) > 1
    assert float(gradient.abs().sum()) > 0


class Sum(nn.Module):
    """The sum of a sample's values: its slope has length 1 in each, and it keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        self.shown: list[Tensor] = []

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.shown.append(samples.detach().clone())
        return self.slope * samples.flatten(1).sum(1, keepdim=True)


def term(side: int, name: str, **options: Any) -> float:
    reconstruction, images = pair(side)
    report = Objective(Adversary(Sum(), "hinge", {name: options})).discriminator_step(reconstruction, images)
    return float(report.regularizers[name])


@pytest.mark.parametrize("side", [8, 16])
def test_mmagic_r1_grows_with_the_number_of_pixels(side: int) -> None:
    """Its norm is of each pixel there, H x W times too weak."""
    assert term(side, "r1", weight=2.0) == pytest.approx(3 * side**2)


@pytest.mark.parametrize("side", [8, 16])
def test_basicsr_and_torchgan_a_sample_has_one_slope(side: int) -> None:
    """The penalty's norm is of each pixel in BasicSR and mmagic, of the whole batch in torchgan."""
    slope = (3 * side**2) ** 0.5
    assert term(side, "gradient-penalty", weight=2.0) == pytest.approx(2 * (slope - 1) ** 2, rel=1e-4)


def test_fastgen_a_finite_difference_is_of_one_sample() -> None:
    """A noised sample is compared with one that was not noised there; here one that has been cropped and augmented
    with itself, one step of sigma away."""
    torch.manual_seed(0)
    reconstruction, images = pair(24)
    judge, sigma = Sum(), 0.01
    r1 = {"weight": 1.0, "method": "finite-difference", "sigma": sigma}
    adversary = Adversary(judge, "hinge", {"r1": r1}, ["instance-noise"])
    Objective(adversary, crop=16).discriminator_step(reconstruction, images)
    windows = [shown for shown in judge.shown if shown.shape == (2, 3, 16, 16)]
    assert len(windows) == len(judge.shown) >= 3
    gaps = [float((a - b).std()) for i, a in enumerate(windows) for b in windows[:i]]
    assert min(gaps) == pytest.approx(sigma, rel=0.1)


def test_sana_sprint_accumulated_batches_make_one_step(make_accelerator: Make) -> None:
    """The loss is divided by their number twice there, and gradients are reduced after each. Two of two images and one
    of four give the same gradient for both players, up to rounding."""
    results = []
    for micro, batch in ((2, 2), (1, 4)):
        training = tiny_training(
            make_accelerator(gradient_accumulation_steps=micro), tiny_model().double(), batch=batch, start_step=10
        )
        training.adversary.discriminator_start_step = 0
        images = (torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1).double()
        training.batches = iter(images.split(batch))
        before = weights(training.model)
        for _ in range(micro):
            training.step()
        moved = {n: v - before[n] for n, v in weights(training.model).items()}
        results.append({**moved, **{f"D.{n}": v for n, v in weights(training.adversary.discriminator).items()}})
        assert training.adversary.step == 1
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_sana_sprint_who_is_due_is_saved(make_accelerator: Make, tmp_path: Path) -> None:
    """Which network trains next is not in its checkpoints. Here the adversary goes on, and does not begin anew."""
    tiny_training(make_accelerator(), start_step=2).run(2, checkpoints=tmp_path)
    resumed, seen = tiny_training(make_accelerator(), start_step=2), []
    resumed.load(tmp_path)
    resumed.run(5, lambda progress: seen.append(progress.losses.adversarial is not None))
    assert seen == [True, True, True]


def test_seed_voken_lecams_averages_are_saved(make_accelerator: Make, tmp_path: Path) -> None:
    """They are neither saved nor equal on all ranks there; the ranks are in test_autoencoder_processes."""
    training = tiny_training(make_accelerator(), start_step=0)
    training.run(2, checkpoints=tmp_path)
    averages = training.adversary.state_dict()["regularizers"]["lecam"]
    assert averages["ema_real"] != 0
    resumed = tiny_training(make_accelerator(), start_step=0)
    resumed.load(tmp_path)
    assert alike(resumed.adversary.state_dict()["regularizers"]["lecam"], averages)
