"""Where the backbone's weights come from, and what is said when they cannot be had."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from advloss import OptionError, PluginError
from advloss_timm import dino, projected
from advloss_timm._plugin import advloss_discriminators

TOKENS = {"backbone": "test_vit", "blocks": (1,), "resolution": 32}
MAPS = {"backbone": "test_efficientnet", "resolution": 64, "width": 4}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_checkpoint_of_another_size(tmp_path, suffix):
    torch.manual_seed(0)
    source, path = timm.create_model("test_vit", pretrained=False), tmp_path / f"weights.{suffix}"
    save_file(source.state_dict(), path) if suffix == "safetensors" else torch.save(source.state_dict(), path)
    model = dino(**TOKENS, checkpoint_path=path).features.model
    assert all(torch.equal(a, b) for a, b in zip(source.blocks.parameters(), model.blocks.parameters()))
    assert model.pos_embed.shape == (1, 5, 64)  # resampled by timm
    assert "state_dict" not in model.pretrained_cfg


def test_checkpoint_of_a_pyramid(tmp_path):
    source, path = timm.create_model("test_efficientnet", pretrained=False), tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    model = projected(**MAPS, checkpoint_path=str(path)).features.model
    assert torch.equal(source.conv_stem.weight, model.conv_stem.weight)


@pytest.mark.parametrize(("build", "options"), [(dino, TOKENS), (projected, MAPS)])
def test_a_file_that_does_not_fit(tmp_path, build, options):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.randn(3, 3)}, path)
    with pytest.raises(PluginError, match="does not hold the weights"):
        build(**options, checkpoint_path=path)
    with pytest.raises(PluginError, match="cannot be read"):
        build(**options, checkpoint_path=tmp_path / "none.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(PluginError, match="no plain mapping"):
        build(**options, checkpoint_path=tmp_path / "list.pth")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint ran",))


def test_no_code_of_a_checkpoint_runs(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(PluginError, match="cannot be read"):
        dino(**TOKENS, checkpoint_path=path)


@pytest.mark.parametrize(("build", "options"), [(dino, TOKENS), (projected, MAPS)])
def test_no_network(monkeypatch, build, options):
    asked = {}

    def unreachable(name, **given):
        asked.update(given, name=name)
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(PluginError, match=r"Name or service not known.*checkpoint_path=.*pretrained=False"):
        build(**options)
    assert asked["name"] == options["backbone"]
    assert asked["pretrained"] is True
    with pytest.raises(OptionError):  # without weights to fetch it is no matter of the network
        build(**options, pretrained=False)


def test_specs_are_data():
    code = (
        "import sys, advloss_timm, advloss_timm._plugin as p; p.advloss_discriminators(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
    for spec in advloss_discriminators():
        assert (spec.features, spec.pretrained, spec.output, spec.requires) == (True, True, "multi-scale", ("timm",))
    assert [spec.double_backward for spec in advloss_discriminators()] == [False, True]
