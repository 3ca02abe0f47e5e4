"""The built-in plugins pass the kit that a stranger's plugin passes, found through the same entry points."""

from __future__ import annotations

from advloss import list_components
from advloss.testing import AugmentationTests, DiscriminatorTests, LossTests, PluginTests, RecipeTests, RegularizerTests

TESTS = {
    "discriminator": DiscriminatorTests,
    "loss": LossTests,
    "regularizer": RegularizerTests,
    "augmentation": AugmentationTests,
    "recipe": RecipeTests,
}
BUILT_IN = [row for row in list_components() if row.distribution.startswith("advloss ")]

for row in BUILT_IN:
    title = "".join(word.title() for word in f"{row.kind}-{row.name}".split("-"))
    globals()[f"Test{title}"] = type(f"Test{title}", (TESTS[row.kind],), {"name": row.full_name})
for plugin in sorted({row.plugin for row in BUILT_IN}):
    globals()[f"TestPlugin{plugin.title()}"] = type(f"TestPlugin{plugin.title()}", (PluginTests,), {"name": plugin})


def test_nothing_is_left_out() -> None:
    assert {row.kind for row in BUILT_IN} == set(TESTS)
    assert len([name for name in globals() if name.startswith("Test")]) == len(BUILT_IN) + 6
