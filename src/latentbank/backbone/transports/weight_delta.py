"""Differences to named weights of the backbone, for the length of a `with` block.

The backbone's own tensors are never written: inside the block its modules see weight + delta.
Afterwards the weights are the same bit for bit. Gradients flow to the deltas. Knows names and
tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

__all__ = ["Delta", "DenseDelta", "LowRankDelta", "RowsDelta", "WeightDelta"]


class Delta(Protocol):
    """A difference to one weight."""

    def added_to(self, weight: Tensor) -> Tensor:
        """weight + difference, a new tensor of the same shape and dtype; gradients flow."""


@dataclass(frozen=True)
class DenseDelta:
    """A difference of the weight's own shape."""

    values: Tensor

    def added_to(self, weight: Tensor) -> Tensor:
        """See `Delta`. Raises InputError for another shape."""
        _check_shape("a dense delta", self.values.shape, weight.shape)
        return weight + self.values.to(weight)


@dataclass(frozen=True)
class RowsDelta:
    """Differences `values` [R, ...] to the rows `index` [R] of a weight."""

    index: Tensor
    values: Tensor

    def added_to(self, weight: Tensor) -> Tensor:
        """See `Delta`. Raises InputError for another shape or a row that does not exist."""
        _check_shape("rows", self.values.shape, (len(self.index), *weight.shape[1:]))
        if len(self.index) and not 0 <= int(self.index.min()) <= int(self.index.max()) < len(
            weight
        ):
            raise InputError(f"a row of the delta is outside the {len(weight)} rows of the weight")
        return weight.index_add(0, self.index.to(weight.device), self.values.to(weight))


@dataclass(frozen=True)
class LowRankDelta:
    """The difference `scale` · left @ right; left [O, r], right [r, I] for a weight [O, I]."""

    left: Tensor
    right: Tensor
    scale: float = 1.0

    def added_to(self, weight: Tensor) -> Tensor:
        """See `Delta`. Raises InputError for other shapes."""
        shape = (self.left.shape[0], self.right.shape[-1])
        _check_shape("a low-rank delta", shape, weight.shape)
        return torch.addmm(weight, self.left.to(weight), self.right.to(weight), alpha=self.scale)


@dataclass(frozen=True)
class WeightDelta:
    """Weight names → deltas; a bare tensor is a dense delta. Tied weights change together."""

    deltas: Mapping[str, Delta | Tensor] = field(default_factory=dict)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Adds the deltas for the length of the block. Raises InputError for an unknown weight."""
        weights = dict(plain_weights(backbone.model))
        missing = [name for name in self.deltas if name not in weights]
        if missing:
            raise InputError(f"the backbone has no weight named {missing[0]!r}")
        places = _places(backbone.model)
        covered: list[tuple[nn.Module, str]] = []
        try:
            for name, delta in self.deltas.items():
                one = DenseDelta(delta) if isinstance(delta, Tensor) else delta
                changed = one.added_to(weights[name].detach())
                for module, attribute in places[id(weights[name])]:
                    module.__dict__[attribute] = changed  # hides the parameter
                    covered.append((module, attribute))
            with backbone.reference():
                yield backbone
        finally:
            for module, attribute in covered:
                module.__dict__.pop(attribute, None)


def _places(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Identity of a parameter → (module, attribute) of every place that holds it."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, attribute))
    return places


def _check_shape(kind: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(got) != tuple(expected):
        raise InputError(f"{kind} must have the shape {tuple(expected)}, got {tuple(got)}")
