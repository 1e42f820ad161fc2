"""How a memory speaks to the backbone: transports that attach for the length of a `with` block.

Knows tensors and the backbone's entrances, not the methods that fill them. After the block the
backbone's logits are bit-identical to before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.layers import attention_modules, plain_weights
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

SIDE_ATTENTION = "latentbank_side_memory"


class Transport(Protocol):
    """One way in. `attach` is a context manager that changes the backbone and restores it."""

    def attach(self, backbone: Backbone) -> Any: ...


@dataclass(frozen=True)
class Conditioning:
    """What a method's `read` returns for a batch of B questions.

    `transports` are attached in order. `passages` [B] stand in the prompt before the question, None
    for no text. `sources` [B] name the documents read, most important first, weights in [0, 1].
    `contrast` α > 0 asks for memory-aware decoding: logits (1 + α)·ℓ(memory) − α·ℓ(no memory).
    `support` [B] in [0, 1] says how well what was selected fits the question, empty where a method
    cannot tell; an answer is as much less sure. `quotable` [B] is the text of what the transports
    bring, where it is at hand: an answer that quotes it, or a passage, is found in fewer steps.
    """

    transports: tuple[Transport, ...] = ()
    passages: tuple[str, ...] | None = None
    sources: tuple[tuple[tuple[str, float], ...], ...] = ()
    contrast: float = 0.0
    support: tuple[float, ...] = ()
    quotable: tuple[str, ...] = ()

    @property
    def layer(self) -> int:
        """Below this layer the backbone computes what it does without the transports."""
        return min((getattr(one, "layer", 0) for one in self.transports), default=0)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        """Attaches every transport; detaches all of them on exit, whatever happens."""
        with ExitStack() as stack:
            for transport in self.transports:
                stack.enter_context(transport.attach(backbone))
            yield backbone


@dataclass(frozen=True)
class KVPrefix:
    """Keys and values that the text attends to as if they were tokens before it."""

    memory: KVMemory

    @property
    def layer(self) -> int:
        return self.memory.layer

    def attach(self, backbone: Backbone) -> Any:
        return backbone.with_memory(self.memory)


@dataclass(frozen=True)
class MidStates:
    """States [B, M, D] that enter the residual stream at `layer`; the layers above read them with
    their own projections. `mask` [B, M] bool; `bias` [B, M] log mass or None.
    """

    states: Tensor
    mask: Tensor
    layer: int
    bias: Tensor | None = None

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        memory = backbone.fill(self.states, self.mask, self.layer, self.bias)
        with backbone.with_memory(memory):
            yield backbone


@dataclass(frozen=True)
class SideMemory:
    """Memory inside the attention function of chosen layers: keys without position (KBLaM).

    `keys`, `values`: layer → [B, H_kv, M, head_dim]; `log_mass` [B, M] is added to the scores.
    Works with `model.generate`, beams repeated by the caller, and gradient checkpointing.
    """

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    log_mass: Tensor

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(SIDE_ATTENTION, _side_attention)
        AttentionMaskInterface.register(SIDE_ATTENTION, sdpa_mask)
        modules = attention_modules(backbone)
        unknown_layers = [layer for layer in self.keys if not 0 <= layer < len(modules)]
        if unknown_layers:
            raise InputError(
                f"layers {unknown_layers} are outside the {len(modules)} of the backbone"
            )
        before = backbone.model.config._attn_implementation
        backbone.model.set_attn_implementation(SIDE_ATTENTION)
        try:
            for layer, key in self.keys.items():
                modules[layer].__dict__["_side_memory"] = (key, self.values[layer], self.log_mass)
            yield backbone
        finally:
            for layer in self.keys:
                modules[layer].__dict__.pop("_side_memory", None)
            backbone.model.set_attn_implementation(before)


def _side_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> Any:
    """Scaled dot-product attention over [memory | text] in one softmax; text masks as before."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    memory = module.__dict__.get("_side_memory")
    if memory is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    mem_key, mem_value, log_mass = (item.to(query.device) for item in memory)
    batch, queries, slots = query.shape[0], query.shape[2], mem_key.shape[2]
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
    return sdpa_attention_forward(
        module,
        query,
        torch.cat([mem_key.to(key.dtype), key], 2),
        torch.cat([mem_value.to(value.dtype), value], 2),
        mask,
        **kwargs,
    )


@dataclass(frozen=True)
class WeightDelta:
    """Differences added to named weights; the originals are put back, bit for bit."""

    deltas: Mapping[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        weights = dict(plain_weights(backbone.model))
        missing = [name for name in self.deltas if name not in weights]
        if missing:
            raise InputError(f"the backbone has no weight named {missing[0]!r}")
        before = {name: weights[name].detach().clone() for name in self.deltas}
        try:
            with torch.no_grad():
                for name, delta in self.deltas.items():
                    weights[name].add_(delta.to(weights[name]))
            yield backbone
        finally:
            with torch.no_grad():
                for name, original in before.items():
                    weights[name].copy_(original)
