"""LADD's discriminator: what it sees of the teacher, what it is told, and that both players learn by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from distill_tools import differences, fresh_accelerator, weights
from method_tools import NEEDS, tiny_setup
from pipeline_tools import FAMILIES, POOLED, TEXT, tiny_conditions, tiny_family
from test_distill_families import Latents
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import advloss
from advloss import InputError, OptionError
from advloss_distill import (
    BackwardSimulation,
    Distillation,
    Family,
    Renoising,
    TeacherDiscriminator,
    sampling_paths,
    spread,
    student_scheduler,
)
from advloss_distill.methods import build_method

NAMES = sorted(FAMILIES)
BLOCKS = {"stable-diffusion": 5, "stable-diffusion-xl": 5}  # two down, one in the middle, two up; transformers have two


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def built(name: str, **options: Any) -> tuple[Family, nn.Module, TeacherDiscriminator]:
    pipeline, family = tiny_family(name, renoising=Renoising())
    teacher = pipeline.components[family.part]
    if name == "dit":
        options["num_classes"] = 1000
    return family, teacher, TeacherDiscriminator(family, teacher, tiny_conditions(family, 1), width=8, **options)


def told(family: Family, count: int) -> dict[str, Tensor]:
    return dict(family.judged(tiny_conditions(family, count), torch.zeros(count, dtype=torch.long)))


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_judged_and_the_teacher_left_alone(name: str) -> None:
    family, teacher, discriminator = built(name)
    assert len(discriminator.names) == BLOCKS.get(name, 2)
    before, samples = weights(teacher), torch.randn(3, *family.shape, requires_grad=True)
    condition = told(family, 3)
    logits = discriminator(samples, condition)
    assert [scale.shape[0] for scale in logits] == [3] * len(discriminator.names)
    sum(scale.sum() for scale in logits).backward()
    assert samples.grad.abs().sum() > 0
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert not differences(before, weights(teacher))
    assert not any(module._forward_hooks for module in teacher.modules())
    assert not {id(p) for p in discriminator.parameters()} & {id(p) for p in teacher.parameters()}
    assert all(place.startswith("heads.") for place in discriminator.state_dict())


def test_features_are_what_the_blocks_put_out() -> None:
    """Block by block in the textbook's way: noised, through the transformer as PixArt's forward runs, and one head."""
    family, teacher, discriminator = built("pixart")
    condition, samples = told(family, 2), torch.randn(2, *family.shape)
    t = condition["noise_timesteps"]
    alpha = family.diffusion.alpha[t].view(-1, 1, 1, 1)
    noisy = alpha * samples + (1 - alpha**2).sqrt() * condition["noise"]
    with torch.no_grad():
        logits = discriminator(samples, condition)
        h = teacher.pos_embed(noisy)
        timestep, _ = teacher.adaln_single(
            t, {"resolution": None, "aspect_ratio": None}, batch_size=2, hidden_dtype=h.dtype
        )
        text = teacher.caption_projection(condition["prompt_embeds"])
        mask = (1 - condition["prompt_attention_mask"].float())[:, None] * -10000
        pooled = (condition["prompt_embeds"] * condition["prompt_attention_mask"][..., None]).sum(1)
        pooled = pooled / condition["prompt_attention_mask"].sum(1, keepdim=True)
        for block, head, found in zip(teacher.transformer_blocks, discriminator.heads, logits, strict=True):
            h = block(h, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=timestep)
            norm, first, second = head.body[0], head.body[1], head.body[3]
            z = (h - h.mean(2, keepdim=True)) / (h.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
            z = leaky_relu((z * norm.weight + norm.bias) @ first.weight.T + first.bias, 0.2)
            z = leaky_relu(z @ second.weight.T + second.bias, 0.2)
            angles = (t / 999)[:, None] * torch.pi * torch.arange(1, 33)
            e = head.level(torch.cat([angles.sin(), angles.cos()], 1)) + head.text(pooled)
            expected = (z * head.logit.weight[0]).sum(2) + head.logit.bias + (z * e[:, None]).sum(2) / 8**0.5
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["stable-diffusion", "flux", "dit"])
def test_noise_level_and_prompt_matter_to_the_heads(name: str) -> None:
    _, _, discriminator = built(name)
    head = discriminator.heads[0]
    size = {"stable-diffusion": TEXT, "flux": POOLED, "dit": 0}[name]
    tokens, level = torch.randn(2, head.body[1].in_features, 4), torch.tensor([0.2, 0.7])
    text = torch.randn(2, size) if size else None
    labels = None if size else torch.tensor([3, 5])
    logits = head(tokens, level, text, labels)
    assert not torch.allclose(head(tokens, level + 0.1, text, labels), logits)
    changed = head(tokens, level, text + 1 if size else None, None if size else labels + 1)
    assert not torch.allclose(changed, logits)


@pytest.mark.parametrize("name", ["stable-diffusion", "dit"])
def test_the_students_step_matters_to_heads_that_are_told(name: str) -> None:
    family, _, discriminator = built(name, num_steps=3)
    condition, samples = told(family, 2), torch.randn(2, *family.shape)
    logits = [discriminator(samples, {**condition, "time": torch.full((2,), step)}) for step in range(3)]
    for other in logits[1:]:
        assert all(not torch.allclose(a, b) for a, b in zip(logits[0], other, strict=True))
    adversary = advloss.Adversary(discriminator, loss="hinge")
    with pytest.raises(InputError, match="time"):
        adversary.generator_loss(samples, condition={**condition, "time": torch.full((2,), 3)})


@pytest.mark.parametrize("method", ["ladd", "lcm-ladd", "dmd2"])
def test_methods_tell_heads_the_step(method: str) -> None:
    made = build_method(method, tiny_setup("stable-diffusion"), **NEEDS[method])
    assert made.adversary is not None
    assert made.adversary.discriminator.num_steps == made.simulation.num_steps > 1


def test_noise_levels_are_logit_normal() -> None:
    _, family = tiny_family("stable-diffusion-3")
    draw = Renoising(mean=0.5, std=2.0).draw(family.diffusion, (1,), torch.zeros(20_000))
    timesteps = draw["noise_timesteps"]
    assert timesteps.min() >= 0
    assert timesteps.max() <= 1000
    inner = timesteps[(timesteps > 0) & (timesteps < 1000)] / 1000
    assert inner.logit().median() == pytest.approx(0.5, abs=0.1)
    quarter = torch.quantile(timesteps / 1000, 0.25).logit()
    assert quarter == pytest.approx(0.5 - 0.6745 * 2, abs=0.1)


def test_blocks_can_be_chosen() -> None:
    _, _, discriminator = built("stable-diffusion", blocks=(2, 4))
    assert discriminator.names == ["mid_block", "up_blocks.1"]
    assert len(discriminator.heads) == 2
    with pytest.raises(OptionError, match=r"blocks \[5\]: this UNet2DConditionModel has 5, from 0 to 4"):
        built("stable-diffusion", blocks=(5,))


def test_without_noise_it_says_where_noise_comes_from() -> None:
    pipeline, family = tiny_family("sana")
    condition = tiny_conditions(family, 2)
    discriminator = TeacherDiscriminator(family, pipeline.transformer, condition, width=8)
    with pytest.raises(InputError, match=r"renoising=Renoising\(\)"):
        discriminator(torch.randn(2, *family.shape), family.judged(condition, torch.zeros(2, dtype=torch.long)))


@pytest.mark.parametrize("name", NAMES)
def test_a_distillation_with_it_takes_a_step(name: str, accelerator: Accelerator) -> None:
    family, teacher, discriminator = built(name)
    student = family.student(teacher)
    paths = sampling_paths(student_scheduler(family))
    adversary = advloss.Adversary(discriminator, loss="hinge", regularizers={"r1": {"method": "finite-difference"}})
    distillation = Distillation(
        family,
        teacher,
        student,
        adversary,
        BackwardSimulation(family.diffusion, paths, spread(paths, 8)),
        Latents(family),
        torch.optim.Adam(student.parameters(), lr=1e-4),
        accelerator=accelerator,
    )
    before, frozen, heads = weights(student), weights(teacher), weights(discriminator)
    seen: list[dict[str, float]] = []
    distillation.run(1, lambda progress: seen.append(progress.as_dict()))
    assert torch.tensor(list(seen[0].values())).isfinite().all()
    assert len(differences(before, student.state_dict())) > len(before) // 2
    assert differences(heads, discriminator.state_dict())
    assert not differences(frozen, teacher.state_dict())


@pytest.mark.parametrize("method", ["exact", "finite-difference"])
def test_it_learns(method: str) -> None:
    family, _, discriminator = built("sana")
    torch.manual_seed(1)
    adversary = advloss.Adversary(
        discriminator,
        loss="hinge",
        regularizers={"r1": {"weight": 1e-3, "method": method}},
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )
    reports = []
    for _ in range(12):
        condition = told(family, 8)
        condition["noise_timesteps"] = condition["noise_timesteps"] // 5
        real, fake = torch.randn(8, *family.shape) + 1, torch.randn(8, *family.shape) - 1
        reports.append(adversary.discriminator_step(real, fake, condition=condition).as_dict())
    assert reports[-1]["real_accuracy"] + reports[-1]["fake_accuracy"] > 1.6
    assert reports[-1]["loss"] < 0.7 * reports[0]["loss"]


def test_both_forms_of_r1_see_one_slope() -> None:
    family, _, discriminator = built("sana")
    condition, real = told(family, 4), torch.randn(4, *family.shape)
    torch.manual_seed(2)
    exact = advloss.create_regularizer("r1")(discriminator, real, real, condition)
    near = advloss.create_regularizer("r1", method="finite-difference")
    found = torch.stack([near(discriminator, real, real, condition) for _ in range(60)]).mean()
    torch.testing.assert_close(found, exact, rtol=0.4, atol=0)
