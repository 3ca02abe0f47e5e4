"""The lessons: each known outcome in a short form, and whole with ``-m slow``."""

import pytest

from advloss import OptionError
from advloss_gan.lessons import LESSONS, Lesson, run_lesson

SHORT = {"collapse": 0.3, "spectral-norm": 0.15}
"""Those whose outcome is there early, and how early; the others only show that they run."""


@pytest.mark.parametrize("name", LESSONS)
def test_short_form(name, tmp_path):
    lesson = run_lesson(name, scale=SHORT.get(name, 0.003), folder=tmp_path)
    assert lesson.name == name
    assert len(lesson.rows) >= 2
    assert lesson.claim in lesson.table()
    if name in SHORT:
        assert lesson.holds, lesson.table()
    if name == "inversion":
        assert (tmp_path / "inversion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", LESSONS)
def test_whole(name, tmp_path):
    lesson = run_lesson(name, folder=tmp_path)
    assert lesson.holds, lesson.table()


def test_table():
    rows = {"one": {"modes": 8.0}, "another": {"modes": 2.0, "quality": 0.25}}
    text = Lesson(name="x", claim="One finds more.", rows=rows, holds=False).table()
    assert text.splitlines() == [
        "          modes   quality",
        "one           8          ",
        "another       2      0.25",
        "One finds more. NOT seen here.",
    ]


def test_what_is_no_lesson():
    with pytest.raises(OptionError, match="there are collapse"):
        run_lesson("colapse")
    with pytest.raises(OptionError, match="scale=0"):
        run_lesson("collapse", scale=0)
