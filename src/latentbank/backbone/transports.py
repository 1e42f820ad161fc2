"""How a memory speaks to the backbone: transports that attach for the length of a `with` block.

Knows tensors and the backbone's entrances, not the methods that fill them. After the block the
backbone's logits are bit-identical to before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

SIDE_ATTENTION = "latentbank_side_memory"
_lora_names = itertools.count()


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


def attention_modules(backbone: Backbone) -> list[nn.Module]:
    """The attention module of each layer, first layer first."""
    modules = []
    for layer in backbone.decoder.layers:
        names = [name for name in ("self_attn", "attn", "attention") if hasattr(layer, name)]
        if not names:
            raise InputError(
                f"{type(layer).__name__} has no attention module that latentbank knows"
            )
        modules.append(getattr(layer, names[0]))
    return modules


_PROJECTIONS = {
    "kv": ("k_proj", "v_proj", "c_attn"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "c_proj"),
}


def _inject(config: LoraConfig, model: Any, name: str) -> None:
    """Wraps the projections and leaves no other trace on the model.

    PEFT keeps its list of configs on the model and warns of several adapters when it finds one;
    here each adapter has its own switch, so the list is put aside, or back if it was a caller's.
    """
    before = vars(model).pop("peft_config", None)
    try:
        inject_adapter_in_model(config, model, name)
    finally:
        vars(model).pop("peft_config", None)
        if before is not None:
            model.peft_config = before


class LoraWeights:
    """Low-rank updates (PEFT) of the attention projections of the layers from `layer` upward.

    `targets`: `kv` (MBC's KV-LoRA: key and value projections only) or `attention` (all four). GPT-2
    fuses query, key and value in one projection, which `kv` then covers whole. Switched off outside
    `attach`, where the wrapped projections compute exactly what the bare ones did.
    """

    def __init__(
        self,
        backbone: Backbone,
        layer: int,
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.0,
        targets: str = "attention",
    ) -> None:
        if targets not in _PROJECTIONS:
            raise InputError(f"targets must be one of {sorted(_PROJECTIONS)}, got {targets!r}")
        self.name, self.layer = f"memory{next(_lora_names)}", layer
        attention = attention_modules(backbone)[layer:]
        paths = {id(module): path for path, module in backbone.model.named_modules()}
        names = [
            f"{paths[id(module)]}.{projection}"
            for module in attention
            for projection in _PROJECTIONS[targets]
            if hasattr(module, projection)
        ]
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=names,
            fan_in_fan_out=hasattr(attention[0], "c_attn"),
        )
        needed = {id(p): p.requires_grad for p in backbone.model.parameters()}
        _inject(config, backbone.model, self.name)
        wrapped = dict(backbone.model.named_modules())
        self.modules: dict[str, Any] = {name: wrapped[name] for name in names}
        for parameter in backbone.model.parameters():
            parameter.requires_grad_(needed.get(id(parameter), True))
        self.parameters = {
            f"{path}.{kind}": getattr(module, kind)[self.name].weight
            for path, module in self.modules.items()
            for kind in ("lora_A", "lora_B")
        }
        assert not any(id(p) in needed for p in self.parameters.values())
        self._switch(False)

    def _switch(self, on: bool) -> None:
        # PEFT's own switches also freeze and unfreeze every matrix: slow, and wrong for an
        # optimiser or a data-parallel wrapper that is made meanwhile
        for module in self.modules.values():
            if on:
                module._active_adapter = [self.name]
            module._disable_adapters = not on

    def train(self, mode: bool = True) -> None:
        """Dropout on or off; the backbone itself stays in eval mode."""
        for module in self.modules.values():
            module.lora_dropout[self.name].train(mode)

    @contextmanager
    def attach(self, backbone: Backbone) -> Iterator[Backbone]:
        self._switch(True)
        try:
            yield backbone
        finally:
            self._switch(False)

    def state(self) -> dict[str, Tensor]:
        """Name → tensor of every low-rank matrix."""
        return {name: value.detach() for name, value in self.parameters.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises InputError when names or shapes differ."""
        for name, parameter in self.parameters.items():
            if name not in state or state[name].shape != parameter.shape:
                raise InputError(
                    f"the adapter holds no low-rank matrix {name} of {parameter.shape}"
                )
            with torch.no_grad():
                parameter.copy_(state[name])


def prompt_ids(
    backbone: Backbone, questions: Sequence[str], passages: Sequence[str] | None = None
) -> list[list[int]]:
    """Token ids of `[start] passage ¶ Question: … Answer:`, the passage only where there is one."""
    asked = backbone.encode([f"Question: {q.strip()}\nAnswer:" for q in questions], start=False)
    heads = passage_ids(backbone, passages) if passages else [[backbone.start_id]] * len(asked)
    return [[*head, *ask] for head, ask in zip(heads, asked, strict=True)]


def passage_ids(backbone: Backbone, passages: Sequence[str]) -> list[list[int]]:
    """Token ids of the passages as they stand before a question, start token included."""
    return backbone.encode([f"{passage}\n\n" if passage else "" for passage in passages])


def answer_ids(backbone: Backbone, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of the answers to learn, end token included."""
    return [
        [*row, backbone.end_id] for row in backbone.encode([f" {a}" for a in answers], start=False)
    ]
