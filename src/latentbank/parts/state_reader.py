"""Mid-layer states of documents as keys and values of the layers above, remembered under a limit.

Knows states, the backbone and its low-rank weights; nothing about banks, levels or selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentbank.backbone.kv import KVMemory, join_rows
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.parts.hot_cache import HotCache

__all__ = ["StateReader"]

_TOGETHER = 16  # documents that run through the upper layers side by side


class StateReader:
    """Reads states of layer `layer` through the layers above it, with `lora` attached."""

    def __init__(
        self, backbone: Backbone, layer: int, lora: LoraWeights | None, hot_bytes: int
    ) -> None:
        """`hot_bytes`: limit of the keys and values that are remembered by name in `hot`."""
        self.hot = HotCache(hot_bytes)
        self._backbone, self._layer, self._lora = backbone, layer, lora
        self._start: Tensor | None = None

    @property
    def start_state(self) -> Tensor:
        """The start token's state [1, D]: the same for every text, so no entry stores it."""
        if self._start is None:
            ids, mask = self._backbone.pad([[self._backbone.start_id]])
            self._start = self._backbone.states(ids, mask, self._layer)[0].float().cpu()
        return self._start

    @torch.no_grad()
    def memory(
        self, rows: Sequence[Sequence[str]], states_of: Callable[[str], Tensor | None]
    ) -> KVMemory | None:
        """The keys and values of the documents of each row; None where no row names any.

        `states_of` gives the states [M, D] of a document by its name, the start token's first, or
        None for one that is not there.
        """
        needed = list(dict.fromkeys(name for row in rows for name in row))
        held = {name: self.hot.get(name) for name in needed}
        cold = [name for name in needed if held[name] is None]
        for at in range(0, len(cold), _TOGETHER):
            part = {name: states_of(name) for name in cold[at : at + _TOGETHER]}
            held |= self._read({name: row for name, row in part.items() if row is not None})
        if not needed:
            return None
        return join_rows(
            [[item for name in row if (item := held[name]) is not None] for row in rows],
            self._layer,
            self._backbone.geometry.layers - self._layer,
            self._backbone,
        )

    def _read(self, states: dict[str, Tensor]) -> dict[str, KVMemory]:
        """Runs documents through the upper layers and remembers the result."""
        if not states:
            return {}
        longest = max(len(row) for row in states.values())
        mask = torch.zeros(len(states), longest, dtype=torch.bool)
        padded = torch.zeros(*mask.shape, next(iter(states.values())).shape[1])
        for i, row in enumerate(states.values()):
            padded[i, : len(row)], mask[i, : len(row)] = row, True
        filled = self._fill(padded.to(self._backbone.device), mask.to(self._backbone.device))
        found: dict[str, KVMemory] = {}
        for i, (name, row) in enumerate(states.items()):
            length = len(row)
            found[name] = one = KVMemory(
                tuple(k[i : i + 1, :, :length].clone() for k in filled.keys),
                tuple(v[i : i + 1, :, :length].clone() for v in filled.values),
                filled.bias[i : i + 1, :length].clone(),
                filled.start[i : i + 1].clone(),
                filled.layer,
                None if filled.positions is None else filled.positions[i : i + 1, :length].clone(),
            )
            self.hot.put(name, one)
        return found

    def _fill(self, states: Tensor, mask: Tensor) -> KVMemory:
        if self._lora is None:
            return self._backbone.fill(states, mask, self._layer)
        with self._lora.attach(self._backbone):
            return self._backbone.fill(states, mask, self._layer)
