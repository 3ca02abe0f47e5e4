"""Images side by side, each with the window of most detail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advloss import InputError
from advloss_superres import save_comparison


def scene() -> dict[str, torch.Tensor]:
    """Flat, but for a checkerboard in the lower right corner."""
    truth = torch.zeros(3, 40, 60)
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    truth[:, 20:, 40:] = ((rows + columns) % 2) * 2.0 - 1
    return {"low": truth[:, ::2, ::2], "made": -truth, "truth": truth}


def test_each_scene_has_a_row_of_wholes_and_one_of_windows(tmp_path: Path) -> None:
    save_comparison(tmp_path / "picture.png", [scene(), scene()], window=20, enlarge=4)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width == 3 * 20 * 4
        assert abs(picture.height - (24 + 2 * (round(80 * 40 / 60) + 80))) <= 2
        last = picture.convert("L").crop((165, picture.height - 75, 235, picture.height - 5))
    colours = {value for _, value in last.getcolors(2**24)}
    assert {0, 255} <= colours  # the checkerboard, and not the flat part
    assert 128 not in colours


def test_columns_are_as_wide_as_their_titles(tmp_path: Path) -> None:
    row = {"low": scene()["low"], "a title of many letters": -scene()["truth"], "truth": scene()["truth"]}
    save_comparison(str(tmp_path / "new" / "picture.png"), [row], window=10, enlarge=1)
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        head = np.array(picture.convert("L"))[:22]
    gaps = [head[:, head.shape[1] * part // 3 - 1 :][:, :2] for part in (1, 2)]
    assert all(gap.min() == 255 for gap in gaps)
    assert head.min() < 100


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(InputError, match="there are no images"):
        save_comparison(path, [], window=8)
    with pytest.raises(InputError, match="'odd' has shape"):
        save_comparison(path, [{"odd": torch.zeros(3, 13, 20), "truth": torch.zeros(3, 40, 60)}], window=8)
    with pytest.raises(InputError, match="window of 64 pixels is larger than an image of 60 x 40"):
        save_comparison(path, [scene()], window=64)
    assert not list(tmp_path.iterdir())
