"""DMD2's fake score, and R1 on the inputs of heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family

import advloss
from advloss_distill import (
    Denoising,
    FakeScore,
    HeadR1,
    Renoising,
    TeacherDiscriminator,
    UniformRenoising,
)

NAMES = sorted(FAMILIES)


def built_fake(name: str, steps: int | None = None) -> tuple[Any, Any, FakeScore]:
    pipeline, family = tiny_family(name, renoising=UniformRenoising())
    network = family.student(pipeline.components[family.part])
    classes = 1000 if name == "dit" else None
    told = tiny_conditions(family, 1)
    return pipeline, family, FakeScore(family, network, told, width=8, num_classes=classes, num_steps=steps)


@pytest.mark.parametrize("name", NAMES)
def test_the_fake_score_is_judged_at_its_middle_and_trains_whole(name: str) -> None:
    _, family, fake = built_fake(name)
    assert len(fake.heads) == 1
    if name.startswith("stable-diffusion") and not name.endswith("3"):
        assert fake.names == ["mid_block"]
    samples = torch.randn(3, *family.shape)
    condition = dict(family.judged(tiny_conditions(family, 3), torch.zeros(3, dtype=torch.long)))
    (logits,) = fake(samples, condition)
    logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in fake.network.parameters())
    assert {place.split(".")[0] for place in fake.state_dict()} == {"network", "heads"}


@pytest.mark.parametrize("name", ["stable-diffusion", "sana", "dit"])
def test_denoising_is_the_diffusion_loss_on_fakes(name: str) -> None:
    _, family, fake = built_fake(name)
    condition = dict(family.judged(tiny_conditions(family, 3), torch.zeros(3, dtype=torch.long)))
    other = dict(family.judged(tiny_conditions(family, 3), torch.zeros(3, dtype=torch.long)))
    samples, real = torch.randn(3, *family.shape), torch.full((3, *family.shape), torch.nan)
    torch.manual_seed(1)
    timesteps = torch.randint(len(family.diffusion.alpha), (3,))
    noise = torch.randn(3, *family.shape)
    alpha, sigma = (v[timesteps].view(-1, 1, 1, 1) for v in (family.diffusion.alpha, family.diffusion.sigma))
    target = noise - samples if family.diffusion.prediction == "flow" else noise
    noisy = alpha * samples + sigma * noise
    expected = 7 * (family.output(fake.network, noisy, timesteps, condition) - target).square().mean()
    term = Denoising(fake, weight=7.0)
    torch.manual_seed(1)
    torch.testing.assert_close(term(fake, real, samples, condition), expected)
    torch.manual_seed(1)
    torch.testing.assert_close(term(fake, real, samples, other, condition), expected)  # the fakes' own condition
    assert not list(term.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_fake_score_learns_what_each_step_makes(name: str) -> None:
    """Where there are prompts, it is the teacher at first, and a step's vector learns from that step's samples."""
    _, family, fake = built_fake(name, steps=3)
    steps, noisy, timesteps = torch.tensor([0, 2, 2]), torch.randn(3, *family.shape), torch.tensor([3, 400, 990])
    condition = dict(family.judged(tiny_conditions(family, 3), steps))
    told = fake.told(condition, steps)
    if name == "dit":
        assert told is condition
        return
    plain = family.output(fake.network, noisy, timesteps, condition)
    torch.testing.assert_close(family.output(fake.network, noisy, timesteps, told), plain, rtol=0, atol=0)
    Denoising(fake)(fake, noisy, noisy, condition).backward()
    assert [float(row.abs().sum()) > 0 for row in fake.steps.weight.grad] == [True, False, True]
    with torch.no_grad():
        fake.steps.weight[2] += 1
    away = (family.output(fake.network, noisy, timesteps, fake.told(condition, steps)) - plain).flatten(1).abs().amax(1)
    assert away[0] == 0
    assert away[1:].min() > 0


def test_an_adversary_of_it_follows_the_students_samples() -> None:
    """Its denoising loss on one distribution falls, and its optimizer, checkpoint and guard are the adversary's own."""
    _, family, fake = built_fake("sana")
    torch.manual_seed(2)
    adversary = advloss.Adversary(
        fake,
        loss="non-saturating",
        regularizers=[Denoising(fake)],
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3),
    )
    told, losses = tiny_conditions(family, 8), []
    for _ in range(40):
        condition = dict(family.judged(told, torch.zeros(8, dtype=torch.long)))
        fakes = 0.1 * torch.randn(8, *family.shape) + 1
        report = adversary.discriminator_step(torch.randn(8, *family.shape), fakes, condition=condition)
        (loss,) = report.regularizers.values()
        losses.append(float(loss))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert any(place.startswith("network.") for place in adversary.state_dict()["discriminator"])


def test_uniform_noise_levels_cover_the_schedule() -> None:
    _, family = tiny_family("stable-diffusion")
    drawn = UniformRenoising().draw(family.diffusion, (1,), torch.zeros(20_000))["noise_timesteps"]
    assert drawn.min() == 0
    assert drawn.max() == 999
    assert torch.histc(drawn.float(), 4).div(5000).sub(1).abs().max() < 0.06


# R1 on the inputs of heads


def test_r1_on_head_inputs_is_the_textbooks() -> None:
    """Head by head, sample by sample, the gradient of its own logits by its own input, in float64."""
    pipeline, family = tiny_family("sana", renoising=Renoising())
    teacher = pipeline.transformer.double()
    judge = TeacherDiscriminator(family, teacher, tiny_conditions(family, 1), width=8).double()
    condition = dict(family.judged(tiny_conditions(family, 3), torch.zeros(3, dtype=torch.long)))
    condition = {n: v.double() if v.is_floating_point() else v for n, v in condition.items()}
    real = torch.randn(3, *family.shape, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    level = condition["noise_timesteps"] / 1000
    text = family.text(condition)
    for head, tokens in zip(judge.heads, judge.tokens(real, condition), strict=True):
        for i in range(3):
            one = tokens[i : i + 1].detach().requires_grad_()
            logits = head(one, level[i : i + 1], text[i : i + 1], None)
            (slope,) = torch.autograd.grad(logits.sum(), one, create_graph=True)
            expected = expected + 0.3 / 2 * slope.square().sum() / 3
    found = HeadR1(weight=0.3)(judge, real, real, condition)
    torch.testing.assert_close(found, expected)
    parameters = list(judge.heads.parameters())
    for one, other in zip(
        torch.autograd.grad(found, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert not any(p.grad is not None for p in teacher.parameters())
