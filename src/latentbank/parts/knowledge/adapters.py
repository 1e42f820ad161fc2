"""The trained maps of one layer: from features of triples to keys and values, states to queries.

Knows tensors; knows no text, bank or backbone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentbank.backbone.transports import KnowledgeLayer
from latentbank.parts.knowledge.features import Features

__all__ = ["KnowledgeAdapter", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """`features` of a key, `held` by a slot, `width` of the backbone, `groups` of query heads.

    `key` and `slot` are the widths of the two kinds of keys; `slot` is 0 for one slot a triple.
    """

    features: int
    held: int
    width: int
    heads: int
    head_dim: int
    groups: int
    key: int
    slot: int
    slots: int


class KnowledgeAdapter(nn.Module):
    """Keys, values and queries of one layer (equations 5 to 7 of the paper).

    A key is normalised without affine parameters. With `unit_queries` a query is, too: the score is
    its cosine with the key times a trained scale. Without, it is the scaled product.
    """

    def __init__(self, sizes: Sizes, unit_queries: bool, null: bool) -> None:
        super().__init__()
        self.sizes, self.unit_queries, self.null = sizes, unit_queries, null
        groups = sizes.groups
        self.keys = nn.Linear(sizes.features, groups * sizes.key)
        self.queries = nn.Linear(sizes.width, groups * sizes.key)
        self.values = nn.Linear(sizes.held, sizes.heads * sizes.head_dim, bias=False)
        self.offset = nn.Parameter(torch.zeros(groups))
        self.head_bias = nn.Parameter(torch.zeros(sizes.heads))
        if unit_queries:
            self.scale = nn.Parameter(torch.full((groups,), float(sizes.key) ** 0.5))
        if sizes.slot:
            self.slot_keys = nn.Linear(2 * sizes.width, groups * sizes.slot)
            self.slot_queries = nn.Linear(sizes.width, groups * sizes.slot)
            self.slot_places = nn.Parameter(torch.zeros(sizes.slots, groups * sizes.slot))
            self.slot_scale = nn.Parameter(torch.full((groups,), float(sizes.slot) ** 0.5))
        if null:
            self.null_score = nn.Parameter(torch.zeros(groups))

    def layer(
        self,
        features: Features,
        shift: float,
        device: torch.device,
        null: bool = False,
        null_shift: float = 0.0,
    ) -> KnowledgeLayer:
        """What this layer reads of some triples.

        `shift` is log C − log M, added to the scores of the triples. With `null` the last triple is
        what is read where no triple answers. It has no key; its score is a number of its own, to
        which `null_shift` is added.
        """
        sizes, groups = self.sizes, self.sizes.groups
        keys = _heads(self.keys(features.keys.to(device).float()), groups, sizes.key)
        row_keys = nn.functional.layer_norm(keys, (sizes.key,)).transpose(0, 1)
        values = _linear(self.values, features.values.to(device))
        values = _heads(values, sizes.heads, sizes.head_dim)
        bias = (self.offset + shift)[:, None].expand(groups, len(features))
        if null:
            row_keys = nn.functional.pad(row_keys[:, :-1], (0, 0, 0, 1))
            bias = torch.cat([bias[:, :-1], self.null_score[:, None] + null_shift], 1)
        slot_keys = self.slot_keys_of(features, device) if sizes.slot else None
        return KnowledgeLayer(row_keys, slot_keys, values, self.ask, bias, self.head_bias)

    def slot_keys_of(self, features: Features, device: torch.device) -> Tensor:
        """Keys [G, S, b] of the slots within their triples."""
        sizes = self.sizes
        found = _linear(self.slot_keys, features.before.to(device))
        found = found + self.slot_places[features.place.to(device)].to(found.dtype)
        found = _heads(found, sizes.groups, sizes.slot)
        return nn.functional.layer_norm(found, (sizes.slot,)).transpose(0, 1)

    def ask(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries for rows and for slots from the states [B, T, D] that enter the attention."""
        sizes = self.sizes
        exact = states.float()  # the scores of rows are large: bfloat16 would blur their order
        rows = _heads(self.queries(exact), sizes.groups, sizes.key)
        if self.unit_queries:
            rows = _direction(rows) * (self.scale / sizes.key**0.5)[:, None]
        else:
            rows = rows * sizes.key**-0.5
        if not sizes.slot:
            return rows, None
        slots = _heads(_linear(self.slot_queries, states), sizes.groups, sizes.slot)
        scale = (self.slot_scale / sizes.slot**0.5)[:, None].to(slots.dtype)
        return rows, _direction(slots) * scale


def _direction(vectors: Tensor) -> Tensor:
    """Unit vectors; with a key of norm √n its product is √n times the cosine."""
    return nn.functional.normalize(vectors.float(), dim=-1).to(vectors.dtype)


def _heads(x: Tensor, count: int, width: int) -> Tensor:
    """[..., count · width] as [..., count, width]."""
    return x.reshape(*x.shape[:-1], count, width)


def _linear(map: nn.Linear, x: Tensor) -> Tensor:
    """The map in the dtype of `x`: bfloat16 states meet float32 weights."""
    bias = None if map.bias is None else map.bias.to(x.dtype)
    return nn.functional.linear(x, map.weight.to(x.dtype), bias)
