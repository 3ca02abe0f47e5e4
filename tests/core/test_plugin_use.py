"""What is wrong with a component shows when it is used: an error that names it, and nothing else is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from core_tools import built_in
from plugin_folder import install, run

import advloss

PLUGIN = """
    import torch
    from torch import nn
    from advloss import DiscriminatorSpec, hookimpl

    @hookimpl
    def advloss_discriminators():
        names = ("Good", "Missing", "Constant", "Module", "Positional", "Raises", "TooFew", "Words", "Empty", "InPlace",
                 "Exits")
        return [
            DiscriminatorSpec(name=name.lower(), target=f"advloss_zoo:{name}", summary="One.", dims=(0,), value_range=None)
            for name in names
        ] + [DiscriminatorSpec(name="exiting", target="zoo_exiting:Class", summary="One.")]

    Constant = 3

    def Module():
        return "no module"

    class Good(nn.Linear):
        def __init__(self, *, width=2):
            super().__init__(width, 1)
        def forward(self, samples, condition=None):
            return self.answer(super().forward(samples).squeeze(1))
        def answer(self, logits):
            return logits

    class Positional(Good):
        def __init__(self, channels):
            super().__init__()

    class Raises(Good):
        def __init__(self, *, width=2):
            super().__init__(widht=width)

    class Exits(Good):
        def __init__(self):
            raise SystemExit("no license")

    class TooFew(Good):
        def answer(self, logits):
            return logits[1:]

    class Words(Good):
        def answer(self, logits):
            return {"logits": logits}

    class Empty(Good):
        def answer(self, logits):
            return []

    class InPlace(Good):
        def forward(self, samples, condition=None):
            samples += 1
            return super().forward(samples)
"""
USE = """
    import advloss, torch

    def use(name):
        torch.manual_seed(0)
        real = torch.randn(4, 2)
        adversary = advloss.Adversary(name, seed=0)
        adversary.generator_loss(real * 0.5)
        return float(adversary.discriminator_step(real, torch.zeros(4, 2)).loss)

    first = use("zoo/good")
    for name in ("missing", "constant", "module", "positional", "raises", "toofew", "words", "empty", "inplace",
                 "exits", "exiting"):
        try:
            use(name)
        except advloss.AdvlossError as error:
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            print(f"{name}: nothing was wrong")
        assert use("good") == first
    assert use("mlp") > 0
"""
EXPECTED = {
    "missing": r"PluginError: discriminator zoo/missing \(advloss-zoo 1\.2\.3\) cannot be imported from "
    r"advloss_zoo:Missing: AttributeError: .*",
    "constant": r"PluginError: advloss_zoo:Constant of zoo/constant \(advloss-zoo 1\.2\.3\) is no class or function",
    "module": r"PluginError: zoo/module \(advloss-zoo 1\.2\.3\) is broken: a discriminator is a torch\.nn\.Module, .*",
    "positional": r"OptionError: discriminator 'positional' needs the option channels",
    "raises": r"PluginError: discriminator zoo/raises \(advloss-zoo 1\.2\.3\) could not be built with its defaults: "
    r"TypeError: .*widht.*",
    "toofew": r"InputError: advloss_zoo\.TooFew returned torch\.float32 \(3,\) for 4 samples; logits are .*",
    "words": r"InputError: advloss_zoo\.Words returned a dict for 4 samples; .*",
    "empty": r"InputError: advloss_zoo\.Empty returned a list for 4 samples; .*",
    "exits": r"PluginError: discriminator zoo/exits .* could not be built with its defaults: SystemExit: no license",
    "exiting": r"PluginError: discriminator zoo/exiting .* cannot be imported from zoo_exiting:Class: SystemExit: 3",
    "inplace": r"InputError: advloss_zoo\.InPlace, or an augmentation before it, changed its input in place; .*",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    install(folder, "advloss-zoo", PLUGIN)
    (folder / "zoo_exiting.py").write_text("raise SystemExit(3)")
    lines = run(folder, USE).splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_broken_component_says_what_is_wrong(said: dict[str, str], name: str) -> None:
    assert re.fullmatch(EXPECTED[name], said[name])


FUTURE = """
    from dataclasses import dataclass
    import pluggy
    from advloss import _registry, hookspecs, specs

    @dataclass(frozen=True, kw_only=True)
    class LossSpec(specs.LossSpec):  # one that has gained a field
        colour: str = "red"

    @hookspecs.hookspec
    def advloss_losses(context):  # a hook that has gained an argument
        pass

    specs.LossSpec, hookspecs.advloss_losses = LossSpec, advloss_losses
    specs._KIND_OF[LossSpec] = "loss"
    call = pluggy.HookCaller.__call__
    def with_context(self, **given):
        return call(self, **(dict(context="all") if self.name == "advloss_losses" else {}))
    pluggy.HookCaller.__call__ = with_context

    from advloss import create_loss, list_components
    (row,) = list_components("loss", "quartic")
    print(row.status, row.spec.colour, type(create_loss("quartic")).__name__)
"""
TODAY = """
    from advloss import LossSpec, hookimpl

    @hookimpl
    def advloss_losses():
        return [LossSpec(name="quartic", target="advloss_today:Quartic", summary="Fourth powers.", api=1)]

    class Quartic:
        def discriminator(self, real_logits, fake_logits):
            return ((real_logits - 1) ** 4).mean() + (fake_logits**4).mean()

        def generator(self, fake_logits, real_logits=None):
            return ((fake_logits - 1) ** 4).mean()
"""


def test_plugin_of_today_loads_when_the_contract_grows(tmp_path: Path) -> None:
    install(tmp_path, "advloss-today", TODAY)
    assert run(tmp_path, FUTURE) == "ok red Quartic\n"


def test_selection_in_code(tmp_path: Path) -> None:
    install(tmp_path, "advloss-today", TODAY)
    code = """
        import advloss
        names = lambda: sorted({row.plugin for row in advloss.list_components()})
        everything = names()
        advloss.select_plugins(["today"]); print(names())
        advloss.select_plugins(built_in_only=True); print("today" in names(), len(names()) == len(everything) - 1)
        advloss.select_plugins(["today", "nobody"]); print([(r.name, r.status) for r in advloss.list_components()])
        advloss.select_plugins(); print(names() == everything)
    """
    assert run(tmp_path, code).splitlines() == [
        "['today']",
        "False True",
        "[('quartic', 'ok'), ('nobody', 'asked for, but not installed')]",
        "True",
    ]


def test_selection_of_one_name_is_refused() -> None:
    """Its letters would be the names."""
    with pytest.raises(advloss.OptionError, match=r"only='losses'; give a list of plugins, as in \['losses'\]"):
        advloss.select_plugins("losses")
    assert advloss.list_components("loss", "hinge")


FIFTY = """
    import resource, subprocess, sys

    def seconds(*arguments):  # of processor time: a busy machine does not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out

    start = min(seconds("-c", "pass")[0] for _ in range(3))
    took, out = min(seconds("-m", "advloss", "list") for _ in range(3))
    heavy = "import sys; from advloss._cli import main; main(['list']); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    print(took - start, out.count("quartic"), seconds("-c", heavy)[1].splitlines()[-1])
"""


def test_listing_fifty_plugins_is_quick(tmp_path: Path) -> None:
    for number in range(50):
        source = TODAY.replace("advloss_today", f"advloss_p{number}").replace('"quartic"', f'"quartic-{number}"')
        install(tmp_path, f"advloss-p{number}", source)
    seconds, rows, heavy = run(tmp_path, FIFTY).split(maxsplit=2)
    assert rows == "50"
    assert heavy == "[]\n"
    assert float(seconds) < 0.5


RIVAL = """
    from advloss import AugmentationSpec, DiscriminatorSpec, LossSpec, RegularizerSpec, hookimpl

    @hookimpl
    def advloss_discriminators():
        return [DiscriminatorSpec(name=n, target="nowhere:Class", summary="A rival.") for n in {discriminator}]

    @hookimpl
    def advloss_losses():
        return [LossSpec(name=n, target="nowhere:Class", summary="A rival.") for n in {loss}]

    @hookimpl
    def advloss_regularizers():
        return [RegularizerSpec(name=n, target="nowhere:Class", summary="A rival.") for n in {regularizer}]

    @hookimpl
    def advloss_augmentations():
        return [AugmentationSpec(name=n, target="nowhere:Class", summary="A rival.") for n in {augmentation}]
"""
BESIDE_A_RIVAL = """
    import advloss
    from advloss.testing import RecipeTests

    built = 0
    for row in advloss.list_components():
        if row.plugin == "rival":
            continue
        built += 1
        if row.kind == "discriminator":
            for options in row.spec.examples:
                advloss.create_discriminator(row.full_name, **options)
        elif row.kind == "loss":
            assert set(advloss.Adversary("discriminators/mlp", row.full_name).regularizers) <= {"gradient-penalty"}
        elif row.kind == "recipe":
            type("Tests", (RecipeTests,), {"name": row.name})().test_components()
    advloss.create_discriminator("discriminators/multiscale")  # its default is a name too
    adversary = advloss.Adversary.from_recipe("wgan-gp", resolution=16)
    print(built, type(adversary.loss).__name__, *adversary.regularizers)
    print(type(advloss.Adversary("discriminators/mlp").loss).__name__)
"""


def test_names_of_a_stranger_break_none_of_ours(tmp_path: Path) -> None:
    """A plugin that has every short name that we have: what our components name stays theirs, full names work."""
    names = {kind: built_in(kind) for kind in ("discriminator", "loss", "regularizer", "augmentation")}
    install(tmp_path, "advloss-rival", RIVAL.format(**names))
    count = sum(map(len, names.values())) + len(built_in("recipe"))
    assert run(tmp_path, BESIDE_A_RIVAL) == f"{count} Wasserstein gradient-penalty\nNonSaturating\n"


SAME_NAME = """
    import advloss, torch
    adversary = advloss.Adversary("mlp", "wgan-gp", {"other/gradient-penalty": {}})
    print(*adversary.regularizers, *(r.weight for r in adversary.regularizers.values()))
    print(*adversary.discriminator_step(torch.zeros(2, 2), torch.zeros(2, 2)).regularizers)
    print(*advloss.Adversary("mlp", "hinge", "other/gradient-penalty").regularizers)
    print(*advloss.Adversary("mlp", "wgan-gp").regularizers)
    try:
        advloss.Adversary("mlp", "hinge", ["r1", "regularizers/r1"])
    except advloss.OptionError as error:
        print(error)
"""


def test_reports_show_short_names_but_for_two_that_share_one(tmp_path: Path) -> None:
    """Whatever else is installed: a checkpoint has these names in it."""
    source = """
        from advloss import RegularizerSpec, hookimpl

        @hookimpl
        def advloss_regularizers():
            return [RegularizerSpec(name="gradient-penalty", target="advloss_other:make", summary="Another.")]

        def make():
            from advloss import Regularizer

            class Other(Regularizer):
                def forward(self, discriminator, real, fake, condition=None, fake_condition=None):
                    return discriminator(real).square().mean() * self.weight

            return Other(weight=2.0)
    """
    install(tmp_path, "advloss-other", source)
    assert run(tmp_path, SAME_NAME).splitlines() == [
        "other/gradient-penalty regularizers/gradient-penalty 2.0 10.0",
        "other/gradient-penalty regularizers/gradient-penalty",
        "gradient-penalty",
        "gradient-penalty",
        "regularizer 'regularizers/r1' is given twice",
    ]
