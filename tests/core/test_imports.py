"""Who may know whom, checked in the sources; and what an import brings with it, checked in fresh processes."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_folder import run

import advloss
from advloss import hookspecs

ROOT = Path(__file__).parents[2]
PACKAGES = {
    path.name: path
    for folder in (ROOT, ROOT / "plugins", ROOT / "integrations")
    for path in folder.glob("advloss*")
    if (path / "__init__.py").is_file()
}
PLUGINS = {name for name, path in PACKAGES.items() if path.parent.name == "plugins"}
INTEGRATIONS = {name for name, path in PACKAGES.items() if path.parent.name == "integrations"}
CORE_MODULES = {"advloss.errors", "advloss.hookspecs", "advloss.lazy", "advloss.specs", "advloss.testing"}
STANDARD = sys.stdlib_module_names


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGES[package].rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


ALL = [pytest.param(path, tree, id=str(path.relative_to(ROOT))) for name in PACKAGES for path, tree in sources(name)]


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, str | None, bool]]:
    """Each import as its module, the name taken from it, and whether it runs when the module is imported."""
    later = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    later |= {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, id(node) not in later
        elif isinstance(node, ast.ImportFrom):
            home = package_of(path).split(".")
            base = ".".join(home[: len(home) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield module, alias.name, id(node) not in later


OPTIONAL = {  # what the core asks for when it is used, file by file
    "_accelerate.py": {"accelerate"},
    "_perceptual.py": {"lpips"},
    "_samples.py": {"numpy", "PIL"},
}


def package_of(path: Path) -> str:
    root = next(root for root in PACKAGES.values() if root in path.parents)
    return ".".join((root.name, *path.parent.relative_to(root).parts))


def is_public(module: str, name: str | None) -> bool:
    """Whether this import takes a public name of the core."""
    if module == "advloss":
        return name is None or name in advloss.__all__ or f"advloss.{name}" in CORE_MODULES or name == "__version__"
    return module in CORE_MODULES


def test_the_packages_are_there() -> None:
    assert "advloss" in PACKAGES
    assert {"advloss_losses", "advloss_timm"} <= PLUGINS


@pytest.mark.parametrize(("path", "tree"), list(sources("advloss")), ids=lambda x: getattr(x, "name", ""))
def test_core_knows_torch_pluggy_and_safetensors_only(path: Path, tree: ast.Module) -> None:
    for module, _, at_once in imports(path, tree):
        top = module.partition(".")[0]
        allowed = {"advloss", "torch", "pluggy", "safetensors", *STANDARD}
        if not at_once:
            allowed |= OPTIONAL.get(path.name, set())
        if path.parent.name == "testing" or path.stem == "testing":
            allowed.add("pytest")
        assert top in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("package", sorted(PLUGINS))
def test_plugins_know_public_names_of_the_core_only(package: str) -> None:
    third_party = {"torch", *STANDARD} | ({"timm", "safetensors"} if package == "advloss_timm" else set())
    for path, tree in sources(package):
        for module, name, _ in imports(path, tree):
            top = module.partition(".")[0]
            assert top in {package, "advloss", *third_party}, f"{path.name} imports {module}"
            if top == "advloss":
                assert is_public(module, name), f"{path.name} imports {name} from {module}"


@pytest.mark.parametrize("package", sorted(INTEGRATIONS))
def test_integrations_know_no_plugin_and_no_other_integration(package: str) -> None:
    others = (PLUGINS | INTEGRATIONS) - {package}
    for path, tree in sources(package):
        for module, name, _ in imports(path, tree):
            top = module.partition(".")[0]
            assert top not in others, f"{path.name} imports {module}"
            if top == "advloss":
                assert is_public(module, name), f"{path.name} imports {name} from {module}"


@pytest.mark.parametrize(("path", "tree"), ALL)
def test_nothing_runs_what_a_file_says(path: Path, tree: ast.Module) -> None:
    """No pickle, eval or exec; weights of others are read by `torch.load` with `weights_only=True` alone."""
    for module, name, _ in imports(path, tree):
        assert module.partition(".")[0] not in {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
        assert (module, name) != ("torch", "load"), "write torch.load, so that it is found"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "compile", "__import__"}, f"{path.name}:{node.lineno}"
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert keywords.get("weights_only", "True") == "True", f"{path.name}:{node.lineno}"
        assert keywords.get("trust_remote_code", "False") == "False", f"{path.name}:{node.lineno}"
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", f"{path.name}:{node.lineno}"
            assert PACKAGES["advloss"] not in path.parents, "the core reads safetensors and JSON"


def stub_names(package: str) -> list[str]:
    tree = ast.parse((PACKAGES[package] / "__init__.pyi").read_text(encoding="utf-8"))
    return [a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]


WITH_STUB = sorted(name for name, path in PACKAGES.items() if (path / "__init__.pyi").is_file())


@pytest.mark.parametrize("package", WITH_STUB)
def test_every_public_name_resolves_and_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    names = stub_names(package)
    assert names == sorted(set(names), key=names.index)
    assert sorted(names) == module.__all__ == dir(module)
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{package}.{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_module_says_what_it_is_for(package: str) -> None:
    for path, tree in sources(package):
        if path.suffix == ".py":
            assert ast.get_docstring(tree), path


def test_public_methods_of_the_core_are_described() -> None:
    for name in advloss.__all__:
        value = getattr(advloss, name)
        if inspect.isclass(value) and value.__module__.startswith("advloss"):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_") and method != "forward":
                    assert inspect.getdoc(getattr(value, method)), f"{name}.{method}"


def test_every_hook_is_described_and_known_to_the_registry() -> None:
    from advloss._registry import _HOOKS

    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("advloss_")}
    assert set(hooks) == set(_HOOKS.values())
    for name, hook in hooks.items():
        assert (hook.__doc__ or "").strip(), name
        with pytest.raises(AssertionError):
            hook()


HEAVY = ["torch", "timm", "diffusers", "accelerate", "numpy", "pluggy", "safetensors"]


def test_importing_advloss_brings_nothing(tmp_path: Path) -> None:
    code = f"""
        import sys
        import advloss, advloss_losses, advloss_discriminators, advloss_recipes, advloss_timm
        from advloss import LossSpec, errors
        loaded = [m for m in {HEAVY} if m in sys.modules]
        print([m for m in loaded if m != "pluggy"], [m for m in sys.modules if "_plugin" in m])
    """
    assert run(tmp_path, code) == "[] []\n"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["cite", "hinge"], ["list", "--kind", "loss"]])
def test_listing_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
        import contextlib, io, sys
        from advloss._cli import main
        with contextlib.redirect_stdout(io.StringIO()):
            assert main({arguments}) == 0
        print([m for m in {[m for m in HEAVY if m != "pluggy"]} if m in sys.modules])
    """
    assert run(tmp_path, code) == "[]\n"


def test_training_imports_neither_accelerate_nor_timm(tmp_path: Path) -> None:
    code = """
        import sys, torch, advloss
        adversary = advloss.Adversary("mlp")
        adversary.generator_loss(torch.rand(4, 2))
        adversary.discriminator_step(torch.rand(4, 2), torch.rand(4, 2))
        print([m for m in ("accelerate", "timm", "diffusers") if m in sys.modules])
    """
    assert run(tmp_path, code) == "[]\n"


def test_no_hook_runs_in_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import pluggy
    import torch

    adversary = advloss.Adversary("mlp", "hinge", {"r1": {}})

    def called(*args: object, **options: object) -> None:
        raise AssertionError("a hook was called")

    with monkeypatch.context() as patched:  # no longer than that: pytest has hooks of its own
        patched.setattr(pluggy.HookCaller, "__call__", called)
        adversary.generator_loss(torch.rand(4, 2))
        adversary.discriminator_step(torch.rand(4, 2), torch.rand(4, 2))
