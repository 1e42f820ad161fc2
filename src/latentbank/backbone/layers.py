"""A decoder-only model taken apart: its layers, norm and sizes, stages of it, and their masks.

Knows module names and configurations; knows no cache and no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.errors import InputError

FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""Names of the feed-forward part of a layer."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of a backbone. `width` is the residual stream's, `head_dim` one head's."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int

    def require_layer(self, layer: int, name: str = "layer") -> None:
        """Raises InputError, naming the setting, where there is no such layer."""
        if not 0 <= layer < self.layers:
            raise InputError(
                f"{name} must be below the backbone's {self.layers} layers, got {layer}"
            )


class _NoPositions(nn.Module):
    """Replaces the learned position embedding in a stage above layer 0, which added it already."""

    def forward(self, position_ids: Tensor) -> Tensor:
        """A zero, which changes no state."""
        return torch.zeros((), device=position_ids.device)


class Decoder:
    """The decoder layers of a model, `body` being the model without its vocabulary head.

    Raises:
        InputError: the body's layers or final norm cannot be found.
    """

    def __init__(self, body: Any, config: Any) -> None:
        self.body, self.config = body, config
        self.layers_name = _find_layers(body, config.num_hidden_layers)
        self.norm_name = _find_norm(body)
        heads = config.num_attention_heads
        self.geometry = Geometry(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
            max_positions=getattr(config, "max_position_embeddings", 1 << 30),
        )

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers, first one first."""
        return list(getattr(self.body, self.layers_name))

    @property
    def norm(self) -> nn.Module:
        """The norm after the last layer."""
        found: nn.Module = getattr(self.body, self.norm_name)
        return found

    def stage(self, first: int, last: int) -> Any:
        """Layers first … last-1 as a module that shares the model's weights.

        Only the stage that ends at the last layer has the final norm. Only the stage that starts at
        layer 0 has the learned position embedding (GPT-2).
        """
        part = copy.copy(self.body)
        part._modules = dict(self.body._modules)
        part._modules[self.layers_name] = nn.ModuleList(self.layers[first:last])
        part.config = copy.copy(self.config)
        part.config.num_hidden_layers = last - first
        if getattr(self.config, "layer_types", None):
            part.config.layer_types = list(self.config.layer_types)[first:last]
        if last < self.geometry.layers:
            part._modules[self.norm_name] = nn.Identity()
        if first > 0 and "wpe" in part._modules:
            part._modules["wpe"] = _NoPositions()
        part.training = False  # eval() would reach the shared layers and their dropout
        return part

    def attention_masks(
        self,
        q_positions: Tensor,
        k_positions: Tensor,
        visible: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> Any:
        """Additive float masks [B, 1, Q, K], one per kind of layer; see `Backbone`."""
        lowest = torch.finfo(dtype).min
        score = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        if bias is not None:
            score = score + bias.to(dtype).clamp_min(lowest)[:, None, :]
        full = score.masked_fill(~visible, lowest)[:, None]
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None) or []
        if not window or (kinds and "sliding_attention" not in kinds):
            return full
        near = (q_positions[:, :, None] - k_positions[:, None, :]) < window
        near = near | (k_positions < 0)[:, None, :]
        sliding = score.masked_fill(~(visible & near), lowest)[:, None]
        if not kinds:
            return sliding
        return {"full_attention": full, "sliding_attention": sliding}


def _find_layers(body: Any, count: int) -> str:
    for name, module in body.named_children():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return str(name)
    raise InputError(
        f"{type(body).__name__} has no list of {count} decoder layers; expected a decoder-only "
        "model such as Llama, Qwen, Gemma, Mistral or GPT-2"
    )


def _find_norm(body: Any) -> str:
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        if name in body._modules:
            return name
    raise InputError(
        f"{type(body).__name__} has no final norm under a known name; expected norm, ln_f, "
        "final_layer_norm or final_layernorm"
    )


def attention_modules(decoder: Decoder) -> list[nn.Module]:
    """The attention module of each layer, first layer first."""
    modules = []
    for layer in decoder.layers:
        names = [name for name in ("self_attn", "attn", "attention") if hasattr(layer, name)]
        if not names:
            raise InputError(
                f"{type(layer).__name__} has no attention module under a known name; "
                "expected self_attn, attn or attention"
            )
        modules.append(getattr(layer, names[0]))
    return modules


def feed_forward_modules(decoder: Decoder) -> list[nn.Module]:
    """The feed-forward part of each layer, first layer first.

    Raises:
        InputError: a layer has none under a known name.
    """
    modules = []
    for layer in decoder.layers:
        names = [name for name in FEED_FORWARD if hasattr(layer, name)]
        if not names:
            raise InputError(
                f"{type(layer).__name__} has no feed-forward part under a known name; expected "
                f"{', '.join(FEED_FORWARD[:-1])} or {FEED_FORWARD[-1]}, as in Llama, Qwen, Gemma, "
                "Mistral, Phi, GPT-2, GPT-NeoX and Mixtral"
            )
        modules.append(getattr(layer, names[0]))
    return modules


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights under their original names, without those that PEFT added."""
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            yield name.replace(".base_layer", ""), weight


def weight_sample(weight: Tensor) -> Tensor:
    """At most 64 values of a weight, spread evenly, for its fingerprint."""
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 64)][:64]
