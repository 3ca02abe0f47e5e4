"""What methods are composed of: decoded images, misaligned prompts, the fake score, R1 on head inputs, inputs, guidance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from distill_tools import (
    Recorded,
    Stripes,
    TinyJudge,
    differences,
    fresh_accelerator,
    tiny_distillation,
    weights,
    zero_snr_scheduler,
)
from method_tools import tiny_setup
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family
from torch import Tensor

import advloss
from advloss import InputError, OptionError, StateError
from advloss_distill import (
    AnyTimestep,
    Denoising,
    Diffusion,
    FakeScore,
    Guidance,
    HeadR1,
    ImageEmbedding,
    LatentData,
    Pixels,
    Renoising,
    TeacherDiscriminator,
    UniformRenoising,
    with_misaligned,
)
from advloss_distill._average import Averaged

NAMES = sorted(FAMILIES)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


# images


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_pipelines_and_gradients_come_back(name: str) -> None:
    pipeline, family = tiny_family(name)
    pixels = Pixels(family, pipeline.vae)
    fake, real = torch.randn(3, *family.shape, requires_grad=True), torch.randn(3, *family.shape)
    images, reals, judged = pixels(fake, real, {"vector": torch.ones(3, 2)})
    assert images.shape == reals.shape == (3, 3, family.resolution, family.resolution)
    torch.testing.assert_close(reals, family.to_images(pipeline.vae, real))
    torch.testing.assert_close(judged["vector"], torch.ones(3, 2))
    assert not reals.requires_grad
    images.square().mean().backward()
    assert fake.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in pipeline.vae.parameters())
    assert not pipeline.vae.training


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_memory_and_nothing_else(chunk: int) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    latents = torch.randn(5, *family.shape, requires_grad=True)
    kept, results = [], []
    for pixels in (Pixels(family, pipeline.vae), Pixels(family, pipeline.vae, chunk=chunk)):
        count = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images = pixels.decode(latents)
        kept.append(count)
        (slope,) = torch.autograd.grad(images.square().sum(), latents)
        results.append((images, slope))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)
    assert chunk == 5 or kept[1] < 0.1 * kept[0]


def test_both_sides_see_one_window_and_it_moves() -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pixels = Pixels(family, pipeline.vae, crop=8)
    latents = torch.randn(2, *family.shape)
    torch.manual_seed(0)
    seen = []
    for _ in range(8):
        fake, real, _ = pixels(latents, latents, {})
        assert fake.shape[-2:] == (8, 8)
        assert torch.equal(fake, real)
        seen.append(fake)
    assert any(not torch.equal(seen[0], other) for other in seen)
    whole = [family.to_images(pipeline.vae, latents[..., i : i + 4, j : j + 4]) for i in range(5) for j in range(5)]
    assert all(any(torch.allclose(one, window, atol=1e-5) for window in whole) for one in seen)


@pytest.mark.parametrize("crop", [None, 8])
def test_the_teachers_term_takes_the_images_that_the_adversary_was_shown(crop: int | None) -> None:
    """Once, of the same latents, in the same window; its gradient is that of images decoded for it alone."""
    pipeline, family = tiny_family("stable-diffusion")
    pixels, calls = Pixels(family, pipeline.vae, crop=crop), []
    pipeline.vae.decoder.register_forward_hook(lambda module, given, image: calls.append(image.requires_grad))
    latents, other = torch.randn(2, *family.shape, requires_grad=True), torch.randn(2, *family.shape)
    images, _, _ = pixels(latents, other, {})
    made, _ = pixels.pair(latents, other)
    assert calls == [True, False, False]
    assert made is images
    again, matching = pixels.pair(latents, latents)
    assert calls[3:] == [True, False]
    torch.testing.assert_close(again, matching)
    if crop is None:
        slopes = [torch.autograd.grad(image.square().sum(), latents)[0] for image in (made, again)]
        torch.testing.assert_close(*slopes)


def test_a_decoder_in_half_precision() -> None:
    pipeline, family = tiny_family("stable-diffusion")
    latents = torch.randn(2, *family.shape, requires_grad=True)
    images = Pixels(family, pipeline.vae.to(torch.bfloat16)).decode(latents)
    assert images.dtype == torch.float32
    images.sum().backward()
    assert latents.grad.dtype == torch.float32


def test_an_image_embedding_is_the_mean_of_the_last_tokens() -> None:
    judge = advloss.create_discriminator("dino", backbone="test_vit", pretrained=False, blocks=(1, 3), resolution=32)
    embed, images = ImageEmbedding(judge.features), torch.rand(2, 3, 16, 16) * 2 - 1
    found = embed(images)
    assert found.shape == (2, embed.channels)
    torch.testing.assert_close(found, judge.features(images)[-1].mean(-1))
    pipeline, family = tiny_family("stable-diffusion")
    pixels = Pixels(family, pipeline.vae, embed=embed)
    real = torch.randn(2, *family.shape)
    _, images, judged = pixels(real, real, {})
    torch.testing.assert_close(judged["vector"], embed(images))


# misaligned prompts


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


# the fake score


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


# inputs at any timestep


def latent_data() -> LatentData:
    torch.manual_seed(0)
    return LatentData(torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 2, 2), {"class_labels": torch.arange(12)})


def test_inputs_are_noised_real_samples_at_any_timestep() -> None:
    diffusion, data = Diffusion.from_scheduler(zero_snr_scheduler()), latent_data()
    inputs = AnyTimestep(diffusion, 6, data)
    seen = []
    for _ in range(300):
        assert inputs.fresh == 6
        noise, condition = torch.randn(6, 1, 2, 2), data.conditions(6)
        noisy, told = inputs.inputs(noise, condition)
        assert told is condition
        expected = diffusion.add_noise(condition["class_labels"].view(6, 1, 1, 1).float(), noise, inputs.timesteps)
        torch.testing.assert_close(noisy, expected.expand(6, 1, 2, 2))
        inputs.advance(noisy, told)
        seen.append(inputs.timesteps)
        assert torch.equal(inputs.steps, inputs.timesteps // 250)
    assert torch.cat(seen).min() >= 1
    assert torch.cat(seen).max() == 999
    assert inputs.state_dict() == {}


def test_half_of_them_are_the_students_own_at_earlier_timesteps() -> None:
    diffusion, data = Diffusion.from_scheduler(zero_snr_scheduler()), latent_data()
    inputs = AnyTimestep(diffusion, 7, data, own=True, guidance=(2.0, 5.0))
    _, told = inputs.inputs(torch.randn(7, 1, 2, 2), data.conditions(7))
    first, made = inputs.timesteps, torch.randn(7, 1, 2, 2)
    inputs.advance(made, told)
    assert inputs.fresh == 4
    noisy, later = inputs.inputs(torch.zeros(4, 1, 2, 2), data.conditions(4))
    assert len(noisy) == len(inputs.timesteps) == len(inputs.steps) == 7
    assert (inputs.timesteps[4:] <= first[:3]).all()
    for name in ("class_labels", "index", "guidance"):
        assert torch.equal(later[name][4:], told[name][:3])
    alpha, sigma = (v[inputs.timesteps[4:]].view(-1, 1, 1, 1) for v in (diffusion.alpha, diffusion.sigma))
    noise = (noisy[4:] - alpha * made[:3]) / sigma
    assert 0.2 < noise.std() < 3
    assert ((told["guidance"] >= 2) & (told["guidance"] <= 5)).all()
    assert told["guidance"].std() > 0

    other = AnyTimestep(diffusion, 7, data, own=True)
    inputs.advance(noisy, later)
    other.load_state_dict(inputs.state_dict())
    assert not differences(other.state_dict(), inputs.state_dict())
    assert other.fresh == 4
    for wrong in (AnyTimestep(diffusion, 9, data, own=True), AnyTimestep(diffusion, 7, data)):
        with pytest.raises(StateError, match="3 of the student's own samples"):
            wrong.load_state_dict(inputs.state_dict())
    told = {**data.conditions(4), "prompt_embeds": torch.zeros(4, 5)}
    with pytest.raises(StateError, match=r"prompt_embeds of this run's data are of shape \(5,\), those .* are missing"):
        other.inputs(torch.zeros(4, 1, 2, 2), told)


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1, "own": True}, {"count": 4, "guidance": (3.0, 2.0)}])
def test_numbers_of_inputs_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        AnyTimestep(Diffusion.from_scheduler(zero_snr_scheduler()), data=Stripes(), **options)


# guidance


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "sana", "dit"])
def test_guidance_is_that_of_the_networks_outputs(name: str) -> None:
    """As pipelines guide: outputs are extrapolated, and then read."""
    setup = tiny_setup(name)
    family, pipeline = setup.family, setup.pipeline
    nothing = family.nothing(pipeline)
    condition, noisy = tiny_conditions(family, 2), torch.randn(2, *family.shape)
    timesteps = torch.tensor([700, 300])
    guidance = Guidance(3.5, nothing)
    with torch.no_grad():
        outputs = [
            family.output(
                setup.teacher,
                noisy,
                timesteps,
                {n: v[:1].expand(2, *v.shape[1:]) for n, v in one.items()} if one is nothing else one,
            )
            for one in (condition, nothing)
        ]
        expected = family.diffusion.to_x0(outputs[1] + 3.5 * (outputs[0] - outputs[1]), noisy, timesteps)
        found = guidance.x0(family, setup.teacher, noisy, timesteps, condition)
        told = guidance.x0(family, setup.teacher, noisy, timesteps, {**condition, "guidance": torch.tensor([1.0, 3.5])})
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(told[1], expected[1], rtol=1e-3, atol=1e-3)
    plain = family.x0(setup.teacher, noisy, timesteps, condition)
    torch.testing.assert_close(told[0], plain[0], rtol=1e-3, atol=1e-3)


def test_no_class_is_the_class_after_the_last() -> None:
    setup = tiny_setup("dit")
    assert setup.family.nothing(setup.pipeline)["class_labels"].tolist() == [1000]


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_a_guided_student_begins_as_its_teacher_and_is_told_as_the_pipeline_tells_it(name: str) -> None:
    pipeline, family = tiny_family(name)
    student: Any = family.guided_student(pipeline.unet)
    assert student.config.time_cond_proj_dim == 256
    assert all(p.requires_grad and not p.is_meta for p in student.parameters())
    condition, noisy, t = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([700, 300])
    guided = {**condition, "guidance": torch.tensor([4.0, 7.5])}
    with torch.no_grad():
        teacher = family.x0(pipeline.unet, noisy, t, condition)
        torch.testing.assert_close(family.x0(pipeline.unet, noisy, t, guided), teacher)  # which is told nothing of it
        torch.testing.assert_close(family.x0(student, noisy, t, guided), teacher)
        student.time_embedding.cond_proj.weight.normal_()
        assert not torch.allclose(family.x0(student, noisy, t, guided), teacher)

    calls: list[dict[str, Any]] = []
    forward = type(student).forward
    student.forward = lambda *a, **k: calls.append(k) or forward(student, *a, **k)
    family.x0(student, noisy, t, {**condition, "guidance": torch.full((2,), 7.5)})
    pipeline.unet = student
    call = {**FAMILIES[name].call, "num_inference_steps": 1, "guidance_scale": 7.5, "output_type": "latent"}
    pipeline(**family.arguments(condition), **call)
    ours, theirs = (call["timestep_cond"] for call in calls[:2])
    torch.testing.assert_close(ours, theirs.expand(2, -1), rtol=1e-3, atol=1e-3)
