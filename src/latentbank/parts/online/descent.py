"""Steps of gradient descent on named tensors: SGD, or Adam whose moments live for one document.

Knows tensors; knows no model and no documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbank.config import require_at_least, setting
from latentbank.errors import InputError

__all__ = ["Descent", "DescentSettings", "slopes_of"]

OPTIMISERS = ("sgd", "adam")
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class DescentSettings:
    """How a document changes the weights."""

    rate: float = setting(1e-3, "Step size.")
    steps: int = setting(4, "Steps on each document.")
    optimiser: str = setting("adam", "sgd or adam; Adam starts anew with each document.")
    clip: float = setting(1.0, "Largest norm of the gradient; 0: no limit.")

    def __post_init__(self) -> None:
        require_at_least(self, 0, "rate", "clip")
        require_at_least(self, 1, "steps")
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"optimiser must be sgd or adam, got {self.optimiser!r}")


def slopes_of(
    loss_of: Callable[[Mapping[str, Tensor]], Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The gradient of `loss_of`(tensors) by name; None where loss or gradient is not finite."""
    leaves = {name: value.detach().requires_grad_(True) for name, value in tensors.items()}
    with torch.enable_grad():
        loss = loss_of(leaves)
        if not bool(torch.isfinite(loss)):
            return None
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    slopes = {
        name: torch.zeros_like(leaf) if slope is None else slope
        for (name, leaf), slope in zip(leaves.items(), found, strict=True)
    }
    return slopes if all(bool(torch.isfinite(one).all()) for one in slopes.values()) else None


class Descent:
    """The steps of one document on `tensors`, which are changed in place."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: DescentSettings) -> None:
        self.tensors, self.settings = tensors, settings
        self._first: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._taken = 0

    def step(self, slopes: Mapping[str, Tensor]) -> bool:
        """Goes down the gradient; returns whether the tensors are finite. If not, none changed."""
        scale = self._scale(slopes)
        self._taken += 1
        moved = {name: self._move(name, scale * slope) for name, slope in slopes.items()}
        changed = {name: self.tensors[name] - move for name, move in moved.items()}
        if not all(bool(torch.isfinite(one).all()) for one in changed.values()):
            return False
        for name, value in changed.items():
            self.tensors[name].copy_(value)
        return True

    def _scale(self, slopes: Mapping[str, Tensor]) -> float:
        if not self.settings.clip:
            return 1.0
        norm = float(torch.stack([one.norm() for one in slopes.values()]).norm())
        return min(1.0, self.settings.clip / norm) if norm > 0 else 1.0

    def _move(self, name: str, slope: Tensor) -> Tensor:
        if self.settings.optimiser == "sgd":
            return self.settings.rate * slope
        first, second = _BETAS
        mean = self._first.get(name, torch.zeros_like(slope)).lerp(slope, 1 - first)
        square = self._second.get(name, torch.zeros_like(slope)).lerp(slope.square(), 1 - second)
        self._first[name], self._second[name] = mean, square
        mean = mean / (1 - first**self._taken)
        square = square / (1 - second**self._taken)
        return self.settings.rate * mean / (square.sqrt() + _EPSILON)
