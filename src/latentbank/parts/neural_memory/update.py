"""One chunk of a neural memory: gradients at its first weights, all later weights, the answers.

The network is an MLP without biases: a_l = φ(W_l·a_{l-1}), no φ after the last layer. φ is SiLU at
the scale of unit vectors. Two forms give the same result. `scan` takes each token's gradient with
`torch.func` and scans the weights themselves, T·d² numbers. `dual` uses that each gradient is an
outer product δ_i·a_iᵀ, so W_t·h is a masked attention over the chunk; it never forms a weight
between two chunks. Knows tensors [N, T, d] of N = batch · heads memories; knows no module.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from latentbank.parts.neural_memory.scan import Gates, associative_scan, coefficients

Layers = tuple[Tensor, ...]
_TINY = 1e-12


class Chunk(NamedTuple):
    """What came of a chunk: `answers` [N, T, d], the new weights and momentum, and how it went.

    `surprise` [N, T] is the norm of each token's gradient before clipping. `clipped` and `skipped`
    [N, T] mark tokens whose gradient was shortened, or not finite and left out.
    """

    answers: Tensor
    weights: Layers
    momentum: Layers
    surprise: Tensor
    clipped: Tensor
    skipped: Tensor


def activation(z: Tensor) -> Tensor:
    """SiLU at unit scale: silu(√d·z) / √d. A random layer keeps the norm of a unit vector."""
    return z * torch.sigmoid(math.sqrt(z.shape[-1]) * z)


def activation_slope(z: Tensor) -> Tensor:
    """The derivative of `activation`."""
    u = math.sqrt(z.shape[-1]) * z
    gate = torch.sigmoid(u)
    return gate * (1 + u * (1 - gate))


def apply(weights: Layers, x: Tensor) -> Tensor:
    """M(x): the network with weights [..., out, in] on vectors [..., T, d]."""
    for i, weight in enumerate(weights):
        x = x @ weight.mT
        if i + 1 < len(weights):
            x = activation(x)
    return x


def gradient_factors(weights: Layers, keys: Tensor, values: Tensor) -> tuple[Layers, Layers]:
    """(δ [N, T, out], a [N, T, in]) for each layer; ∇ℓ of a token is δ·aᵀ.

    ℓ = ‖M(k) - v‖² (equation 12).
    """
    entered, sums = [keys], []
    for weight in weights:
        sums.append(entered[-1] @ weight.mT)
        entered.append(activation(sums[-1]))
    errors = [2 * (sums[-1] - values)]
    for weight, z in zip(weights[:0:-1], sums[-2::-1], strict=True):
        errors.insert(0, (errors[0] @ weight) * activation_slope(z))
    return tuple(errors), tuple(entered[:-1])


def _shortened(surprise: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """(factor of each gradient, clipped, skipped), each like `surprise`."""
    fine = surprise.isfinite()
    clipped = fine & (surprise > clip) if clip else torch.zeros_like(fine)
    factor = torch.where(clipped, clip / surprise.clamp_min(_TINY), torch.ones_like(surprise))
    return factor, clipped, ~fine


def dual_chunk(
    anchor: Layers,
    weights: Layers,
    momentum: Layers,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    gates: Gates,
    clip: float,
) -> Chunk:
    """A chunk without a weight for each token; gates are [N, T]."""
    errors, entered = gradient_factors(anchor, keys, values)
    squares = [
        e.square().sum(-1) * a.square().sum(-1) for e, a in zip(errors, entered, strict=True)
    ]
    surprise = (torch.stack(squares).sum(0) + _TINY).sqrt()
    factor, clipped, skipped = _shortened(surprise, clip)
    of_weights, of_momentum = coefficients(gates)
    length, h = keys.shape[1], queries
    new_weights: list[Tensor] = []
    new_momentum: list[Tensor] = []
    for i, (weight, speed) in enumerate(zip(weights, momentum, strict=True)):
        error = torch.where(skipped[..., None], 0.0, errors[i] * factor[..., None])
        into = torch.where(skipped[..., None], 0.0, entered[i])
        shares = of_weights[..., :length] * (h @ into.mT)
        h = (
            shares @ error
            + of_weights[..., length, None] * (h @ speed.mT)
            + of_weights[..., length + 1, None] * (h @ weight.mT)
        )
        for mixed, made in ((of_weights, new_weights), (of_momentum, new_momentum)):
            last = mixed[:, -1]
            learned = (error * last[:, :length, None]).mT @ into
            kept = last[:, length, None, None] * speed + last[:, length + 1, None, None] * weight
            made.append(learned + kept)
        if i + 1 < len(weights):
            h = activation(h)
    return Chunk(h, tuple(new_weights), tuple(new_momentum), surprise, clipped, skipped)


def token_gradients(weights: Layers, keys: Tensor, values: Tensor) -> Layers:
    """∇ℓ [N, T, out, in] of each token at weights [N, out, in], by `torch.func`."""

    def loss(layers: Layers, key: Tensor, value: Tensor) -> Tensor:
        return (apply(layers, key[None])[0] - value).square().sum()

    each_token = vmap(grad(loss), in_dims=(None, 0, 0))
    found: Layers = vmap(each_token)(weights, keys, values)
    return found


def scan_chunk(
    anchor: Layers,
    weights: Layers,
    momentum: Layers,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    gates: Gates,
    clip: float,
) -> Chunk:
    """A chunk with a weight for each token, as in section 3.2 of the paper; gates are [N, T]."""
    gradients = token_gradients(anchor, keys, values)
    surprise = (torch.stack([g.square().sum((2, 3)) for g in gradients]).sum(0) + _TINY).sqrt()
    factor, clipped, skipped = _shortened(surprise, clip)
    real, one = gates.real, torch.ones_like(gates.real)
    eta = torch.where(real > 0, gates.momentum, one)
    keep = torch.where(real > 0, 1 - gates.forget, one)
    h, new_weights, new_momentum = queries, [], []
    for i, (weight, speed) in enumerate(zip(weights, momentum, strict=True)):
        step = (-gates.step * real * factor)[..., None, None]
        added = torch.where(skipped[..., None, None], 0.0, step * gradients[i])
        first = added[:, :1] + eta[:, :1, None, None] * speed[:, None]
        moving = associative_scan(eta, torch.cat([first, added[:, 1:]], 1))
        added = moving * real[..., None, None]
        first = added[:, :1] + keep[:, :1, None, None] * weight[:, None]
        through = associative_scan(keep, torch.cat([first, added[:, 1:]], 1))
        h = torch.einsum("ntoi,nti->nto", through, h)
        new_weights.append(through[:, -1])
        new_momentum.append(moving[:, -1])
        if i + 1 < len(weights):
            h = activation(h)
    return Chunk(h, tuple(new_weights), tuple(new_momentum), surprise, clipped, skipped)


FORMS = {"dual": dual_chunk, "scan": scan_chunk}
