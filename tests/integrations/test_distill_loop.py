"""The loop: who changes, what the discriminator is given and told, and when the teacher is asked."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from distill_tools import (
    COUNTS,
    Stripes,
    differences,
    flat,
    fresh_accelerator,
    reset_accelerate,
    tiny_distillation,
    weights,
)
from torch import Tensor

from advloss import NonFiniteError
from advloss_distill import Progress


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("the teacher was called")


def test_the_student_learns_and_the_teacher_stays(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, distillation_weight=1.0)
    teacher, student = weights(distillation.teacher), weights(distillation.student)
    judge = weights(distillation.adversary.discriminator)
    seen: list[Progress] = []
    distillation.run(3, seen.append)
    assert [progress.iteration for progress in seen] == [1, 2, 3]
    assert distillation.iteration == 3
    assert not differences(teacher, distillation.teacher.state_dict())
    assert len(differences(student, distillation.student.state_dict())) > len(student) // 2
    assert differences(judge, distillation.adversary.discriminator.state_dict())
    assert all(torch.isfinite(torch.tensor(list(progress.as_dict().values()))).all() for progress in seen)
    assert distillation.run(3, forbidden)  # nothing is left to do


def test_ctrl_c_ends_it_between_two_iterations(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    seen: list[int] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress.iteration)
        if progress.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)

    assert distillation.run(5, interrupt) is False
    assert distillation.iteration == 2
    assert distillation.run(5, interrupt) is True
    assert seen == [1, 2, 3, 4, 5]


def test_the_teacher_is_none_of_the_accelerators_models(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    assert accelerator._models == [distillation.student]
    assert not any(parameter.requires_grad for parameter in distillation.teacher.parameters())
    assert not distillation.teacher.training
    assert all(parameter.requires_grad for parameter in distillation.student.parameters())


def test_the_discriminator_gets_real_samples_of_the_same_labels(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(4)
    for turn in distillation.adversary.turns:
        labels, steps = turn.condition["class"], turn.condition["time"]
        assert (turn.real - Stripes.level(labels)).abs().max() <= Stripes.TEXTURE * 1.001
        assert steps.tolist() == [i for i, count in enumerate(COUNTS.values()) for _ in range(count)]
        assert len(labels) == len(turn.fake) == sum(COUNTS.values())
        assert turn.fake.abs().max() <= 1


def test_both_players_see_the_same_samples_the_discriminator_first(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(3)
    turns, judged = distillation.adversary.turns, distillation.adversary.judged
    for student, discriminator in zip(turns, judged, strict=True):
        assert student.fake is discriminator.fake
        assert student.real is discriminator.real
        assert student.condition is discriminator.condition
    assert [turn.seen for turn in turns] == [1, 2, 3]


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_accumulated_batches_make_one_step_of_each_player(discriminator_steps: int) -> None:
    """All batches are judged before the student moves, on the same samples; its gradient is the mean over them."""
    reset_accelerate()
    accelerator, parts = Accelerator(cpu=True, gradient_accumulation_steps=3), 3
    distillation = tiny_distillation(accelerator, discriminator_steps=discriminator_steps)
    adversary, calls, slopes, found = distillation.adversary, [], [], []
    distillation.run(1)
    adversary.turns.clear()
    adversary.judged.clear()
    x0, step = distillation._x0, distillation.guard.step

    def record(*args: Any) -> Tensor:
        answer = x0(*args)
        if answer.requires_grad:
            calls.append(args)
            answer.register_hook(slopes.append)
        return answer

    def look(**values: Any) -> None:
        found[:] = [parameter.grad.clone() for parameter in distillation.student.parameters()]
        step(**values)

    distillation._x0, distillation.guard.step = record, look
    before, average = copy.deepcopy(distillation.student), copy.deepcopy(distillation.ema.shadow_params)
    counts = (
        adversary.step,
        distillation.optimizer.optimizer.state[next(distillation.student.parameters())]["step"].item(),
    )
    progress = distillation.step()
    assert adversary.step == counts[0] + discriminator_steps
    assert distillation.optimizer.optimizer.state[next(distillation.student.parameters())]["step"] == counts[1] + 1
    assert len(adversary.turns) == parts
    assert [turn.seen for turn in adversary.turns] == [parts * discriminator_steps] * parts
    for turn, judged in zip(adversary.turns, adversary.judged[-parts:], strict=True):
        assert torch.allclose(turn.fake, judged.fake, atol=1e-6)
        assert turn.real is judged.real
        assert turn.condition is judged.condition
    answers = [distillation.denoiser.x0(before, *args) for args in calls]
    expected = torch.autograd.grad(answers, list(before.parameters()), slopes)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(found, expected, strict=True))
    assert progress.iteration == 2
    assert any(differences(average, distillation.ema.shadow_params))
    reset_accelerate()


def test_accumulation_without_an_adversary_computes_nothing_twice() -> None:
    reset_accelerate()
    distillation = tiny_distillation(Accelerator(cpu=True, gradient_accumulation_steps=2), distillation_weight=1.0)
    distillation.run(1)
    distillation.adversary, calls = None, []
    distillation.student.register_forward_hook(lambda module, given, output: calls.append(output.sample.requires_grad))
    before = weights(distillation.student)
    distillation.step()
    assert sum(calls) == 2
    assert differences(before, distillation.student.state_dict())
    reset_accelerate()


def test_the_network_is_told_timesteps_and_labels(accelerator: Accelerator) -> None:
    """Timesteps are those of the noise, not their places in a list; labels are those the sample is judged for."""
    distillation = tiny_distillation(accelerator)
    distillation.run(1)
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    distillation.student.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args[0].clone(), args[1], kwargs["class_labels"])), with_kwargs=True
    )
    made = distillation.adversary.turns[-1]
    distillation.run(2)
    ((noisy, timesteps, labels),) = calls
    assert timesteps.tolist() == [step[-1] for step, count in COUNTS.items() for _ in range(count)]
    assert torch.equal(labels, distillation.adversary.turns[-1].condition["class"])
    # an input after the first step is what the student made before, noised: not pure noise
    levels = distillation.denoiser.diffusion
    later = slice(COUNTS[(999,)], None)
    places = distillation.simulation._parents
    alpha, sigma = (values[timesteps[later]].view(-1, 1, 1, 1) for values in (levels.alpha, levels.sigma))
    noise = (noisy[later] - alpha * made.fake.detach()[places]) / sigma
    assert noise.std() == pytest.approx(1, abs=0.1)
    correlation = (noise * made.fake.detach()[places]).mean() / made.fake.detach()[places].square().mean()
    assert abs(correlation) < 0.2
    assert torch.equal(labels[later], made.condition["class"][places])


def test_without_weight_the_teacher_is_never_called(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, change=lambda t: setattr(t, "forward", forbidden))
    seen: list[Progress] = []
    distillation.run(2, seen.append)
    assert seen[0].distillation_loss is None
    assert "distillation_loss" not in seen[0].as_dict()
    distillation.distillation_weight = 1.0
    with pytest.raises(AssertionError, match="teacher was called"):
        distillation.step()


def test_the_teachers_term_is_weighted(accelerator: Accelerator) -> None:
    terms = []
    for weight in (1.0, 3.0):
        distillation = tiny_distillation(accelerator, distillation_weight=weight)
        distillation.run(1, lambda progress: terms.append(progress.distillation_loss))
    torch.testing.assert_close(terms[1], 3 * terms[0])
    assert terms[0] > 0


def test_the_average_lags_behind_the_student(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, ema_decay=0.5)
    before = [weights(distillation.student)]
    distillation.run(6, lambda progress: before.append(weights(distillation.student)))
    expected = {name: value.double() for name, value in before[1].items()}  # the first step is taken over as it is
    for i, student in enumerate(before[2:], start=1):
        decay = min(0.5, (1 + i) / (10 + i))
        expected = {name: decay * expected[name] + (1 - decay) * student[name].double() for name in expected}
    averaged = distillation.averaged_student()
    assert not averaged.training
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert differences(averaged.state_dict(), before[-1])
    assert not differences(distillation.student.state_dict(), before[-1])  # the student itself is left alone


def test_both_rates_follow_their_schedules(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    rates = [0.01 * factor for factor in (1, 1, 0.5, 0.5, 0.25)]
    optimizers = (distillation.optimizer, distillation.adversary.optimizer)
    for i, rate in enumerate(rates):
        distillation.run(i)
        assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [rate, rate]


def test_progress_is_read_as_numbers(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator, distillation_weight=1.0)
    distillation.run(1)
    numbers = distillation.step().as_dict()
    assert numbers["iteration"] == 2
    assert {"generator_loss", "distillation_loss", "discriminator/loss", "discriminator/grad_norm"} <= numbers.keys()
    assert all(isinstance(value, float) for value in flat(numbers).values())


def test_a_bad_step_is_skipped_and_a_run_that_stays_bad_ends(accelerator: Accelerator) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(2)
    before, own = weights(distillation.student), distillation.adversary.generator_loss
    distillation.adversary.generator_loss = lambda *a, **k: own(*a, **k) * torch.nan
    distillation.step()
    assert not differences(before, distillation.student.state_dict())
    with pytest.raises(NonFiniteError, match="'s steps in a row were skipped; not finite: loss"):
        distillation.run(40)
    assert not differences(before, distillation.student.state_dict())
    assert all(torch.isfinite(p).all() for p in distillation.averaged_student().parameters())
    distillation.adversary.generator_loss = own
    distillation.optimizer.zero_grad()
    distillation.step()
    assert differences(before, distillation.student.state_dict())
