"""Latents and embeddings computed before training."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_tools import ENCODERS, FAMILIES, tiny_conditions, tiny_family, tiny_pipeline, tiny_text, tiny_vae

from advloss import InputError, OptionError, PluginError, StateError, save_state
from advloss_distill import LatentData, encode, family_of, load_pipeline, sample_latents, teacher_made
from advloss_distill._pipelines import check_text_encoders, own_guidance
from advloss_distill._signature import check_signature, signature

NAMES = sorted(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_makes_latents_with_guidance(name: str) -> None:
    pipeline, family = tiny_family(name)
    condition, negative = tiny_conditions(family, 2), {}
    if name not in ("flux", "dit"):
        negative = {f"negative_{key}": value for key, value in tiny_conditions(family, 2).items()}
    made = []
    for scale in (0.0, 5.0):
        torch.manual_seed(0)
        made.append(sample_latents(family, pipeline, condition, negative, guidance_scale=scale, steps=2))
    assert made[0].shape == (2, *family.shape)
    assert not torch.allclose(*made)


def test_samples_keep_their_conditions(tmp_path: Path) -> None:
    _, family = tiny_family("sana")
    told = tiny_conditions(family, 5)
    latents = torch.arange(5.0).view(-1, 1, 1, 1).expand(-1, *family.shape).contiguous()
    LatentData(latents, told).save(tmp_path / "data.safetensors")
    data = LatentData.load(tmp_path / "data.safetensors", family).to("cpu")
    condition = data.conditions(64)
    assert set(condition["index"].tolist()) == set(range(5))
    assert torch.equal(data.real(condition)[:, 0, 0, 0].long(), condition["index"])
    assert torch.equal(condition["prompt_embeds"], told["prompt_embeds"][condition["index"]])
    with pytest.raises(InputError, match="5 latents, and another number of prompt_embeds"):
        LatentData(latents, {"prompt_embeds": torch.zeros(4, 1, 1)})
    with pytest.raises(InputError, match="there are no latents"):
        LatentData(latents[:0], {})


def test_what_does_not_fit_the_teacher_is_refused(tmp_path: Path) -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0, "goose": 99}
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    data = encode(family, pipeline, zip(images, ["tench", "goose", "tench", "goose", "goose"]), batch_size=2)
    assert data.told["class_labels"].tolist() == [0, 99, 0, 99, 99]
    assert data.latents.shape == (5, *family.shape)
    path = tmp_path / "data.safetensors"
    data.save(path)
    assert len(LatentData.load(path, family, pipeline.vae)) == 5
    assert len(LatentData.load(path, family, pipeline.vae.to(torch.bfloat16))) == 5
    other = tiny_pipeline("dit")
    with torch.no_grad():
        other.vae.decoder.conv_out.weight.mul_(1.1)
    with pytest.raises(StateError, match="another VAE than this teacher's, one of other weights: make it anew"):
        LatentData.load(path, family, other.vae)
    data.vae = signature(other.vae)[1:, 0]
    data.save(tmp_path / "old.safetensors")
    with pytest.raises(StateError, match=r"old\.safetensors was made by an earlier version.*make it anew"):
        LatentData.load(tmp_path / "old.safetensors", family, pipeline.vae)
    with pytest.raises(StateError, match=r"there is no file .*none: make it with LatentData\.save"):
        LatentData.load(tmp_path / "none", family)
    with pytest.raises(StateError, match=r"latents \(4, 8, 8\), and the teacher takes \(4, 16, 16\) at 32 pixels"):
        LatentData.load(path, family_of(tiny_pipeline("pixart"), resolution=32))
    with pytest.raises(InputError, match="prompt_embeds is missing"):
        LatentData.load(path, tiny_family("stable-diffusion")[1])
    (tmp_path / "none.safetensors").write_bytes(b"")
    with pytest.raises(StateError):
        LatentData.load(tmp_path / "none.safetensors", family)


@pytest.mark.parametrize("name", NAMES)
def test_conditions_of_another_width_are_refused(name: str, tmp_path: Path) -> None:
    _, family = tiny_family(name)
    path, told = tmp_path / "data.safetensors", tiny_conditions(family, 3)
    LatentData(torch.randn(3, *family.shape), told).save(path)
    assert len(LatentData.load(path, family)) == 3
    for part in ("prompt_embeds", "pooled_prompt_embeds"):
        if part in told:
            other = {**told, part: torch.cat([told[part]] * 2, -1)}
            LatentData(torch.randn(3, *family.shape), other).save(path)
            given = rf"{part} \({', '.join(map(str, other[part].shape[1:]))},?\)"
            with pytest.raises(
                InputError, match=rf"data\.safetensors is not for this teacher: .*{given}.*make them anew"
            ):
                LatentData.load(path, family)


@pytest.mark.parametrize(
    ("name", "part", "other", "error"),
    [
        ("dit", "class_labels", torch.zeros(3), r"class_labels \(\) in float32 .*, class_labels \(\) in int64: make"),
        (
            "dit",
            "class_labels",
            torch.ones(3, 1).long(),
            r"class_labels \(1,\) in int64 .*, class_labels \(\) in int64: make",
        ),
        (
            "pixart",
            "prompt_attention_mask",
            torch.ones(3, 7).long(),
            r"prompt_attention_mask \(7,\) in int64 .*\(300,\)",
        ),
    ],
)
def test_what_was_given_and_what_is_taken_are_said(
    name: str, part: str, other: torch.Tensor, error: str, tmp_path: Path
) -> None:
    _, family = tiny_family(name)
    told = {**tiny_conditions(family, 3), part: other}
    LatentData(torch.randn(3, *family.shape), told).save(tmp_path / "data.safetensors")
    with pytest.raises(InputError, match=error) as refused:
        LatentData.load(tmp_path / "data.safetensors", family)
    assert "text encoder" not in str(refused.value)


@pytest.mark.parametrize("label", [5000, 1000, -500])
def test_classes_of_another_teacher_are_refused(label: int, tmp_path: Path) -> None:
    _, family = tiny_family("dit")
    told = {"class_labels": torch.tensor([0, 999, label, label])}
    LatentData(torch.randn(4, *family.shape), told).save(tmp_path / "data.safetensors")
    with pytest.raises(
        InputError,
        match=rf"data\.safetensors is not for .* knows 1000 classes, 0 to 999, and 2 of 4 .* as {label} in row 2,",
    ):
        LatentData.load(tmp_path / "data.safetensors", family)


@pytest.mark.parametrize("part", ["latents", "prompt_embeds"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_named(part: str, number: float, tmp_path: Path) -> None:
    _, family = tiny_family("stable-diffusion")
    path = tmp_path / "data.safetensors"
    data = LatentData(torch.randn(9, *family.shape), tiny_conditions(family, 9))
    state = {"latents": data.latents, "told": data.told, "vae": None}
    {**state, **data.told}[part][1:8, 0, 0] = number
    words = (
        rf"data\.safetensors {{}} NaN or infinity in {part}, in 7 of 9 rows, counted from 0: 1, 2, 3, 4, 5 and 2 more"
    )
    with pytest.raises(StateError, match=words.format("has")):
        data.save(path)
    assert not path.exists()
    save_state(state, path)
    with pytest.raises(StateError, match=words.format("holds")):
        LatentData.load(path, family)


def test_what_is_not_finite_is_known_as_soon_as_it_is_computed() -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0}
    seen: list[int] = []
    encoded = family.to_latents

    def to_latents(vae: Any, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return encoded(vae, images) / (1 if len(seen) == 1 else 0)

    family.to_latents = to_latents  # type: ignore[method-assign]
    with pytest.raises(
        StateError, match=r"what was computed has NaN or infinity in latents, in 2 of 2 rows, .*: 2, 3. "
    ):
        encode(family, pipeline, [(torch.zeros(3, 16, 16), "tench")] * 6, batch_size=2)
    assert seen == [2, 2]


def test_data_are_known_by_what_they_hold() -> None:
    _, family = tiny_family("pixart")
    told = tiny_conditions(family, 4)
    latents = torch.randn(4, *family.shape)
    known = LatentData(latents, told).digest()
    assert (
        LatentData(latents.clone(), {name: value.clone() for name, value in reversed(told.items())}).digest() == known
    )
    order = torch.tensor([0, 2, 1, 3])
    others = [
        LatentData(latents + torch.eye(8) * 1e-6, told),
        LatentData(latents.flip(-1), told),
        LatentData(latents.transpose(-1, -2), told),
        LatentData(latents[order], {name: value[order] for name, value in told.items()}),
        LatentData(latents, {**told, "prompt_embeds": told["prompt_embeds"].half()}),
        LatentData(latents, {**told, "prompt_attention_mask": 1 - told["prompt_attention_mask"]}),
    ]
    assert len({known, *(data.digest() for data in others)}) == 7
    labels = [[1, 2, 3, 4], [3, 1, 3, 4], [1, 3, 2, 4], [2, 2, 2, 4]]
    assert len({LatentData(latents, {"class_labels": torch.tensor(row)}).digest() for row in labels}) == 4


def test_a_digest_is_of_all_parts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    data = LatentData(torch.randn(5, 4, 8, 8), {"class_labels": torch.arange(5)})
    known = data.digest()
    monkeypatch.setattr("advloss_distill._digest.ROWS", 2)
    assert data.digest() == known


def weights_of_a_trained_vae() -> Any:
    """With norms and biases that are not all ones and zeros."""
    torch.manual_seed(1)
    vae = tiny_vae()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


def test_one_vae_in_16_bits_is_one() -> None:
    vae = weights_of_a_trained_vae()
    known = signature(vae)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = copy.deepcopy(vae).to(dtype)
        check_signature(rounded, known, "data")
        check_signature(rounded.float(), known, "data")
        check_signature(vae, signature(rounded), "data")


@pytest.mark.parametrize("by", [0.02, 0.05])
@pytest.mark.parametrize("way", ["greater", "scattered", "one"])
def test_weights_that_are_off_are_seen(way: str, by: float) -> None:
    vae = weights_of_a_trained_vae()
    known = signature(vae)
    changed = [vae.encoder.conv_out.weight] if way == "one" else list(vae.parameters())
    with torch.no_grad():
        for parameter in changed:
            parameter.mul_(1 + by * (1 if way == "greater" else torch.randn_like(parameter)))
    with pytest.raises(StateError, match="data was made with another VAE than this teacher's, one of other weights"):
        check_signature(vae, known, "data")


@pytest.mark.parametrize("setting", ["scaling_factor", "shift_factor"])
def test_another_scale_of_latents_is_seen(setting: str) -> None:
    vae = tiny_vae(shift_factor=0.0609)
    known = signature(vae)
    vae.register_to_config(**{setting: 1.01 * vae.config[setting]})
    with pytest.raises(StateError, match=r"of scaling_factor=0\.18215 and shift_factor=0\.0609 in place of 0\.18"):
        check_signature(vae, known, "data")


@pytest.mark.parametrize("unknown", ["tensch", "tensch goose", "qqq"])
def test_classes_that_nobody_knows_are_named(unknown: str) -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0, "goose": 99}
    way_out = "near it: " if unknown != "qqq" else "pipeline.labels has them all"
    for ask in (
        lambda: encode(family, pipeline, [(torch.zeros(3, 16, 16), unknown)]),
        lambda: teacher_made(family, pipeline, ["goose", unknown], guidance_scale=4.0, steps=2),
    ):
        with pytest.raises(InputError, match=rf"knows 2 names of classes, and '{unknown}' is none of them; {way_out}"):
            ask()


def test_images_that_cannot_be_encoded_are_refused() -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0}
    with pytest.raises(InputError, match=r"\(3, 8, 16\) from 0 to 0; give \(3, 16, 16\)"):
        encode(family, pipeline, [(torch.zeros(3, 8, 16), "tench")])
    with pytest.raises(InputError, match="from 0 to 255"):
        encode(family, pipeline, [(torch.eye(16).expand(3, 16, 16) * 255, "tench")])
    with pytest.raises(OptionError, match="nothing to encode"):
        teacher_made(family, pipeline, [], guidance_scale=4.0, steps=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_without_its_vae_makes_latents(name: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(name, vae=None, **(tiny_text(name) if name in ENCODERS else {}))
    pipeline.labels = {"a fox": 0}
    family = family_of(pipeline)
    ask = functools.partial(teacher_made, family, pipeline, ["a fox"], guidance_scale=1.0, steps=1)
    if name == "dit":
        with pytest.raises(OptionError, match="without its VAE, and its samples are images that are encoded"):
            ask()
        return
    data = ask()
    assert data.vae is None
    data.save(tmp_path / "data.safetensors")
    assert len(LatentData.load(tmp_path / "data.safetensors", family)) == 1


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_is_none_is_refused_before_anything_is_sampled(scale: float) -> None:
    pipeline, family = tiny_family("flux")
    with pytest.raises(OptionError, match=f"guidance_scale={scale}: give a finite scale that is not negative"):
        sample_latents(family, pipeline, tiny_conditions(family, 1), guidance_scale=scale, steps=1)
    with pytest.raises(OptionError, match=f"guidance={scale}: give a finite scale"):
        family_of(pipeline, resolution=16, guidance=scale)


def test_a_teachers_samples_with_their_labels() -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0, "goose": 99}
    data = teacher_made(family, pipeline, ["goose", "tench", "goose"], guidance_scale=4.0, steps=2, batch_size=2)
    assert data.told["class_labels"].tolist() == [99, 0, 99]
    assert data.latents.isfinite().all()


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("stable-diffusion", 7.5),
        ("stable-diffusion-xl", 5.0),
        ("stable-diffusion-3", 7.0),
        ("flux", 3.5),
        ("sana", 4.5),
    ],
)
def test_the_scale_that_a_pipeline_takes_unasked(name: str, scale: float) -> None:
    assert own_guidance(tiny_pipeline(name)) == scale


def test_a_teacher_is_guided_as_its_pipeline_is_unasked() -> None:
    pipeline, family = tiny_family("dit")
    pipeline.labels = {"tench": 0}
    made = []
    for asked in ({}, {"guidance_scale": 4.0}, {"guidance_scale": 7.5}):
        torch.manual_seed(0)
        made.append(teacher_made(family, pipeline, ["tench"], steps=2, **asked).latents)
    assert made[0].equal(made[1])
    assert not made[0].equal(made[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_is_loaded_from_its_folder(name: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(name)
    pipeline.save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path))
    assert type(loaded) is type(pipeline)
    assert {k for k, v in loaded.components.items() if v is None} == {
        k for k, v in pipeline.components.items() if v is None
    }


def test_a_teacher_that_is_not_there() -> None:
    with pytest.raises(PluginError, match=r"'/no/such' could not be loaded.*model_index\.json"):
        load_pipeline("/no/such")


def test_prompts_need_a_text_encoder() -> None:
    pipeline, family = tiny_family("stable-diffusion-3")
    for ask in (
        lambda: encode(family, pipeline, [(torch.zeros(3, 16, 16), "a goose")]),
        lambda: teacher_made(family, pipeline, ["a goose"], guidance_scale=4.0, steps=2),
        lambda: family.negative(pipeline, 2),
    ):
        with pytest.raises(OptionError, match="this StableDiffusion3Pipeline has no text encoder"):
            ask()
    pipeline.register_modules(text_encoder_2=torch.nn.Identity())
    check_text_encoders(pipeline)  # SD3 is often loaded without its third
