"""VQGAN's adaptive weight, with one backward through every network."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from advloss._adversary import Adversary
from advloss._warn import warn_user
from advloss.errors import CombinationError, InputError, OptionError


@final
class AdaptiveWeight:
    """``L_rec + lambda L_G``, where lambda makes both pull the decoder's last layer W equally (arXiv:2012.09841, eq. 7).

    ``lambda = clamp(||grad_W L_rec|| / (||grad_W L_G|| + 1e-4), 0, maximum)``, with L_G before the adversary's `weight`,
    which multiplies it.

    The textbook sends each loss back to W on its own, and then their sum through everything once more. Here the graph
    is cut at the reconstruction: each loss is differentiated by it once, both norms are vector-Jacobian products of what
    lies between W and the reconstruction, and the backward that follows begins with the sum. Under several processes the
    norms are those of the whole batch, so that lambda is the same everywhere.

        adaptive = advloss.AdaptiveWeight(adversary, vae.decoder.conv_out.weight)
        loss = adaptive(fake, F.l1_loss(fake, real), adversary.generator_loss(fake, real)) + 1e-6 * kl

    Args:
        adversary: whose `weight` and processes count. Prepare it first, where it is prepared.
        last_layer: W, a parameter that the reconstruction is computed with.
        maximum: of lambda.

    Attributes:
        value: lambda of the last call, a scalar on the device; None before the start step. Where one of the gradients
            is not finite it is 0: the step trains on the reconstruction alone.

    Raises:
        OptionError: `last_layer` is no parameter that trains, or `maximum` no number above 0.
    """

    def __init__(self, adversary: Adversary, last_layer: Tensor, *, maximum: float = 1e4) -> None:
        if not isinstance(last_layer, Tensor) or not last_layer.requires_grad:
            given = "a frozen tensor" if isinstance(last_layer, Tensor) else f"a {type(last_layer).__name__}"
            raise OptionError(
                f"last_layer is {given}; give a weight that trains, such as vae.decoder.conv_out.weight, or use a "
                "fixed weight: reconstruction_loss + adversary.generator_loss(...)"
            )
        if not isinstance(maximum, (int, float)) or not maximum > 0:
            raise OptionError(f"maximum={maximum!r}: give a number above 0; 1e4 is the paper's")
        self.last_layer = last_layer
        self.maximum = maximum
        self.value: Tensor | None = None
        self._adversary = adversary
        self._tried = self._warned = False

    def __call__(
        self, fake: Tensor, reconstruction_loss: Tensor, adversarial_loss: Tensor, *, weight: float | None = None
    ) -> Tensor:
        """A scalar with the value and the gradient of ``reconstruction_loss + lambda adversarial_loss``.

        Args:
            fake: the reconstruction `(N, C, ...)` that both losses were computed from.
            reconstruction_loss: a scalar that reaches parameters through `fake` only.
            adversarial_loss: of `Adversary.generator_loss`, or with further terms in it. Before the start step there
                is nothing to weigh, and `reconstruction_loss` itself is returned; both are looked at all the same, so that
                most mistakes show in the first step and not after hours.
            weight: the factor that `adversarial_loss` was multiplied with; default the adversary's.

        Raises:
            InputError: a loss that is no scalar, or that does not depend on `fake`; a reconstruction loss that depends on
                more than `fake`; a `fake` without W, or W frozen meanwhile.
            CombinationError: the model's backward cannot be asked for W alone.
        """
        weight = self._adversary.weight if weight is None else weight
        self.value = None
        if not torch.is_grad_enabled():
            return reconstruction_loss
        nodes = self._check(fake, reconstruction_loss, adversarial_loss)
        if not adversarial_loss.requires_grad or weight == 0:
            alone = self._adversary._runtime.world == 1  # DDP may take the first backward for a whole one
            if alone and not self._tried:
                self._pull_back(fake, torch.zeros_like(fake))
                self._tried = True
            return reconstruction_loss
        shared = not nodes.isdisjoint(_between("adversarial", adversarial_loss, fake))
        rec = self._gradient(reconstruction_loss, fake, retain_graph=shared)
        adv = self._gradient(adversarial_loss, fake)
        rec_norm, adv_norm = self._norms(fake, rec, adv)
        usable = rec_norm.isfinite() & adv_norm.isfinite()
        ratio = (rec_norm / (adv_norm / weight + 1e-4)).clamp(0, self.maximum)
        self.value = ratio.where(usable, 0.0)
        value = reconstruction_loss.detach() + (ratio * adversarial_loss.detach()).where(usable, 0.0)
        gradient = rec + (ratio * adv).where(usable, 0.0)
        return _WithGradient.apply(fake, value, gradient)

    def _check(self, fake: Tensor, loss: Tensor, adversarial: Tensor) -> set[Any]:
        """Raise InputError unless both losses are scalars of `fake`, and W trains; the nodes of `loss` otherwise."""
        if not self.last_layer.requires_grad:
            raise InputError(
                f"the last layer {tuple(self.last_layer.shape)} was frozen after it had been given: an adversarial loss "
                "trains the decoder; call requires_grad_(True) on it before the forward"
            )
        if fake.grad_fn is None:
            raise InputError("the reconstruction has no graph: its decoder is frozen, or it was made without gradients")
        for name, scalar in (("reconstruction", loss), ("adversarial", adversarial)):
            if scalar.ndim:
                raise InputError(f"the {name} loss has shape {tuple(scalar.shape)}; give a scalar, its mean")
        if not adversarial.requires_grad and self._adversary.step > self._adversary.start_step and not self._warned:
            self._warned = True
            warn_user(
                "the adversarial loss has no graph, and adds nothing: compute generator_loss from the reconstruction itself, "
                "not from a detached copy or under no_grad (a constant for steps without it is all right)"
            )
        return _between("reconstruction", loss, fake)

    def _gradient(self, loss: Tensor, fake: Tensor, retain_graph: bool = False) -> Tensor:
        """``dloss/dfake``, under a gradient scaler through half precision as the loss's own backward would go."""
        scale = self._adversary._runtime.scale
        (gradient,) = torch.autograd.grad(scale(loss), [fake], retain_graph=retain_graph)
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        return gradient / scale(gradient.new_ones(()))

    def _norms(self, fake: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Norms of the gradients by W that gradients by `fake` bring about."""
        products = []
        for gradient in gradients:
            size = _norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
            unit = (gradient / size).to(fake.dtype)  # neither too small nor too large for half precision
            products.append(self._pull_back(fake, unit).to(gradient.dtype) * size)
        return tuple(_norm(product) for product in self._adversary._runtime.mean(torch.stack(products)))

    def _pull_back(self, fake: Tensor, gradient: Tensor) -> Tensor:
        try:
            (product,) = torch.autograd.grad(fake, [self.last_layer], gradient, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise CombinationError(
                f"this model's backward cannot be asked for its last layer alone ({str(error).splitlines()[0]}): use "
                "non-reentrant checkpointing (use_reentrant=False), leave the decoder uncompiled, or use a fixed weight"
            ) from error
        if product is None:
            raise InputError(
                f"the reconstruction was not computed with the last layer given, {tuple(self.last_layer.shape)}: give "
                "a weight of the decoder that made it"
            )
        return product


class _WithGradient(torch.autograd.Function):
    """`value`, a scalar whose gradient by `samples` is `gradient`."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = samples.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad * gradient).to(ctx.dtype), None, None


def _norm(tensor: Tensor) -> Tensor:
    """The 2-norm, without overflow of the squares."""
    largest = tensor.abs().amax().clamp_min(torch.finfo(tensor.dtype).tiny)
    return largest * torch.linalg.vector_norm(tensor / largest)


def _between(name: str, loss: Tensor, fake: Tensor) -> set[Any]:
    """The nodes of the graph of `loss`. Raise InputError unless it reaches parameters through `fake` and nothing else."""
    reached, parameter, seen, waiting = False, None, set[Any](), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parameter = getattr(node, "variable", parameter)
        for child, number in node.next_functions:
            if child is fake.grad_fn and number == fake.output_nr:
                reached = True
            else:
                waiting.append(child)
    if not reached:
        raise InputError(f"the {name} loss was not computed from this reconstruction; give both the same tensor")
    if parameter is not None:
        raise InputError(
            f"the {name} loss depends on a parameter {tuple(parameter.shape)} other than through the reconstruction: add "
            "such terms (KL, codebook) to the result, and freeze a perceptual network by requires_grad_(False)"
        )
    return seen
