"""The three lines of a script, in lock-step with a textbook loop that is written out here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import built_in, images, patch
from torch import Tensor, nn

import advloss

STEPS = 20
GAMMA, EVERY = 3.0, 4
REGULARIZERS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "r1 lazy": {"r1": {"weight": GAMMA, "every": EVERY}},
    "r1 + r2": {"r1": {"weight": GAMMA}, "r2": {"weight": 2 * GAMMA}},
    "gradient-penalty": {"gradient-penalty": {"weight": 10.0}},
}
adam = torch.optim.Adam


class Textbook:
    """Two networks, two optimizers, a forward for every term."""

    def __init__(self, model: nn.Module, discriminator: nn.Module, loss: Any, regularizers: dict[str, Any]) -> None:
        self.model, self.discriminator, self.loss, self.regularizers = model, discriminator, loss, regularizers
        self.model_optimizer = adam(model.parameters(), lr=1e-3)
        self.optimizer = adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
        self.step = 0

    def train(self, batch: Tensor, weight: float, eps: Tensor) -> tuple[Tensor, Tensor]:
        fake = self.model(batch)
        real_logits = self.discriminator(batch).detach() if self.loss.paired else None
        adversarial = weight * self.loss.generator(self.discriminator(fake), real_logits)
        self.model_optimizer.zero_grad()
        (nn.functional.mse_loss(fake, batch) + adversarial).backward()
        self.model_optimizer.step()

        fake = fake.detach()
        total = self.loss.discriminator(self.discriminator(batch), self.discriminator(fake))
        for name, term in (("r1", batch), ("r2", fake)):
            options = self.regularizers.get(name)
            if options and self.step % options.get("every", 1) == 0:
                squares = self.slope(term).square().sum((1, 2, 3))
                total = total + options.get("every", 1) * options["weight"] / 2 * squares.mean()
        if "gradient-penalty" in self.regularizers:
            lengths = self.slope(eps * batch + (1 - eps) * fake).square().sum((1, 2, 3)).sqrt()
            total = total + self.regularizers["gradient-penalty"]["weight"] * (lengths - 1).square().mean()
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self.step += 1
        return adversarial.detach(), total.detach()

    def slope(self, points: Tensor) -> Tensor:
        points = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(points).sum(), points, create_graph=True)
        return gradient


@pytest.fixture
def shared_eps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What `torch.rand` returns for one number a sample: the adversary and the textbook get the same."""
    eps: list[Tensor] = []
    plain = torch.rand

    def rand(*size: Any, **options: Any) -> Tensor:
        return eps[-1] if eps and size == ((4, 1, 1, 1),) else plain(*size, **options)

    monkeypatch.setattr(torch, "rand", rand)
    return eps


def run(loss: str, regularizers: str, eps: list[Tensor], accelerator: Any = None) -> None:
    chosen = dict(REGULARIZERS[regularizers])
    if loss == "wgan-gp":
        chosen.setdefault("gradient-penalty", {"weight": 10.0})  # what the loss brings by itself
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)).double()
    discriminator = patch()
    textbook = Textbook(copy.deepcopy(model), copy.deepcopy(discriminator), advloss.create_loss(loss), chosen)

    adversary = advloss.Adversary(
        discriminator,
        loss=loss,
        regularizers=REGULARIZERS[regularizers],
        weight=0.7,
        optimizer=lambda parameters: adam(parameters, lr=2e-3, betas=(0.5, 0.9)),
        seed=1,
    )
    optimizer = adam(model.parameters(), lr=1e-3)
    backward: Callable[[Tensor], None] = Tensor.backward
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, optimizer)
        adversary.prepare(accelerator)
        backward = accelerator.backward
    for step in range(STEPS):
        batch = images()
        eps.append(torch.rand(4, 1, 1, 1, dtype=torch.float64))

        fake = model(batch)
        adversarial = adversary.generator_loss(fake, real=batch)
        backward(nn.functional.mse_loss(fake, batch) + adversarial)
        optimizer.step()
        optimizer.zero_grad()
        report = adversary.discriminator_step(real=batch, fake=fake)

        expected_adversarial, expected_total = textbook.train(batch, 0.7, eps[-1])
        assert torch.allclose(adversarial, expected_adversarial, rtol=0, atol=1e-10), step
        assert report.loss is not None
        assert torch.allclose(report.loss, expected_total, rtol=1e-10, atol=1e-10), step
        for mine, theirs in ((model, textbook.model), (discriminator, textbook.discriminator)):
            for (name, p), q in zip(mine.named_parameters(), theirs.parameters()):
                assert torch.allclose(p, q, rtol=0, atol=1e-10), (step, name)
    assert adversary.step == STEPS


@pytest.mark.parametrize("regularizers", REGULARIZERS)
@pytest.mark.parametrize("loss", built_in("loss"))
def test_plain_script_matches_the_textbook(loss: str, regularizers: str, shared_eps: list[Tensor]) -> None:
    run(loss, regularizers, shared_eps)


@pytest.mark.parametrize(
    ("loss", "regularizers"),
    [(loss, list(REGULARIZERS)[i % len(REGULARIZERS)]) for i, loss in enumerate(built_in("loss"))],
)
def test_prepared_script_matches_the_textbook(
    loss: str, regularizers: str, shared_eps: list[Tensor], make_accelerator: Callable[..., Any]
) -> None:
    run(loss, regularizers, shared_eps, make_accelerator())


def test_lines_of_the_readme_with_names_only() -> None:
    model = nn.Conv2d(3, 3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    adversary = advloss.Adversary("patch", loss="hinge", regularizers={"r1": {"weight": 10.0, "every": 16}})
    batch = images(2, 32, torch.float32)
    fake = model(batch)
    loss = nn.functional.mse_loss(fake, batch) + adversary.generator_loss(fake, real=batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    report = adversary.discriminator_step(real=batch, fake=fake)
    assert set(report.as_dict()) >= {"loss", "real_logits", "fake_logits", "grad_norm", "regularizers/r1"}
    assert not report.skipped
