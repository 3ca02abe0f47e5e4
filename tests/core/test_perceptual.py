"""Perceptual distances: LPIPS with weights and without, and what is not a distance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from advloss import InputError, OptionError, load_lpips, perceptual_distance


def test_lpips_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OptionError, match=r"weights of LPIPS are not on this machine|pip install"):
        load_lpips()
    with pytest.raises(OptionError, match="vgg, alex, squeeze"):
        load_lpips("resnet")


def test_lpips_where_its_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights of the smallest network's shapes; the package brings those on top. The distance is a distance, it trains
    what made the samples, and building it draws nothing from the script's random numbers."""
    pytest.importorskip("lpips")
    torchvision = pytest.importorskip("torchvision")
    (tmp_path / "checkpoints").mkdir()
    weights = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save(weights, tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = torch.get_rng_state()
    lpips = load_lpips("squeeze")
    assert torch.equal(torch.get_rng_state(), state)
    samples, images = torch.empty(2, 2, 3, 64, 64).uniform_(-1, 1).unbind()
    samples.requires_grad_()
    distance = perceptual_distance(lpips, samples, images)
    one_by_one = [lpips(a[None], b[None]) for a, b in zip(samples.detach(), images)]
    assert float(distance.detach()) == pytest.approx(float(torch.stack(one_by_one).mean()), rel=1e-5)
    assert float(lpips(images, images).mean()) == 0
    (gradient,) = torch.autograd.grad(distance, [samples])
    assert float(gradient.abs().sum()) > 0


def test_videos_are_judged_frame_by_frame() -> None:
    seen: list[tuple[int, ...]] = []

    def distance(samples: Tensor, images: Tensor) -> Tensor:
        seen.append(tuple(samples.shape))
        return (samples - images).square().flatten(1).mean(1)

    samples, images = torch.rand(2, 2, 3, 5, 8, 8)
    assert float(perceptual_distance(distance, samples, images)) == pytest.approx(
        float((samples - images).square().mean())
    )
    assert seen == [(10, 3, 8, 8)]


def test_a_tuple_is_no_distance() -> None:
    samples, images = torch.rand(2, 2, 3, 8, 8)
    with pytest.raises(InputError, match="returned a tuple: return a tensor"):
        perceptual_distance(lambda a, b: (a.mean(), b.mean()), samples, images)  # type: ignore[arg-type, return-value]


def test_a_map_is_no_distance() -> None:
    samples, images = torch.rand(2, 2, 3, 8, 8)
    with pytest.raises(InputError, match=r"a map of shape \(2, 3, 8, 8\) for 2 samples"):
        perceptual_distance(lambda a, b: (a - b).abs(), samples, images)
