"""What the tests of all kinds share: the component by its name, its examples, and a world that stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, cast

import torch

from advloss._create import create, load_target, options_of
from advloss._registry import OK, Entry, find
from advloss.specs import API_VERSION, Kind, Spec
from advloss.testing._expect import expect
from advloss.testing._world import expect_no_seeding, restored_world, unchanged_world


def lacks_package(entry: Entry) -> bool:
    """Whether what keeps a component from being used is a package that it requires: nothing is wrong with it then."""
    spec = entry.spec
    if entry.status == OK or spec is None or spec.api != API_VERSION:
        return False
    return any(find_spec(name.partition(".")[0]) is None for name in spec.requires)


def expect_full_names(components: Any, where: str) -> None:
    """Fail when `components`, as a recipe or a loss names them, are named in short.

    A short name stops working when another plugin that is installed has it, too.
    """
    named = isinstance(components, str) or (
        isinstance(components, tuple) and len(components) == 2 and isinstance(components[1], Mapping)
    )
    for component in [components] if named or not isinstance(components, Iterable) else components:
        name = component[0] if isinstance(component, tuple) else component
        short = isinstance(name, str) and "/" not in name
        expect(
            not short, f"{where} names {name!r} in short: write 'plugin/{name}', another plugin may have one as well"
        )


class ComponentTests:
    """Base of the kit's test classes. A subclass names the component; each method that begins with `test` is a check.

    Attributes:
        name: the component's short or full name.
        examples: options of the instances to check; by default those of the spec.
    """

    _world: Any = None

    kind: ClassVar[Kind]
    name: ClassVar[str]
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @property
    def entry(self) -> Entry:
        """The component's row in the catalogue."""
        return find(self.kind, self.name)

    @property
    def spec(self) -> Any:
        """What the component declares."""
        return cast(Spec, self.entry.spec)

    @property
    def options(self) -> list[dict[str, Any]]:
        """Options of each instance that is checked."""
        return [dict(example) for example in self.examples or self.spec.examples or ({},)]

    @property
    def known_options(self) -> Mapping[str, Any]:
        """The options that the component takes, by name."""
        return options_of(load_target(self.entry))

    def make(self, options: Mapping[str, Any], seed: int = 0) -> Any:
        """A new instance, the same for the same seed."""
        torch.manual_seed(seed)
        return create(self.kind, self.entry.full_name, options)

    def setup_method(self) -> None:
        """Pytest calls this before each check."""
        self._world = restored_world()
        self._world.__enter__()

    def teardown_method(self) -> None:
        """Pytest calls this after each check: settings and random states are as they were, also when it failed."""
        if self._world is not None:  # a subclass may have a setup_method of its own
            self._world.__exit__(None, None, None)

    def test_building(self) -> None:
        """Building it changes no global state and seeds nothing."""
        for options in self.options:
            with unchanged_world():
                expect_no_seeding(create, self.kind, self.entry.full_name, options)
