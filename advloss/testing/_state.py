"""The checks of a discriminator's state: saved, copied, moved by a forward; and of the world's."""

from __future__ import annotations

import torch
from torch import Tensor

from advloss.testing._case import DiscriminatorCases, forward
from advloss.testing._expect import changed, copied, expect, expect_flags, flags_of, same, state_of, tensors_of
from advloss.testing._world import expect_no_seeding, unchanged_world


class StateTests(DiscriminatorCases):
    """What a discriminator keeps, and what it leaves alone."""

    def test_saved_state(self) -> None:
        """A new instance that loads the state gives the same logits."""
        for case, module, samples, condition in self.instances():
            forward(module, samples, condition)
            logits = forward(module.eval(), samples, condition)
            loaded = self.make(case.options, seed=1)
            with torch.no_grad():
                for tensor in loaded.state_dict().values():  # a module's extra state may be anything
                    if isinstance(tensor, Tensor) and tensor.is_floating_point():
                        tensor.add_(1)
            loaded.load_state_dict(module.state_dict())
            expect(
                same(forward(loaded.eval(), samples, condition), logits),
                f"{case}: a new instance with the saved state gives other logits: something is not in state_dict",
            )

    def test_deep_copy(self) -> None:
        """A deep copy, also one made after a forward, gives the same logits and shares nothing."""
        for case, module, samples, condition in self.instances():
            forward(module, samples, condition)
            try:
                other = copied(module.eval())
            except RuntimeError as error:
                raise AssertionError(
                    f"{case}: it cannot be copied after a forward, as it keeps a tensor with its graph "
                    "(torch.nn.utils.spectral_norm and weight_norm do; those of torch.nn.utils.parametrizations do not)"
                ) from error
            expect(
                same(forward(other, samples, condition), forward(module, samples, condition)),
                f"{case}: a deep copy gives other logits",
            )
            logits = forward(module, samples, condition)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.add_(1)
            expect(
                same(forward(module, samples, condition), logits),
                f"{case}: a deep copy shares something with the original",
            )

    def test_modes(self) -> None:
        """Eval mode repeats itself and moves no buffer; training mode moves no parameter; neither turns a flag."""
        for case, module, samples, condition in self.instances():
            before = {n: p.detach().clone() for n, p in module.named_parameters()}
            flags = flags_of(module.train())
            forward(module, samples, condition)
            expect_flags(module, flags, f"{case}: a forward in training mode")
            moved = [n for n, p in module.named_parameters() if not torch.equal(p, before[n])]
            expect(not moved, f"{case}: a forward in training mode changed the parameters {moved[:3]}")
            state, flags = state_of(module.eval()), flags_of(module)
            logits = forward(module, samples, condition)
            expect(not changed(module, state), f"{case}: a forward in eval mode changed {changed(module, state)[:3]}")
            expect_flags(module, flags, f"{case}: a forward in eval mode")
            expect(
                same(forward(module, samples, condition), logits),
                f"{case}: two forwards in eval mode differ",
            )

    def test_global_state(self) -> None:
        """Running it changes neither global state nor its inputs."""
        for case, module, samples, condition in self.instances():
            for mode in (True, False):
                module.train(mode)
                with unchanged_world(samples, *tensors_of(condition)):
                    random_state = torch.get_rng_state()
                    forward(module, samples, condition)
                    drew = not torch.equal(torch.get_rng_state(), random_state)
                expect(mode or not drew, f"{case}: it draws random numbers in eval mode")
            module.train()
            expect_no_seeding(forward, module, samples, condition)
