"""LCM's inputs: noised real samples at any timestep, and the student's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distill_tools import (
    Stripes,
    differences,
    zero_snr_scheduler,
)

from advloss import OptionError, StateError
from advloss_distill import (
    AnyTimestep,
    Diffusion,
    LatentData,
)


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
