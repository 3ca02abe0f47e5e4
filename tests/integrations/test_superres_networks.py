"""Reference networks, tiles, weights as files, ONNX, interpolation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advloss import InputError, OptionError, StateError
from advloss_superres import (
    ResidualNetwork,
    RRDBNetwork,
    export_onnx,
    interpolate_weights,
    load_published,
    load_weights,
    reach,
    read_weights,
    restore,
    save_weights,
)


def residual(scale: int = 2) -> nn.Module:
    return ResidualNetwork(scale, width=8, depth=2).eval()


def rrdb(scale: int = 2) -> nn.Module:
    return RRDBNetwork(scale, width=8, growth=4, depth=1).eval()


MAKERS: dict[str, Callable[[int], nn.Module]] = {"residual": residual, "rrdb": rrdb}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_networks_enlarge_by_their_scale(name: str, scale: int) -> None:
    network = MAKERS[name](scale)
    made = network(torch.rand(2, 3, 7, 9))
    assert made.shape == (2, 3, 7 * scale, 9 * scale)
    made.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_default_network_is_small_and_the_papers_is_the_papers() -> None:
    assert sum(p.numel() for p in ResidualNetwork().parameters()) < 300_000
    paper = RRDBNetwork(4, width=64, growth=32, depth=23)
    assert sum(p.numel() for p in paper.parameters()) == 16_697_987  # of the released RRDB_ESRGAN_x4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ResidualNetwork(0), "scale=0"),
        (lambda: ResidualNetwork(2, width=0), "width=0"),
        (lambda: RRDBNetwork(5), "scale=5"),
        (lambda: RRDBNetwork(2, growth=1.5), "growth=1.5"),  # type: ignore[arg-type]
    ],
)
def test_options_of_networks(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_show_no_seam(name: str, scale: int) -> None:
    network = MAKERS[name](scale)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    images = torch.rand(2, 3, 53, 71) * 2 - 1
    with torch.no_grad():
        whole = network(images)
    overlap = reach(network, side=65)
    torch.testing.assert_close(restore(network, images, tile=20, overlap=overlap), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(restore(network, images, tile=1000), whole)
    assert float((restore(network, images, tile=20, overlap=0) - whole).abs().max()) > 1e-3


@pytest.mark.parametrize("name", MAKERS)
def test_tiles_show_no_seam_far_from_the_origin(name: str) -> None:
    """Where coordinates of an enlargement, computed in float32, are off by 1e-4."""
    network, images = MAKERS[name](3), torch.rand(1, 3, 24, 1500) * 2 - 1
    with torch.no_grad():
        whole = network(images)
    tiled = restore(network, images, tile=160, overlap=reach(network, side=65))
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_the_skip_is_bilinear(scale: int) -> None:
    network, images = ResidualNetwork(scale, width=4, depth=1).double(), torch.rand(2, 3, 1, 9, dtype=torch.float64)
    nn.init.zeros_(network.last.weight)
    nn.init.zeros_(network.last.bias)
    expected = nn.functional.interpolate(images, scale_factor=float(scale), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-12)


def test_tiles_of_a_network_with_windows_show_no_seam_where_they_begin_with_a_window() -> None:
    swinir = pytest.importorskip("spandrel.architectures.SwinIR")
    options = {"img_size": 64, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2}
    model = swinir.SwinIR(**options, upscale=2, upsampler="pixelshuffledirect").eval()
    images = torch.rand(1, 3, 24, 144) * 2 - 1
    with torch.no_grad():
        whole = model(images)
    seams = [
        float((restore(model, images, tile=64, overlap=overlap) - whole).abs().max())
        for overlap in (reach(model), (reach(model) // 8 + 2) * 8)
    ]
    assert seams[0] > 0.1
    assert seams[1] < 1e-5


def test_how_far_a_network_looks() -> None:
    assert reach(nn.Conv2d(3, 3, 7, padding=3)) == 3
    assert reach(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2))) == 3


def test_tiles_of_networks_that_shrink_first() -> None:
    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))

        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images)

    network, images = Halving().eval(), torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(restore(network, images, tile=12, overlap=4, multiple=2), network(images))
    with pytest.raises(OptionError, match="multiples of 2"):
        restore(network, images, tile=11, overlap=4, multiple=2)
    with pytest.raises(InputError, match="sides multiples of 2"):
        restore(network, images[..., 1:], tile=12, overlap=4, multiple=2)
    with pytest.raises(InputError, match=r"dtype torch\.uint8: give floats"):
        restore(network, images.byte(), tile=12)
    with pytest.raises(InputError, match=r"shape \(0, 3, 32, 40\)"):
        restore(network, images[:0], tile=12)
    with pytest.raises(InputError, match="no whole multiple"):
        restore(nn.Conv2d(3, 3, 3), images, tile=12)


def test_weights_say_where_they_come_from(tmp_path: Path) -> None:
    network, other = residual(), residual()
    save_weights(network, tmp_path / "deep" / "psnr.safetensors", phase="psnr", scale=2)
    assert load_weights(other, tmp_path / "deep" / "psnr.safetensors") == "psnr"
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert read_weights(tmp_path / "deep" / "psnr.safetensors")[1] == {"phase": "psnr", "about": {"scale": 2}}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["psnr.safetensors"]


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    network = residual()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_weights(rrdb(), tmp_path / "other.safetensors", phase="psnr", network="rrdb")
    save_file({"a": torch.zeros(2)}, tmp_path / "strange.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    nan = residual()
    nn.init.constant_(nan.first.bias, float("nan"))  # type: ignore[union-attr]
    save_weights(nan, tmp_path / "nan.safetensors", phase="psnr")
    for name, words in (
        ("other", "another network.*rrdb"),
        ("strange", "not written by save_weights"),
        ("broken", "cannot be read"),
        ("nan", "first.bias holds NaN"),
        ("missing", "cannot be read"),
    ):
        with pytest.raises(StateError, match=words):
            load_weights(network, tmp_path / f"{name}.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_between_two_phases() -> None:
    first, second = residual().state_dict(), residual().state_dict()
    assert all(torch.equal(value, first[name]) for name, value in interpolate_weights(first, second, 0.0).items())
    assert all(torch.equal(value, second[name]) for name, value in interpolate_weights(first, second, 1.0).items())
    for name, value in interpolate_weights(first, second, 0.3).items():
        torch.testing.assert_close(value, 0.7 * first[name] + 0.3 * second[name])
    with pytest.raises(OptionError, match=r"alpha=1\.5"):
        interpolate_weights(first, second, 1.5)
    with pytest.raises(OptionError, match="differ in names"):
        interpolate_weights(first, rrdb().state_dict(), 0.5)


@pytest.mark.parametrize("name", MAKERS)
def test_onnx_opens_in_onnxruntime_at_any_size(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = MAKERS[name](2).train()
    export_onnx(network, tmp_path / "network.onnx")
    assert network.training
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    for shape in ((1, 3, 20, 33), (3, 3, 41, 16)):
        images = torch.rand(shape) * 2 - 1
        (made,) = session.run(["high"], {"low": images.numpy()})
        np.testing.assert_allclose(made, network.eval()(images).detach().numpy(), atol=1e-5)


def test_onnx_of_a_network_that_was_trained_in_half_precision(make_accelerator: Any, tmp_path: Path) -> None:
    """Accelerate's autocast around the forward is not a part of the file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = make_accelerator(mixed_precision="bf16").prepare(residual())
    export_onnx(network, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    images = torch.rand(1, 3, 20, 16) * 2 - 1
    (made,) = session.run(["high"], {"low": images.numpy()})
    with torch.no_grad():
        assert network(images).sub(torch.tensor(made)).abs().max() > 0  # in bfloat16 still
        np.testing.assert_allclose(made, network._original_forward(images).numpy(), atol=1e-5)


class Unshuffled(nn.Module):
    """A network that takes sides of multiples of 4 only."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_onnx_of_a_network_that_takes_multiples(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = Unshuffled()
    export_onnx(network, str(tmp_path / "new" / "network.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "new" / "network.onnx"))
    for shape in ((1, 3, 20, 36), (3, 3, 44, 16)):
        images = torch.rand(shape)
        (made,) = session.run(["high"], {"low": images.numpy()})
        np.testing.assert_allclose(made, network(images).detach().numpy(), atol=1e-5)


def test_networks_that_onnx_cannot_hold(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Deciding(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) if images.sum() > 0 else images

    class Fixed(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).view(2, 3, 48, 48)

    for network, words in (
        (Deciding(3, 3, 1), "torch cannot export this Deciding"),
        (Fixed(3, 3, 1), "Fixed takes no"),
    ):
        with pytest.raises(OptionError, match=words):
            export_onnx(network, tmp_path / "network.onnx")
        assert network.training
    assert not list(tmp_path.iterdir())


def test_published_networks_of_multiples_take_any_side(tmp_path: Path) -> None:
    """SAFMN's sides are multiples of 8, in ONNX too."""
    spandrel = pytest.importorskip("spandrel")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inner = spandrel.architectures.SAFMN.SAFMN(dim=8, n_blocks=1, upscaling_factor=2).eval()
    save_file({n: t.contiguous() for n, t in inner.state_dict().items()}, tmp_path / "safmn.safetensors")
    network, images = load_published(tmp_path / "safmn.safetensors").eval(), torch.rand(1, 3, 19, 27) * 2 - 1
    whole = nn.functional.pad(images, (0, 5, 0, 5), mode="replicate")
    expected = inner((whole + 1) / 2) * 2 - 1
    torch.testing.assert_close(network(images), expected[..., :38, :54])
    export_onnx(network, tmp_path / "network.onnx")
    (made,) = onnxruntime.InferenceSession(str(tmp_path / "network.onnx")).run(["high"], {"low": whole.numpy()})
    np.testing.assert_allclose(made, expected.detach().numpy(), atol=1e-5)


def test_published_networks_of_grey_images_make_each_channel_alone(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel")
    grey = spandrel.architectures.ESRGAN.ESRGAN(in_nc=1, out_nc=1, num_filters=8, num_blocks=1, scale=2).eval()
    save_file({n: t.contiguous() for n, t in grey.state_dict().items()}, tmp_path / "grey.safetensors")
    network, images = load_published(tmp_path / "grey.safetensors").eval(), torch.rand(2, 3, 8, 9) * 2 - 1
    expected = torch.cat([grey((images[:, i : i + 1] + 1) / 2) * 2 - 1 for i in range(3)], 1)
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(network(images[:, :1]), expected[:, :1])
    assert network(images[..., 1:, 1:]).shape == (2, 3, 14, 16)  # a tile
    network(images).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    odd = spandrel.architectures.ESRGAN.ESRGAN(in_nc=4, out_nc=3, num_filters=8, num_blocks=1, scale=2)
    save_file({n: t.contiguous() for n, t in odd.state_dict().items()}, tmp_path / "odd.safetensors")
    with pytest.raises(OptionError, match="makes 3 channels of 4"):
        load_published(tmp_path / "odd.safetensors")


def test_published_weights_by_spandrel(tmp_path: Path) -> None:
    """ESRGAN's names, as the released files have them."""
    spandrel = pytest.importorskip("spandrel")
    architecture = spandrel.architectures.ESRGAN.ESRGAN(num_filters=8, num_blocks=1, scale=4)
    save_file({n: t.contiguous() for n, t in architecture.state_dict().items()}, tmp_path / "net.safetensors")
    torch.save(architecture.state_dict(), tmp_path / "net.pth")
    images = torch.rand(1, 3, 8, 9) * 2 - 1
    for name in ("net.safetensors", "net.pth"):
        network = load_published(tmp_path / name)
        assert network.scale == 4
        expected = architecture.eval()((images + 1) / 2) * 2 - 1
        torch.testing.assert_close(network.eval()(images), expected)
    (tmp_path / "other.pth").write_bytes(b"no weights")
    save_file({"a": torch.zeros(2)}, tmp_path / "strange.safetensors")
    for name in ("other.pth", "strange.safetensors"):
        with pytest.raises(OptionError, match="no network that spandrel knows"):
            load_published(tmp_path / name)


def test_metadata_is_json(tmp_path: Path) -> None:
    save_weights(residual(), str(tmp_path / "a.safetensors"), phase="psnr", sides=[48, 64], name="ü")
    assert json.dumps(read_weights(tmp_path / "a.safetensors")[1]["about"])
