"""What goes wrong in published autoencoder scripts cannot go wrong here; each test is named after a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoder_tools import PATCH, alike, tiny_training, weights
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


def test_mmagic_r1_grows_with_the_number_of_pixels() -> None:
    """Its norm is of each pixel there, H x W times too weak."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.ones(()))

        def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
            return self.slope * samples.flatten(1).sum(1, keepdim=True)

    for side in (8, 16):
        reconstruction, images = pair(side)
        report = Objective(Adversary(Sum(), "hinge", {"r1": {"weight": 2.0}})).discriminator_step(
            reconstruction, images
        )
        assert float(report.regularizers["r1"]) == pytest.approx(3 * side**2)


def test_seed_voken_lecams_averages_are_saved(make_accelerator: Make, tmp_path: Path) -> None:
    """They are neither saved nor equal on all ranks there; the ranks are in test_autoencoder_processes."""
    training = tiny_training(make_accelerator(), start_step=0)
    training.run(2, checkpoints=tmp_path)
    averages = training.adversary.state_dict()["regularizers"]["lecam"]
    assert averages["ema_real"] != 0
    resumed = tiny_training(make_accelerator(), start_step=0)
    resumed.load(tmp_path)
    assert alike(resumed.adversary.state_dict()["regularizers"]["lecam"], averages)
