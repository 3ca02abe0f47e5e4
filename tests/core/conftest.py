"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from advloss import _registry


@pytest.fixture(autouse=True)
def clean_catalogue() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(_registry._script)
    yield
    _registry._script.clear()
    _registry._script.update(before)
