"""Terms of the student's loss against their textbook forms in float64, and where their gradients go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distill_tools import zero_snr_scheduler
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill import (
    ClassConditional,
    Consistency,
    Diffusion,
    DistributionMatching,
    Guidance,
    Made,
    ScoreDistillation,
    score_distillation,
)

TIMESTEPS = torch.tensor([40, 200, 499, 750, 960])
LABELS = {"class_labels": torch.tensor([3, 1, 0, 2, 3])}
NOTHING, NEGATIVE = {"class_labels": torch.tensor([4])}, {"class_labels": torch.tensor([5])}


class Network(nn.Module):
    """Depends on everything that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, dtype=torch.float64))

    def forward(self, noisy: Tensor, timesteps: Tensor, class_labels: Tensor) -> SimpleNamespace:
        factor = self.weight[class_labels] + timesteps / 1000
        return SimpleNamespace(sample=factor.view(-1, 1, 1, 1) * noisy + self.weight[6])


def diffusion_of(prediction: str) -> Diffusion:
    if prediction == "flow":
        sigma = torch.arange(1001, dtype=torch.float64) / 1000
        return Diffusion(1 - sigma, sigma, "flow")
    levels = zero_snr_scheduler().alphas_cumprod.double()
    if prediction == "epsilon":  # which says nothing where there is no signal
        levels = levels.clamp(min=1e-4)
    return Diffusion(levels.sqrt(), (1 - levels).sqrt(), prediction)  # type: ignore[arg-type]


@pytest.fixture(params=["v_prediction", "epsilon", "flow", "sample"])
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    torch.manual_seed(0)
    diffusion = diffusion_of(request.param)
    made = Made(
        noisy=torch.randn(5, 2, 4, 4, dtype=torch.float64),
        timesteps=TIMESTEPS,
        steps=torch.tensor([0, 1, 0, 2, 1]),
        x0=torch.randn(5, 2, 4, 4, dtype=torch.float64, requires_grad=True),
        condition=LABELS,
        average=Network(),
    )
    return SimpleNamespace(
        diffusion=diffusion, denoiser=ClassConditional(diffusion), teacher=Network(), fake=Network(), made=made
    )


def noise_and_x0(case: Any, network: Network, x: Tensor, t: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """What the network's answer says about the noise in one sample x, and about x_0: each prediction by its definition."""
    alpha, sigma = case.diffusion.alpha[t], case.diffusion.sigma[t]
    out = (network.weight[label] + t / 1000) * x + network.weight[6]
    kind = case.diffusion.prediction
    if kind == "epsilon":
        return out, (x - sigma * out) / alpha
    if kind == "v_prediction":
        return alpha * out + sigma * x, alpha * x - sigma * out
    if kind == "flow":
        return x + alpha * out, x - sigma * out
    return (x - alpha * out) / sigma, out


def gradient(loss: Tensor, x0: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, x0)
    return found


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_distribution_matching_is_dmds(case: Any, scale: float) -> None:
    """DMD's algorithm 2 in terms of noise: (eps_real - eps_fake) sigma / alpha is x_fake - x_real; normalized sample by sample."""
    made, noise = case.made, torch.randn(5, 2, 4, 4, dtype=torch.float64)
    expected = []
    for x0, z, t, label in zip(made.x0.detach(), noise, TIMESTEPS, LABELS["class_labels"]):
        alpha, sigma = case.diffusion.alpha[t], case.diffusion.sigma[t]
        x = alpha * x0 + sigma * z
        told, _ = noise_and_x0(case, case.teacher, x, t, int(label))
        untold, _ = noise_and_x0(case, case.teacher, x, t, 4)
        real = untold + scale * (told - untold)
        fake, _ = noise_and_x0(case, case.fake, x, t, int(label))
        answer = (x - sigma * real) / alpha
        expected.append((real - fake) * sigma / alpha / (x0 - answer).abs().mean())
    guidance = None if scale == 1 else Guidance(scale, NOTHING)
    term = DistributionMatching(case.denoiser, case.teacher, case.fake, guidance=guidance)
    loss = term.at(made, TIMESTEPS, noise)
    slope = torch.stack(expected).detach()
    torch.testing.assert_close(gradient(loss, made.x0), slope / made.x0.numel(), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(loss, 0.5 * slope.square().mean(), rtol=1e-8, atol=1e-12)


def test_distribution_matching_moves_nobody_but_the_student(case: Any) -> None:
    DistributionMatching(case.denoiser, case.teacher, case.fake)(case.made).backward()
    assert case.teacher.weight.grad is None
    assert case.fake.weight.grad is None
    assert case.made.x0.grad.abs().sum() > 0


def test_two_networks_that_agree_leave_the_student_alone(case: Any) -> None:
    case.fake.load_state_dict(case.teacher.state_dict())
    loss = DistributionMatching(case.denoiser, case.teacher, case.fake)(case.made)
    assert gradient(loss, case.made.x0).abs().max() == 0
    with pytest.raises(OptionError, match="the fake score network is the teacher itself"):
        DistributionMatching(case.denoiser, case.teacher, case.teacher)


def test_the_fake_score_may_be_told_more_than_the_teacher(case: Any) -> None:
    """Of its own class for each step of the student, as a network that was asked for these classes."""
    noise = torch.randn_like(case.made.x0)
    term = DistributionMatching(
        case.denoiser, case.teacher, case.fake, told=lambda condition, steps: {"class_labels": steps + 2}
    )
    told = term.at(case.made, TIMESTEPS, noise)
    seen = Made(**{**vars(case.made), "condition": {"class_labels": case.made.steps + 2}})
    other = lambda noisy, timesteps, class_labels: case.teacher(noisy, timesteps, LABELS["class_labels"])  # noqa: E731
    expected = DistributionMatching(case.denoiser, other, case.fake)  # type: ignore[arg-type]
    torch.testing.assert_close(told, expected.at(seen, TIMESTEPS, noise))
    plain = DistributionMatching(case.denoiser, case.teacher, case.fake).at(case.made, TIMESTEPS, noise)
    assert not torch.allclose(told, plain)


def test_a_teacher_that_agrees_with_the_student_gives_no_nan(case: Any) -> None:
    """0 / 0 where the sample is the teacher's own answer."""
    case.denoiser.diffusion = diffusion_of("sample")
    agreed = case.made.x0.detach()
    same = lambda noisy, timesteps, class_labels: SimpleNamespace(sample=agreed)  # noqa: E731
    other = lambda noisy, timesteps, class_labels: SimpleNamespace(sample=agreed.clone())  # noqa: E731
    loss = DistributionMatching(case.denoiser, same, other)(case.made)  # type: ignore[arg-type]
    assert gradient(loss, case.made.x0).abs().max() == 0


def test_timesteps_of_distribution_matching_leave_out_both_ends(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    term, seen = DistributionMatching(case.denoiser, case.teacher, case.fake), []
    monkeypatch.setattr(term, "at", lambda made, timesteps, noise: seen.append(timesteps))
    for _ in range(600):
        term(case.made)
    drawn = torch.cat(seen)
    assert 20 <= drawn.min() < 30
    assert 970 < drawn.max() <= 980
    assert len(set(seen[0].tolist())) > 1


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_score_distillation_sampling_is_dreamfusions(case: Any, scale: float) -> None:
    """w_t (eps_teacher - eps), w_t = sigma_t^2, with the teacher's noise guided."""
    made = case.made
    torch.manual_seed(1)
    noise, expected = torch.randn_like(made.x0), []
    for x0, z, t, label in zip(made.x0.detach(), noise, TIMESTEPS, LABELS["class_labels"]):
        alpha, sigma = case.diffusion.alpha[t], case.diffusion.sigma[t]
        x = alpha * x0 + sigma * z
        told, _ = noise_and_x0(case, case.teacher, x, t, int(label))
        untold, _ = noise_and_x0(case, case.teacher, x, t, 4)
        expected.append(sigma**2 * (untold + scale * (told - untold) - z))
    torch.manual_seed(1)
    guidance = None if scale == 1 else Guidance(scale, NOTHING)
    loss = score_distillation(case.denoiser, case.teacher, made.x0, LABELS, TIMESTEPS, weights="sds", guidance=guidance)
    slope = torch.stack(expected).detach() / made.x0.numel()
    torch.testing.assert_close(gradient(loss, made.x0), slope, rtol=1e-7, atol=1e-10)


def test_noise_free_score_distillation_is_its_papers(case: Any) -> None:
    """w_t (delta_D + s delta_C): delta_D is eps() below 200, eps() - eps(negative) from there on."""
    made = case.made
    torch.manual_seed(1)
    noise, expected = torch.randn_like(made.x0), []
    for x0, z, t, label in zip(made.x0.detach(), noise, TIMESTEPS, LABELS["class_labels"]):
        alpha, sigma = case.diffusion.alpha[t], case.diffusion.sigma[t]
        x = alpha * x0 + sigma * z
        told, untold, negative = (noise_and_x0(case, case.teacher, x, t, k)[0] for k in (int(label), 4, 5))
        domain = untold if t < 200 else untold - negative
        expected.append(sigma**2 * (domain + 7.5 * (told - untold)))
    torch.manual_seed(1)
    loss = score_distillation(
        case.denoiser,
        case.teacher,
        made.x0,
        LABELS,
        TIMESTEPS,
        weights="nfsd",
        guidance=Guidance(7.5, NOTHING),
        negative=NEGATIVE,
    )
    slope = torch.stack(expected).detach() / made.x0.numel()
    torch.testing.assert_close(gradient(loss, made.x0), slope, rtol=1e-7, atol=1e-10)
    assert case.teacher.weight.grad is None


def test_all_weights_are_finite_on_pure_noise_and_on_none(case: Any) -> None:
    for t in (0, len(case.diffusion.alpha) - 1):
        for weights in ("exponential", "sds", "nfsd"):
            loss = score_distillation(
                case.denoiser,
                case.teacher,
                case.made.x0,
                LABELS,
                torch.full((5,), t),
                weights=weights,  # type: ignore[arg-type]
                guidance=Guidance(2.0, NOTHING),
                negative=NEGATIVE,
            )
            assert loss.isfinite(), (t, weights)


def test_distances_are_measured_where_asked(case: Any) -> None:
    torch.manual_seed(1)
    plain = score_distillation(case.denoiser, case.teacher, case.made.x0, LABELS, TIMESTEPS)
    torch.manual_seed(1)
    doubled = score_distillation(
        case.denoiser, case.teacher, case.made.x0, LABELS, TIMESTEPS, decode=lambda a, b: (2 * a, 2 * b)
    )
    torch.testing.assert_close(doubled, 4 * plain)


def test_noise_free_score_distillation_needs_both_prompts(case: Any) -> None:
    with pytest.raises(OptionError, match="needs guidance and a negative prompt"):
        ScoreDistillation(case.denoiser, case.teacher, weights="nfsd", guidance=Guidance(2.0, NOTHING))
    with pytest.raises(OptionError, match="needs guidance and a negative prompt"):
        score_distillation(case.denoiser, case.teacher, case.made.x0, LABELS, weights="nfsd", negative=NEGATIVE)
    with pytest.raises(OptionError, match="weights='linear': there are exponential, sds, nfsd"):
        score_distillation(case.denoiser, case.teacher, case.made.x0, LABELS, weights="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [None, (3.0,), (2.0, 5.0, 1.0, 7.0, 3.0)])
def test_consistency_is_lcms(case: Any, scales: Any) -> None:
    """Algorithm 1 in noise: DDIM x_s = alpha_s x_0 + sigma_s eps with guided noise, both ends by c_skip and c_out."""
    made, skip, delta = case.made, 60, 0.01
    condition = {**LABELS, **({"guidance": torch.tensor(scales)} if scales and len(scales) > 1 else {})}
    made = Made(**{**vars(made), "condition": condition})
    terms = []
    for i, (x0, x, t, label) in enumerate(zip(made.x0, made.noisy, TIMESTEPS, LABELS["class_labels"])):
        s = max(int(t) - skip, 0)
        eps, _ = noise_and_x0(case, case.teacher, x, t, int(label))
        if scales:
            w = scales[i % len(scales)] - 1
            untold, _ = noise_and_x0(case, case.teacher, x, t, 4)
            eps = eps + w * (eps - untold)
        answer = (x - case.diffusion.sigma[t] * eps) / case.diffusion.alpha[t]
        on_path = case.diffusion.alpha[s] * answer + case.diffusion.sigma[s] * eps
        _, end = noise_and_x0(case, made.average, on_path, torch.tensor(s), int(label))
        ends = []
        for estimate, at, time in ((x0, x, int(t)), (end, on_path, s)):
            c_skip = 0.25 / ((time / 0.1) ** 2 + 0.25)
            c_out = (time / 0.1) / ((time / 0.1) ** 2 + 0.25) ** 0.5
            ends.append(c_skip * at + c_out * estimate)
        terms.append((((ends[0] - ends[1].detach()) ** 2 + delta**2).sqrt() - delta).mean())
    guidance = Guidance(scales[0], NOTHING) if scales else None
    term = Consistency(case.denoiser, case.teacher, guidance=guidance, skip=skip, delta=delta)
    found, expected = term(made), torch.stack(terms).mean()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(gradient(found, made.x0), gradient(expected, made.x0), rtol=1e-7, atol=1e-10)


def test_consistency_moves_neither_teacher_nor_average(case: Any) -> None:
    Consistency(case.denoiser, case.teacher)(case.made).backward()
    assert case.teacher.weight.grad is None
    assert case.made.average.weight.grad is None


def test_at_the_boundary_the_student_answers_its_input(case: Any) -> None:
    """A step to 0 ends at the teacher's x_0 (with a flow), whatever the average would say there."""
    made = Made(**{**vars(case.made), "timesteps": torch.full((5,), 15)})
    one = Consistency(case.denoiser, case.teacher, skip=20)(made)
    made.average.weight.data.add_(5)
    torch.testing.assert_close(Consistency(case.denoiser, case.teacher, skip=20)(made), one)
    later = Made(**{**vars(case.made), "timesteps": torch.full((5,), 500)})
    before = Consistency(case.denoiser, case.teacher, skip=20)(later)
    made.average.weight.data.add_(5)
    assert not torch.allclose(Consistency(case.denoiser, case.teacher, skip=20)(later), before)


@pytest.mark.parametrize("options", [{"skip": 0}, {"skip": 2000}, {"delta": 0.0}])
def test_consistency_checks_its_numbers(case: Any, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Consistency(case.denoiser, case.teacher, **options)


def test_a_networks_target_is_the_inverse_of_its_answer(case: Any) -> None:
    diffusion = case.diffusion
    x0, noise = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    noisy = diffusion.add_noise(x0, noise, TIMESTEPS)
    target = diffusion.target(x0, noise, TIMESTEPS)
    torch.testing.assert_close(diffusion.to_x0(target, noisy, TIMESTEPS), x0, rtol=1e-9, atol=1e-9)
