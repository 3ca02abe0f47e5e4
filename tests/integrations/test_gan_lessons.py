"""The lessons: each known outcome in a short form, and whole with ``-m slow``."""

import signal

import pytest

from advloss import OptionError
from advloss_gan import _trainer
from advloss_gan.lessons import LESSONS, Lesson, run_lesson

SHORT = {
    "collapse": 0.3,
    "losses": 0.2,
    "minibatch": 0.06,
    "conditional": 0.75,
    "spectral-norm": 0.15,
    "inversion": 0.1,
}
"""How early the outcome is there; that of the others takes a minute or more, and is seen by the slow test alone."""
PICTURES = {"minibatch", "conditional", "ada", "inversion"}


@pytest.mark.parametrize("name", LESSONS)
def test_short_form(name, tmp_path):
    lesson = run_lesson(name, scale=SHORT.get(name, 0.003), folder=tmp_path)
    assert lesson.name == name
    assert len(lesson.rows) >= 2
    assert lesson.claim in lesson.table()
    if name in SHORT:
        assert lesson.holds, lesson.table()
    assert {path.stem for path in tmp_path.glob("*.png")} == {name} & PICTURES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lesson_that_is_stopped_says_nothing(number, tmp_path, monkeypatch):
    """It does not go on to its next training, with figures of half a one."""
    steps = []

    def interrupt(*_):
        steps.append(1)
        if len(steps) == 5:
            signal.raise_signal(number)

    monkeypatch.setattr(_trainer, "record", interrupt)
    with pytest.raises(SystemExit) as stopped:
        run_lesson("collapse", folder=tmp_path)
    assert stopped.value.code == 128 + number
    assert len(steps) == 5


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", LESSONS)
def test_whole(name, tmp_path):
    lesson = run_lesson(name, folder=tmp_path)
    assert lesson.holds, lesson.table()


def test_table():
    rows = {"one": {"modes": 8.0}, "another": {"modes": 2.0, "p": 0.2048}}
    text = Lesson(name="x", claim="One finds more.", rows=rows, holds=False).table()
    assert text.splitlines() == [
        "          modes        p",
        "one           8         ",
        "another       2   0.2048",
        "One finds more. NOT seen here.",
    ]


def test_what_is_no_lesson():
    with pytest.raises(OptionError, match="there are collapse"):
        run_lesson("colapse")
    with pytest.raises(OptionError, match="scale=0"):
        run_lesson("collapse", scale=0)
