"""Rectangular attention: the text attends to a knowledge base and to itself in one softmax.

The knowledge base asks nothing and has no positions. Every row of a batch reads the same slots, so
keys and values have no batch dimension. The transport of KBLaM (Wang et al., 2025), section 4.
Knows attention modules and tensors; knows no triples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports.replaced import replaced_attention

__all__ = ["KnowledgeLayer", "KnowledgeMemory", "knowledge_attention"]

_SCORES = 1 << 24  # scores that are held at a time where no gradient is needed


@dataclass(frozen=True)
class KnowledgeLayer:
    """What one layer reads: M rows (triples), each with slots, S slots in all.

    - `row_keys` [G, M, a]: keys of the rows; G groups of query heads.
    - `slot_keys` [G, S, b] or None: further keys of the slots. A slot's score is that of its row
      plus its own.
    - `values` [S, H, head_dim]: what a head takes from a slot.
    - `queries`: states [B, T, D] that enter the attention → ([B, T, G, a], [B, T, G, b] or None).
      They have no position.
    - `bias` [G, M]: added to the scores of the rows. `head_bias` [H]: added to what a head scores.
    """

    row_keys: Tensor
    slot_keys: Tensor | None
    values: Tensor
    queries: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    bias: Tensor
    head_bias: Tensor


class Watch(Protocol):
    """Hears of the scores of a portion of a pass."""

    def __call__(
        self, layer: int, scores: Tensor, real: Tensor | None, start: int, rows: int
    ) -> None:
        """`scores` [B, T, G, S] after all biases, of the rows from `start` of the batch's `rows`.

        `real` [B, T] bool says which tokens are no padding; None: all.
        """


@dataclass
class KnowledgeMemory:
    """Slots that the text attends to in chosen layers, beside itself.

    `layers`: layer → what it reads. `owner` [S] is the row of each slot. `only` [B, M] bool keeps a
    question to some rows; with beams a question's consecutive rows share it. Each query reads the
    slots of its `top_k` best rows, 0 means all, and always those of the last `always` rows.

    `anchor` is the share of the rows' scores of an answer's tokens that comes from the last token
    of the prompt: with 1 the triple is chosen there and its slots token by token. `anchors` [B] are
    the places of these tokens where a pass has the answer, too. Without it the first pass is the
    prompt, padded left.
    A memory with an anchor serves one run. `watch` hears of the scores at each pass.

    Works with transformers' models and with a `QuickLlama`. PyTorch computes while it is attached.
    """

    layers: Mapping[int, KnowledgeLayer]
    owner: Tensor
    top_k: int = 0
    always: int = 0
    only: Tensor | None = None
    anchor: float = 0.0
    anchors: Tensor | None = None
    watch: Watch | None = None
    found: dict[int, Tensor] = field(default_factory=dict, repr=False)
    prompted: set[int] = field(default_factory=set, repr=False)

    @property
    def layer(self) -> int:
        """Below this layer nothing changes."""
        return min(self.layers, default=0)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Changes the attention of the chosen layers for the length of the block.

        Raises InputError for a layer that the backbone does not have.
        """
        readers = {layer: _Reader(self, layer) for layer in self.layers}
        with replaced_attention(backbone, readers):
            yield backbone


class _Reader:
    """One layer's reading; an attention module calls it in place of its own product."""

    def __init__(self, memory: KnowledgeMemory, layer: int) -> None:
        self.memory, self.layer = memory, layer
        self.states: Tensor

    def hear(self, states: Tensor) -> None:
        """See `AttentionReader`."""
        self.states = states

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """See `AttentionReader`."""
        scale = kwargs.get("scaling")
        mixed = self(query, key, value, mask, query.shape[-1] ** -0.5 if scale is None else scale)
        return mixed.transpose(1, 2).contiguous(), None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        """Mixed values [B, H, T, head_dim]; `mask` [B, 1, T, K] is added to the text's scores.

        `key` and `value` [B, H_kv, K, head_dim].
        """
        heads, groups = query.shape[1], query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(2, 3) * scale
        if mask is None:
            order = torch.arange(key.shape[2], device=query.device)
            late = order[None, :] > order[-query.shape[2] :, None]
            scores = scores.masked_fill(late, torch.finfo(scores.dtype).min)
        elif mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask[..., : key.shape[2]], torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask[..., : key.shape[2]]
        scores = scores.float()
        text_mass = scores.logsumexp(-1)  # (B, H, T)
        text = torch.exp(scores - text_mass[..., None]).to(value.dtype) @ value
        read, mass = knowledge_attention(self.memory, self.layer, self.states, _real(mask), heads)
        share = torch.sigmoid(mass.transpose(1, 2) - text_mass)[..., None].to(value.dtype)
        return (1 - share) * text + share * read.transpose(1, 2).to(value.dtype)


def _real(mask: Tensor | None) -> Tensor | None:
    """Which of the T new tokens [B, T] are no padding: they see themselves."""
    if mask is None:
        return None
    new = mask[:, 0, :, -mask.shape[2] :].diagonal(dim1=1, dim2=2)
    return new if new.dtype == torch.bool else new > torch.finfo(new.dtype).min / 2


def knowledge_attention(
    memory: KnowledgeMemory, layer: int, states: Tensor, real: Tensor | None, heads: int
) -> tuple[Tensor, Tensor]:
    """(what each head reads [B, T, H, head_dim], log of its total weight [B, T, H]).

    `states` [B, T, D]. Where no gradient is needed the tokens are taken in portions, so that the
    memory does not grow with the product of tokens and slots.
    """
    slots = len(memory.owner)
    portion = states.shape[0]
    if not torch.is_grad_enabled():
        groups = memory.layers[layer].row_keys.shape[0]
        portion = max(1, _SCORES // max(1, slots * states.shape[1] * groups))
    reads, masses = [], []
    for at in range(0, states.shape[0], portion):
        part = slice(at, at + portion)
        scores = _scores(memory, layer, states[part], part, states.shape[0])
        if memory.watch is not None:
            seen = None if real is None else real[part]
            memory.watch(layer, scores, seen, at, states.shape[0])
        read, mass = _mixed(memory.layers[layer], scores, heads)
        reads.append(read)
        masses.append(mass)
    memory.prompted.add(layer)
    return torch.cat(reads), torch.cat(masses)


def _scores(memory: KnowledgeMemory, layer: int, states: Tensor, part: slice, total: int) -> Tensor:
    """Scores [B, T, G, S] of the slots, -inf for those that a query does not read.

    `states` [B, T, D] are the part `part` of the `total` rows of the batch.
    """
    own, owner = memory.layers[layer], memory.owner
    row_query, slot_query = own.queries(states)
    rows = torch.einsum("btge,gme->btgm", row_query, own.row_keys).float() + own.bias.float()
    if memory.anchor:
        rows = _anchored(memory, layer, rows, part, total)
    if memory.only is not None:
        allowed = memory.only.repeat_interleave(total // len(memory.only), 0)[part]
        rows = rows.masked_fill(~allowed[:, None, None, :], -torch.inf)
    chosen = rows.shape[-1] - memory.always
    if 0 < memory.top_k < chosen:
        least = rows[..., :chosen].topk(memory.top_k, dim=-1).values[..., -1:]
        left_out = rows < least
        left_out[..., chosen:] = False
        rows = rows.masked_fill(left_out, -torch.inf)
    scores = rows[..., owner]
    if slot_query is not None and own.slot_keys is not None:
        scores = scores + torch.einsum("btge,gse->btgs", slot_query, own.slot_keys).float()
    return scores


def _anchored(memory: KnowledgeMemory, layer: int, rows: Tensor, part: slice, total: int) -> Tensor:
    """Scores [B, T, G, M] of the rows mixed with those of the prompt's last token behind it.

    `rows` are the part `part` of the `total` rows of the batch.
    """
    if memory.anchors is not None:
        places = memory.anchors[part]
        found = rows[torch.arange(len(rows)), places][:, None]
        later = torch.arange(rows.shape[1], device=rows.device) > places[:, None]
        return torch.where(later[..., None, None], rows.lerp(found, memory.anchor), rows)
    if layer not in memory.prompted:
        found = rows[:, -1]
        memory.found[layer] = torch.cat([memory.found[layer], found]) if part.start else found
        return rows
    held = memory.found[layer]
    held = held.repeat_interleave(total // len(held), 0)[part]
    return rows.lerp(held[:, None], memory.anchor)


def _mixed(own: KnowledgeLayer, scores: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """What H heads read under `scores` [B, T, G, S], and the log of their weight [B, T, H]."""
    mass = scores.logsumexp(-1)
    weights = torch.exp(scores - mass[..., None].clamp_min(torch.finfo(torch.float32).min))
    weights = weights.to(own.values.dtype)
    groups = scores.shape[2]
    values = own.values.reshape(-1, groups, heads // groups, own.values.shape[-1])  # (S, G, H/G, d)
    read = torch.einsum("btgs,sghd->btghd", weights, values).flatten(2, 3)
    return read, mass.repeat_interleave(heads // groups, -1) + own.head_bias.float()
