"""The state of a neural memory: what it has learned, and where in its chunk it stands.

Tensors and two counters, all of a size that does not depend on the number of tokens. Knows no
update rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from latentbank.errors import InputError

Layers = tuple[Tensor, ...]
"""One tensor [B, H, out, in] for each layer of the memory's network."""

_LAYERS = ("weights", "momentum", "anchor")
_COUNTS = ("position", "seen")


@dataclass(frozen=True)
class State:
    """What B memories of H heads have learned from the tokens so far.

    - `weights`: M_t, the network's weights; `momentum`: S_t, of the same shapes.
    - `anchor`: the weights at the start of the open chunk, where its gradients are taken.
    - `gates` [B, H, 3]: forget, momentum and step gate of the open chunk. Only chunk-wise gates
      use them.
    - `history` [B, K - 1, D]: the last inputs, for a convolution over K tokens.
    - `clipped`, `skipped` [B]: inner steps whose gradient was clipped, or left out because it was
      not finite.
    - `position`: tokens in the open chunk; `seen`: tokens in all.
    """

    weights: Layers
    momentum: Layers
    anchor: Layers
    gates: Tensor
    history: Tensor
    clipped: Tensor
    skipped: Tensor
    position: int = 0
    seen: int = 0

    def settled(self) -> State:
        """The state with its chunk closed: the next token starts a chunk and a new text."""
        return replace(
            self,
            anchor=self.weights,
            history=torch.zeros_like(self.history),
            gates=torch.zeros_like(self.gates),
            position=0,
        )

    def detached(self) -> State:
        """The same values without gradients."""
        return self._mapped(Tensor.detach)

    def rows(self, index: Tensor) -> State:
        """The batch rows `index` [B'], repeated or reordered."""
        return self._mapped(lambda value: value.index_select(0, index))

    def to(self, device: torch.device | str) -> State:
        """The same values on another device."""
        return self._mapped(lambda value: value.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> State:
        made: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(change(one) for one in value)
            elif isinstance(value, Tensor):
                value = change(value)
            made[field.name] = value
        return State(**made)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors that safetensors can hold; `from_tensors` takes them back."""
        named: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _LAYERS:
                named |= {f"{field.name}.{i}": one for i, one in enumerate(value)}
            elif field.name in _COUNTS:
                named[field.name] = torch.tensor(value, dtype=torch.int64)
            else:
                named[field.name] = value
        # safetensors refuses two names for one tensor, as a state without an open chunk has them
        return {name: value.detach().clone().contiguous() for name, value in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> State:
        """What `tensors` gave.

        Raises:
            InputError: a tensor is missing or unknown.
        """
        depth = sum(name.startswith("weights.") for name in tensors)
        expected = {f"{kind}.{i}" for kind in _LAYERS for i in range(depth)}
        expected |= {f.name for f in fields(cls) if f.name not in _LAYERS}
        if wrong := sorted(expected ^ set(tensors)):
            raise InputError(
                f"this is no state of a neural memory: tensor '{wrong[0]}' is missing or unknown"
            )
        made: dict[str, Any] = {name: tensors[name] for name in expected if "." not in name}
        for kind in _LAYERS:
            made[kind] = tuple(tensors[f"{kind}.{i}"] for i in range(depth))
        for kind in _COUNTS:
            made[kind] = int(tensors[kind])
        return cls(**made)

    def require_shapes_of(self, expected: State) -> None:
        """Raises InputError, with both shapes, if this state does not fit a memory's own."""
        if len(self.weights) != len(expected.weights):
            raise InputError(
                f"the state has {len(self.weights)} layers, the memory {len(expected.weights)}; "
                "use the state of a memory with the same settings"
            )
        own, other = self.tensors(), expected.tensors()
        for name, value in own.items():
            if value.shape != other[name].shape:
                raise InputError(
                    f"the state's '{name}' has shape {tuple(value.shape)}, the memory expects "
                    f"{tuple(other[name].shape)}; use a state of the same settings and batch"
                )
