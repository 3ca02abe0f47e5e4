"""Guarantee 11: a hostile checkpoint runs nothing and loads nothing, and no source can run what a file says."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from core_tools import assert_same, copied
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import advloss
from advloss import Checkpoints, RandomState, StateError, TrainingState
from advloss._checkpoints import MANIFEST, _digest, _fingerprint
from advloss._state import _digest as digest_of_state

ROOT = Path(__file__).parents[2]


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


class Run:
    """A model, an optimizer, a schedule and an adversary, saved by either mechanism."""

    def __init__(self, accelerator: Any = None) -> None:
        torch.manual_seed(0)
        self.accelerator = accelerator
        self.model: Any = nn.Linear(4, 4)
        self.optimizer: Any = torch.optim.Adam(self.model.parameters())
        self.scheduler: Any = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        step_lr = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2)
        self.adversary = advloss.Adversary(("mlp", {"in_features": 4, "width": 4}), "hinge", scheduler=step_lr)
        if accelerator is not None:
            self.adversary.prepare(accelerator)
            prepared = accelerator.prepare(self.model, self.optimizer, self.scheduler)
            self.model, self.optimizer, self.scheduler = prepared
        self.parts = {name: getattr(self, name) for name in ("model", "optimizer", "scheduler", "adversary")}

    def train(self) -> Run:
        real = torch.randn(8, 4)
        fake = self.model(torch.randn(8, 4))
        self.adversary.generator_loss(fake).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.adversary.discriminator_step(real, fake)
        return self

    def save(self, folder: Path) -> Path:
        with Checkpoints(folder).write(1) as new:
            if self.accelerator is None:
                TrainingState(self.parts).save(new, step=1)
            else:
                self.accelerator.save_state(str(new))
        return folder / "step-00000001"

    def load(self, folder: Path) -> None:
        newest = Checkpoints(folder).newest()
        if self.accelerator is None:
            TrainingState(self.parts).load(newest)
        else:
            self.accelerator.load_state(str(newest))

    def everything(self) -> Any:
        states = {name: part.state_dict() for name, part in self.parts.items()}
        return copied({**states, "random": RandomState().state_dict()})


def sign(checkpoint: Path, *more: str) -> None:
    """A manifest that fits, as who wrote the files would write it. Digests keep out accidents, not malice."""
    names = [path.name for path in checkpoint.iterdir() if path.name != MANIFEST]
    files = {name: _fingerprint(checkpoint / name) for name in (*names, *more)}
    content = {"format": "advloss-checkpoint-1", "step": 1, "number": 1, "files": files}
    (checkpoint / MANIFEST).write_text(json.dumps({**content, "digest": _digest(content)}))


def rewrite(path: Path, change: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Change the tree or the tensors of a state, with a digest that fits."""
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["tree"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tree = change(tree, tensors) or tree
    text = tree if isinstance(tree, str) else json.dumps(tree)
    metadata = {"format": "advloss-state-1", "tree": text, "digest": digest_of_state(text, tensors)}
    save_file(tensors, path, metadata=metadata)


def pickled(name: str) -> Callable[[Path, Path], None]:
    def spoil(checkpoint: Path, trace: Path) -> None:
        torch.save({"state": Evil(trace)}, checkpoint / name)

    return spoil


def plainly_pickled(name: str) -> Callable[[Path, Path], None]:
    def spoil(checkpoint: Path, trace: Path) -> None:
        (checkpoint / name).write_bytes(pickle.dumps(Evil(trace)))

    return spoil


def header(length: int) -> Callable[[Path, Path], None]:
    def spoil(checkpoint: Path, trace: Path) -> None:
        (checkpoint / "state.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":' * 1000)

    return spoil


def overlapping(checkpoint: Path, trace: Path) -> None:
    """Offsets beyond the file's end."""
    text = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (checkpoint / "state.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)


def traversal(name: str) -> Callable[[Path, Path], None]:
    def spoil(checkpoint: Path, trace: Path) -> None:
        outside = checkpoint.parent.parent / "outside"
        outside.write_text("secret")
        sign(checkpoint, name.format(outside=outside))

    return spoil


def link(checkpoint: Path, trace: Path) -> None:
    outside = checkpoint.parent.parent / "outside"
    (checkpoint / "state.safetensors").rename(outside)
    (checkpoint / "state.safetensors").symlink_to(outside)


def state(change: Callable[[Any, dict[str, Any]], Any], file: str = "state") -> Callable[[Path, Path], None]:
    def spoil(checkpoint: Path, trace: Path) -> None:
        rewrite(checkpoint / f"{file}.safetensors", change)

    return spoil


def part(tree: Any, *names: str) -> list[Any]:
    """The items of a mapping inside the tree of a state."""
    for name in names:
        tree = next(value for key, value in tree["mapping"] if key == name)
    return tree["mapping"]


def nan(name: str) -> Callable[[Any, dict[str, Any]], None]:
    def change(tree: Any, tensors: dict[str, Any]) -> None:
        tensors[name].view(-1)[0] = torch.nan

    return change


def numbers(*way: str, key: str, value: Any) -> Callable[[Any, dict[str, Any]], None]:
    """Set an entry, or add it."""

    def change(tree: Any, tensors: dict[str, Any]) -> None:
        items = part(tree, "parts", *way)
        items[:] = [item for item in items if item[0] != key] + [[key, value]]

    return change


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "a pickle for the state": pickled("state.safetensors"),
    "a pickle for the random states": pickled("process_0.safetensors"),
    "a plain pickle for the state": plainly_pickled("state.safetensors"),
    "a header of 2^63 bytes": header(2**63),
    "a header of 4 GB": header(2**32),
    "a header longer than the file": header(2**20),
    "tensors beyond the end": overlapping,
    "a relative path": traversal("../../outside"),
    "an absolute path": traversal("{outside}"),
    "a link": link,
    "NaN weights": state(nan("/parts/model/weight")),
    "NaN moments": state(nan("/parts/optimizer/state/0/exp_avg")),
    "NaN weights of the adversary": state(nan("/parts/adversary/discriminator/dense.weight")),
    "NaN moments of the adversary": state(nan("/parts/adversary/update/optimizer/state/0/exp_avg")),
    "a schedule that replaces a method": state(numbers("scheduler", key="step", value="os.system")),
    "an adversary's schedule that does": state(numbers("adversary", "scheduler", key="step", value="os.system")),
    "a NaN learning rate": state(numbers("scheduler", key="base_lrs", value=[float("nan")])),
    "an unknown part": state(numbers(key="hook", value="os.system")),
    "an unknown entry": state(lambda tree, tensors: {"call": "os.system"}),
    "a thousand levels": state(lambda tree, tensors: "[" * 100_000),
    "random states that are none": state(numbers("random", key="torch", value=[1, 2]), "process_0"),
}
ACCELERATE = {
    f"{how} for {name}": make(name)
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "adversary.safetensors")
    for how, make in (("a pickle", pickled), ("a plain pickle", plainly_pickled))
}


def check_refused(run: Run, spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    checkpoint = run.save(tmp_path / "checkpoints")
    run.load(tmp_path / "checkpoints")  # as long as it is well
    spoil(checkpoint, tmp_path / "trace")
    if "outside" not in (checkpoint / MANIFEST).read_text():
        sign(checkpoint)
    run.train()
    before = run.everything()
    with pytest.raises(StateError):
        run.load(tmp_path / "checkpoints")
    assert not (tmp_path / "trace").exists(), "it ran"
    assert_same(run.everything(), before)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_checkpoint_runs_and_loads_nothing(name: str, tmp_path: Path) -> None:
    check_refused(Run().train(), HOSTILE[name], tmp_path)


@pytest.mark.parametrize("name", ACCELERATE)
def test_hostile_checkpoint_of_accelerate_runs_and_loads_nothing(
    name: str, make_accelerator: Any, tmp_path: Path
) -> None:
    check_refused(Run(make_accelerator()).train(), ACCELERATE[name], tmp_path)


def test_a_hostile_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    run = Run().train()
    checkpoint = run.save(tmp_path)
    for content in (b"[" * 10**6, pickle.dumps(Evil(tmp_path / "trace")), b"{}", b"[]", b"null", b" " * (2**24 + 1)):
        (checkpoint / MANIFEST).write_bytes(content)
        with pytest.raises(StateError, match="damaged"):
            run.load(tmp_path)
    assert not (tmp_path / "trace").exists()


def test_the_pickles_of_these_tests_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


# No source can run what a file says

FOLDERS = ("advloss", "plugins", "integrations", "examples")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CODE_IN_DATA = {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "runpy", "code"}
RUNS = {"eval", "exec", "compile", "__import__", "execfile"}
# what finds plugins and public names, by names that installed distributions declare; and what a user names on the
# command line as MODULE:CLASS or FILE.py:CLASS
DYNAMIC_IMPORTS = {
    "advloss/lazy.py": {"importlib.import_module"},
    "advloss/_create.py": {"importlib.import_module"},
    "examples/train_gan.py": {"importlib.import_module"},  # a component's target, as its spec names it
    "integrations/advloss_distill/_find_family.py": {"importlib.import_module"},  # a family's
    "advloss/_text.py": {
        "importlib.import_module",
        "importlib.util.spec_from_file_location",
        "importlib.util.module_from_spec",
        "spec.loader.exec_module",
    },
}
IMPORTS = ("import_module", "spec_from_file_location", "module_from_spec", "exec_module", "load_module")
NEVER = {"weights_only": "True", "trust_remote_code": "False", "allow_pickle": "False"}


def offences(tree: ast.Module, home: str = "") -> Iterator[str]:
    """What must not be there, as the line and what it says."""
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}  # an option may be called `compile`
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {(node.module or "").partition(".")[0]} if not node.level else set()
            if (node.module, "load") in {(node.module, a.name) for a in node.names} and node.module == "torch":
                yield f"{node.lineno}: torch.load under another name"
        else:
            modules = set()
        if modules & CODE_IN_DATA:
            yield f"{node.lineno}: imports {modules & CODE_IN_DATA}"
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = ast.unparse(node)
            if name in RUNS - arguments or name.endswith(
                (".register_for_checkpointing", ".add_safe_globals", "os.system")
            ):
                yield f"{node.lineno}: {name}"
            if name.endswith(IMPORTS) and name not in DYNAMIC_IMPORTS.get(home, ()):
                yield f"{node.lineno}: a dynamic import that is not listed"
        if isinstance(node, ast.Call):
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            for keyword, only in NEVER.items():
                if keywords.get(keyword, only) != only:
                    yield f"{node.lineno}: {keyword}={keywords[keyword]}"
            called = ast.unparse(node.func)
            if called in RUNS & arguments:
                yield f"{node.lineno}: {called}"
            if called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"{node.lineno}: torch.load without weights_only=True"
            if called in ("torch.save", "np.load", "numpy.load", "torch.hub.load", "torch.jit.load"):
                yield f"{node.lineno}: {called}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_says(path: Path) -> None:
    home = str(path.relative_to(ROOT))
    assert not list(offences(ast.parse(path.read_text("utf-8")), home))


def test_listed_dynamic_imports_are_there() -> None:
    for home, names in DYNAMIC_IMPORTS.items():
        for name in names:
            assert name in (ROOT / home).read_text("utf-8"), home


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "run = exec",
        "__import__(name)",
        "importlib.import_module(name)",
        "loader.exec_module(module)",
        "accelerator.register_for_checkpointing(self)",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "torch.serialization.add_safe_globals([Evil])",
        "torch.save(state, path)",
    ],
)
def test_each_offence_would_be_found(line: str) -> None:
    assert list(offences(ast.parse(line)))
