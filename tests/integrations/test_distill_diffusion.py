"""Noise levels and prediction types: the network's output read as x0, against diffusers' own schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    VQDiffusionScheduler,
)
from torch import Tensor

from advloss import OptionError
from advloss_distill import Diffusion

TIMESTEPS = torch.tensor([0, 1, 17, 249, 499, 749, 937, 998, 999])
SHAPE = (len(TIMESTEPS), 2, 3, 3)


def exact_output(prediction: str, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network answers, by the definition of each prediction type."""
    return {
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * x0,
        "sample": x0,
        "flow": noise - x0,
    }[prediction]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_an_exact_output_gives_back_x0(prediction: Any) -> None:
    time = torch.linspace(0.001, 0.999, 1000, dtype=torch.float64)
    alpha, sigma = (1 - time, time) if prediction == "flow" else ((1 - time**2).sqrt(), time)
    diffusion = Diffusion(alpha, sigma, prediction)
    x0, noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    a, s = (levels[TIMESTEPS].view(-1, 1, 1, 1) for levels in (alpha, sigma))
    noisy = diffusion.add_noise(x0, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, a * x0 + s * noise, rtol=0, atol=1e-12)
    found = diffusion.to_x0(exact_output(prediction, x0, noise, a, s), noisy, TIMESTEPS)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "epsilon"},
        {"prediction_type": "sample"},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "sample", "rescale_betas_zero_snr": True},
    ],
    ids=lambda options: f"{options['prediction_type']}{'-zero-snr' * ('rescale_betas_zero_snr' in options)}",
)
def test_noise_and_x0_are_those_of_ddpm_and_ddim(make: Any, options: dict[str, Any]) -> None:
    scheduler = make(clip_sample=False, **options)
    diffusion = Diffusion.from_scheduler(scheduler)
    x0, noise, output = torch.randn(3, *SHAPE)
    noisy = diffusion.add_noise(x0, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, scheduler.add_noise(x0, noise, TIMESTEPS), rtol=1e-6, atol=1e-6)
    found = diffusion.to_x0(output, noisy, TIMESTEPS)
    scheduler.set_timesteps(1000)
    for i, timestep in enumerate(TIMESTEPS):
        theirs = scheduler.step(output[i], timestep, noisy[i]).pred_original_sample
        torch.testing.assert_close(found[i], theirs, rtol=1e-5, atol=1e-5)
    if "rescale_betas_zero_snr" in options:
        assert diffusion.alpha[-1] == 0
        assert diffusion.sigma[-1] == 1
        assert torch.equal(noisy[-1], noise[-1])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noise_and_x0_are_those_of_flow_matching(shift: float) -> None:
    """A shift moves the timesteps that are used, not what they mean: the network's t is 1000 sigma."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    diffusion = Diffusion.from_scheduler(scheduler)
    whole = (scheduler.timesteps - scheduler.timesteps.round()).abs() < 1e-3
    known = scheduler.timesteps[whole][torch.linspace(0, int(whole.sum()) - 1, 5).long()]
    x0, noise, output = torch.randn(3, len(known), 2, 3, 3)
    timesteps = known.round().long()
    noisy = diffusion.add_noise(x0, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.scale_noise(x0, known, noise), rtol=1e-5, atol=1e-5)
    found = diffusion.to_x0(output, noisy, timesteps)
    for i, timestep in enumerate(known):
        alone = FlowMatchEulerDiscreteScheduler()  # one step from here to the end
        alone.set_timesteps(sigmas=[float(timestep) / 1000])
        theirs = alone.step(output[i], alone.timesteps[0], noisy[i]).prev_sample
        torch.testing.assert_close(found[i], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_solvers_of_flow_models_mean_what_flow_matching_means(make: Any) -> None:
    scheduler = make(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    diffusion, expected = (
        Diffusion.from_scheduler(scheduler),
        Diffusion.from_scheduler(FlowMatchEulerDiscreteScheduler()),
    )
    assert diffusion.prediction == "flow"
    assert torch.equal(diffusion.sigma, expected.sigma)
    scheduler.set_timesteps(6)
    x0, noise = torch.randn(2, 1, 2, 3, 3)
    rounding = float((x0 - noise).abs().max()) / 1000  # their timesteps are whole numbers of a thousand
    for timestep in scheduler.timesteps[:-1]:
        ours = diffusion.add_noise(x0, noise, timestep[None])
        torch.testing.assert_close(ours, scheduler.add_noise(x0, noise, timestep[None]), rtol=0, atol=1.01 * rounding)


def test_flow_matching_begins_at_noise_and_ends_at_data() -> None:
    diffusion = Diffusion.from_scheduler(FlowMatchEulerDiscreteScheduler())
    assert diffusion.prediction == "flow"
    assert len(diffusion.sigma) == 1001
    assert diffusion.sigma[[0, 500, 1000]].tolist() == [0, 0.5, 1]
    assert diffusion.alpha[[0, 500, 1000]].tolist() == [1, 0.5, 0]


def test_levels_take_the_samples_precision_and_shape() -> None:
    diffusion = Diffusion.from_scheduler(DDPMScheduler())
    for dtype in (torch.float64, torch.bfloat16):
        for shape in ((2,), (2, 3), (2, 3, 4, 5, 6)):
            noisy = diffusion.add_noise(
                torch.ones(shape, dtype=dtype), torch.zeros(shape, dtype=dtype), torch.tensor([0, 999])
            )
            assert noisy.shape == shape
            assert noisy.dtype == dtype
            assert noisy[0].mean() > 0.99
            assert noisy[1].mean() < 0.1


@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerDiscreteScheduler])  # Euler's last alpha is 2^-12
def test_noise_prediction_at_zero_terminal_snr_is_refused(scheduler: type[Any]) -> None:
    with pytest.raises(OptionError, match="v_prediction"):
        Diffusion.from_scheduler(scheduler(rescale_betas_zero_snr=True))


def test_unknown_predictions_and_schedulers_are_refused() -> None:
    with pytest.raises(OptionError, match=r"'velocity'.*epsilon, v_prediction, sample, flow"):
        Diffusion(torch.ones(2), torch.ones(2), "velocity")  # type: ignore[arg-type]
    unknown = DDPMScheduler(prediction_type="score")
    with pytest.raises(OptionError, match="'score'"):
        Diffusion.from_scheduler(unknown)
    with pytest.raises(OptionError, match="VQDiffusionScheduler has neither"):
        Diffusion.from_scheduler(VQDiffusionScheduler(num_vec_classes=4))
    with pytest.raises(OptionError, match=r"other noise levels \(EDM's\) cannot be distilled here"):
        Diffusion.from_scheduler(EDMEulerScheduler())


def test_timesteps_between_two_lie_on_the_line_between_their_levels() -> None:
    flow = Diffusion.from_scheduler(FlowMatchEulerDiscreteScheduler())
    timesteps, like = torch.tensor([1000.0, 629.96, 0.25, 0.0]), torch.zeros(4, 1, dtype=torch.float64)
    expected = (timesteps.double() / 1000)[:, None]
    torch.testing.assert_close(flow.at(flow.sigma, timesteps, like), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(flow.at(flow.alpha, timesteps, like), 1 - expected, rtol=1e-6, atol=1e-7)
