"""Generators backwards, where the answer is known."""

import copy
import math

import pytest
import torch
from torch import nn

from advloss import InputError, OptionError
from advloss_gan import MLPGenerator, StyleGenerator, invert, label_direction, move, principal_directions


class Rotation(nn.Module):
    """Images `(N, 1, 2, 2)` that are an orthogonal map of z."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(4, 4))[0])

    def forward(self, latent):
        return (latent @ self.matrix).view(-1, 1, 2, 2)


def test_the_inverse_of_a_rotation_is_found():
    torch.manual_seed(0)
    generator, true = Rotation(), torch.randn(5, 4)
    before = copy.deepcopy(generator.state_dict())
    found = invert(generator, generator(true).detach(), latent_features=4, steps=200, candidates=50)
    torch.testing.assert_close(found.latent, true, rtol=0, atol=0.02)
    assert float(found.errors.max()) < 1e-4 < float(found.start_errors.min())
    assert found.ratio == pytest.approx(float(found.errors.mean() / found.start_errors.mean()))
    torch.testing.assert_close(found.errors, (found.samples - generator(true)).square().mean((1, 2, 3)).detach())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert generator.matrix.grad is None


def test_it_starts_from_the_best_candidate():
    torch.manual_seed(0)
    generator, images = Rotation(), torch.randn(3, 1, 2, 2)
    torch.manual_seed(1)
    candidates = generator(torch.randn(20, 4)).detach()
    expected = (candidates[None] - images[:, None]).square().mean((2, 3, 4)).min(1).values
    torch.manual_seed(1)
    found = invert(generator, images, latent_features=4, steps=1, lr=0.0, candidates=20)
    torch.testing.assert_close(found.start_errors, expected)
    torch.testing.assert_close(found.errors, expected)


def test_images_do_not_disturb_each_other():
    torch.manual_seed(0)
    generator, images = Rotation(), torch.randn(3, 1, 2, 2)
    together = invert(generator, images, latent_features=4, steps=30, candidates=1)
    torch.manual_seed(0)
    alone = invert(generator, images[:1], latent_features=4, steps=30, candidates=1)
    assert together.latent.shape == (3, 4)
    assert alone.latent.shape == (1, 4)


def test_each_space_reaches_farther():
    torch.manual_seed(0)
    generator = StyleGenerator(latent_features=8, out_channels=1, width=8, resolution=8, mapping_depth=2).eval()
    images = generator(torch.randn(4, 8)).detach() + 0.3 * torch.randn(4, 1, 8, 8)
    found = {}
    for space in ("z", "w", "w+"):
        torch.manual_seed(1)
        found[space] = invert(generator, images, latent_features=8, space=space, steps=100, candidates=50)
    assert found["w"].latent.shape == (4, 8)
    assert found["w+"].latent.shape == (4, generator.layers, 8)
    assert found["w+"].ratio < found["w"].ratio < 1
    assert found["z"].ratio < 1


def test_with_classes():
    torch.manual_seed(0)
    generator = MLPGenerator(latent_features=4, width=16, num_classes=2)
    labels = torch.tensor([0, 1, 1])
    images = generator(torch.randn(3, 4), labels).detach()
    found = invert(generator, images, latent_features=4, labels=labels, steps=200, candidates=100)
    assert found.ratio < 0.5
    torch.testing.assert_close(found.samples, generator(found.latent, labels).detach())


def test_what_cannot_be_inverted():
    with pytest.raises(OptionError, match="has no styles"):
        invert(Rotation(), torch.zeros(1, 1, 2, 2), latent_features=4, space="w")
    with pytest.raises(OptionError, match="space='x'"):
        invert(Rotation(), torch.zeros(1, 1, 2, 2), latent_features=4, space="x")
    for changes in ({"steps": 0}, {"candidates": 0}):
        with pytest.raises(OptionError, match=f"{next(iter(changes))}=0"):
            invert(Rotation(), torch.zeros(1, 1, 2, 2), latent_features=4, **changes)
    with pytest.raises(InputError, match="1 images have labels"):
        invert(MLPGenerator(num_classes=2), torch.zeros(1, 2), latent_features=16, labels=torch.tensor([0, 1]))
    with pytest.raises(InputError, match="the generator makes"):
        invert(Rotation(), torch.zeros(1, 1, 4, 4), latent_features=4)
    with pytest.raises(InputError, match="not finite"):
        invert(MLPGenerator(), torch.full((1, 2), torch.nan), latent_features=16)
    with pytest.raises(InputError, match=r"takes \(N, 16\)"):
        invert(MLPGenerator(), torch.zeros(1, 2), latent_features=4)


def test_label_direction():
    torch.manual_seed(0)
    latents, normal = torch.randn(500, 6), torch.tensor([0.6, 0.0, -0.8, 0.0, 0.0, 0.0])
    found = label_direction(latents, latents @ normal > 0.2)
    assert float(found.norm()) == pytest.approx(1)
    assert float(found @ normal) > 0.98
    for chosen in (torch.ones(500), torch.zeros(500), torch.ones(3)):
        with pytest.raises(InputError, match="some of both kinds"):
            label_direction(latents, chosen)


def test_principal_directions():
    torch.manual_seed(0)
    spread = torch.tensor([1.0, 5.0, 0.1, 2.0])
    directions, deviations = principal_directions(torch.randn(4000, 4) * spread + 7, 2)
    assert directions.abs().argmax(1).tolist() == [1, 3]
    assert deviations.tolist() == pytest.approx([5, 2], rel=0.05)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="count=5"):
        principal_directions(torch.randn(9, 4), 5)


def test_moving():
    latents, direction = torch.zeros(2, 3), torch.tensor([0.0, 1.0, 0.0])
    moved = move(latents, direction, torch.tensor([-1.0, 0.0, 2.0]))
    assert moved[:, 1].tolist() == [-1, 0, 2, -1, 0, 2]
    assert move(torch.zeros(2, 5, 3), direction, torch.tensor([math.pi])).shape == (2, 5, 3)
