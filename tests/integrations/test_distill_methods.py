"""Methods: each trains a student of each family that plain diffusers opens, and goes on bit by bit."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DiffusionPipeline
from distill_tools import differences, fresh_accelerator, reset_accelerate, weights
from method_tools import GUIDED, NEEDS, tiny_method_run, tiny_setup
from pipeline_tools import FAMILIES, tiny_conditions
from torch import Tensor, nn

from advloss import CombinationError, FeatureDiscriminator, OptionError, _registry, load_state, register_discriminator
from advloss_discriminators import MultiscaleDiscriminator, ProjectionDiscriminator
from advloss_distill import (
    AnyTimestep,
    BackwardSimulation,
    Card,
    HeadR1,
    NoisedData,
    TeacherDiscriminator,
    save_pipeline,
    student_scheduler,
)
from advloss_distill.methods import METHODS, add_method_options, build_method, used_settings

NAMES = sorted(FAMILIES)
QUICK = (
    "stable-diffusion",
    "flux",
    "dit",
)  # a UNet, a flow on packed tokens, classes; the others take minutes together
CASES = [
    pytest.param(method, name, marks=() if name in QUICK else pytest.mark.slow) for method in METHODS for name in NAMES
]
CARD = Card(teacher="someone/teacher", data="noise", licence="openrail")


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


@pytest.mark.parametrize(("method", "name"), CASES)
def test_a_student_is_trained_saved_and_sampled_by_plain_diffusers(
    method: str, name: str, tmp_path: Path, accelerator: Accelerator
) -> None:
    setup = tiny_setup(name)
    family, pipeline = setup.family, setup.pipeline
    options = {"guidance": 2.0 if method == "dmd2" else (2.0,)} if name in GUIDED and method in ("dmd2", "lcm") else {}
    distillation, built = tiny_method_run(method, setup, accelerator, **options)
    before, frozen, vae = weights(built.student), weights(setup.teacher), weights(pipeline.vae)
    judge = None if built.adversary is None else weights(built.adversary.discriminator)
    seen: list[dict[str, float]] = []
    distillation.run(1, lambda progress: seen.append(progress.as_dict()))
    assert torch.tensor(list(seen[0].values())).isfinite().all()
    assert len(differences(before, built.student.state_dict())) > len(before) // 2
    assert not differences(frozen, setup.teacher.state_dict())
    assert not differences(vae, pipeline.vae.state_dict())
    assert judge is None or differences(judge, built.adversary.discriminator.state_dict())

    student, scheduler = distillation.averaged_student(), student_scheduler(family)
    save_pipeline(tmp_path / "out", student, family, pipeline, scheduler, setup.paths, CARD)
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES[name].missing)
    opened.set_progress_bar_config(disable=True)
    for steps in (1, 4):
        call = {**FAMILIES[name].call, "num_inference_steps": steps, "guidance_scale": 0, "output_type": "pt"}
        images = opened(**family.arguments(tiny_conditions(family, 2)), **call).images
        assert images.shape[-1] == FAMILIES[name].side
        assert torch.as_tensor(images).isfinite().all()


def test_a_card_has_the_settings_that_were_used() -> None:
    parser = argparse.ArgumentParser()
    add_method_options(parser)
    for name in ("--data", "--dataset", "--tracker"):
        parser.add_argument(name)
    given = "--method add --crop 8 --augmentation instance-noise --data /home/me/data.safetensors --tracker none"
    used = used_settings(parser.parse_args(given.split()))
    assert used["discriminator"] == "timm/dino:backbone=vit_small_patch14_dinov2.lvd142m,resolution=518"
    assert used["loss"] == "losses/hinge:scales=sum"
    assert (used["r1_method"], used["r1_weight"], used["crop"]) == ("head-inputs", 1e-5, 8)
    assert (used["augmentations"], used["data"], used["tracker"]) == (["instance-noise"], "data.safetensors", "none")
    assert not {"chunk", "dataset", "setup", "skip", "blocks"} & used.keys()


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_plain_diffusers_tells_a_student_its_guidance(name: str, tmp_path: Path, accelerator: Accelerator) -> None:
    setup = tiny_setup(name)
    distillation, _ = tiny_method_run("lcm", setup, accelerator, guidance=(2.0, 9.0))
    distillation.run(1)
    student: Any = distillation.averaged_student()
    student.time_embedding.cond_proj.weight.data.normal_()  # as after much training
    save_pipeline(
        tmp_path / "out",
        student,
        setup.family,
        setup.pipeline,
        student_scheduler(setup.family),
        setup.paths,
        dataclasses.replace(CARD, guidance_scale=5.5),
    )
    assert "num_inference_steps=1, guidance_scale=5.5, height=16" in (tmp_path / "out" / "README.md").read_text()
    opened = DiffusionPipeline.from_pretrained(tmp_path / "out", **FAMILIES[name].missing)
    opened.set_progress_bar_config(disable=True)
    told, images = setup.family.arguments(tiny_conditions(setup.family, 2)), []
    for scale in (3.0, 3.0, 8.0):
        call = {**FAMILIES[name].call, "num_inference_steps": 4, "guidance_scale": scale, "output_type": "pt"}
        images.append(opened(**told, **call, generator=torch.manual_seed(0)).images)
    torch.testing.assert_close(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


def everything(distillation: Any) -> dict[str, Any]:
    """All that the future depends on, copied."""
    state = {
        "student": weights(distillation.student),
        "average": [value.clone() for value in distillation.ema.shadow_params],
        "optimizer": distillation.optimizer.state_dict(),
        "adversary": None if distillation.adversary is None else distillation.adversary.state_dict(),
        "simulation": distillation.simulation.state_dict(),
        "random": torch.get_rng_state(),
        "iteration": distillation.iteration,
    }
    return copy.deepcopy(state)


FURTHER: dict[str, dict[str, Any]] = {
    "add": {"crop": 8, "chunk": 3, "score_weights": "nfsd"},
    "dmd2": {"guidance": 2.0, "r1_weight": 1e-3},
    "ladd": {"misaligned": 0.5},
    "lcm": {"guidance": (2.0, 6.0)},
    "lcm-ladd": {"guidance": (2.0,), "misaligned": 0.5},
    "adversarial": {"pixels": True, "crop": 8, "chunk": 2},
}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_uninterrupted_one(
    method: str, own: bool, accelerator: Accelerator, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    whole, built = tiny_method_run(
        method, tiny_setup("stable-diffusion", backward_simulation=own), accelerator, **FURTHER[method]
    )
    assert isinstance(built.simulation, (AnyTimestep if "lcm" in method else BackwardSimulation if own else NoisedData))
    whole.run(2)
    whole.save(tmp_path)
    whole.run(4)
    expected = everything(whole)

    reset_accelerate()
    torch.manual_seed(4)
    setup = tiny_setup("stable-diffusion", backward_simulation=own)
    resumed, other = tiny_method_run(method, setup, Accelerator(cpu=True), **FURTHER[method])
    with torch.no_grad():  # nothing of the right values is there but in the file
        for network in (other.student, *([] if other.adversary is None else [other.adversary.discriminator])):
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.add_(1)
    set_seed(5)
    resumed.load(tmp_path)
    assert resumed.iteration == 2
    resumed.run(4)
    assert not differences(everything(resumed), expected)


def test_a_checkpoint_of_two_adapters_holds_no_frozen_weights(accelerator: Accelerator, tmp_path: Path) -> None:
    ends: list[dict[str, Any]] = []
    for stops in (False, True):
        reset_accelerate()
        torch.manual_seed(3)
        setup = tiny_setup("stable-diffusion", lora=2)
        run, built = tiny_method_run("dmd2", setup, Accelerator(cpu=True))
        set_seed(5)
        run.run(2)
        if stops:
            run.save(tmp_path)
            reset_accelerate()
            torch.manual_seed(3)  # the same teacher
            setup = tiny_setup("stable-diffusion", lora=2)
            torch.manual_seed(4)
            run, built = tiny_method_run("dmd2", setup, Accelerator(cpu=True))
            run.load(tmp_path)
        run.run(4)
        ends.append({**everything(run), "fake": list(built.adversary.discriminator.parameters())})
    assert not differences(*ends)
    (folder,) = tmp_path.iterdir()
    saved = load_state(folder / "state.safetensors")["parts"]
    network = {n for n in saved["adversary"]["discriminator"] if n.startswith("network.")}
    assert network == {f"network.{n}" for n in saved["student"]}
    assert all(".lora_" in name for name in network)


def test_an_unknown_method_and_options_that_it_does_not_take() -> None:
    setup = tiny_setup("stable-diffusion")
    with pytest.raises(OptionError, match="no method 'turbo'; there are ladd, add, adversarial, dmd2, lcm, lcm-ladd"):
        build_method("turbo", setup)
    with pytest.raises(OptionError, match="the method lcm takes no misaligned; it takes guidance, skip"):
        build_method("lcm", setup, misaligned=0.5)


@pytest.mark.parametrize(
    ("method", "name", "options", "why"),
    [
        ("dmd2", "flux", {"guidance": 2.0}, "guidance of a FluxPipeline is an input of its network"),
        ("lcm", "flux", {"guidance": (2.0,)}, "guidance of a FluxPipeline is an input of its network"),
        ("add", "flux", {"score_weights": "nfsd"}, "guidance of a FluxPipeline is an input of its network"),
        ("add", "dit", {"score_weights": "nfsd"}, "a DiTPipeline is told classes: there is no negative prompt"),
        ("lcm", "sana", {"guidance": (2.0, 4.0)}, "network of a SanaPipeline has no input for a guidance scale"),
        ("lcm", "dit", {"guidance": (2.0, 4.0, 6.0)}, "give one scale, or the least and the greatest"),
        (
            "lcm",
            "stable-diffusion",
            {"guidance": (0.5, 4.0)},
            "the least and the greatest scale, finite ones from 1 on",
        ),
        ("lcm", "stable-diffusion", {"skip": 0}, "skip=0"),
        ("lcm", "stable-diffusion", {"skip": 1000}, "over 1 to 999 timesteps"),
        ("add", "stable-diffusion", {"crop": 5}, "crop=5; a window of 16 x 16 pixels has a side of 2 to 16"),
        ("add", "stable-diffusion", {"chunk": 0}, "chunk=0"),
        ("add", "stable-diffusion", {"r1_method": "none"}, "there are head-inputs, finite-difference, exact"),
        ("adversarial", "stable-diffusion", {"crop": 8}, "about decoded images: give pixels"),
        (
            "adversarial",
            "stable-diffusion",
            {"discriminator": ("patch", {"depth": 1}), "misaligned": 0.5},
            r"'patch' is told nothing beside the sample, so that misaligned=0\.5 means nothing to it",
        ),
        (
            "add",
            "stable-diffusion",
            {"discriminator": ("patch", {}), "misaligned": 0.5},
            "told nothing beside the sample",
        ),
        (
            "adversarial",
            "stable-diffusion",
            {"discriminator": ("patch", {})},
            "needs samples of at least 24 a side.* 8 x 8",
        ),
        (
            "add",
            "stable-diffusion",
            {"discriminator": ("patch", {"depth": 2}), "crop": 8, "r1_method": "exact"},
            "at least 12 a side, and is shown 8 x 8: build it shallower, or show it",
        ),
        ("dmd2", "stable-diffusion", {"r1_method": "exact"}, r"R1 of dmd2 has weight 0.*Give r1_weight"),
        ("ladd", "dit", {"r1_weight": float("inf")}, "weight=inf; give a finite number that is not negative"),
        ("dmd2", "dit", {"denoising_weight": float("inf")}, "Denoising: weight=inf; give a finite number"),
        ("dmd2", "dit", {"adversary_weight": float("nan")}, "weight=nan; give a finite number that is not negative"),
        ("ladd", "stable-diffusion", {"blocks": (0, 2, 0)}, r"blocks \[0, 2, 0\]: one is given twice"),
        ("dmd2", "stable-diffusion", {"blocks": (7,)}, r"blocks \[7\]: this UNet2DConditionModel has 5"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        build_method(method, tiny_setup(name), **{**NEEDS[method], **options})


def test_guidance_needs_the_text_encoder() -> None:
    setup = tiny_setup("sana")
    del setup.family.nothing  # type: ignore[method-assign]
    with pytest.raises(OptionError, match=r"without its text encoder, which guidance needs for the prompt ''"):
        build_method("dmd2", setup, guidance=2.0)
    setup.pipeline.vae = None
    with pytest.raises(OptionError, match="this SanaPipeline was loaded without its VAE"):
        build_method("add", setup, **NEEDS["add"])


def test_an_image_condition_needs_noised_data() -> None:
    with pytest.raises(OptionError, match="with backward simulation there is none"):
        build_method("add", tiny_setup("sana", backward_simulation=True), **NEEDS["add"], image_condition=True)


def test_an_adapter_has_no_input_for_guidance() -> None:
    with pytest.raises(OptionError, match="an adapter has no input for a guidance scale"):
        build_method("lcm", tiny_setup("stable-diffusion", lora=2), guidance=(2.0, 4.0))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "adversarial"])
def test_an_adapter_alone_is_trained(method: str, accelerator: Accelerator) -> None:
    distillation, built = tiny_method_run(method, tiny_setup("stable-diffusion", lora=2), accelerator)
    before = weights(built.student)
    fake = None if method != "dmd2" else weights(built.adversary.discriminator)
    distillation.run(2)
    assert all(".lora_" in place for place in differences(before, built.student.state_dict()))
    if fake is not None:
        changed = differences(fake, built.adversary.discriminator.state_dict())
        assert all(".lora_" in place or place.startswith(("/heads.", "/steps.")) for place in changed)
        assert any(".lora_" in place for place in changed)


@pytest.mark.parametrize("r1_method", ["head-inputs", "finite-difference", "exact"])
@pytest.mark.parametrize("method", ["ladd", "add", "dmd2", "lcm-ladd"])
def test_r1_in_three_forms(method: str, r1_method: str, accelerator: Accelerator) -> None:
    options = {"r1_method": r1_method, "r1_weight": 1.0}
    distillation, built = tiny_method_run(method, tiny_setup("sana"), accelerator, **options)
    terms: list[float] = []
    distillation.run(1, lambda p: terms.extend(float(v) for n, v in p.report.regularizers.items() if "r1" in n.lower()))
    assert len(terms) == 1
    assert terms[0] > 0
    kinds = {type(r).__name__ for r in built.adversary.regularizers.values()}
    own = r1_method == "head-inputs" and isinstance(built.adversary.discriminator, FeatureDiscriminator) is False
    assert (HeadR1.__name__ in kinds) == own


@pytest.mark.parametrize("method", ["add", "adversarial"])
def test_augmentations_are_those_of_the_adversary(method: str, accelerator: Accelerator) -> None:
    options = {"augmentations": [("instance-noise", {"sigma": 0.3})]}
    distillation, built = tiny_method_run(method, tiny_setup("stable-diffusion"), accelerator, **options)
    (noise,) = built.adversary.augmentations.values()
    assert noise.sigma == 0.3
    distillation.run(2)
    assert int(noise.step) == 2


@pytest.mark.parametrize("method", ["ladd", "add", "adversarial", "dmd2"])
def test_another_loss_is_that_of_the_adversary(method: str, accelerator: Accelerator) -> None:
    setup = tiny_setup("stable-diffusion")
    distillation, built = tiny_method_run(method, setup, accelerator, loss="losses/relativistic")
    seen: list[dict[str, float]] = []
    distillation.run(2, lambda progress: seen.append(progress.as_dict()))
    assert type(built.adversary.loss).__name__ == "RelativisticPairing"
    assert all(line["discriminator/real_accuracy"] == line["discriminator/fake_accuracy"] for line in seen)


@pytest.mark.parametrize("method", ["ladd", "add", "adversarial"])
def test_a_paired_loss_is_refused_beside_misaligned_prompts(method: str, accelerator: Accelerator) -> None:
    options = {"loss": "losses/relativistic", "misaligned": 0.5}
    with pytest.raises(OptionError, match="a RelativisticPairing compares as many fakes as real"):
        tiny_method_run(method, tiny_setup("stable-diffusion"), accelerator, **options)


def test_r1_on_head_inputs_needs_heads() -> None:
    with pytest.raises(CombinationError, match="ProjectionDiscriminator has no heads on features"):
        build_method("adversarial", tiny_setup("stable-diffusion"), **NEEDS["adversarial"], r1_method="head-inputs")


def test_no_r1_where_its_weight_is_0(accelerator: Accelerator) -> None:
    _, built = tiny_method_run("ladd", tiny_setup("dit"), accelerator, r1_weight=0.0)
    assert not built.adversary.regularizers
    assert isinstance(built.adversary.discriminator, TeacherDiscriminator)


def test_the_image_condition_is_told(accelerator: Accelerator) -> None:
    setup = tiny_setup("stable-diffusion")
    distillation, built = tiny_method_run("add", setup, accelerator, image_condition=True)
    text = setup.family.text(setup.example).shape[1]
    assert built.adversary.discriminator.condition_features == text + 64
    distillation.run(1)
    _, real, judged = distillation._draw().shown
    assert judged["vector"].shape == (8, text + 64)
    torch.testing.assert_close(judged["vector"][:, text:], built.further["shown"].embed(real))
    assert judged["vector"][:, text:].std(0).min() > 0  # of each image its own


@pytest.mark.parametrize(
    "discriminator",
    [("patch", {"depth": 1, "width": 8, "norm": "none"}), ("dcgan", {"width": 8})],  # the latter is told classes alone
)
@pytest.mark.parametrize("method", ["add", "adversarial"])
def test_a_discriminator_that_takes_no_condition_is_told_nothing(
    method: str, discriminator: Any, accelerator: Accelerator
) -> None:
    options = {"discriminator": discriminator, "r1_method": "finite-difference"}
    distillation, _ = tiny_method_run(method, tiny_setup("stable-diffusion"), accelerator, **options)
    distillation.run(1)


SMALL = {"width": 8, "architecture": "convolutional", "norm": "none"}
PROJECTION = ("discriminators/projection", SMALL)
PATCH = ("patch", {"depth": 1, "width": 8, "norm": "none"})


@pytest.mark.parametrize(
    ("discriminator", "sides"),
    [
        (("multiscale", {"discriminator": PROJECTION, "scales": 2}), [16, 8]),
        ((MultiscaleDiscriminator, {"discriminator": PROJECTION, "scales": 2}), [16, 8]),
        (("pixel-unshuffle", {"discriminator": PROJECTION}), [8]),
        (("pixel-unshuffle", {"discriminator": (PROJECTION[0], {**SMALL, "resolution": 8, "num_steps": 9})}), [8]),
        (("minibatch", {"discriminator": PROJECTION}), [16]),
        (("pixel-unshuffle", {"discriminator": ("multiscale", {"discriminator": PROJECTION, "scales": 1})}), [8]),
    ],
)
@pytest.mark.parametrize("method", ["add", "adversarial"])
def test_what_a_discriminator_is_wrapped_in_lets_sizes_and_conditions_through(
    method: str, discriminator: Any, sides: list[int], accelerator: Accelerator
) -> None:
    setup = tiny_setup("stable-diffusion")
    options = {"discriminator": discriminator, "r1_method": "finite-difference"}
    if method == "adversarial":
        options["pixels"] = True
    distillation, built = tiny_method_run(method, setup, accelerator, **options)
    judges = [m for m in built.adversary.discriminator.modules() if isinstance(m, ProjectionDiscriminator)]
    assert [judge.resolution for judge in judges] == sides
    steps = discriminator[1]["discriminator"][1].get("num_steps", built.simulation.num_steps)
    assert {judge.num_steps for judge in judges} == {steps}
    assert {judge.condition_features for judge in judges} == {setup.family.text(setup.example).shape[1]}
    distillation.run(1)


@pytest.mark.parametrize(
    "discriminator",
    [("multiscale", {"discriminator": PATCH, "scales": 2}), ("pixel-unshuffle", {"discriminator": PATCH})],
)
def test_a_wrapped_discriminator_that_takes_no_condition_is_told_nothing(
    discriminator: Any, accelerator: Accelerator
) -> None:
    options = {"discriminator": discriminator, "pixels": True}
    distillation, _ = tiny_method_run("adversarial", tiny_setup("stable-diffusion"), accelerator, **options)
    distillation.run(1)


def test_a_discriminator_registered_within_a_function_is_told(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_registry, "_script", {})  # gone after the test

    @register_discriminator("of-a-function", conditions=("time",), output="logit")
    class OfAFunction(nn.Module):
        def __init__(self, in_channels: int = 1, num_steps: int = 1) -> None:
            super().__init__()
            self.num_steps, self.layer = num_steps, nn.Conv2d(in_channels, 1, 1)

        def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
            return self.layer(samples).mean((1, 2, 3))

    for discriminator in ("of-a-function", OfAFunction):
        options = {"discriminator": (discriminator, {})}
        distillation, built = tiny_method_run("adversarial", tiny_setup("stable-diffusion"), accelerator, **options)
        assert built.adversary.discriminator.num_steps == built.simulation.num_steps
        distillation.run(1)


@pytest.mark.parametrize(
    ("method", "options", "teacher", "students", "fake"),
    [
        ("ladd", {}, 3.5, 1, 0),
        ("ladd", {"r1_method": "head-inputs"}, 3.25, 1, 0),
        ("add", {}, 1, 1, 0),
        ("add", {"guidance": 2.0}, 2, 1, 0),
        ("add", {"score_weights": "nfsd"}, 3, 1, 0),
        ("adversarial", {}, 0, 1, 0),
        ("dmd2", {"discriminator_steps": 5}, 1, 5, 17),
        ("dmd2", {"guidance": 2.0, "discriminator_steps": 2}, 2, 2, 8),
        ("lcm", {}, 1, 2, 0),  # the other one is the average's
        ("lcm-ladd", {"guidance": (2.0,)}, 5.5, 2, 0),
    ],
)
def test_methods_cost_what_the_docs_say(
    method: str, options: dict[str, Any], teacher: float, students: int, fake: int, accelerator: Accelerator
) -> None:
    """Samples that pass each network in four steps of the student, in batches of it."""
    setup = tiny_setup("stable-diffusion")
    distillation, built = tiny_method_run(method, setup, accelerator, **options)
    networks = {"teacher": setup.teacher, "student": built.student}
    if method == "dmd2":
        networks["fake"] = built.adversary.discriminator.network
    passed = dict.fromkeys(networks, 0)
    distillation.run(1)  # the first one also fills the simulation
    for name, network in networks.items():

        def count(module: Any, args: Any, name: str = name) -> None:
            passed[name] += len(args[0])

        network.register_forward_pre_hook(count)
    distillation.run(5)
    expected = {"teacher": teacher, "student": students, "fake": fake}
    assert {name: total / setup.batch_size / 4 for name, total in passed.items()} == {n: expected[n] for n in networks}
