"""What the tests of the example on pipelines share; imported where it is used, since other examples need no diffusers."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distill_pipeline_tools import EXAMPLE


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs the example in this process, which has imported what it takes seconds to import."""
    from distill_tools import reset_accelerate

    module = runpy.run_path(str(EXAMPLE))
    reset_accelerate()

    def run(*options: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, options)])
        return module["main"]()

    yield run
    reset_accelerate()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT, whose classes need no text encoder."""
    from pipeline_tools import tiny_pipeline

    folder = tmp_path_factory.mktemp("dit")
    pipeline = tiny_pipeline("dit")
    pipeline.register_to_config(id2label={0: "tench, Tinca tinca", 99: "goose"})
    pipeline.save_pretrained(folder / "teacher")
    (folder / "teacher" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder / "teacher"
