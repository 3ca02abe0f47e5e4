"""The checks of augmentations."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from advloss._adversary import Adversary
from advloss.testing._component import ComponentTests
from advloss.testing._expect import expect, fails, finite, same
from advloss.testing._world import expect_no_seeding, unchanged_world


class AugmentationTests(ComponentTests):
    """Name an augmentation in a subclass."""

    kind = "augmentation"

    def augmentations(self) -> Iterable[tuple[dict[str, Any], int, Any]]:
        """Options, a declared number of dimensions, and an augmentation."""
        return [(options, dims, self.make(options)) for options in self.options for dims in self.spec.dims]

    def test_dimensions(self) -> None:
        """Samples of the declared dimensions keep shape and dtype; others are refused."""
        for options, dims, augment in self.augmentations():
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                given = _samples(dims).to(dtype)
                out = augment(given)
                expect(
                    out.shape == given.shape and out.dtype == dtype,
                    f"with {options}: {dtype} {tuple(given.shape)} became {out.dtype} {tuple(out.shape)}",
                )
                expect(finite(out), f"with {options}: {dtype} samples became infinite or NaN")
        augment = self.make(self.options[0])
        for dims in {0, 1, 2, 3} - set(self.spec.dims):
            expect(fails(augment, _samples(dims)), f"samples of dims={dims} work, which is not declared")

    def test_gradients(self) -> None:
        """It is differentiable twice by the samples."""
        for options, dims, augment in self.augmentations():

            def same_draw(x: Tensor, augment: Any = augment) -> Tensor:
                torch.manual_seed(0)
                return copy.deepcopy(augment)(x)

            given = _samples(dims)[:2].double().requires_grad_()
            try:
                gradcheck(same_draw, given, fast_mode=True)
                gradgradcheck(lambda x, f=same_draw: f(x) * x, given, fast_mode=True)
            except RuntimeError as error:
                raise AssertionError(f"with {options}: {' '.join(str(error).split())[:200]}") from error

    def test_samples_are_separate(self) -> None:
        """A sample's result does not depend on the others of its batch."""
        for options, dims, augment in self.augmentations():
            for kept in (0, -1):
                one, other = _samples(dims), _samples(dims) * 0.5
                other[kept] = one[kept]
                results = []
                for given in (one, other):
                    torch.manual_seed(0)
                    results.append(copy.deepcopy(augment)(given)[kept])
                expect(same(results[0], results[1], 1e-6), f"with {options}: a sample's result depends on the others")

    def test_randomness(self) -> None:
        """Random numbers come from torch's generator, which is not seeded; nothing else changes."""
        for options, dims, augment in self.augmentations():
            given = _samples(dims)
            torch.manual_seed(0)
            with unchanged_world(given):
                first = copy.deepcopy(augment)(given)
            torch.manual_seed(0)
            expect(
                same(copy.deepcopy(augment)(given), first),
                f"with {options}: the same seed gives other results: draw from torch's generator",
            )
            expect_no_seeding(augment, given)

    def test_saved_state(self) -> None:
        """A new instance that loads the state gives the same result."""
        for options, dims, augment in self.augmentations():
            augment(_samples(dims))
            loaded = self.make(options)
            loaded.load_state_dict(augment.state_dict())
            results = []
            for other in (augment, loaded):
                torch.manual_seed(0)
                results.append(other(_samples(dims)))
            expect(same(results[0], results[1]), f"with {options}: something that changes is not in state_dict")

    def test_training(self) -> None:
        """An adversary takes it by name: two steps of both players."""
        for options, dims, _ in self.augmentations():
            features = _samples(dims)[0].numel()
            player = nn.Sequential(nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))
            adversary = Adversary(player, augmentations=[(self.entry.full_name, options)], seed=0)
            for _ in range(2):
                fake = _samples(dims).requires_grad_()
                adversary.generator_loss(fake).backward()
                expect(
                    fake.grad is not None and finite(fake.grad),
                    f"with {options}: the generator's gradient is not finite",
                )
                report = adversary.discriminator_step(_samples(dims), fake)
                expect(not report.skipped, f"with {options}: a step was not finite")


def _samples(dims: int) -> Tensor:
    generator = torch.Generator().manual_seed(dims)
    return torch.rand((3, 3, *(8,) * dims), generator=generator) * 2 - 1
