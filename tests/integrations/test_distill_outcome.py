"""The folder that is left: opened by plain diffusers, it samples as training did."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from accelerate import Accelerator
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from distill_tools import differences, fresh_accelerator, weights
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family, tiny_pipeline
from test_distill_families import tiny_run
from torch import Tensor, nn

from advloss import OptionError, StateError, load_state
from advloss_distill import (
    Card,
    Conditions,
    Family,
    LatentData,
    add_lora,
    check_prediction,
    family_of,
    merge_lora,
    sampling_paths,
    save_adapter,
    save_pipeline,
    spread,
    student_scheduler,
)

NAMES = sorted(FAMILIES)
STEPS = (1, 2, 3, 4)
CARD = Card(
    teacher="someone/teacher", data="noise", licence="openrail", settings={"rate": 1e-4}, curves={"loss": [2.0, 1.0]}
)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def as_trained(family: Family, student: nn.Module, path: Any, condition: Conditions, seed: int) -> Tensor:
    """Samples by training's own parts: the student's x_0, noised again to the next timestep of the path."""
    torch.manual_seed(seed)
    count = len(next(iter(condition.values())))
    noisy = torch.randn(count, *family.shape)
    with torch.no_grad():
        for i, timestep in enumerate(path):
            x0 = family.x0(student, noisy, torch.tensor([timestep]).expand(count), condition)
            if i + 1 < len(path):
                noise = family.unpack(torch.randn(family.pack(x0).shape))
                noisy = family.diffusion.add_noise(x0, noise, torch.tensor([path[i + 1]]).expand(count))
    return x0


def sampled(
    pipeline: Any, name: str, family: Family, condition: Conditions, steps: int, seed: int
) -> tuple[Tensor, list]:
    """Latents that the pipeline ends at, and the timesteps that it visits."""
    made: list[Tensor] = []
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda latents, **options: made.append(latents) or decode(latents, **options)
    call = {**FAMILIES[name].call, "num_inference_steps": steps, "guidance_scale": 0, "output_type": "pt"}
    torch.manual_seed(seed)
    pipeline(**family.arguments(condition), **call)
    pipeline.vae.decode = decode
    config = pipeline.vae.config
    return (made[0] - (config.get("shift_factor") or 0)) * config.scaling_factor, pipeline.scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_plain_diffusers_samples_as_training_did(name: str, tmp_path: Path, accelerator: Accelerator) -> None:
    pipeline, family = tiny_family(name)
    teacher = pipeline.components[family.part]
    distillation = tiny_run(pipeline, family, family.student(teacher), accelerator)
    distillation.run(1)
    student, scheduler = distillation.averaged_student(), student_scheduler(family)
    paths = sampling_paths(scheduler, STEPS)
    before = dict(pipeline.config)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, paths, CARD)
    assert dict(pipeline.config) == before
    assert pipeline.components[family.part] is teacher
    assert sorted(os.listdir(tmp_path)) == ["out"]

    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES[name].missing)
    assert type(opened) is type(pipeline)
    opened.set_progress_bar_config(disable=True)
    assert not differences(weights(opened.components[family.part]), weights(student))
    condition = tiny_conditions(family, 2)
    for steps, path in zip(STEPS, paths, strict=True):
        found, timesteps = sampled(opened, name, family, condition, steps, seed=steps)
        expected = as_trained(family, student, path, condition, seed=steps)
        assert timesteps == list(path)
        # float32 at levels that amplify it: 1 / alpha is 15 at the first timestep of those that predict noise
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "kind", [DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]
)
def test_teachers_without_signal_at_their_end(kind: Any, tmp_path: Path, accelerator: Accelerator) -> None:
    """Their v-prediction at zero terminal SNR, with settings that some classes have by default, and others have not."""
    levels = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "rescale_betas_zero_snr": True}
    scheduler = kind(prediction_type="v_prediction", timestep_spacing="trailing", **levels)
    scheduler.register_to_config(steps_offset=1, clip_sample=False)
    pipeline = tiny_pipeline("stable-diffusion", scheduler=scheduler)
    family = family_of(pipeline, resolution=16)
    assert family.diffusion.alpha[999] == 0  # Euler and DPM-Solver have 2^-12
    told = tiny_conditions(family, 6)
    check_prediction(family, pipeline.unet, LatentData(torch.randn(6, *family.shape), told))
    distillation = tiny_run(pipeline, family, family.student(pipeline.unet), accelerator)
    distillation.run(1)
    student, scheduler = distillation.averaged_student(), student_scheduler(family)
    paths = sampling_paths(scheduler, STEPS)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, paths, CARD)
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES["stable-diffusion"].missing)
    opened.set_progress_bar_config(disable=True)
    condition = tiny_conditions(family, 2)
    for steps, path in zip(STEPS, paths, strict=True):
        found, timesteps = sampled(opened, "stable-diffusion", family, condition, steps, seed=steps)
        assert timesteps == list(path)
        expected = as_trained(family, student, path, condition, seed=steps)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_schedule_that_the_students_scheduler_does_not_know() -> None:
    pipeline = tiny_pipeline("stable-diffusion", scheduler=DDPMScheduler(beta_schedule="sigmoid", steps_offset=1))
    with pytest.raises(OptionError, match=r"LCMScheduler knows no beta_schedule='sigmoid'.* set trained_betas"):
        student_scheduler(family_of(pipeline, resolution=16))
    betas = pipeline.scheduler.betas.tolist()
    pipeline.scheduler = DDPMScheduler(beta_schedule="sigmoid", trained_betas=betas, steps_offset=1)
    family = family_of(pipeline, resolution=16)
    assert torch.equal(student_scheduler(family).alphas_cumprod, pipeline.scheduler.alphas_cumprod)


def test_timesteps_are_these() -> None:
    _, diffusion = tiny_family("stable-diffusion")
    assert sampling_paths(student_scheduler(diffusion), STEPS) == (
        (999,),
        (999, 499),
        (999, 749, 499),
        (999, 749, 499, 249),
    )
    _, flow = tiny_family("stable-diffusion-3")  # its shift of 3 moves 0.25 to 0.5
    expected = (
        (1000,),
        (1000, 500),
        (1000, 1000 * 0.5**0.5, 500),
        (1000, 1000 * 0.5 ** (1 / 3), 1000 * 0.5 ** (2 / 3), 500),
    )
    for found, path in zip(sampling_paths(student_scheduler(flow), STEPS), expected, strict=True):
        assert found == pytest.approx(path, rel=1e-6)
    with pytest.raises(OptionError, match="steps=0"):
        student_scheduler(flow, 0)
    with pytest.raises(OptionError, match=r"^a batch of 16 is too small for the 600 steps of sampling in 600: give at"):
        spread(sampling_paths(student_scheduler(flow, 600), [600]), 16)


def test_a_batch_is_spread_over_the_steps() -> None:
    paths = ((999,), (999, 499), (999, 749, 499, 249))
    assert spread(paths, 16) == {(999,): 8, (999, 499): 2, (999, 749): 2, (999, 749, 499): 2, (999, 749, 499, 249): 2}
    assert spread(paths, 5, first=0.9) == dict.fromkeys(spread(paths, 16), 1)
    assert spread(((999,),), 7) == {(999,): 7}
    with pytest.raises(OptionError, match="batch of 4 is too small for the 5 steps"):
        spread(paths, 4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("pixart", "dit")])
def test_an_adapter_is_loaded_by_plain_diffusers(name: str, tmp_path: Path, accelerator: Accelerator) -> None:
    pipeline, family = tiny_family(name)
    teacher = pipeline.components[family.part]
    student = family.adapted(teacher, rank=2)
    before = weights(student)
    distillation = tiny_run(pipeline, family, student, accelerator)
    distillation.run(2)
    averaged = distillation.averaged_student()
    changed = differences(before, weights(averaged))
    assert changed
    assert all("lora_" in place for place in changed)
    assert sum(p.numel() for p in distillation.ema.shadow_params) == sum(
        p.numel() for n, p in before.items() if "lora_" in n
    )
    scheduler = student_scheduler(family)
    paths = sampling_paths(scheduler, STEPS)
    save_adapter(tmp_path / "adapter", averaged, family, pipeline, scheduler, paths, CARD)

    condition, noisy = tiny_conditions(family, 2), torch.randn(2, *family.shape)
    timesteps = torch.tensor([999, 499])
    with torch.no_grad():
        expected = family.output(averaged, noisy, timesteps, condition)
        plain = family.output(teacher, noisy, timesteps, condition)
        pipeline.load_lora_weights(tmp_path / "adapter")
        found = family.output(pipeline.components[family.part], noisy, timesteps, condition)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, plain, rtol=1e-4, atol=1e-5)
        loaded = type(scheduler).from_pretrained(tmp_path / "adapter", subfolder="scheduler")
        assert sampling_paths(loaded, STEPS) == paths
        merged = merge_lora(averaged)
        torch.testing.assert_close(family.output(merged, noisy, timesteps, condition), expected, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == {n.replace(".base_layer", "") for n in before if "lora_" not in n}
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert (
        'load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")' in text
    )  # which offline it has to be told
    assert (tmp_path / "adapter" / "pytorch_lora_weights.safetensors").is_file()
    assert type(scheduler).__name__ in text


def test_an_adapter_resumes_bit_by_bit(tmp_path: Path, accelerator: Accelerator) -> None:
    pipeline, family = tiny_family("sana")
    teacher, ends = pipeline.components[family.part], []
    for stops in (False, True):
        torch.manual_seed(3)
        student = family.adapted(teacher, rank=2)
        distillation = tiny_run(pipeline, family, student, accelerator)
        if stops:
            distillation.run(2, checkpoints=tmp_path)
            torch.manual_seed(4)
            distillation = tiny_run(pipeline, family, family.adapted(teacher, rank=2), accelerator)
            distillation.load(tmp_path)
        distillation.run(4)
        ends.append((weights(distillation.student), weights(distillation.averaged_student())))
    assert not differences(*ends)


def test_a_checkpoint_of_an_adapter_holds_no_frozen_weights(tmp_path: Path, accelerator: Accelerator) -> None:
    pipeline, family = tiny_family("sana")
    teacher = pipeline.transformer
    student = family.adapted(teacher, rank=2)
    distillation = tiny_run(pipeline, family, student, accelerator)
    distillation.run(1, checkpoints=tmp_path / "adapter")
    (folder,) = (tmp_path / "adapter").iterdir()
    saved = load_state(folder / "state.safetensors")["parts"]["student"]
    assert not differences(saved, {n: v for n, v in student.state_dict().items() if "lora_" in n})

    tiny_run(pipeline, family, family.student(teacher), accelerator).run(1, checkpoints=tmp_path / "whole")
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(
        StateError, match=r"student is of other weights: only the state has .* more; only this run has"
    ) as e:
        distillation.load(tmp_path / "whole")  # so, too, where checkpoints of adapters held frozen weights
    assert len(str(e.value)) < 600
    other = tiny_run(pipeline, family, family.adapted(teacher, rank=3), accelerator)
    with pytest.raises(
        StateError, match=r"another shape has \S+lora_A\S+ \(was \(2, 16\), is \(3, 16\)\).* more\. Build"
    ) as e:
        other.load(tmp_path / "adapter")
    assert len(str(e.value)) < 600
    assert not differences(before, student.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_merged_into_a_pipeline(name: str, tmp_path: Path) -> None:
    pipeline, family = tiny_family(name)
    student = family.adapted(pipeline.components[family.part], rank=2)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    condition, noisy, timesteps = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([9, 499])
    student.eval()
    with torch.no_grad():
        expected = family.output(student, noisy, timesteps, condition)
    scheduler = student_scheduler(family)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, sampling_paths(scheduler), CARD)
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES[name].missing)
    with torch.no_grad():
        found = family.output(opened.components[family.part], noisy, timesteps, condition)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def as_the_card_says(
    folder: Path, pipeline: Any, family: Family, condition: Conditions, missing: dict[str, None]
) -> Any:
    """Run the card's code, with embeddings in place of the prompt and the pipeline at hand; returns latents and the image."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    told = "**told" if family.size else "class_labels=[3]"
    code = code.replace("pipeline(prompt", "pipeline(**told").replace("pipeline(class_labels=...", f"pipeline({told}")
    here = {"told": family.arguments({name: value[:1] for name, value in condition.items()})}
    opened = pipeline or DiffusionPipeline.from_pretrained(folder, **missing)
    opened.set_progress_bar_config(disable=True)
    lines = [line for line in code.splitlines() if not line.startswith("pipeline = ")]
    exec("\n".join(lines).replace("path/to/this/folder", str(folder)), here | {"pipeline": opened}, here)
    return here["image"]


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_call_makes_images_at_the_resolution_of_training(name: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(name)
    side = FAMILIES[name].side * (1 if name == "dit" else 2)
    family = family_of(pipeline, resolution=side)
    student, scheduler = family.student(pipeline.components[family.part]).eval(), student_scheduler(family)
    condition, noisy, timesteps = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([9, 499])
    with torch.no_grad():
        expected = family.output(student, noisy, timesteps, condition)
    for _ in range(2):  # saving it again changes nothing
        save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, sampling_paths(scheduler), CARD)
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES[name].missing)
    with torch.no_grad():
        found = family.output(opened.components[family.part], noisy, timesteps, condition)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    image = as_the_card_says(tmp_path / "out", None, family, condition, FAMILIES[name].missing)
    assert image.size == (side, side)
    if name.startswith("stable-diffusion"):  # the others' calls have sizes of their own
        opened.set_progress_bar_config(disable=True)
        made = opened(**family.arguments(condition), num_inference_steps=1, guidance_scale=0, output_type="pt").images
        assert made.shape[-2:] == (side, side)


def test_positions_stay_at_another_resolution_where_networks_scale_them(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sana")
    config = {**pipeline.transformer.config, "interpolation_scale": 2.0}
    pipeline.register_modules(transformer=type(pipeline.transformer).from_config(config).eval())
    family = family_of(pipeline, resolution=64)
    condition, noisy, timesteps = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([9, 499])
    student, scheduler = family.student(pipeline.transformer).eval(), student_scheduler(family)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, sampling_paths(scheduler), CARD)
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES["sana"].missing)
    assert opened.transformer.config.sample_size == family.shape[-1]
    with torch.no_grad():
        expected = family.output(student, noisy, timesteps, condition)
        torch.testing.assert_close(family.output(opened.transformer, noisy, timesteps, condition), expected)


@pytest.mark.parametrize("adapter", [False, True], ids=["merged", "adapter"])
def test_an_adapter_of_flux_samples_with_the_guidance_it_was_trained_at(adapter: bool, tmp_path: Path) -> None:
    pipeline, family = tiny_family("flux", guidance=2.5)
    student = family.adapted(pipeline.transformer, rank=2).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    scheduler, condition = student_scheduler(family), tiny_conditions(family, 1)
    paths = sampling_paths(scheduler, STEPS)
    expected = as_trained(family, student, paths[0], condition, seed=5)
    save = save_adapter if adapter else save_pipeline
    save(tmp_path / "out", student, family, pipeline, scheduler, paths, CARD)
    opened = pipeline if adapter else DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES["flux"].missing)
    made: list[Tensor] = []
    decode = opened.vae.decode
    opened.vae.decode = lambda latents, **options: made.append(latents) or decode(latents, **options)
    torch.manual_seed(5)
    as_the_card_says(tmp_path / "out", opened, family, condition, {})
    found = (made[0] - opened.vae.config.shift_factor) * opened.vae.config.scaling_factor
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    guidance = 2.5 if adapter else 0
    assert f"guidance_scale={guidance}, height=16, width=16)" in (tmp_path / "out" / "README.md").read_text()


def test_pipelines_without_adapters_say_so(tmp_path: Path) -> None:
    pipeline, family = tiny_family("pixart")
    student, scheduler = pipeline.transformer, student_scheduler(family)
    with pytest.raises(OptionError, match="has no adapter"):
        save_adapter(tmp_path / "a", student, family, pipeline, scheduler, [(999,)], CARD)
    student = family.adapted(student, rank=2)
    with pytest.raises(OptionError, match="PixArtSigmaPipeline loads no adapters; save_pipeline merges"):
        save_adapter(tmp_path / "a", student, family, pipeline, scheduler, [(999,)], CARD)
    with pytest.raises(OptionError, match="no layer of the student ends in one of to_z"):
        add_lora(pipeline.transformer, targets=["to_z"])
    assert not os.listdir(tmp_path)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    scheduler, student = student_scheduler(family), pipeline.unet
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, [(999,)], CARD)
    (tmp_path / "out" / "mark").touch()
    with pytest.raises(
        OptionError, match=r"the saved scheduler visits \(\(999, 499\),\), and training visited \(\(999, 249\),\)"
    ):
        save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, [(999, 249)], CARD)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
        with pytest.raises(OptionError, match=r"needs 0\.0 GB, and 0\.0 GB are free"):
            save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, [(999,)], CARD)
    assert (tmp_path / "out" / "mark").exists()
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, [(999,)], CARD)
    assert not (tmp_path / "out" / "mark").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_the_card_says_what_a_reader_has_to_know(tmp_path: Path) -> None:
    _, family = tiny_family("stable-diffusion")
    paths = ((999,), (999, 499))
    text = CARD.text("StableDiffusionPipeline", family, paths)
    for words in (
        "license: openrail",
        "base_model: someone/teacher",
        "in 1 or 2 steps",
        "num_inference_steps=1, guidance_scale=0",
        "| 2 | 999, 499 |",
        "| rate | 0.0001 |",
        "| 2 | 1 |",
        "Data: noise",
    ):
        assert words in text
    assert "adversarial" not in text


def test_the_licence_is_the_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, family = tiny_family("stable-diffusion")

    def text(teacher: object, **options: Any) -> str:
        return Card(teacher=str(teacher), data="noise", **options).text("P", family, ((999,),), adapter="LCMScheduler")

    (tmp_path / "README.md").write_text("---\nlicense: 'creativeml-openrail-m'\ntags: []\n---\nA teacher.\n")
    local = text(tmp_path)
    assert "license: creativeml-openrail-m" in local
    assert "base_model" not in local
    assert str(tmp_path) not in local  # where things lie is nobody's business
    assert f'from_pretrained("path/to/{tmp_path.name}")' in local
    assert "license: mit" in text(tmp_path, licence="mit")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: community\nlicense_link: LICENSE.md\n---\n")
    assert "license: other\nlicense_name: community\nlicense_link: LICENSE.md\n" in (named := text(tmp_path))
    assert "binds this model, too: community" in named
    (tmp_path / "README.md").write_text("---\nlicense: [: no yaml\n---\n")
    assert "look it up before you share" in text(tmp_path)
    cached = tmp_path / "hub" / "models--me--teacher"
    for revision in ("main", "older"):
        (cached / "snapshots" / revision).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / revision).write_text(revision)
    (cached / "snapshots" / "main" / "README.md").write_text("---\nlicense: openrail++\n---\n")
    (cached / "snapshots" / "older" / "README.md").write_text("---\nlicense: mit\n---\n")
    download = huggingface_hub.hf_hub_download
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *a, **o: download(*a, **o, cache_dir=tmp_path / "hub")
    )
    assert "license: openrail++\nbase_model: me/teacher" in text("me/teacher")
    assert "license: mit" in text("me/teacher", revision="older")
    assert "look it up before you share" in text("me/other")


def test_it_opens_without_advloss(tmp_path: Path) -> None:
    pipeline, family = tiny_family("sana")
    scheduler = student_scheduler(family)
    save_pipeline(tmp_path / "out", pipeline.transformer, family, pipeline, scheduler, sampling_paths(scheduler), CARD)
    code = f"""
import sys
sys.modules["advloss"] = sys.modules["advloss_distill"] = None
import torch
from diffusers import DiffusionPipeline
torch.set_num_threads(1)
pipeline = DiffusionPipeline.from_pretrained({str(tmp_path / "out")!r}, text_encoder=None, tokenizer=None)
made = pipeline(prompt_embeds=torch.randn(1, 5, 16), prompt_attention_mask=torch.ones(1, 5), num_inference_steps=1,
                guidance_scale=0, height=32, width=32, use_resolution_binning=False, output_type="pt").images
print(tuple(made.shape), bool(made.isfinite().all()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "(1, 3, 32, 32) True\n", done.stderr[-2000:]
