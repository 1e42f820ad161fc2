"""Memory inside the attention of chosen layers: keys without position, one softmax with the text.

The transport of KBLaM (Wang et al., 2025), section 3. Knows attention modules and tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports.replaced import replaced_attention

__all__ = ["SideMemory"]


@dataclass(frozen=True)
class SideMemory:
    """Keys and values that the text attends to in chosen layers, beside its own.

    `keys`, `values`: layer → [B, H_kv, M, head_dim]; `log_mass` [B, M] is added to the scores.
    `queries`: layer → a function from the states [B, T, D] that enter the attention to unrotated
    queries [B, H, T, head_dim], which attend to the memory only. A layer without such a function
    uses the queries of the text.

    Works with `model.generate` and gradient checkpointing. With beams a batch has several
    consecutive rows for each question; they share the question's memory.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    log_mass: Tensor
    queries: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Replaces the attention of the chosen layers for the length of the block.

        Raises InputError for a layer that the backbone does not have.
        """
        readers = {layer: _Reader(self, layer) for layer in self.keys}
        with replaced_attention(backbone, readers):
            yield backbone


class _Reader:
    """One layer's reading: the memory's keys and values stand before those of the text."""

    def __init__(self, memory: SideMemory, layer: int) -> None:
        self.memory = (memory.keys[layer], memory.values[layer], memory.log_mass)
        self.make = memory.queries.get(layer)
        self.asked: Tensor | None = None

    def hear(self, states: Tensor) -> None:
        """See `AttentionReader`."""
        self.asked = None if self.make is None else self.make(states)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """Attention over [memory | text] in one softmax; text masks as before."""
        return _over_both(module, self.memory, self.asked, (query, key, value), mask, kwargs)


def _over_both(
    module: nn.Module,
    memory: tuple[Tensor, Tensor, Tensor],
    own: Tensor | None,
    text: tuple[Tensor, Tensor, Tensor],
    attention_mask: Tensor | None,
    kwargs: dict[str, Any],
) -> Any:
    """Attention of the queries of `text` over [memory | text]; `own`: queries for the memory."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value = text
    mem_key, mem_value, log_mass = (item.to(query.device) for item in memory)
    batch, queries, slots = query.shape[0], query.shape[2], mem_key.shape[2]
    beams = batch // len(mem_key)
    if beams > 1:
        repeated = (item.repeat_interleave(beams, 0) for item in (mem_key, mem_value, log_mass))
        mem_key, mem_value, log_mass = repeated
    if attention_mask is None:
        order = torch.arange(key.shape[2], device=query.device)
        seen = order[None, :] <= order[-queries:, None]
        attention_mask = seen.expand(batch, 1, -1, -1)
    lowest = torch.finfo(query.dtype).min
    if attention_mask.dtype == torch.bool:
        attention_mask = query.new_zeros(attention_mask.shape).masked_fill(~attention_mask, lowest)
    mass = (
        log_mass.to(query.dtype)
        .clamp_min(lowest)[:, None, None, :]
        .expand(batch, 1, queries, slots)
    )
    mask = torch.cat([mass, attention_mask[..., : key.shape[2]].expand(batch, 1, -1, -1)], -1)
    mem_key, mem_value = mem_key.to(key.dtype), mem_value.to(value.dtype)
    if own is not None:  # [q | q̃] · [k | 0] = q·k and [q | q̃] · [0 | k̃] = q̃·k̃
        if kwargs.get("scaling") is None:
            kwargs["scaling"] = query.shape[-1] ** -0.5
        query = torch.cat([query, own.to(query.dtype)], -1)
        key = torch.cat([key, torch.zeros_like(key)], -1)
        mem_key = torch.cat([torch.zeros_like(mem_key), mem_key], -1)
    return sdpa_attention_forward(
        module,
        query,
        torch.cat([mem_key, key], 2),
        torch.cat([mem_value, value], 2),
        mask,
        **kwargs,
    )
