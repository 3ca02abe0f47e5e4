"""Guarantee 5: whatever happens while it is written, the newest complete checkpoint loads; damage is found at once.

`pytest -m slow tests/guarantees/test_checkpoints.py` is the full form: two hundred kills.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_tools import assert_same, copied
from torch import nn

import advloss
from advloss import Checkpoints, NonFiniteError, OptionError, StateError, TrainingState
from advloss._checkpoints import _digest

SHORT, FULL = 10, 200


def training(value: float, size: int = 20_000) -> TrainingState:
    """A run whose weights and moments all say `value`."""
    model = nn.Linear(size, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model.weight.grad = torch.full_like(model.weight, value)
    optimizer.step()
    nn.init.constant_(model.weight, value)
    return TrainingState({"model": model, "optimizer": optimizer})


def save(checkpoints: Checkpoints, step: int) -> None:
    with checkpoints.write(step) as folder:
        training(step).save(folder, step=step)


def load(checkpoints: Checkpoints) -> int:
    """The step of the newest one, whose files must all be of that step."""
    state = training(-1.0)
    step = state.load(checkpoints.newest())["step"]
    assert bool((state._shared["model"].weight == step).all())
    (moments,) = state._shared["optimizer"].state_dict()["state"].values()
    assert bool((moments["momentum_buffer"] == step).all())
    return step


def child(work: Callable[[], object]) -> int:
    """A copy of this process that does `work` and ends; returns its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except OSError as error:
            traceback.print_exc()
            status = error.errno or errno.EIO
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def exit_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("seed", [pytest.param(n, marks=() if n < SHORT else pytest.mark.slow) for n in range(FULL)])
def test_killed_at_a_random_moment(seed: int, tmp_path: Path) -> None:
    """A process saves step after step and says so after each; it is killed; what it said last is there, or the next."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1 + seed % 2)
    save(checkpoints, 1)
    ear, mouth = os.pipe()

    def save_for_ever() -> None:
        for step in range(2, 100_000):
            save(checkpoints, step)
            os.write(mouth, step.to_bytes(4, "big"))

    pid = child(save_for_ever)
    os.close(mouth)
    try:
        os.read(ear, 4)  # the first one is saved
        time.sleep(random.Random(seed).uniform(0, 0.06))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    said = [2]
    while word := os.read(ear, 4):
        said.append(int.from_bytes(word, "big"))
    os.close(ear)
    newest = load(checkpoints)
    assert newest in (said[-1], said[-1] + 1)
    save(checkpoints, newest + 1)  # and it goes on from there
    assert load(checkpoints) == newest + 1
    assert len(list(checkpoints.folder.iterdir())) == checkpoints.keep


EVENTS = ("open", "os.", "shutil.")


@pytest.mark.parametrize("step", [2, 1], ids=["the next step", "the same step again"])
def test_killed_before_each_file_operation(step: int, tmp_path: Path) -> None:
    """Every place where a kill could make a difference, one after the other."""
    killed = 0
    for operation in range(1000):
        folder = tmp_path / str(operation)
        checkpoints = Checkpoints(folder)
        save(checkpoints, 1)

        def die(checkpoints: Checkpoints = checkpoints, operation: int = operation) -> None:
            seen = 0

            def watch(event: str, args: Any) -> None:
                nonlocal seen
                if event.startswith(EVENTS) and str(checkpoints.folder) in str(args):
                    seen += 1
                    if seen == operation + 1:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            save(checkpoints, step)

        status = exit_of(child(die))
        assert load(checkpoints) in (1, step)
        assert {path.name for path in folder.iterdir()} <= {
            ".partial",
            ".gone",
            "step-00000001",
            "step-00000001-old",
            "step-00000002",
        }
        shutil.rmtree(folder)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
    assert status == 0
    assert killed > 15


@pytest.mark.parametrize("limit", [100, 50_000, 100_000])
def test_disk_full(limit: int, tmp_path: Path) -> None:
    """In the small file, in the large one, and in the middle of it."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            save(checkpoints, 2)
        except OSError as error:
            os._exit(77 if "could not be written" in str(error) else 78)

    assert exit_of(child(fill)) == 77
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load(checkpoints) == 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


FILES = ("state.safetensors", "process_0.safetensors", "manifest.json")


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_found_before_anything_changes(name: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        save(checkpoints, step)
    damage(tmp_path / "step-00000003" / name)
    state = training(7.0)
    before = copied({name: part.state_dict() for name, part in {**state._shared, **state._own}.items()})
    with pytest.raises(StateError, match=rf"step-00000003.{name} .*step-00000002 is whole: remove .*step-00000003"):
        state.load(checkpoints.newest())
    assert_same({name: part.state_dict() for name, part in {**state._shared, **state._own}.items()}, before)

    damage(tmp_path / "step-00000002" / name)
    with pytest.raises(StateError, match=r"step-00000001 is whole"):
        checkpoints.newest()
    damage(tmp_path / "step-00000001" / name)
    with pytest.raises(StateError, match="no other checkpoint is whole; start without resuming"):
        checkpoints.newest()
    save(checkpoints, 4)  # the damaged ones go, or are set aside where nobody can tell what they are
    assert load(checkpoints) == 4


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", ["state.safetensors", "process_0.safetensors"])
def test_a_file_tells_of_its_damage_without_the_manifest_too(
    name: str, damage: Callable[[Path], Any], tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    folder = checkpoints.newest()
    damage(folder / name)
    with pytest.raises(StateError, match=name):
        training(7.0).load(folder)


@pytest.mark.parametrize("spoiled", ["no lr", "lr", "moments"])
def test_an_optimizer_that_could_not_step_is_not_taken_up(spoiled: str, tmp_path: Path) -> None:
    def run() -> tuple[TrainingState, torch.optim.Optimizer]:
        model = nn.Linear(50, 3)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        return TrainingState({"model": model, "optimizer": optimizer}), optimizer

    state, optimizer = run()
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state.save(tmp_path, step=1)
    run()[0].load(tmp_path)
    if spoiled == "no lr":
        del optimizer.param_groups[0]["lr"]
    elif spoiled == "lr":
        optimizer.param_groups[0]["lr"] = float("inf")
    else:
        optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"] = torch.zeros(1)
    state.save(tmp_path, step=1)
    fresh, optimizer = run()
    before = copied(optimizer.state_dict())
    with pytest.raises(StateError, match=r"optimizer does not fit this run: optimizer: (lr|exp_avg)"):
        fresh.load(tmp_path)
    assert_same(optimizer.state_dict(), before)


def test_everything_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves the system's cache alone, a power cut does not: the order of flushes is what there is to test."""
    done: list[Any] = []
    flush, rename = os.fsync, Path.rename

    def recorded_flush(descriptor: int) -> None:
        done.append(os.fstat(descriptor).st_ino)
        flush(descriptor)

    def recorded_rename(path: Path, target: Path) -> Path:
        done.append(path.name)
        return rename(path, target)

    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    monkeypatch.setattr(os, "fsync", recorded_flush)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    save(checkpoints, 2)
    new = tmp_path / "step-00000002"
    place = done.index(".partial")
    assert {path.stat().st_ino for path in (new, *new.iterdir())} <= set(done[:place])
    assert done[place + 1 :] == [tmp_path.stat().st_ino, "step-00000001"]


def test_old_ones_go_and_as_many_as_wanted_stay(tmp_path: Path) -> None:
    for keep in (1, 2, 3):
        checkpoints = Checkpoints(tmp_path / str(keep), keep=keep)
        for step in (10, 20, 30, 40):
            save(checkpoints, step)
        steps = sorted(int(path.name[5:]) for path in checkpoints.folder.iterdir())
        assert steps == [10, 20, 30, 40][-keep:]
    with pytest.raises(OptionError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)


def test_the_newest_is_the_one_written_last(tmp_path: Path) -> None:
    """Also where a run that was begun anew finds the later steps of an earlier one."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (100, 200, 5):
        save(checkpoints, step)
    assert load(checkpoints) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000005", "step-00000200"}


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    mine = [tmp_path / "notes.txt", tmp_path / "step-notes", tmp_path / "best" / "model"]
    mine[-1].parent.mkdir()
    for path in mine:
        path.write_text("mine")
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)
    assert all(path.read_text() == "mine" for path in mine)
    assert load(checkpoints) == 2


def stray_file(path: Path) -> None:
    path.write_text("mine")


def loop_of_links(path: Path) -> None:
    path.symlink_to(path)


def manifest_that_is_a_folder(path: Path) -> None:
    (path / "manifest.json").mkdir(parents=True)


@pytest.mark.parametrize("make", [stray_file, loop_of_links, manifest_that_is_a_folder])
def test_what_bears_the_name_of_a_checkpoint_is_in_nobodys_way(make: Callable[[Path], None], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1)
    make(tmp_path / "step-00000009")
    make(tmp_path / "step-00000002-old")
    if make is manifest_that_is_a_folder:  # it may have been the newest
        with pytest.raises(StateError, match=r"step-00000009.manifest.json is damaged.*step-00000001 is whole"):
            checkpoints.newest()
    else:
        assert load(checkpoints) == 1
    for step in (2, 2, 9):
        save(checkpoints, step)
        assert load(checkpoints) == step
    others = {path.name for path in tmp_path.iterdir() if "damaged" not in path.name}
    assert others == {"step-00000002", "step-00000009"}


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "\udc80", "loop"], ids=["NUL", "long", "surrogate", "loop"])
def test_names_in_a_manifest_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    loop_of_links(tmp_path / "step-00000001" / "loop")
    path = tmp_path / "step-00000001" / "manifest.json"
    content = json.loads(path.read_text())
    del content["digest"]
    content["files"][name] = {"size": 0, "digest": ""}
    path.write_text(json.dumps({**content, "digest": _digest(content)}))
    with pytest.raises(StateError, match=r"cannot be read|is missing"):
        checkpoints.newest()


def test_a_step_is_not_negative(tmp_path: Path) -> None:
    """Its folder would never be found again, while the older one went."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    with pytest.raises(OptionError, match="step=-1"):
        save(checkpoints, -1)
    assert load(checkpoints) == 1


def test_counters_are_missed_before_anything_is_taken_up(tmp_path: Path) -> None:
    training(1.0).save(tmp_path, step=1)
    path = tmp_path / "process_0.safetensors"
    advloss.save_state({"parts": advloss.load_state(path)["parts"]}, path)
    fresh = training(7.0)
    with pytest.raises(StateError, match="no counters"):
        fresh.load(tmp_path)
    assert bool((fresh._shared["model"].weight == 7).all())


def test_what_was_loaded_is_no_longer_the_file(tmp_path: Path) -> None:
    """An optimizer keeps the tensors that it is given: a view of the file would change, or crash, with the file."""
    path = tmp_path / "state"
    advloss.save_state({"weight": torch.ones(5000)}, path)
    weight = advloss.load_state(path)["weight"]
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.write(bytes(size))
    assert bool((weight == 1).all())


def test_an_error_while_writing_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    with pytest.raises(ZeroDivisionError), checkpoints.write(2) as folder:  # noqa: PT012
        training(2).save(folder, step=2)
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load(checkpoints) == 1


def test_files_have_the_permissions_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(Checkpoints(tmp_path), 1)
    finally:
        os.umask(before)
    for path in (tmp_path / "step-00000001").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path.name


def test_a_log_forgets_what_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n2\n3\n4\n5")  # killed while it wrote the fifth
    with advloss.open_step_log(log, 3) as file:
        file.write("four\n")
        assert log.read_text() == "1\n2\n3\nfour\n"  # at once, for the next kill
    with advloss.open_step_log(log, 9) as file:
        assert log.read_text() == "1\n2\n3\nfour\n"
    log.write_text("1\n2\n3")
    advloss.open_step_log(log, 9).close()
    assert log.read_text() == "1\n2\n"
    advloss.open_step_log(log, 0).close()
    assert log.read_text() == ""


def test_what_could_not_be_loaded_does_not_replace_what_can(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    state, checkpoints = TrainingState({"model": model}), Checkpoints(tmp_path, keep=1)
    with checkpoints.write(1) as folder:
        state.save(folder, step=1)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    refused = pytest.raises(NonFiniteError, match=r"model/weight holds NaN or infinity.*older checkpoints stay")
    with refused, checkpoints.write(2) as folder:
        state.save(folder, step=2)
    assert state.load(checkpoints.newest()) == {"step": 1}
    assert model.weight.isfinite().all()


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5, 8])
def test_so_many_stay(keep: int, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in range(1, 8):
        with checkpoints.write(step) as folder:
            (folder / "file").write_text(str(step))
        expected = [f"step-{n:08d}" for n in range(max(1, step - keep + 1), step + 1)]
        assert sorted(path.name for path in tmp_path.iterdir()) == expected


@pytest.mark.parametrize("how", ["link", "manifest"])
def test_what_could_not_be_verified_later_is_refused(how: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "runs")
    with checkpoints.write(1) as folder:
        (folder / "file").write_text("good")
    add = {"link": lambda f: (f / "link").symlink_to(tmp_path), "manifest": lambda f: (f / "manifest.json").touch()}
    with pytest.raises(StateError, match="a checkpoint holds no links"), checkpoints.write(2) as folder:
        add[how](folder)
    assert checkpoints.newest().name == "step-00000001"


@pytest.mark.parametrize("step", [3.0, "3", None, -1])
def test_a_step_is_a_whole_number(step: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a whole number, 0 or more"), Checkpoints(tmp_path).write(step):
        pass
    with Checkpoints(tmp_path).write(np.int64(3)) as folder:
        (folder / "file").write_text("good")
    assert Checkpoints(tmp_path).newest().name == "step-00000003"
