"""Families of teachers: called as their own pipelines call them, and a student of each takes a step."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)
from distill_tools import differences, fresh_accelerator, weights
from pipeline_tools import (
    ENCODERS,
    FAMILIES,
    flux,
    stable_diffusion,
    tiny_conditions,
    tiny_family,
    tiny_pipeline,
    tiny_text,
    tiny_unet,
)
from torch import Tensor, nn

import advloss
from advloss import InputError, OptionError, PluginError, UnknownComponentError
from advloss_distill import (
    BackwardSimulation,
    Card,
    Conditions,
    Distillation,
    Family,
    families,
    family_of,
    list_families,
    load_pipeline,
    sampling_paths,
    save_pipeline,
    spread,
    student_scheduler,
)

NAMES = sorted(FAMILIES)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def test_every_family_of_ours_is_found() -> None:
    found = list_families()
    assert not found.broken
    assert {spec.name for plugin, spec in found.found if plugin == "families"} == set(FAMILIES)
    assert {family.__name__ for family in map(functools.partial(getattr, families), families.__all__)} == {
        spec.target.partition(":")[2] for _, spec in found.found
    }


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_the_teachers_own_scheduler_ends_at_x0(name: str) -> None:
    """Its last step goes to where there is no noise; the sample there is x_0, whatever the scheduler's parametrization."""
    pipeline, family = tiny_family(name)
    scheduler, network = pipeline.scheduler, pipeline.components[family.part]
    condition, x0 = tiny_conditions(family, 2), torch.randn(2, *family.shape)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler = FlowMatchEulerDiscreteScheduler()  # at whole timesteps; a shift moves them
    else:
        unmoved = {"flow_shift": 1.0} if "flow_shift" in scheduler.config else {}
        scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing="trailing", **unmoved)
    scheduler.set_timesteps(1)
    timestep = scheduler.timesteps[-1]
    timesteps = timestep.expand(2)
    noisy = family.diffusion.add_noise(x0, torch.randn_like(x0), timesteps)
    with torch.no_grad():
        found = family.x0(network, noisy, timesteps, condition)
        output = family.output(network, noisy, timesteps, condition)
    ours = noisy
    if hasattr(scheduler, "sigmas") and hasattr(scheduler, "scale_model_input") and scheduler.init_noise_sigma != 1:
        ours = noisy * (scheduler.sigmas[-2] ** 2 + 1) ** 0.5  # Euler's samples are x_0 + sigma noise
        torch.testing.assert_close(scheduler.scale_model_input(ours, timestep), noisy)
    expected = scheduler.step(output, timestep, ours).prev_sample
    assert (expected - x0).abs().mean() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_called_as_the_pipeline_calls_it(name: str) -> None:
    """Every tensor that the pipeline gives its network, the family gives it too, and packs and unpacks what comes back."""
    pipeline, family = tiny_family(name)
    condition = tiny_conditions(family, 2)
    as_called(name, pipeline, family, family.arguments(condition), condition)


PROMPTS = ["a Red  fox", "the house in the snow"]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_prompts_reach_the_network_as_the_pipeline_brings_them(name: str) -> None:
    """With text encoders and tokenizers, and the defaults of the pipeline's call."""
    pipeline = tiny_pipeline(name, **tiny_text(name))
    family = family_of(pipeline, resolution=FAMILIES[name].side)
    with torch.no_grad():
        condition = family.encode(pipeline, PROMPTS)
    as_called(name, pipeline, family, {"prompt": PROMPTS}, condition)


def test_nothing_is_what_guidance_of_the_pipeline_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sana's pipeline has an instruction before prompts, and none before negative ones."""
    pipeline = tiny_pipeline("sana", **tiny_text("sana"))
    family = family_of(pipeline, resolution=32)
    network, calls = pipeline.transformer, []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *a, **o: calls.append(o) or forward(*a, **o))
    for negative in ("", "a house"):
        call = {**FAMILIES["sana"].call, "num_inference_steps": 1, "output_type": "latent", "negative_prompt": negative}
        pipeline("a fox", guidance_scale=3, **call)
        with torch.no_grad():
            nothing = family.nothing(pipeline, negative)
        theirs = calls[-1]
        torch.testing.assert_close(nothing["prompt_embeds"], theirs["encoder_hidden_states"][:1])
        assert torch.equal(nothing["prompt_attention_mask"], theirs["encoder_attention_mask"][:1])


def as_called(name: str, pipeline: Any, family: Family, given: dict[str, Any], condition: Conditions) -> None:
    """The pipeline's call with `given` gives its network what the family gives it with `condition`."""
    network = pipeline.components[family.part]
    calls: list[tuple[dict[str, Any], Tensor]] = []
    forward = type(network).forward

    def record(*args: Any, **options: Any) -> Any:
        output = forward(network, *args, **options)
        given = {**{f"argument {i}": a for i, a in enumerate(args)}, **options}
        calls.append((given, output[0] if isinstance(output, tuple) else output.sample))
        return output

    network.forward = record
    call = {**FAMILIES[name].call, "num_inference_steps": 1, "guidance_scale": 0, "output_type": "latent"}
    if name == "flux":
        call["guidance_scale"] = family.guidance  # type: ignore[attr-defined]
    if name == "dit":
        call.pop("output_type")
    pipeline(**given, **call)
    theirs, their_output = calls[0]
    noisy = theirs.get("hidden_states", theirs.get("argument 0"))
    timestep = pipeline.scheduler.timesteps[0]
    with torch.no_grad():
        output = family.output(network, family.unpack(noisy), timestep.expand(2), condition)
    ours, _ = calls[1]
    assert set(flat_tensors(theirs)) == set(flat_tensors(ours))
    for key, value in flat_tensors(theirs).items():
        torch.testing.assert_close(
            flat_tensors(ours)[key].expand(value.shape), value, check_dtype=False, msg=lambda m, k=key: f"{k}: {m}"
        )
    torch.testing.assert_close(family.pack(output), their_output[:, : family.pack(output).shape[1]])


def flat_tensors(given: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors by name; the first arguments under the names that keyword callers use. A scalar is one value a sample."""
    names = {"argument 0": "hidden_states", "argument 1": "timestep", "sample": "hidden_states"}
    found = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found.update({f"{name}/{k}": v for k, v in value.items() if isinstance(v, Tensor)})
        elif isinstance(value, Tensor):
            key = names.get(name, name)
            found[key] = value.reshape(1) if value.ndim == 0 else value
    if "timestep" in found:
        found["timestep"] = found["timestep"].expand(2).float()
    return found


class Judge(nn.Module):
    """Logits `(N,)` of latents, told the step and the prompt or class."""

    def __init__(self, pixels: int, steps: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.Tanh())
        self.step, self.head = nn.Embedding(steps, 8), nn.Linear(8, 1)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        assert "vector" in condition or "class" in condition
        features = self.body(samples)
        return self.head(features).squeeze(1) + (features * self.step(condition["time"])).sum(1)


class Latents:
    """Random latents and conditions."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def conditions(self, count: int) -> Conditions:
        return tiny_conditions(self.family, count)

    def real(self, condition: Conditions) -> Tensor:
        return torch.randn(len(next(iter(condition.values()))), *self.family.shape)


def tiny_run(
    pipeline: Any, family: Family, student: nn.Module, accelerator: Accelerator, optimizer: Any = torch.optim.Adam
) -> Distillation:
    paths = sampling_paths(student_scheduler(family))
    simulation = BackwardSimulation(family.diffusion, paths, spread(paths, 8))
    adversary = advloss.Adversary(
        Judge(family.shape[0] * family.shape[1] * family.shape[2], len(simulation.counts)),
        loss="relativistic",
        regularizers={"r1": {"weight": 0.01, "method": "finite-difference"}},
    )
    return Distillation(
        family,
        pipeline.components[family.part],
        student,
        adversary,
        simulation,
        Latents(family),
        optimizer([p for p in student.parameters() if p.requires_grad], lr=1e-4),
        accelerator=accelerator,
        distillation_weight=1.0,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_student_takes_a_step_and_the_teacher_none(name: str, accelerator: Accelerator) -> None:
    pipeline, family = tiny_family(name)
    teacher = pipeline.components[family.part]
    student = family.student(teacher)
    before, frozen = weights(student), weights(teacher)
    distillation = tiny_run(pipeline, family, student, accelerator)
    seen: list[dict[str, float]] = []
    distillation.run(1, lambda progress: seen.append(progress.as_dict()))
    assert torch.tensor(list(seen[0].values())).isfinite().all()
    assert len(differences(before, student.state_dict())) > len(before) // 2
    assert not differences(frozen, teacher.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_in_half_precision_answers_in_that_of_the_samples(name: str) -> None:
    pipeline, family = tiny_family(name)
    teacher = pipeline.components[family.part]
    condition, noisy, timesteps = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([300, 20])
    with torch.no_grad():
        expected = family.answer(teacher, noisy, timesteps, condition)
        found = family.answer(teacher.to(torch.bfloat16), noisy, timesteps, condition)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert family.x0(teacher, noisy, timesteps, condition).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_conditions_come_from_the_pipelines_own_encoder(name: str) -> None:
    """Embeddings given to `encode_prompt` come back as they are: each lands under its own name."""
    pipeline, family = tiny_family(name)
    if name == "dit":
        pipeline.labels = {"goose": 99, "tench": 0}
        assert family.encode(pipeline, ["tench", "goose"])["class_labels"].tolist() == [0, 99]
        return
    condition = tiny_conditions(family, 3)
    found = family.encode(pipeline, None, **condition)
    assert found.keys() == condition.keys()
    for key, value in condition.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_latents_are_scaled_as_the_pipeline_scales_them(name: str) -> None:
    pipeline, family = tiny_family(name)
    made: list[Tensor] = []
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda latents, **options: made.append(latents) or decode(latents, **options)
    condition = tiny_conditions(family, 2)
    call = {**FAMILIES[name].call, "num_inference_steps": 1, "guidance_scale": 0, "output_type": "pt"}
    images = pipeline(**family.arguments(condition), **call, generator=torch.manual_seed(0)).images
    latents = made[0] * pipeline.vae.config.scaling_factor
    latents = latents - (pipeline.vae.config.get("shift_factor") or 0) * pipeline.vae.config.scaling_factor
    with torch.no_grad():
        ours = family.to_images(pipeline.vae, latents)
    images = images if isinstance(images, Tensor) else torch.tensor(images).permute(0, 3, 1, 2)
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made[-1], made[0], rtol=1e-4, atol=1e-5)
    side = FAMILIES[name].side
    shape = family.to_latents(pipeline.vae, torch.zeros(2, 3, side, side)).shape
    assert shape == (2, *family.shape)


def test_latents_invert() -> None:
    _, family = tiny_family("stable-diffusion-3")

    class Identity:
        config = type("Config", (dict,), {"scaling_factor": 1.5305})(shift_factor=0.0609)

        def encode(self, images: Tensor) -> Any:
            return type("Encoded", (), {"latent": images})

        def decode(self, latents: Tensor) -> Any:
            return type("Decoded", (), {"sample": latents})

    images = torch.randn(2, 3, 4, 4)
    latents = family.to_latents(Identity(), images)
    torch.testing.assert_close(latents, (images - 0.0609) * 1.5305)
    torch.testing.assert_close(family.to_images(Identity(), latents), images)


def test_a_student_of_flux_has_the_guidance_built_in() -> None:
    pipeline, family = tiny_family("flux", guidance=2.0)
    student = family.student(pipeline.transformer).eval()
    assert not student.config.guidance_embeds
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in student.parameters())
    condition, noisy, timesteps = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([999, 300])
    with torch.no_grad():
        teacher = family.output(pipeline.transformer, noisy, timesteps, condition)
        torch.testing.assert_close(family.output(student, noisy, timesteps, condition), teacher, rtol=1e-4, atol=1e-5)
        family.guidance = 7.0
        assert not torch.allclose(family.output(pipeline.transformer, noisy, timesteps, condition), teacher)


def test_a_student_of_dit_forgets_no_classes() -> None:
    pipeline, family = tiny_family("dit")
    condition, noisy = {"class_labels": torch.arange(64) % 10}, torch.randn(64, *family.shape)
    for student in (family.student(pipeline.transformer), family.adapted(pipeline.transformer, rank=2)):
        assert student.training
        with torch.no_grad():
            outputs = [family.output(student, noisy, torch.full((64,), 500), condition) for _ in range(2)]
        torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("name", NAMES)
def test_missing_conditions_are_named(name: str) -> None:
    pipeline, family = tiny_family(name)
    condition = tiny_conditions(family, 2)
    condition.pop(family.takes[-1])
    with pytest.raises(InputError, match=rf"{family.takes[-1]} is missing.*family\.encode"):
        family.output(pipeline.components[family.part], torch.randn(2, *family.shape), torch.tensor([9, 9]), condition)


def test_teachers_that_are_distilled_already_are_refused() -> None:
    trailing = "EulerAncestralDiscreteScheduler"
    import diffusers

    for make in (
        lambda: stable_diffusion(scheduler=LCMScheduler()),
        lambda: stable_diffusion(scheduler=getattr(diffusers, trailing)(timestep_spacing="trailing")),
        lambda: stable_diffusion(unet=tiny_unet(time_cond_proj_dim=8), scheduler=DDPMScheduler()),
        lambda: flux(guidance_embeds=False, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0)),
    ):
        with pytest.raises(OptionError, match=r"is distilled already .*: it knows no guidance"):
            family_of(make(), resolution=16)


@pytest.mark.parametrize("name", NAMES)
def test_so_are_students_of_ours(name: str, tmp_path: Path) -> None:
    pipeline, family = tiny_family(name)
    student = pipeline.components[family.part]
    if name == "flux":
        student = family.student(student)  # without the guidance input
    scheduler = student_scheduler(family)
    paths = sampling_paths(scheduler)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, paths, Card("someone/teacher", data="noise"))
    with pytest.raises(OptionError, match=r"is distilled already .*: it knows no guidance"):
        family_of(load_pipeline(str(tmp_path / "out")), resolution=FAMILIES[name].side)


def test_a_scheduler_alone_says_little() -> None:
    """Timesteps from the end are those of SD-Turbo, but any pipeline may be given such a scheduler."""
    trailing = EulerDiscreteScheduler(timestep_spacing="trailing", steps_offset=1)
    pipeline = stable_diffusion(scheduler=trailing)
    with pytest.raises(OptionError, match=r"if it is not distilled, say so: .*undistilled=True.* --undistilled"):
        family_of(pipeline, resolution=16)
    family_of(pipeline, resolution=16, undistilled=True)
    told = EulerDiscreteScheduler(timestep_spacing="trailing", steps_offset=1, prediction_type="v_prediction")
    family_of(stable_diffusion(scheduler=told), resolution=16)


def test_a_scheduler_that_does_not_fit_the_network_is_refused() -> None:
    with pytest.raises(OptionError, match="set for 'flow', and its network predicts 'epsilon' or 'v_prediction'"):
        family_of(stable_diffusion(scheduler=FlowMatchEulerDiscreteScheduler()))
    with pytest.raises(OptionError, match="set for 'epsilon', and its network predicts 'flow'"):
        family_of(tiny_pipeline("stable-diffusion-3", scheduler=DDIMScheduler()))


def test_networks_that_see_an_image_are_refused() -> None:
    with pytest.raises(OptionError, match="takes 9 channels and the VAE makes 4"):
        family_of(stable_diffusion(unet=tiny_unet(in_channels=9)))


@pytest.mark.parametrize("resolution", [0, 17, -16, 18])
def test_resolutions_that_do_not_fit_are_refused(resolution: int) -> None:
    with pytest.raises(OptionError, match="multiples of 4"):
        tiny_family("stable-diffusion", resolution=resolution)


STRANGER = """
import advloss_distill
from advloss_distill import Family, FamilySpec

@advloss_distill.hookimpl
def advloss_distill_families():
    return [FamilySpec(name="mine", pipelines=("MyPipeline",), target="stranger:Mine", summary="Mine.")]

class Mine(Family):
    part, blocks, predictions, takes = "unet", ("down_blocks.*",), ("epsilon",), ("prompt_embeds",)

    def output(self, network, noisy, timesteps, condition):
        return network(noisy, timesteps, encoder_hidden_states=condition["prompt_embeds"]).sample

    def encode(self, pipeline, prompts, **options):
        return {}
"""


def install(folder: Path, module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"advloss_{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: advloss-{module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[advloss_distill]\n{module} = {module}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, module, raising=False)


def test_a_strangers_plugin_adds_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = stable_diffusion()
    pipeline.__class__ = type("MyPipeline", (type(pipeline),), {})
    with pytest.raises(
        UnknownComponentError,
        match=r"no family of teachers stands for a MyPipeline; there are some for DiTPipeline, .*hook advloss_distill_families",
    ):
        family_of(pipeline)
    install(tmp_path, "broken", "import no_such_module\n", monkeypatch)
    with pytest.raises(UnknownComponentError, match=r"Plugin broken could not be loaded .*no_such_module"):
        family_of(pipeline)
    install(tmp_path, "stranger", STRANGER, monkeypatch)
    assert type(family_of(pipeline, resolution=16)).__name__ == "Mine"
    install(tmp_path, "second", STRANGER, monkeypatch)
    with pytest.raises(UnknownComponentError, match=r"claimed by the families mine of plugin .* and mine of plugin"):
        family_of(pipeline)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1\n", "returned no families"),
        (STRANGER.replace("[FamilySpec(", "[dict("), "returned a dict; return FamilySpec objects"),
        (STRANGER.replace('("MyPipeline",)', '"MyPipeline"'), "give a tuple of class names"),
        (STRANGER.replace('"stranger:Mine"', '"Mine"'), "give 'package.module:Class'"),
    ],
)
def test_a_broken_plugin_hides_no_family(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "stranger", source, monkeypatch)
    found = list_families()
    assert why in found.broken["stranger"]
    assert {spec.name for _, spec in found.found} == set(FAMILIES)


def test_a_family_whose_class_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "stranger", STRANGER.replace("stranger:Mine", "stranger:Yours"), monkeypatch)
    pipeline = stable_diffusion()
    pipeline.__class__ = type("MyPipeline", (type(pipeline),), {})
    with pytest.raises(PluginError, match="stranger:Yours cannot be imported"):
        family_of(pipeline)


def test_dit_makes_images_of_one_size() -> None:
    with pytest.raises(OptionError, match="resolution=32; a DiTPipeline makes images of 16 pixels alone"):
        tiny_family("dit", resolution=32)


def test_a_size_that_was_guessed_is_said_to_be() -> None:
    pipeline = tiny_pipeline("stable-diffusion", vae=None)
    assert (
        "(4, 2, 2) at 16 pixels; the pipeline was loaded without its VAE"
        in family_of(pipeline, resolution=16).size_words()
    )
    assert family_of(pipeline).shape == (4, 8, 8)
    _, family = tiny_family("stable-diffusion")
    assert family.size_words() == "(4, 8, 8) at 16 pixels"
