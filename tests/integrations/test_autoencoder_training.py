"""The loop: both players in every step, resuming bit by bit, averages."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoder_tools import alike, kl_model, tiny_training, weights

from advloss import NonFiniteError, OptionError, StateError, load_state
from advloss_autoencoder import AutoencoderTraining, Progress, freeze_encoder

Make = Callable[..., Any]


def everything(training: AutoencoderTraining) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "model": weights(training.model),
            "average": list(training.ema.shadow_params),
            "optimizer": training.optimizer.state_dict(),
            "scheduler": training.scheduler.state_dict(),
            "adversary": training.adversary.state_dict(),
            "random": torch.get_rng_state(),
            "step": training.step_count,
        }
    )


def test_a_resumed_run_is_the_uninterrupted_one(make_accelerator: Make, tmp_path: Path) -> None:
    whole = tiny_training(make_accelerator())
    whole.run(2, checkpoints=tmp_path)
    seen: list[Progress] = []
    whole.run(6, seen.append)

    resumed, again = tiny_training(make_accelerator()), []
    with torch.no_grad():  # nothing of the right values is there but in the file
        for parameter in resumed.model.parameters():
            parameter.add_(1)
    torch.manual_seed(5)
    resumed.load(tmp_path)
    assert resumed.step_count == 2
    resumed.run(6, again.append)
    assert alike(everything(resumed), everything(whole))
    assert [p.as_dict() for p in again] == [p.as_dict() for p in seen]
    assert {"adversarial", "adaptive_weight", "feature_matching", "discriminator/regularizers/lecam"} <= set(
        again[-1].as_dict()
    )


def test_checkpoints_are_saved_on_the_way_and_at_the_end(make_accelerator: Make, tmp_path: Path) -> None:
    training = tiny_training(make_accelerator())
    found = []
    training.run(5, lambda p: found.append([x.name for x in tmp_path.iterdir()]), checkpoints=tmp_path, save_every=2)
    assert found == [[], [], ["step-00000002"], ["step-00000002"], ["step-00000004"]]
    (folder,) = tmp_path.iterdir()
    assert folder.name == "step-00000005"
    assert load_state(folder / "process_0.safetensors")["counters"] == {"step": 5}


def test_there_is_nothing_to_resume(make_accelerator: Make, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no checkpoint"):
        tiny_training(make_accelerator()).load(tmp_path)


def test_the_average_follows_the_model(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator(), ema_decay=0.5)
    training.run(3)
    averaged = weights(training.averaged_model())
    assert not alike(averaged, weights(training.model))
    assert not training.averaged_model().training
    plain = tiny_training(make_accelerator(), ema_decay=0)
    plain.run(1)
    assert alike(weights(plain.averaged_model()), weights(plain.model))


def test_decoder_only_training_keeps_the_latents(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator(), freeze_encoder(kl_model()))
    before = weights(training.model)
    training.run(3)
    changed = {name for name, value in weights(training.model).items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_gradients_are_clipped(make_accelerator: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    training = tiny_training(make_accelerator(), max_grad_norm=1e-3)
    norms = []
    step = training.optimizer.step

    def look() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in training.model.parameters()]).norm()))
        step()

    monkeypatch.setattr(training.optimizer, "step", look)
    training.run(2)
    assert norms == pytest.approx([1e-3] * 2, rel=1e-3)


def test_a_start_counts_steps_of_the_optimizer(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator(gradient_accumulation_steps=4), start_step=3)
    with pytest.warns(UserWarning, match="start_step=3 is never reached in 8 steps"):
        training.run(8)
    assert training.adversary.step == 2


def test_a_start_that_is_never_reached_is_named(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator(), start_step=100)
    with pytest.warns(UserWarning, match="start_step=100 is never reached in 1 steps"):
        training.run(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_training(make_accelerator(), start_step=1).run(1)  # the first stage of two


def test_nothing_to_train(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator())
    frozen = kl_model().requires_grad_(False)
    arguments = (frozen, training.objective, [torch.zeros(1, 3, 8, 8)], training.optimizer)
    with pytest.raises(OptionError, match="unfreeze its decoder"):
        AutoencoderTraining(*arguments, accelerator=training.accelerator)
    with pytest.raises(OptionError, match=r"ema_decay=1\.0"):
        AutoencoderTraining(kl_model(), *arguments[1:], accelerator=training.accelerator, ema_decay=1.0)


def test_bfloat16(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator(mixed_precision="bf16"))
    seen: list[Progress] = []
    training.run(3, seen.append)
    assert all(torch.tensor(list(progress.as_dict().values())).isfinite().all() for progress in seen)
    assert seen[-1].losses.adaptive_weight > 0


def test_a_bad_step_is_skipped_and_a_run_that_stays_bad_ends(make_accelerator: Make) -> None:
    training = tiny_training(make_accelerator())
    training.run(3)
    before, own = weights(training.model), training.objective.pixel
    training.objective.pixel = lambda samples, images: own(samples, images) * torch.nan
    training.step()
    assert alike(weights(training.model), before)
    with pytest.raises(NonFiniteError, match="AutoencoderKL's steps in a row were skipped; not finite: loss"):
        training.run(40)
    assert alike(weights(training.model), before)
    training.objective.pixel = own
    training.optimizer.zero_grad()
    training.step()
    assert not alike(weights(training.model), before)
