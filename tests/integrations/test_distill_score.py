"""The teacher's term against its textbook form, and where its gradient goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distill_tools import zero_snr_scheduler
from torch import Tensor, nn

from advloss_distill import ClassConditional, Diffusion, score_distillation

TIMESTEPS = torch.tensor([0, 200, 499, 750, 998, 999])
LABELS = {"class_labels": torch.tensor([3, 1, 0, 2, 3, 1])}


class Teacher(nn.Module):
    """Depends on everything that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, dtype=torch.float64))

    def forward(self, noisy: Tensor, timesteps: Tensor, class_labels: Tensor) -> SimpleNamespace:
        factor = self.weight[class_labels] + timesteps / 1000
        return SimpleNamespace(sample=factor.view(-1, 1, 1, 1) * noisy + self.weight[4])


@pytest.fixture
def case() -> SimpleNamespace:
    torch.manual_seed(0)
    levels = zero_snr_scheduler().alphas_cumprod.double()
    diffusion = Diffusion(levels.sqrt(), (1 - levels).sqrt(), "v_prediction")
    x0 = torch.rand(6, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    return SimpleNamespace(levels=levels, denoiser=ClassConditional(diffusion), teacher=Teacher(), x0=x0)


def textbook(case: Any, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E alpha_t ||x0 - teacher||^2 sample by sample, its gradient with a constant target, and the targets."""
    terms, slopes, targets = [], [], []
    for x0, z, t, label in zip(case.x0.detach(), noise, TIMESTEPS, LABELS["class_labels"]):
        alpha, sigma = case.levels[t].sqrt(), (1 - case.levels[t]).sqrt()
        noisy = alpha * x0 + sigma * z
        weight = case.teacher.weight.detach()
        v = (weight[label] + t / 1000) * noisy + weight[4]
        target = alpha * noisy - sigma * v
        targets.append(target)
        terms.append(alpha * (x0 - target).square().mean())
        slopes.append(2 * alpha * (x0 - target) / case.x0.numel())
    return torch.stack(terms).mean(), torch.stack(slopes), torch.stack(targets)


def term(case: Any, seed: int = 1, timesteps: Tensor | None = TIMESTEPS) -> Tensor:
    torch.manual_seed(seed)
    return score_distillation(case.denoiser, case.teacher, case.x0, LABELS, timesteps)


def test_the_term_is_the_textbooks(case: Any) -> None:
    torch.manual_seed(1)
    expected, slope, _ = textbook(case, torch.randn_like(case.x0))
    found = term(case)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found.backward()
    torch.testing.assert_close(case.x0.grad, slope, rtol=1e-10, atol=1e-14)


def test_no_gradient_reaches_the_teacher(case: Any) -> None:
    term(case).backward()
    assert case.teacher.weight.grad is None


def test_a_sample_that_the_teacher_agrees_with_costs_nothing(case: Any) -> None:
    """Where the target is the sample itself its own gradient is 0, whatever the teacher would do to neighbours."""
    case.denoiser = ClassConditional(Diffusion(case.levels.sqrt(), (1 - case.levels).sqrt(), "sample"))
    agreed = case.x0
    case.teacher = lambda noisy, timesteps, class_labels: SimpleNamespace(sample=agreed)
    found = term(case)
    found.backward()
    assert found == 0
    assert case.x0.grad.abs().max() == 0


def test_pure_noise_weighs_nothing(case: Any) -> None:
    assert term(case, timesteps=torch.full((6,), 999)) == 0


def test_timesteps_of_its_own_cover_the_schedule(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    answer = case.denoiser.output

    def output(network: Any, noisy: Tensor, timesteps: Tensor, condition: Any) -> Tensor:
        seen.append(timesteps)
        return answer(network, noisy, timesteps, condition)

    monkeypatch.setattr(case.denoiser, "output", output)
    for seed in range(200):
        term(case, seed, timesteps=None)
    drawn = torch.cat(seen)
    assert drawn.min() < 20
    assert drawn.max() > 979
    assert drawn.max() < 1000
    assert 400 < drawn.double().mean() < 600
    assert all(len(set(one.tolist())) > 1 for one in seen)  # not one for the whole batch
