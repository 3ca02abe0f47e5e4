"""The adaptive weight: the textbook's numbers, without its second backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import advloss
from advloss import AdaptiveWeight, Adversary, CombinationError, InputError, OptionError


class Counting(torch.autograd.Function):
    """The identity; counts backward passes."""

    counts: dict[str, int] = {}  # noqa: RUF012

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, name: str) -> Tensor:
        ctx.name = name
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        Counting.counts[ctx.name] = Counting.counts.get(ctx.name, 0) + 1
        return grad, None


class Judge(nn.Module):
    """A small discriminator that counts its backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.LeakyReLU(0.2), nn.Conv2d(6, 1, 3))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return Counting.apply(self.layers(samples), "discriminator")


class Setting:
    """An autoencoder, a perceptual network, an adversary and images, all in float64."""

    def __init__(self, loss: str = "hinge", weight: float = 0.8, **options: Any) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 3, padding=1)).double()
        self.perceptual = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double().requires_grad_(False)
        self.adversary = Adversary(Judge().double(), loss, weight=weight, seed=0, **options)
        self.images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
        self.weight: Tensor = self.model[2].weight
        Counting.counts.clear()

    def reconstruction_loss(self, fake: Tensor) -> Tensor:
        features = Counting.apply(self.perceptual(fake), "perceptual")
        return functional.l1_loss(fake, self.images) + (features - self.perceptual(self.images)).square().mean()

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.model.parameters()]

    def textbook(self) -> tuple[Tensor, Tensor]:
        """As taming-transformers writes it: the total, and lambda. Fills the gradients."""
        fake = self.model(self.images)
        rec, logits = self.reconstruction_loss(fake), self.adversary.discriminator(fake)
        adv = self.adversary.loss.generator(logits, self.adversary.discriminator(self.images).detach())
        rec_grad = torch.autograd.grad(rec, self.weight, retain_graph=True)[0]
        adv_grad = torch.autograd.grad(adv, self.weight, retain_graph=True)[0]
        ratio = torch.clamp(torch.norm(rec_grad) / (torch.norm(adv_grad) + 1e-4), 0.0, 1e4).detach()
        total = rec + ratio * self.adversary.weight * adv
        total.backward()
        return total, ratio

    def cheap(self, factor: float = 1.0) -> tuple[Tensor, AdaptiveWeight]:
        adaptive = AdaptiveWeight(self.adversary, self.weight)
        fake = self.model(self.images)
        adversarial = self.adversary.generator_loss(fake, self.images)
        total = adaptive(fake, self.reconstruction_loss(fake), adversarial)
        (factor * total).backward()
        return total, adaptive


@pytest.mark.parametrize("loss", ["hinge", "non-saturating", "relativistic", "least-squares"])
@pytest.mark.parametrize("weight", [0.8, 1e-3])
def test_it_is_the_textbook_in_float64(loss: str, weight: float) -> None:
    twin, setting = Setting(loss, weight), Setting(loss, weight)
    expected, ratio = twin.textbook()
    total, adaptive = setting.cheap()
    assert adaptive.value is not None
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(adaptive.value, ratio, rtol=1e-12, atol=0)
    for mine, theirs in zip(setting.gradients(), twin.gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_one_backward_through_each_network() -> None:
    twin = Setting()
    twin.textbook()
    assert Counting.counts == {"perceptual": 2, "discriminator": 2}
    setting = Setting()
    setting.cheap()
    assert Counting.counts == {"perceptual": 1, "discriminator": 1}


def test_the_ratio_is_clamped() -> None:
    twin, setting = Setting(), Setting()
    for each in (twin, setting):
        for parameter in each.adversary.discriminator.parameters():
            parameter.data.mul_(1e-6)
    _, ratio = twin.textbook()
    setting.cheap()
    adaptive = AdaptiveWeight(setting.adversary, setting.weight, maximum=2.0)
    fake = setting.model(setting.images)
    adaptive(fake, setting.reconstruction_loss(fake), setting.adversary.generator_loss(fake))
    assert ratio > 100
    assert adaptive.value == 2.0


def test_before_the_start_step_the_loss_is_the_very_same() -> None:
    setting = Setting(start_step=1)
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    fake = setting.model(setting.images)
    loss = setting.reconstruction_loss(fake)
    assert adaptive(fake, loss, setting.adversary.generator_loss(fake, setting.images)) is loss
    assert adaptive.value is None
    assert not Counting.counts


def test_a_scaled_loss_scales_the_gradient() -> None:
    """What a gradient scaler and accumulation do."""
    one, many = Setting(), Setting()
    one.cheap()
    many.cheap(factor=1024.0)
    for mine, theirs in zip(many.gradients(), one.gradients(), strict=True):
        torch.testing.assert_close(mine, 1024 * theirs, rtol=1e-14, atol=0)


def test_finite_where_the_textbook_is_not() -> None:
    """Gradients whose squares overflow: the textbook divides infinity by infinity (latent-diffusion #176)."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    images = torch.randn(2, 3, 8, 8)
    fake = model(images)
    rec, adv = 1e25 * (fake - 1).abs().mean(), 2e25 * (fake * images).mean()
    norms = [torch.autograd.grad(loss, model.weight, retain_graph=True)[0].norm() for loss in (rec, adv)]
    assert (norms[0] / (norms[1] + 1e-4)).isnan()
    adaptive = AdaptiveWeight(Adversary(Judge(), "hinge"), model.weight)
    loss = adaptive(fake, rec, adv)
    loss.backward()
    assert loss.isfinite()
    assert 0 < adaptive.value < 10
    assert model.weight.grad.isfinite().all()


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    setting = Setting()
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    fake = setting.model(setting.images)
    broken = (fake - fake.detach()).square().sum().sqrt()  # the gradient of a root at 0 is NaN
    loss = adaptive(fake, setting.reconstruction_loss(fake), broken)
    loss.backward()
    mine = setting.gradients()
    setting.model.zero_grad()
    rec = setting.reconstruction_loss(setting.model(setting.images))
    rec.backward()
    assert adaptive.value == 0
    assert torch.equal(loss, rec)
    for found, expected in zip(mine, setting.gradients(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_half_precision_neither_underflows_nor_overflows() -> None:
    """A model in float16 on a large image: each pixel's share of the mean, and the sum over pixels, leave its range."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 1)
    images = torch.randn(1, 3, 512, 512)
    ratios = []
    for dtype in (torch.float64, torch.float16):
        network, batch = nn.Conv2d(3, 3, 1).to(dtype), images.to(dtype)
        network.load_state_dict(model.state_dict())
        fake = network(batch)
        wide = fake.to(torch.promote_types(dtype, torch.float32))
        adaptive = AdaptiveWeight(Adversary(Judge(), "hinge"), network.weight)
        adaptive(wide, (wide - 1).abs().mean(), (wide * batch).sum())
        ratios.append(float(adaptive.value))
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    twin, setting = Setting(), Setting()
    twin.textbook()
    network = setting.model.forward
    images = setting.images.clone().requires_grad_()  # reentrant checkpointing wants an input with a gradient
    fake = checkpoint(network, images, use_reentrant=reentrant)
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    losses = setting.reconstruction_loss(fake), setting.adversary.generator_loss(fake, setting.images)
    if reentrant:
        with pytest.raises((CombinationError, InputError), match=r"use_reentrant=False|was not computed with"):
            adaptive(fake, *losses)
        return
    adaptive(fake, *losses).backward()
    for mine, theirs in zip(setting.gradients(), twin.gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_the_discriminator_is_left_alone() -> None:
    setting = Setting()
    before = setting.adversary.state_dict()
    setting.cheap()
    assert all(parameter.grad is None for parameter in setting.adversary.discriminator.parameters())
    after = setting.adversary.state_dict()
    for name, value in before["discriminator"].items():
        assert torch.equal(value, after["discriminator"][name])


def test_what_cannot_be_right_is_refused() -> None:
    setting = Setting()
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    fake = setting.model(setting.images)
    rec, adv = setting.reconstruction_loss(fake), setting.adversary.generator_loss(fake)
    with pytest.raises(InputError, match="give a scalar"):
        adaptive(fake, (fake - setting.images).abs(), adv)
    with pytest.raises(InputError, match="same tensor"):
        adaptive(fake.clone(), torch.zeros((), dtype=torch.float64), adv)
    with pytest.raises(InputError, match="other than through"):
        adaptive(fake, rec + 1e-3 * setting.model[0].weight.square().sum(), adv)
    with pytest.raises(InputError, match="the reconstruction loss was not computed from this"):
        adaptive(fake.clone(), rec, adv)
    with pytest.raises(InputError, match="no graph"):
        adaptive(fake.detach(), rec, adv)
    elsewhere = AdaptiveWeight(setting.adversary, nn.Parameter(torch.ones(3, 5, 3, 3, dtype=torch.float64)))
    with pytest.raises(InputError, match="not computed with the last layer"):
        elsewhere(fake, rec, setting.adversary.generator_loss(fake))
    with pytest.raises(OptionError, match="frozen"):
        AdaptiveWeight(setting.adversary, setting.weight.detach())
    with pytest.raises(OptionError, match="Conv2d"):
        AdaptiveWeight(setting.adversary, setting.model[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("start_step", [0, 1000])
def test_mistakes_show_in_the_first_step(start_step: int) -> None:
    """And not after the hours that lie before the start step."""
    setting = Setting(start_step=start_step)
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    fake = setting.model(setting.images)
    rec, adv = setting.reconstruction_loss(fake), setting.adversary.generator_loss(fake)
    with pytest.raises(InputError, match="give a scalar"):
        adaptive(fake, (fake - setting.images).abs(), adv)
    with pytest.raises(InputError, match="other than through"):
        adaptive(fake, rec + setting.model[0].weight.square().sum(), adv)
    elsewhere = AdaptiveWeight(setting.adversary, nn.Parameter(torch.ones(3, 5, 3, 3, dtype=torch.float64)))
    with pytest.raises(InputError, match="not computed with the last layer"):
        elsewhere(fake, rec, adv)
    with torch.no_grad():
        assert adaptive(fake, rec, adv) is rec
    setting.weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"frozen after it had been given.*requires_grad_\(True\)"):
        adaptive(fake, rec, adv)


def test_an_adversarial_loss_of_something_else_is_named() -> None:
    setting = Setting()
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    fake = setting.model(setting.images)
    rec = setting.reconstruction_loss(fake)
    with pytest.raises(InputError, match="the adversarial loss was not computed from this reconstruction"):
        adaptive(fake, rec, setting.adversary.generator_loss(setting.model(setting.images)))
    with pytest.raises(InputError, match="the adversarial loss depends on a parameter"):
        adaptive(fake, rec, setting.adversary.generator_loss(fake) + setting.model[0].weight.square().sum())
    with pytest.raises(InputError, match=r"the adversarial loss has shape \(3,\)"):
        adaptive(fake, rec, fake.mean((1, 2, 3)))
    setting.adversary.step = 1
    with pytest.warns(UserWarning, match="not from a detached copy"):
        adaptive(fake, rec, setting.adversary.generator_loss(fake.detach()))


def test_both_losses_may_share_a_part_of_the_graph() -> None:
    """As after a clamp of the reconstruction, whose backward must not be freed by the first loss."""
    twin, setting = Setting(), Setting()
    images = setting.images
    fake = twin.model(images)
    seen = fake.clamp(-0.1, 0.1)
    rec, adv = (seen - images).abs().mean(), twin.adversary.loss.generator(twin.adversary.discriminator(seen), None)
    norms = [torch.autograd.grad(loss, twin.weight, retain_graph=True)[0].norm() for loss in (rec, adv)]
    (rec + norms[0] / (norms[1] + 1e-4) * twin.adversary.weight * adv).backward()
    fake = setting.model(images)
    seen = fake.clamp(-0.1, 0.1)
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    adaptive(fake, (seen - images).abs().mean(), setting.adversary.generator_loss(seen)).backward()
    for mine, theirs in zip(setting.gradients(), twin.gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("maximum", [0, -1.0, float("nan"), "1e4"])
def test_the_bound_of_the_ratio_is_a_number_above_zero(maximum: Any) -> None:
    setting = Setting()
    with pytest.raises(OptionError, match="maximum="):
        AdaptiveWeight(setting.adversary, setting.weight, maximum=maximum)


def test_a_trainable_perceptual_network_is_named() -> None:
    setting = Setting()
    setting.perceptual.requires_grad_(True)
    fake = setting.model(setting.images)
    adaptive = advloss.AdaptiveWeight(setting.adversary, setting.weight)
    with pytest.raises(InputError, match=r"requires_grad_\(False\)"):
        adaptive(fake, setting.reconstruction_loss(fake), setting.adversary.generator_loss(fake))


def test_a_script_may_leave_the_adversary_out_of_some_steps(recwarn: pytest.WarningsRecorder) -> None:
    """A constant adds nothing; a loss that was detached by mistake looks the same, so that it is said once."""
    setting = Setting()
    adaptive = AdaptiveWeight(setting.adversary, setting.weight)
    for _ in range(3):
        fake = setting.model(setting.images)
        rec = setting.reconstruction_loss(fake)
        assert adaptive(fake, rec, torch.zeros((), dtype=torch.float64)) is rec
        setting.adversary.discriminator_step(setting.images, fake)
    assert ["the adversarial loss has no graph" in str(w.message) for w in recwarn].count(True) == 1
