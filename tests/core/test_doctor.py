"""The doctor names what each recorded run was made to suffer from, finds nothing in healthy ones, and reads bad logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from plugin_folder import run

import advloss
from advloss import _cli
from advloss._causes import CAUSES
from advloss._diagnosis import NUMBERS
from advloss._page import page

RUNS = Path(__file__).with_name("recordings")
RECORDED = sorted(RUNS.glob("*.jsonl"))
NAMES = [cause.name for cause in CAUSES]
DATA_SIZE = {"memorized": 50, "healthy-digits": 1797, "healthy-classes": 1797, "healthy-autoencoder": 1797}


def data_size(path: Path) -> int | None:
    return next((size for name, size in DATA_SIZE.items() if path.name.startswith(name)), None)


def expected(path: Path) -> str | None:
    """The cause that a recording is named after; None for a healthy one."""
    return max((name for name in NAMES if path.name.startswith(name)), key=len, default=None)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs(path: Path) -> None:
    """Seed 0 chose the thresholds, the other seeds judge them."""
    diagnosis = advloss.diagnose(advloss.read_log(path), data_size=data_size(path))
    first = diagnosis.findings[0].cause if diagnosis.findings else None
    assert first == expected(path), [finding.cause for finding in diagnosis.findings]
    assert diagnosis.verdict == ("sick" if first else "healthy")


def test_every_cause_is_recorded_with_two_seeds_and_many_kinds_of_healthy_runs() -> None:
    for name in (*NAMES, None):
        seeds = {path.stem[-1] for path in RECORDED if expected(path) == name}
        assert {"0", "1"} <= seeds, name
    healthy = [advloss.read_log(path).about for path in RECORDED if expected(path) is None]
    assert len({about["loss"] for about in healthy}) >= 6
    assert {about["batch_norm"] for about in healthy} == {True, False}


@pytest.mark.parametrize("path", [path for path in RECORDED if expected(path) is None], ids=lambda path: path.stem)
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_healthy_runs_are_healthy_before_their_end(path: Path, share: float, tmp_path: Path) -> None:
    lines = path.read_text().splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join(lines[: int(share * len(lines))]))
    diagnosis = advloss.diagnose(advloss.read_log(tmp_path), data_size=data_size(path))
    assert [finding.cause for finding in diagnosis.findings] == []


@pytest.mark.parametrize(("shift", "causes"), [(0.0, []), (3.0, ["discriminator-too-strong"])])
def test_a_discriminator_that_is_always_right_by_little(shift: float, causes: list[str], tmp_path: Path) -> None:
    """As on stacked digits by R3GAN's recipe: R1 and R2 hold the gap at 0.2 while nearly every pair is told apart."""
    entries = [json.loads(line) for line in (RUNS / "healthy-digits-0.jsonl").read_text().splitlines()]
    for entry in entries:
        entry["discriminator/real_accuracy"] = entry["discriminator/fake_accuracy"] = 0.99
        entry["discriminator/real_logits"] += shift
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, entries)))
    diagnosis = advloss.diagnose(advloss.read_log(tmp_path))
    assert [finding.cause for finding in diagnosis.findings] == causes


def test_prefix_and_header_are_not_needed(tmp_path: Path) -> None:
    """A log of bare `Report.as_dict()`, as three lines in a script write it."""
    bare = []
    for line in (RUNS / "discriminator-too-strong-0.jsonl").read_text().splitlines():
        entry = json.loads(line)
        names = {key.removeprefix("discriminator/"): value for key, value in entry.items() if key != "about"}
        bare.append(json.dumps(names))
    (tmp_path / "mine.jsonl").write_text("\n".join(bare))
    assert advloss.diagnose(advloss.read_log(tmp_path / "mine.jsonl")).findings[0].cause == "discriminator-too-strong"


@pytest.mark.parametrize("name", ["iteration", "discriminator/step"])
def test_steps_by_another_name(name: str, tmp_path: Path) -> None:
    """As distillation logs them."""
    entries = map(json.loads, (RUNS / "discriminator-too-strong-0.jsonl").read_text().splitlines())
    lines = [json.dumps({name: entry.pop("step"), **entry}) for entry in entries]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    log = advloss.read_log(tmp_path)
    assert log.steps == advloss.read_log(RUNS / "discriminator-too-strong-0.jsonl").steps
    assert advloss.diagnose(log).findings[0].cause == "discriminator-too-strong"


# -- bad logs -----------------------------------------------------------------------------------------------------

LINES = (RUNS / "healthy-ring-0.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no step yet"),
        (b"\n\n", "holds no step yet"),
        (b"step,loss\n1,0.3\n", "line 1 is no JSON: 'step,loss'"),
        (b'{"step": 1', "line 1 is no JSON"),
        (b"\x89PNG\xff\xfe\x00", "is no text"),
        (b"[1, 2]\n", "line 1 holds '[1, 2]'"),
        (b'{"epoch": 1, "train_loss": 0.5}\n', "has epoch, train_loss, and no real_accuracy"),
        (b'{"step": 1, "skipped": 0.0}\n', "whose discriminator had not started"),
        (b'{"iteration": 1, "about": {"discriminator": null}}\n', "is of a run without a discriminator. The doctor"),
        ("\n".join([*LINES[:3], "oops", *LINES[3:]]).encode(), "line 4 is no JSON: 'oops'"),
        (b'{"real_accuracy": 1, "fake_accuracy": 1, "real_logits": 1, "fake_logits": 1}\n', "no number under 'step'"),
        (b'{"real_accuracy": 1, "fake_accuracy": 1, "real_logits": 1, "fake_logits": 1, "step": NaN}\n', "'step'"),
        (b"[" * 100_000, "line 1 is no JSON"),
        (b"9" * 10_000, "line 1 is no JSON"),
    ],
    ids=[
        *(
            "empty",
            "blank",
            "csv",
            "half",
            "binary",
            "list",
            "other tool",
            "not started",
            "one player",
            "damaged",
            "no step",
        ),
        *("step of NaN", "deep", "digits"),
    ],
)
def test_logs_that_cannot_be_read(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(advloss.LogError, match=re.escape(message)):
        advloss.read_log(tmp_path)
    assert _cli.main(["doctor", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("advloss: ")
    assert captured.err.count("\n") == 1


def test_no_such_log(tmp_path: Path) -> None:
    with pytest.raises(advloss.LogError, match=r"log\.jsonl cannot be read \(No such file"):
        advloss.read_log(tmp_path)


def test_truncated_log_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*LINES, LINES[-1][:50]]))
    log = advloss.read_log(path)
    assert len(log.steps) == len(LINES)
    assert _cli.main(["doctor", str(path)]) == 0
    assert f"the last line (line {len(LINES) + 1}) is cut off and was passed over" in capsys.readouterr().out


def test_a_run_that_was_taken_up_again_is_read_from_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(LINES[:30] + LINES))
    log = advloss.read_log(path)
    assert len(log.steps) == len(LINES)
    assert "line 31 goes back" in log.notes[0]


def test_long_log_is_thinned_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = (RUNS / "r1-too-strong-1.jsonl").read_text().splitlines()
    with path.open("w") as file:
        for line in lines:
            entry = json.loads(line)
            for part in range(150):
                print(json.dumps({**entry, "step": entry["step"] + part / 1000}), file=file)
    log = advloss.read_log(path)
    assert 4096 <= len(log.steps) < 8192
    assert log.steps[-1] > 0.99 * json.loads(lines[-1])["step"]
    assert advloss.diagnose(log).findings[0].cause == "r1-too-strong"


@pytest.mark.parametrize("value", ["NaN", "null", "Infinity", str(10**400)])
def test_log_with_nan(value: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    spoiled = [re.sub(r'("discriminator/loss": )[^,]+', rf"\g<1>{value}", line) for line in LINES[100:]]
    path.write_text("\n".join(LINES[:100] + spoiled))
    diagnosis = advloss.diagnose(advloss.read_log(path))
    assert diagnosis.findings[0].cause == "non-finite"
    assert f"{len(spoiled) / len(LINES):.0%} of the logged steps" in diagnosis.findings[0].evidence


def test_short_log_is_too_short_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join((RUNS / "discriminator-too-strong-0.jsonl").read_text().splitlines()[:10]))
    assert _cli.main(["doctor", str(path)]) == 0
    assert "too short" in capsys.readouterr().out


HEADERS: list[dict[str, Any]] = [
    {"regularizers": 3, "samples": "x", "optimizer": [], "loss": [1]},
    {"regularizers": {"r1": {"every": "x"}}, "samples": ["x"], "optimizer": {"lr": 0}, "generator_lr": "a"},
    {"samples": [10**400], "discriminator_steps": {}, "loss": None},
    {},
]


@pytest.mark.parametrize("about", HEADERS)
def test_header_that_anybody_wrote(about: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = {**json.loads(LINES[0]), "about": about}
    path.write_text("\n".join([json.dumps(first), *LINES[1:]]))
    log = advloss.read_log(path)
    assert advloss.diagnose(log, data_size=100).verdict == "healthy"
    assert "<svg" in page(log, advloss.diagnose(log))


# -- the command --------------------------------------------------------------------------------------------------


def test_text_has_evidence_fix_and_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    path = RUNS / "range-mismatch-1.jsonl"
    assert _cli.main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: sick\n\n1. real and fake samples in different ranges (range-mismatch)\n")
    assert re.search(r"reals lie in \[0, 16\], fakes never leave \[-1, 1\].*\n +fix: Scale real samples", out)
    assert "next run: Print min and max" in out
    assert max(map(len, out.splitlines())) <= 120


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["doctor", str(RUNS / "mode-collapse-1.jsonl"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "sick"
    assert set(said["findings"][0]) == {"cause", "title", "weight", "evidence", "fix", "protocol"}
    assert said["about"]["loss"] == "LeastSquares"
    assert said["facts"]["diversity"] < 0.45


def test_doctor_of_a_log_imports_no_torch(tmp_path: Path) -> None:
    code = f"""
        import contextlib, io, sys
        from advloss._cli import main
        with contextlib.redirect_stdout(io.StringIO()):
            main(["doctor", {str(RUNS / "mode-collapse-0.jsonl")!r}, "--html", {str(tmp_path / "page.html")!r}])
        print([m for m in ("torch", "numpy", "matplotlib") if m in sys.modules])
    """
    assert run(tmp_path, code) == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "page.html"], "are about a run: advloss doctor RUN"),
        (["--data-size", "5"], "are about a run"),
        ([str(RECORDED[0]), "--data-size", "0"], "--data-size 0: give the number of samples"),
        ([str(RECORDED[0]), "--html", "/no/such/folder/page.html"], "cannot be written"),
        ([str(RECORDED[0]), "--samples", "/no/such"], "is neither a folder of pictures"),
        ([str(RECORDED[0]), "--samples", "/no/such.npy"], "cannot be read as samples"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["doctor", *arguments]) == 1
    assert message in capsys.readouterr().err


# -- samples ------------------------------------------------------------------------------------------------------


def first_cause(capsys: pytest.CaptureFixture[str], samples: Path, *options: str) -> tuple[str | None, list[str]]:
    _cli.main(["doctor", str(RUNS / "healthy-digits-0.jsonl"), "--samples", str(samples), "--json", *options])
    said = json.loads(capsys.readouterr().out)
    return (said["findings"][0]["cause"] if said["findings"] else None), said["notes"]


def test_samples_as_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    different = numpy.random.default_rng(0).normal(size=(300, 1, 8, 8)).astype("float32")
    learned = different[numpy.random.default_rng(1).integers(0, 40, 300)] + 1e-3
    for name, array in {"different": different, "learned": learned, "one": different[:1].repeat(300, 0)}.items():
        numpy.save(tmp_path / f"{name}.npy", array)
    assert first_cause(capsys, tmp_path / "different.npy", "--data-size", "40") == (None, [])
    assert first_cause(capsys, tmp_path / "learned.npy", "--data-size", "40")[0] == "memorized"
    assert first_cause(capsys, tmp_path / "learned.npy", "--data-size", "50000")[0] == "mode-collapse"
    assert first_cause(capsys, tmp_path / "one.npy", "--data-size", "40")[0] == "mode-collapse"
    from safetensors.torch import save_file

    save_file({"samples": torch.from_numpy(learned)}, tmp_path / "learned.safetensors")
    assert first_cause(capsys, tmp_path / "learned.safetensors")[0] == "mode-collapse"
    numpy.save(tmp_path / "hostile.npy", numpy.array([{}], dtype=object), allow_pickle=True)
    assert _cli.main(["doctor", str(RECORDED[0]), "--samples", str(tmp_path / "hostile.npy")]) == 1
    assert "cannot be read as samples (ValueError" in capsys.readouterr().err


def test_samples_as_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    noise = numpy.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), dtype="uint8")
    for number, values in enumerate(noise):
        image.fromarray(values).save(tmp_path / f"{number:02}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    assert first_cause(capsys, tmp_path) == (None, ["1 broken pictures were passed over: broken.png"])
    image.fromarray(noise[0, :4]).save(tmp_path / "small.png")
    assert _cli.main(["doctor", str(RECORDED[0]), "--samples", str(tmp_path)]) == 1
    assert re.search(r"small\.png is \(4, 8, 3\), the pictures before it \(8, 8, 3\)", capsys.readouterr().err)


def test_folder_without_pictures(tmp_path: Path) -> None:
    from advloss._samples import look_at

    with pytest.raises(advloss.LogError, match="holds no pictures"):
        look_at(tmp_path)


# -- the page -----------------------------------------------------------------------------------------------------


def test_page_is_self_contained_and_escapes_what_it_shows(tmp_path: Path) -> None:
    log = advloss.read_log(RUNS / "mode-collapse-0.jsonl")
    log.name, log.about["loss"] = "<script>alert(1)</script>.jsonl", "</style><b>"
    log.columns["regularizers/<i>"] = log.columns.pop("regularizers/r1")
    html = page(log, advloss.diagnose(log))
    assert "<script" not in html
    assert "<i>" not in html
    assert "</style><b>" not in html
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|@import|https?:""", html) == []
    assert html.count("<svg") == html.count("</svg>") >= 7


CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)")
@pytest.mark.parametrize("name", ["mode-collapse-0", "healthy-digits-0", "non-finite-0"])
def test_page_opens_in_a_browser_without_an_error(name: str, tmp_path: Path) -> None:
    _cli.main(["doctor", str(RUNS / f"{name}.jsonl"), "--html", str(tmp_path / "page.html")])
    dom, console = browse(tmp_path, tmp_path / "page.html")
    assert console == []
    assert re.search(r"<h1>(Sick|Healthy)</h1>", dom)
    assert dom.count("<polyline") >= 8
    assert "NaN" not in "".join(re.findall(r'points="[^"]*"', dom))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)")
def test_the_browser_would_tell_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!doctype html><script>console.error('seen'); missing()</script>")
    assert len(browse(tmp_path, tmp_path / "bad.html")[1]) == 2


def browse(tmp_path: Path, file: Path) -> tuple[str, list[str]]:
    """The page as the browser has it, and what stands in its console."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    profile = ["--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
    command = [CHROMIUM, *options, *profile, "--dump-dom", file.as_uri()]
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


# -- the docs -----------------------------------------------------------------------------------------------------


def test_docs_have_every_cause() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for cause in CAUSES:
        assert f'<a id="{cause.name}"></a>' in text
        assert cause.looks_at in text
        assert cause.fix in text
    for name in NUMBERS:
        assert f"`{name}`" in text
