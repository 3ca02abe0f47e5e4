"""What a batch is made of and who learns from it: misaligned prompts, turns of the discriminator, terms, the average."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from distill_tools import (
    Recorded,
    TinyJudge,
    differences,
    fresh_accelerator,
    tiny_distillation,
    weights,
)

from advloss import InputError, OptionError
from advloss_distill import (
    with_misaligned,
)
from advloss_distill._average import Averaged


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def test_real_samples_get_another_samples_prompt() -> None:
    fake, real = torch.zeros(4, 1, 2, 2), torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    judged = {
        "prompt_embeds": torch.arange(4.0).view(4, 1, 1),
        "vector": torch.arange(4.0).view(4, 1),
        "noise": torch.arange(4.0).view(4, 1, 1, 1) * 10,
        "noise_timesteps": torch.arange(4) * 7,
        "time": torch.arange(4) * 3,
    }
    fakes, told = with_misaligned(fake, real, judged, 0.75)
    assert torch.equal(fakes[:4], fake)
    assert torch.equal(fakes[4:], real[:3])
    assert torch.equal(told["vector"][:4], judged["vector"])
    assert told["vector"][4:].flatten().tolist() == [1, 2, 3]
    assert told["prompt_embeds"][4:].flatten().tolist() == [1, 2, 3]
    assert told["time"][4:].tolist() == [0, 3, 6]  # what belongs to the sample stays with it
    assert told["noise_timesteps"][4:].tolist() == [0, 7, 14]
    assert told["noise"][4:].flatten().tolist() == [0, 10, 20]


def test_a_prompt_that_is_the_same_makes_no_fake() -> None:
    real = torch.arange(4.0).view(4, 1)
    fakes, told = with_misaligned(torch.zeros(4, 1), real, {"class": torch.tensor([2, 2, 5, 2])}, 1.0)
    assert fakes[4:].flatten().tolist() == [0, 1, 2, 3]
    assert told["class"][4:].tolist() == [5, 5, 2, 5]
    alike, _ = with_misaligned(torch.zeros(4, 1), real, {"class": torch.tensor([2, 2, 2, 2])}, 1.0)
    assert len(alike) == 4
    with pytest.raises(InputError, match="told of no prompt or class"):
        with_misaligned(torch.zeros(4, 1), real, {"time": torch.zeros(4)}, 1.0)


def test_the_discriminator_gets_them_as_fakes_and_the_student_does_not(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, paths=((999,),), counts={(999,): 8})
    distillation.adversary = Recorded(TinyJudge(), loss="hinge").prepare(accelerator)  # its own is paired
    distillation.misaligned = 0.5
    given: list[Any] = []
    own = distillation.adversary.discriminator_step
    distillation.adversary.discriminator_step = lambda *a, **k: given.append((a, k)) or own(*a, **k)  # type: ignore
    distillation.run(1)
    ((real, fakes), told) = given[0]
    assert torch.equal(fakes[8:], real[: len(fakes) - 8])
    assert 8 < len(fakes) <= 12
    assert torch.equal(told["fake_condition"]["class"][:8], told["condition"]["class"])
    assert (told["fake_condition"]["class"][8:] != told["condition"]["class"][: len(fakes) - 8]).all()
    assert len(distillation.adversary.turns[0].fake) == 8


# the loop


def test_the_discriminator_moves_more_often_on_samples_of_its_own(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, discriminator_steps=3)
    before = weights(distillation.student)
    own = distillation.adversary.discriminator_step
    moved: list[bool] = []

    def step(*args: Any, **options: Any) -> Any:
        moved.append(bool(differences(before, distillation.student.state_dict())))
        return own(*args, **options)

    distillation.adversary.discriminator_step = step  # type: ignore[method-assign]
    distillation.run(1)
    assert moved == [False] * 3
    assert distillation.adversary.step == 3
    assert len(distillation.adversary.turns) == 1
    fakes = [turn.fake for turn in distillation.adversary.judged]
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(fakes))
    assert [fake.requires_grad for fake in fakes] == [False, False, True]
    assert fakes[-1] is distillation.adversary.turns[0].fake
    assert differences(before, distillation.student.state_dict())


def test_what_a_run_learns_from_is_checked(accelerator: Accelerator) -> None:
    for options, why in (
        ({"discriminator_steps": 0}, "discriminator_steps=0"),
        ({"misaligned": 1.5}, "misaligned=1.5"),
    ):
        with pytest.raises(OptionError, match=why):
            tiny_distillation(accelerator, **options)
    run = tiny_distillation(accelerator)
    with pytest.raises(OptionError, match="neither an adversary nor a teacher's term"):
        type(run)(
            run.denoiser,
            run.teacher,
            run.student,
            None,
            run.simulation,
            run.data,
            run.optimizer,
            accelerator=accelerator,
        )


def test_a_term_sees_what_the_student_made(accelerator: Accelerator) -> None:
    seen: list[Any] = []
    distillation = tiny_distillation(
        accelerator, term=lambda made: seen.append(made) or made.x0.square().mean(), distillation_weight=0.5
    )
    progress: list[Any] = []
    distillation.run(1, progress.append)
    (made,) = seen
    torch.testing.assert_close(progress[0].distillation_loss, 0.5 * made.x0.square().mean())
    assert torch.equal(made.timesteps, distillation.simulation.timesteps)
    assert made.x0 is distillation.adversary.turns[0].fake


def test_the_average_is_called_without_a_copy(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, ema_decay=0.5)
    distillation.run(3)
    made = distillation._draw().made
    expected = distillation.averaged_student()
    told = (distillation.denoiser, made.noisy, made.timesteps, made.condition)
    before = weights(distillation.student)
    with torch.no_grad():
        found = told[0].x0(made.average, *told[1:])
        torch.testing.assert_close(found, told[0].x0(expected, *told[1:]), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, told[0].x0(distillation.student, *told[1:]))
    assert isinstance(made.average, Averaged)
    assert not differences(before, distillation.student.state_dict())
    assert not made.average.state_dict()
