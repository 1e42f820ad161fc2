"""What a language model carries from one piece of a text to the next; its size is bounded.

Knows tensors and memory states by name; knows no layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentbank.errors import InputError
from latentbank.parts.neural_memory import State

Carried = dict[str, Tensor | State]
"""The state of one layer by name; tensors [B, ...], or [1] for a count."""


@dataclass
class Stream:
    """The states of all layers after `seen` tokens; `generate` takes it as `past_key_values`."""

    layers: list[Carried] = field(default_factory=list)
    seen: int = 0
    is_compileable: bool = False

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens so far."""
        return self.seen

    def reorder_cache(self, index: Tensor) -> None:
        """Keeps the batch rows `index` [B'], repeated or reordered; for beam search."""
        for layer in self.layers:
            for name, value in layer.items():
                if isinstance(value, State):
                    layer[name] = value.rows(index)
                elif value.dim() > 1:
                    layer[name] = value.index_select(0, index)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors that safetensors can hold; `from_tensors` takes them back."""
        named = {"seen": torch.tensor(self.seen)}
        for i, layer in enumerate(self.layers):
            for name, value in layer.items():
                if isinstance(value, State):
                    named |= {f"{i}/{name}/{k}": v for k, v in value.tensors().items()}
                else:
                    named[f"{i}/{name}"] = value.detach().clone().contiguous()
        return named

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Stream:
        """What `tensors` gave. Raises InputError for other tensors."""
        if "seen" not in tensors:
            raise InputError("these tensors are no state of a language model: 'seen' is missing")
        layers: dict[int, Carried] = {}
        inner: dict[tuple[int, str], dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, _, name = key.partition("/")
            if not name:
                continue
            layers.setdefault(int(number), {})
            outer, _, rest = name.partition("/")
            if rest:
                inner.setdefault((int(number), outer), {})[rest] = value
            else:
                layers[int(number)][name] = value
        for (place, outer), found in inner.items():
            layers[place][outer] = State.from_tensors(found)
        return cls([layers[i] for i in sorted(layers)], int(tensors["seen"]))
