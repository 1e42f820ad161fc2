"""The gradient of what one weighted step achieves, with respect to the weights of the tokens.

Exact for a step of plain SGD, and without second derivatives. Knows tensors; knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["stepped_loss"]

Tensors = Mapping[str, Tensor]


def stepped_loss(
    token_losses: Callable[[Tensors], Tensor],
    outer: Callable[[Tensors], Tensor],
    weights: Tensor,
    start: Tensors,
    rate: float,
) -> Tensor:
    """outer(θ') with θ' = θ − rate · ∇_θ Σ_i w_i ℓ_i(θ); its gradient reaches `weights` alone.

    The step is linear in w, so ∂outer/∂w_i = −rate · ⟨∇ℓ_i(θ), ∇outer(θ')⟩: one forward-mode
    derivative (`torch.func.jvp`) of all token losses in the direction of the outer gradient.

    Args:
        token_losses: θ → ℓ [N].
        outer: θ' → a scalar.
        weights: w [N].
        start: θ by name.
    """
    names = list(start)
    leaves = {name: start[name].detach().requires_grad_(True) for name in names}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # others have no forward mode
        inner = (weights.detach() * token_losses(leaves)).sum()
        slopes = torch.autograd.grad(inner, [leaves[name] for name in names])
        moved = {
            name: (start[name] - rate * slope).detach().requires_grad_(True)
            for name, slope in zip(names, slopes, strict=True)
        }
        reached = outer(moved)
        directions = torch.autograd.grad(reached, [moved[name] for name in names])

        def losses_at(*tensors: Tensor) -> Tensor:
            return token_losses(dict(zip(names, tensors, strict=True)))

        primals = tuple(start[name].detach() for name in names)
        along: Tensor = torch.func.jvp(losses_at, primals, tuple(directions))[1]
    share = (weights * (-rate * along.detach())).sum()
    total: Tensor = reached.detach() + share - share.detach()
    return total
