"""Directions in a latent space that mean something, and moving along them."""

from __future__ import annotations

import torch
from torch import Tensor

from advloss import InputError


def label_direction(latents: Tensor, chosen: Tensor) -> Tensor:
    """The unit normal `(features,)` of the hyperplane between `chosen` latents and the others (arXiv:1907.10786).

    Linear, by logistic regression. It points to the chosen ones.

    Args:
        latents: z or w `(N, features)`, such as the w of random samples.
        chosen: `(N,)`, true where the sample has what the direction should bring: a classifier's word, or a person's.

    Raises:
        InputError: all are chosen, or none.
    """
    from sklearn.linear_model import LogisticRegression

    if chosen.shape != latents.shape[:1] or chosen.bool().all() or not chosen.any():
        raise InputError(
            f"{int(chosen.sum())} of {len(latents)} latents are chosen; a direction needs some of both kinds"
        )
    model = LogisticRegression(C=0.1, max_iter=1000).fit(latents.cpu().numpy(), chosen.bool().cpu().numpy())
    normal = torch.tensor(model.coef_[0], dtype=latents.dtype, device=latents.device)
    return normal / normal.norm()


def principal_directions(latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` directions in which `latents` `(N, features)` vary most (GANSpace, arXiv:2004.02546).

    Returns:
        Unit vectors `(count, features)` and the standard deviation along each `(count,)`, largest first.

    Raises:
        InputError: more directions than latents or features.
    """
    from sklearn.decomposition import PCA

    if not 1 <= count <= min(latents.shape):
        raise InputError(f"count={count}: {tuple(latents.shape)} latents have 1 to {min(latents.shape)} directions")
    model = PCA(count, svd_solver="full").fit(latents.double().cpu().numpy())
    found = torch.as_tensor(model.components_), torch.as_tensor(model.explained_variance_).sqrt()
    return found[0].to(latents), found[1].to(latents)


def move(latents: Tensor, direction: Tensor, amounts: Tensor) -> Tensor:
    """`latents` `(N, ..., features)` moved by each of `amounts` `(A,)` along `direction`: `(N * A, ..., features)`."""
    steps = amounts.to(latents).view(1, -1, *[1] * (latents.ndim - 1)) * direction.to(latents)
    return (latents[:, None] + steps).flatten(0, 1)
