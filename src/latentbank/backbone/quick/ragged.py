"""Texts of unequal length that run through a `QuickLlama` without padding.

The tokens of all rows lie in one line, so that a layer's linear maps compute no padding; each row
attends to keys and values of its own. Rows that get no token cost nothing. Knows tensors and
lengths; knows the backbone only as `Layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.text_run import Layers

__all__ = ["RaggedCache", "RaggedRun"]

_SPARE = 32  # tokens that a buffer has room for beside those that it is made for


class RaggedCache:
    """Keys and values of the layers first … last-1, of as many tokens in each row as it has.

    `keys`, `values`: [P, H_kv, C, head_dim] of each layer. `rows` [B] are the places of the batch
    rows in them, `sizes` [P] how many tokens each place holds.
    """

    def __init__(self, first: int, last: int, batch: int) -> None:
        self.first, self.last = first, last
        self.rows, self.sizes = list(range(batch)), [0] * batch
        self.bias: Tensor | None = None
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._owned = False
        self._parts: list[tuple[int, slice, Tensor | None]] = []
        self._row: Tensor
        self._place: Tensor

    def load(self, memory: KVMemory, dtype: torch.dtype) -> None:
        """Takes the keys and values of a memory, padding behind each row's last slot left out."""
        self.keys, self.values = (
            [one.to(dtype) for one in kind] for kind in (memory.keys, memory.values)
        )
        open_slots = memory.bias > -torch.inf
        places = torch.arange(1, memory.slots + 1, device=open_slots.device)
        self.sizes = (open_slots * places).amax(1).tolist()
        inside = places <= torch.tensor(self.sizes, device=places.device)[:, None]
        if bool((memory.bias[inside] != 0).any()):
            bias = memory.bias.nan_to_num(neginf=torch.finfo(dtype).min).to(dtype)
            self.bias = bias * inside  # the places behind the memory are for text

    def copy(self, rows: Sequence[int]) -> RaggedCache:
        """Another cache with the batch rows `rows` [B'], repeated or reordered."""
        made = RaggedCache(self.first, self.last, len(rows))
        places = [self.rows[i] for i in rows]
        index = torch.tensor(places, dtype=torch.long)
        made.keys, made.values = (
            [one.index_select(0, index) for one in kind] for kind in (self.keys, self.values)
        )
        made.sizes, made._owned = [self.sizes[i] for i in places], True
        made.bias = None if self.bias is None else self.bias.index_select(0, index)
        return made

    def select(self, rows: Sequence[int]) -> RaggedCache:
        """As `copy`; without copying where no row is repeated."""
        if len(set(rows)) < len(rows):
            return self.copy(rows)
        self.rows = [self.rows[i] for i in rows]
        return self

    def admit(self, counts: Sequence[int], model: Any) -> None:
        """Makes room for `counts` [B] more tokens; `update` then takes them layer by layer."""
        self._reserve(max(self.sizes[p] + n for p, n in zip(self.rows, counts, strict=True)), model)
        rows: list[int] = []
        places: list[int] = []
        self._parts, at = [], 0
        for row, count in zip(self.rows, counts, strict=True):
            if not count:
                continue
            size = self.sizes[row]
            self.sizes[row] += count
            rows += [row] * count
            places += range(size, size + count)
            self._parts.append((row, slice(at, at + count), self._mask(row, size, count, model)))
            at += count
        self._row, self._place = torch.tensor(rows), torch.tensor(places)

    def _reserve(self, places: int, model: Any) -> None:
        """Buffers of at least `places` tokens that are this cache's own."""
        held = self.keys[0].shape[2] if self.keys else 0
        if self._owned and places <= held:
            return
        config, kept = model.config, max(self.sizes)
        shape = (
            len(self.sizes),
            config.num_key_value_heads,
            places + _SPARE,
            config.head_dim,
        )
        for kind in (self.keys, self.values):
            wider = [torch.empty(shape, dtype=model.dtype) for _ in range(self.first, self.last)]
            for new, old in zip(wider, kind, strict=False):
                new[:, :, :kept] = old[:, :, :kept]
            kind[:] = wider
        self._owned = True

    def _mask(self, row: int, size: int, count: int, model: Any) -> Tensor | None:
        """What is added to the scores [G · T, K] of a row's new tokens, one block for each head."""
        if count == 1 and self.bias is None:
            return None
        mask = torch.zeros(count, size + count, dtype=model.dtype)
        if count > 1:
            later = torch.ones(count, count, dtype=torch.bool).triu(1)
            mask[:, size:].masked_fill_(later, torch.finfo(model.dtype).min)
        if self.bias is not None:
            known = min(size, self.bias.shape[1])
            mask[:, :known] += self.bias[row, :known]
        config = model.config
        return mask.repeat(config.num_attention_heads // config.num_key_value_heads, 1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float) -> Tensor:
        """Mixed values [1, H, N, head_dim] of the admitted tokens, which are remembered.

        `query` [1, H, N, head_dim]; `key` and `value` [1, H_kv, N, head_dim].
        """
        keys, values = self.keys[layer - self.first], self.values[layer - self.first]
        keys[self._row, :, self._place] = key[0].transpose(0, 1)
        values[self._row, :, self._place] = value[0].transpose(0, 1)
        heads, width = key.shape[1], key.shape[-1]
        mixed = torch.empty_like(query)
        for row, span, mask in self._parts:
            size = self.sizes[row]
            asked = query[:, :, span]
            found = nn.functional.scaled_dot_product_attention(
                asked.reshape(1, heads, -1, width),  # the heads of a group become one head's
                keys[row : row + 1, :, :size],
                values[row : row + 1, :, :size],
                attn_mask=mask,
                scale=scale,
            )
            mixed[:, :, span] = found.view(asked.shape)
        return mixed


class RaggedRun:
    """A batch of texts that run through the layers up to `last`; see `TextRun`.

    What `feed` gives for padding is 0.
    """

    def __init__(
        self,
        backbone: Layers,
        last: int,
        memory: KVMemory | None,
        batch: int,
        split: int = 0,
    ) -> None:
        self.backbone = backbone
        split = memory.layer if memory is not None else split
        self.bounds = [(0, split), (split, last)] if 0 < split < last else [(0, last)]
        self.caches = [RaggedCache(*bound, batch) for bound in self.bounds]
        self.lengths = [0] * batch
        self.starts = [0] * batch
        if memory is not None:
            self.caches[-1].load(memory, backbone.dtype)
            self.starts = memory.start.tolist()
        self._mask: Tensor
        self._entered: Tensor

    def feed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D] of the next tokens ids [B, T], mask [B, T] bool (padding anywhere)."""
        self._mask, counts = mask, mask.sum(1).tolist()
        self.lengths = [one + count for one, count in zip(self.lengths, counts, strict=True)]
        hidden = self.backbone.model.get_input_embeddings()(ids[mask])[None]
        return self._padded(self._through(hidden, counts, 0))

    def _through(self, hidden: Tensor, counts: Sequence[int], stage: int) -> Tensor:
        """Final states [1, N, D] of the last `counts` [B] tokens, which enter a stage."""
        ends = list(zip(self.lengths, counts, self.starts, strict=True))
        text = torch.tensor([p for end, n, _ in ends for p in range(end - n, end)])[None]
        later = torch.tensor([start for _, n, start in ends for _ in range(n)])[None]
        for index in range(stage, len(self.bounds)):
            positions = text + later if index == len(self.bounds) - 1 else text
            self.caches[index].admit(counts, self.backbone.model)
            self._entered = hidden
            bound, cache = self.bounds[index], self.caches[index]
            hidden = self.backbone.run(*bound, hidden, positions, None, cache)
        return hidden

    def _padded(self, line: Tensor) -> Tensor:
        """The states [1, N, D] at the places [B, T, D] that the ids had."""
        states = line.new_zeros(*self._mask.shape, line.shape[-1])
        states[self._mask] = line[0]
        return states

    def repeat(self, rows: Tensor, memory: KVMemory | None) -> tuple[RaggedRun, Tensor]:
        """See `TextRun.repeat`."""
        split, last = self.bounds[-1]
        index = rows.tolist()
        run = RaggedRun(self.backbone, last, memory, len(index), split)
        counts = self._mask.sum(1).tolist()
        if not split or run.bounds != self.bounds or counts != self.lengths:
            raise ValueError("the run is not split where the memory enters, or was fed twice")
        run.caches[:-1] = [cache.copy(index) for cache in self.caches[:-1]]
        run.lengths, run._mask = [counts[i] for i in index], self._mask[rows]
        parts = torch.split(self._entered, counts, 1)
        states = torch.cat([parts[i] for i in index], 1)
        return run, run._padded(run._through(states, run.lengths, len(run.bounds) - 1))

    def keep(self, mask: Tensor) -> None:
        """Of the tokens that each row was fed last, keeps the first ones, where `mask` holds."""
        undone = (self._mask & ~mask).sum(1).tolist()
        self.lengths = [one - count for one, count in zip(self.lengths, undone, strict=True)]
        for cache in self.caches:
            for row, count in zip(cache.rows, undone, strict=True):
                cache.sizes[row] -= count

    def reorder(self, index: Tensor) -> None:
        """Keeps the batch rows `index` [B'], also of the memory; for beam search."""
        rows = index.tolist()
        self.caches = [cache.select(rows) for cache in self.caches]
        self.lengths = [self.lengths[i] for i in rows]
        self.starts = [self.starts[i] for i in rows]
        self._mask = self._mask[index]
