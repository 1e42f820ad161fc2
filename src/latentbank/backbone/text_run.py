"""A text that runs through the layers, below the memory's layer without it and above with it.

Knows token ids, positions, masks and caches; knows the backbone only as `Layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory, StackedCache

__all__ = ["Layers", "TextRun", "log_likelihoods"]

_SCORED_AT_ONCE = 256  # tokens whose logits over the vocabulary are in memory together


class Layers(Protocol):
    """What a run needs of a `Backbone`."""

    model: Any
    rows: Tensor
    """Of the texts that run now, [B'] places in the batch as it began; read by `LayerHook`s."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""

    def new_cache(self, first: int, last: int) -> Any:
        """See `Backbone.new_cache`."""

    @property
    def run(self) -> Callable[..., Tensor]:
        """See `Backbone.run`."""

    @property
    def attention_masks(self) -> Callable[..., Any]:
        """See `Backbone.attention_masks`."""

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """See `Backbone.logits`."""


class TextRun:
    """A batch of texts that run through the layers up to `last`, fed in one or several blocks.

    Without a memory, `split` is the layer from which the run can be repeated over one.
    """

    def __init__(
        self,
        backbone: Layers,
        last: int,
        memory: KVMemory | None,
        batch: int,
        split: int = 0,
    ) -> None:
        self.backbone, self.memory = backbone, memory
        split = memory.layer if memory is not None else split
        self.bounds = [(0, split), (split, last)] if 0 < split < last else [(0, last)]
        self.caches: list[Any] = [backbone.new_cache(*bound) for bound in self.bounds]
        device = backbone.device
        self.rows = torch.arange(batch, device=device)
        self.seen = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        self.seen_positions = torch.zeros(batch, 0, dtype=torch.long, device=device)
        if memory is not None:
            kinds = memory.keys, memory.values
            if isinstance(self.caches[-1], StackedCache):
                self.caches[-1].load(*kinds)
            else:  # an engine may have made them, in another dtype
                self.caches[-1].load(*([one.to(backbone.dtype) for one in kind] for kind in kinds))

    def feed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D] of the next tokens ids [B, T], mask [B, T] bool (padding anywhere)."""
        count = self.seen.sum(1, keepdim=True)
        positions = (count + mask.cumsum(1) - 1).clamp_min(0)
        self.seen = torch.cat([self.seen, mask], 1)
        self.seen_positions = torch.cat([self.seen_positions, positions], 1)
        return self._through(self.backbone.model.get_input_embeddings()(ids), 0)

    def _through(self, hidden: Tensor, stage: int) -> Tensor:
        """Final states [B, T, D] of the last T tokens, whose states `hidden` enter a stage."""
        self.backbone.rows = self.rows
        past = self.seen.shape[1] - hidden.shape[1]
        order = torch.arange(self.seen.shape[1], device=hidden.device)
        causal = order[None, past:, None] >= order[None, None, :]
        text_visible, positions = causal & self.seen[:, None, :], self.seen_positions[:, past:]
        for index in range(stage, len(self.bounds)):
            upper = index == len(self.bounds) - 1
            masks, own = self._masks(positions, text_visible, self.memory if upper else None)
            self.entered = hidden
            hidden = self.backbone.run(*self.bounds[index], hidden, own, masks, self.caches[index])
        return hidden

    def repeat(self, rows: Tensor, memory: KVMemory | None) -> tuple[TextRun, Tensor]:
        """(run of the batch rows `rows` [B'] over `memory`, its final states [B', T, D]).

        The layers below the memory are not run again. The text must have been fed in one block, to
        a run that is split at the memory's layer, or that had a memory there.

        Raises:
            ValueError: the run is split elsewhere, or was fed in several blocks.
        """
        split, last = self.bounds[-1]
        run = TextRun(self.backbone, last, memory, len(rows), split)
        same = split > 0 and run.bounds == self.bounds
        if not same or self.entered.shape[1] != self.seen.shape[1]:
            raise ValueError("the run is not split where the memory enters, or was fed twice")
        for cache, own in zip(self.caches[:-1], run.caches, strict=False):
            own.load(*([one.index_select(0, rows) for one in kind] for kind in cache.pairs()))
        run.rows = self.rows.index_select(0, rows)
        run.seen = self.seen.index_select(0, rows)
        run.seen_positions = self.seen_positions.index_select(0, rows)
        states = self.entered.index_select(0, rows)
        return run, run._through(states, len(self.bounds) - 1)

    def _masks(
        self, positions: Tensor, visible: Tensor, memory: KVMemory | None
    ) -> tuple[Any, Tensor]:
        """(attention masks, positions of the new tokens) of one stage."""
        backbone = self.backbone
        if memory is None:
            masks = backbone.attention_masks(positions, self.seen_positions, visible)
            return masks, positions
        start = memory.start[:, None]
        batch, queries, _ = visible.shape
        open_slots = (memory.bias > -torch.inf)[:, None, :].expand(batch, queries, -1)
        bias = torch.cat([memory.bias, torch.zeros_like(self.seen, dtype=memory.bias.dtype)], 1)
        places = memory.positions
        if places is None:
            places = torch.full_like(memory.bias, -1, dtype=torch.long)
        masks = backbone.attention_masks(
            positions + start,
            torch.cat([places, self.seen_positions + start], 1),
            torch.cat([open_slots, visible], 2),
            bias.nan_to_num(neginf=torch.finfo(backbone.dtype).min),
        )
        return masks, positions + start

    def keep(self, mask: Tensor) -> None:
        """Of the tokens that were fed last, keeps those where `mask` [B, T] holds."""
        older = self.seen.shape[1] - mask.shape[1]
        self.seen = torch.cat([self.seen[:, :older], self.seen[:, older:] & mask], 1)

    def reorder(self, index: Tensor) -> None:
        """Keeps the batch rows `index` [B'], also of the memory; for beam search."""
        for cache in self.caches:
            cache.select(index)
        self.rows = self.rows.index_select(0, index)
        self.seen = self.seen.index_select(0, index)
        self.seen_positions = self.seen_positions.index_select(0, index)
        if self.memory is not None:
            self.memory = replace(
                self.memory,
                keys=(),
                values=(),
                bias=self.memory.bias.index_select(0, index),
                start=self.memory.start.index_select(0, index),
                positions=None
                if self.memory.positions is None
                else self.memory.positions.index_select(0, index),
            )


def log_likelihoods(
    backbone: Layers, ids: Tensor, hidden: Tensor, scored: Sequence[int]
) -> list[float]:
    """Log-likelihoods [B], in nats, of the last `scored` [B] tokens of each row.

    `ids` [B, T] are left-padded; `hidden` [B, T, D] are their final states.
    """
    last = ids.shape[1] - 1
    place = torch.arange(last, device=ids.device)
    wanted = place >= last - torch.tensor(scored, device=ids.device)[:, None]
    states, targets = hidden[:, :-1][wanted], ids[:, 1:][wanted]
    surprise = torch.zeros(len(targets), device=ids.device)
    for at in range(0, len(targets), _SCORED_AT_ONCE):
        part = slice(at, at + _SCORED_AT_ONCE)
        logits = backbone.logits(states[part]).float()
        surprise[part] = nn.functional.cross_entropy(logits, targets[part], reduction="none")
    found = torch.zeros(wanted.shape, device=ids.device).masked_scatter(wanted, -surprise)
    return [float(one) for one in found.sum(1)]
