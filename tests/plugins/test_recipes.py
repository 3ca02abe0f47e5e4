"""Recipes: a step of each, and the numbers that their papers state."""

from __future__ import annotations

import pytest
import torch

import advloss

NAMES = [row.name for row in advloss.list_components("recipe")]
SMALL = {
    "add": {"backbone": "test_vit", "pretrained": False, "resolution": 32},
    "r3gan": {"width": 32},
    "vqgan": {"start_step": 0},
    "dcgan": {"resolution": 16},
    "wgan": {"resolution": 16},
    "wgan-gp": {"resolution": 16},
    "esrgan": {"resolution": 32},
}
SIDE = {"dcgan": 16, "wgan": 16, "wgan-gp": 16}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_both_players(name):
    adversary = advloss.Adversary.from_recipe(name, **SMALL.get(name, {}))
    side = SIDE.get(name, 32)
    real = torch.rand(2, 3, side, side) * 2 - 1
    fake = (torch.rand(2, 3, side, side) * 2 - 1).requires_grad_()
    condition = torch.rand(2, 3, side, side) * 2 - 1 if name == "pix2pix" else None
    before = {n: p.clone() for n, p in adversary.discriminator.named_parameters() if p.requires_grad}

    adversary.generator_loss(fake, real=real, condition=condition).backward()
    report = adversary.discriminator_step(real, fake, condition=condition)

    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert not report.skipped
    assert set(report.regularizers) == set(adversary.regularizers)
    after = dict(adversary.discriminator.named_parameters())
    assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("name", "lr", "betas", "steps", "weight"),
    [
        ("dcgan", 2e-4, (0.5, 0.999), 1, 1.0),
        ("wgan-gp", 1e-4, (0.5, 0.9), 5, 1.0),
        ("sngan", 2e-4, (0.0, 0.9), 5, 1.0),
        ("r3gan", 2e-4, (0.0, 0.9), 1, 1.0),
        ("vqgan", 4.5e-6, (0.5, 0.9), 1, 0.8),
        ("esrgan", 1e-4, (0.9, 0.999), 1, 0.005),
        ("real-esrgan", 1e-4, (0.9, 0.99), 1, 0.1),
        ("pix2pix", 2e-4, (0.5, 0.999), 1, 1.0),
    ],
)
def test_the_numbers_of_the_papers(name, lr, betas, steps, weight):
    recipe = advloss.create_recipe(name)
    (group,) = recipe.optimizer([torch.zeros(1, requires_grad=True)]).param_groups
    assert (group["lr"], group["betas"]) == (lr, betas)
    assert (recipe.discriminator_steps, recipe.weight) == (steps, weight)


def test_wgan_clips_and_uses_rmsprop():
    adversary = advloss.Adversary.from_recipe("wgan", resolution=16)
    assert isinstance(adversary.optimizer, torch.optim.RMSprop)
    real, fake = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    adversary.discriminator_step(real, fake)
    assert max(float(p.abs().max()) for p in adversary.discriminator.parameters()) <= 0.01 + 1e-9


def test_vqgan_waits_for_its_start():
    recipe = advloss.create_recipe("vqgan")
    assert recipe.start_step == 250_000
    adversary = advloss.Adversary.from_recipe("vqgan")
    fake = torch.zeros(1, 3, 32, 32, requires_grad=True)
    assert adversary.generator_loss(fake, real=torch.zeros(1, 3, 32, 32)) == 0
    assert adversary.loss.scale == 0.5


def test_r3gan_presets_and_schedule():
    weights = {"cifar10": 0.05, "ffhq64": 2.0, "ffhq256": 150.0, "imagenet32": 0.5, "imagenet64": 1.0}
    for preset, weight in weights.items():
        recipe = advloss.create_recipe("r3gan", preset=preset)
        assert recipe.regularizers == {f"regularizers/{name}": {"weight": weight} for name in ("r1", "r2")}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    schedule = advloss.create_recipe("r3gan", steps=10).scheduler(optimizer)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-5)
    with pytest.raises(advloss.OptionError, match="cifar10"):
        advloss.create_recipe("r3gan", preset="mnist")


def test_add_takes_r1_by_the_heads_inputs_and_sums_heads():
    adversary = advloss.Adversary.from_recipe("add", **SMALL["add"])
    assert adversary.regularizers["r1"].inputs == "features"
    assert adversary.regularizers["r1"].weight == 1e-5
    assert adversary.loss.scales == "sum"


def test_changes_go_to_the_recipe_or_to_the_adversary():
    adversary = advloss.Adversary.from_recipe("r3gan", width=32, in_channels=1, weight=0.5, loss="hinge")
    assert adversary.discriminator.in_channels == 1
    assert adversary.weight == 0.5
    assert type(adversary.loss).__name__ == "Hinge"


def test_a_paper_is_cited_alike_everywhere() -> None:
    papers: dict[str, advloss.Paper] = {}
    for row in advloss.list_components():
        paper = row.spec.paper if row.spec else None
        if paper is not None and paper.arxiv is not None:
            assert papers.setdefault(paper.arxiv, paper) == paper, row.name
    assert len(papers) > 20
