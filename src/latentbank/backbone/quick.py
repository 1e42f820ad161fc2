"""A Llama decoder and its tokenizer without transformers: the same numbers after a quicker start.

Importing transformers' model code and loading SmolLM2 with it takes 4 to 5 s of processor time,
this about 0.5 s (scripts/measure_cold_start.py). Logits are equal bit for bit on a CPU. Knows a
folder that transformers saved; knows no memory. What it cannot read is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from latentbank.backbone.kv import GrowingCache

_PLAIN = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "quantization_config": None,
}
"""What a config.json must say, or leave out, for `QuickLlama` to be the same model."""


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

    @classmethod
    def read(cls, folder: Path) -> QuickConfig | None:
        """The config of a saved model, or None where `QuickLlama` is not the same model."""
        values = _json(folder / "config.json")
        rope = dict(values.get("rope_parameters") or {"rope_theta": values.get("rope_theta")})
        if rope.pop("rope_type", "default") != "default" or set(rope) != {"rope_theta"}:
            return None
        if any(name in values and values[name] != value for name, value in _PLAIN.items()):
            return None
        if "architectures" not in values or not rope["rope_theta"]:
            return None
        heads, width = values.get("num_attention_heads", 32), values.get("hidden_size", 4096)
        values.setdefault("num_key_value_heads", heads)
        values["head_dim"] = values.get("head_dim") or width // heads
        values.setdefault("tie_word_embeddings", False)
        values["rope_theta"] = rope["rope_theta"]
        names = cls.__dataclass_fields__
        if any(name not in values for name in names):
            return None
        return cls(**{name: values[name] for name in names})

    def get_text_config(self, decoder: bool = True) -> QuickConfig:
        """Itself: there is nothing but text."""
        return self


class QuickTokenizer:
    """A saved tokenizer with the few calls of transformers' tokenizers that latentbank needs.

    `kind` is the name of the class that transformers loads; a tokenizer's fingerprint holds it.
    """

    kind = "TokenizersBackend"

    def __init__(self, file: Path, start: str | None, end: str | None) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = [None if one is None else self._tokenizer.token_to_id(one) for one in (start, end)]
        self.bos_token_id, self.eos_token_id = ids

    @classmethod
    def read(cls, folder: Path) -> QuickTokenizer | None:
        """The tokenizer of a saved model, or None where transformers would do more with it."""
        values, file = _json(folder / "tokenizer_config.json"), folder / "tokenizer.json"
        tokens = [values.get(name) for name in ("bos_token", "eos_token")]
        plain = all(one is None or isinstance(one, str) for one in tokens)
        unusual = values.get("clean_up_tokenization_spaces") or "add_prefix_space" in values
        if values.get("tokenizer_class") != cls.kind or not plain or unusual or not file.exists():
            return None
        return cls(file, *tokens)

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, list[list[int]]]:
        """Token ids of texts, without special tokens, whatever the `options`."""
        rows = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return {"input_ids": [row.ids for row in rows]}

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of token ids. Spaces are never cleaned up."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def get_vocab(self) -> dict[str, int]:
        """Token → id, added tokens included."""
        found: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return found


def quick_model(folder: Path, dtype: torch.dtype) -> tuple[QuickLlama, QuickTokenizer] | None:
    """(model, tokenizer) of a saved model, or None where they have to come from transformers.

    Raises:
        OSError, ValueError: a file is damaged.
    """
    if not (folder / "model.safetensors").exists():  # in shards, or on the hub
        return None
    config, tokenizer = QuickConfig.read(folder), QuickTokenizer.read(folder)
    if config is None or tokenizer is None:
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(str(folder / "model.safetensors"))
    except SafetensorError as error:
        raise ValueError(f"model.safetensors is damaged: {error}") from error
    with torch.device("meta"):  # no memory, no random numbers
        model = QuickLlama(config)
    if config.tie_word_embeddings:
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    cast = {name: value.to(dtype) for name, value in weights.items() if "rotary" not in name}
    if config.tie_word_embeddings:
        cast["lm_head.weight"] = cast["model.embed_tokens.weight"]
    try:
        model.load_state_dict(cast, assign=True)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.model.set_frequencies(config)
    return model, tokenizer


class _Linear(nn.Linear):
    """A linear map without bias, whose weights are loaded and not drawn.

    Drawing them on the meta device would import torch's compiler, which takes a second.
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, bias=False)

    def reset_parameters(self) -> None:
        """Nothing."""


class _Embedding(nn.Embedding):
    """An embedding whose weights are loaded and not drawn."""

    def reset_parameters(self) -> None:
        """Nothing."""


class QuickLlama(nn.Module):
    """A Llama with its vocabulary head; the names of its weights are transformers' names."""

    def __init__(self, config: QuickConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = _Linear(config.hidden_size, config.vocab_size)

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
        """Makes the angles per position [head_dim / 2], in float32 whatever the weights are."""
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        self.register_buffer("frequencies", 1.0 / (config.rope_theta**steps), persistent=False)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: GrowingCache | None = None,
        use_cache: bool = False,
    ) -> SimpleNamespace:
        """States [B, T, D] after the layers as `last_hidden_state`; masks are added to scores."""
        hidden = inputs_embeds
        angles = position_ids[..., None].float() * self.frequencies.to(hidden.device, torch.float)
        angles = torch.cat((angles, angles), -1)[:, None]  # (B, 1, T, head_dim)
        turn = angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, turn, attention_mask, past_key_values)
        return SimpleNamespace(last_hidden_state=self.norm(hidden))


class _Layer(nn.Module):
    def __init__(self, config: QuickConfig, index: int) -> None:
        super().__init__()
        self.self_attn = _Attention(config, index)
        self.mlp = _Gated(config)
        self.input_layernorm = _Norm(config)
        self.post_attention_layernorm = _Norm(config)

    def forward(
        self, hidden: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: GrowingCache | None
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
        self, hidden: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: GrowingCache | None
    ) -> Tensor:
        batch, length = hidden.shape[:2]
        shape = (batch, length, -1, self.head_dim)
        query, key, value = (
            one(hidden).view(shape).transpose(1, 2)
            for one in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = _rotated(query, *turn), _rotated(key, *turn)
        if cache is not None:
            key, value = cache.update(key, value, self.index)
        if length == 1:  # the groups of a single query read their key as rows of one query
            query = query.reshape(batch, -1, self.groups, self.head_dim)
        else:
            key, value = _repeated(key, self.groups), _repeated(value, self.groups)
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.head_dim**-0.5
        )
        found = found.reshape(batch, -1, length, self.head_dim).transpose(1, 2).contiguous()
        output: Tensor = self.o_proj(found.reshape(batch, length, -1))
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
    """Queries or keys [B, H, T, head_dim] turned by their position."""
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


def _repeated(heads: Tensor, times: int) -> Tensor:
    """Keys or values [B, H_kv, M, head_dim], each head `times` times."""
    if times == 1:
        return heads
    batch, count, length, width = heads.shape
    wide = heads[:, :, None].expand(batch, count, times, length, width)
    return wide.reshape(batch, count * times, length, width)


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file.

    Raises ValueError where it holds something else.
    """
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return found
