"""The modules of a Llama decoder, with the names that transformers gives to its weights.

Knows tensors and sizes; knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.kv import GrowingCache
from latentbank.backbone.quick.ragged import RaggedCache

__all__ = ["QuickConfig", "QuickLlama"]


@dataclass
class QuickConfig:
    """Sizes of a Llama decoder, under the names of transformers' config."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool

    @property
    def model_type(self) -> str:
        """The kind of model, as transformers names it."""
        return "llama"

    @property
    def rope_parameters(self) -> dict[str, Any]:
        """Its rotary positions: plain ones."""
        return {"rope_type": "default", "rope_theta": self.rope_theta}

    def get_text_config(self, decoder: bool = True) -> QuickConfig:
        """Itself: there is nothing but text."""
        return self


class _Linear(nn.Linear):
    """A linear map without bias that skips random initialisation: its weights are loaded.

    Initialising on the meta device would import torch's compiler, which takes a second.
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, bias=False)

    def reset_parameters(self) -> None:
        """Does nothing."""


class _Embedding(nn.Embedding):
    """An embedding that skips random initialisation: its weights are loaded."""

    def reset_parameters(self) -> None:
        """Does nothing."""


class QuickLlama(nn.Module):
    """A Llama with its vocabulary head; its weights have transformers' names.

    `samples`: name → `weight_sample` of weights that are mapped into memory and not read yet.
    """

    def __init__(self, config: QuickConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = _Linear(config.hidden_size, config.vocab_size)
        self.samples: dict[str, Tensor] = {}

    @property
    def base_model(self) -> nn.Module:
        """The model without its vocabulary head."""
        return self.model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.lm_head.weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        """Token ids → states."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Final states → logits."""
        return self.lm_head


class _Body(nn.Module):
    """Embedding, layers and final norm."""

    frequencies: Tensor

    def __init__(self, config: QuickConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = _Norm(config)

    def set_frequencies(self, config: QuickConfig) -> None:
        """Sets the rotary frequencies [head_dim / 2], in float32 for every dtype of the weights."""
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        self.register_buffer("frequencies", 1.0 / (config.rope_theta**steps), persistent=False)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: GrowingCache | RaggedCache | None = None,
        use_cache: bool = False,
    ) -> SimpleNamespace:
        """States [B, T, D] after the layers as `last_hidden_state`.

        The mask is added to the scores; a `RaggedCache` has its own.
        """
        hidden = inputs_embeds
        angles = position_ids[..., None].float() * self.frequencies.to(hidden.device, torch.float)
        angles = torch.cat((angles, angles), -1)[:, None]  # (B, 1, T, head_dim)
        turn = angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, turn, attention_mask, past_key_values)
        return SimpleNamespace(last_hidden_state=self.norm(hidden))


class _Layer(nn.Module):
    """One decoder layer: attention and feed-forward part, each after a norm."""

    def __init__(self, config: QuickConfig, index: int) -> None:
        super().__init__()
        self.self_attn = _Attention(config, index)
        self.mlp = _Gated(config)
        self.input_layernorm = _Norm(config)
        self.post_attention_layernorm = _Norm(config)

    def forward(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: GrowingCache | RaggedCache | None,
    ) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), turn, mask, cache)
        read: Tensor = self.mlp(self.post_attention_layernorm(hidden))
        return hidden + read


class _Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: QuickConfig, index: int) -> None:
        super().__init__()
        self.index, self.head_dim = index, config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        width, own = config.hidden_size, config.num_attention_heads * config.head_dim
        shared = config.num_key_value_heads * config.head_dim
        self.q_proj = _Linear(width, own)
        self.k_proj = _Linear(width, shared)
        self.v_proj = _Linear(width, shared)
        self.o_proj = _Linear(own, width)

    def forward(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: GrowingCache | RaggedCache | None,
    ) -> Tensor:
        batch, length = hidden.shape[:2]
        shape = (batch, length, -1, self.head_dim)
        query, key, value = (
            one(hidden).view(shape).transpose(1, 2)
            for one in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = _rotated(query, *turn), _rotated(key, *turn)
        if isinstance(cache, RaggedCache):
            mixed = cache.attend(query, key, value, self.index, self.head_dim**-0.5)
            seen: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
            return seen
        if cache is not None:
            key, value = cache.update(key, value, self.index)
        reader = self.__dict__.get("knowledge")
        if reader is not None:  # see `KnowledgeMemory`
            mixed = reader(query, key, value, mask, self.head_dim**-0.5).transpose(1, 2)
            read: Tensor = self.o_proj(mixed.reshape(batch, length, -1))
            return read
        if length == 1:  # faster: the heads of a group become the queries of one head
            query = query.reshape(batch, -1, self.groups, self.head_dim)
        else:
            key, value = _repeated(key, self.groups), _repeated(value, self.groups)
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.head_dim**-0.5
        )
        mixed = mixed.reshape(batch, -1, length, self.head_dim).transpose(1, 2).contiguous()
        output: Tensor = self.o_proj(mixed.reshape(batch, length, -1))
        return output


class _Gated(nn.Module):
    """The feed-forward part: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: QuickConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = _Linear(width, inner)
        self.up_proj = _Linear(width, inner)
        self.down_proj = _Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        gated: Tensor = nn.functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        output: Tensor = self.down_proj(gated)
        return output


class _Norm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, config: QuickConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.epsilon = config.rms_norm_eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(hidden.dtype)


def _rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys [B, H, T, head_dim] with rotary positions."""
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


def _repeated(heads: Tensor, times: int) -> Tensor:
    """Keys or values [B, H_kv · times, M, head_dim]: each head repeated `times` times."""
    if times == 1:
        return heads
    batch, count, length, width = heads.shape
    wide = heads[:, :, None].expand(batch, count, times, length, width)
    return wide.reshape(batch, count * times, length, width)
