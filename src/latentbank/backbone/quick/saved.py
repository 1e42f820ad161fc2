"""Reads a saved model for a quick start: config, tokenizer and weights.

Returns None for a model that it cannot read exactly; transformers loads those. Knows the files that
transformers writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latentbank.backbone.layers import weight_sample
from latentbank.backbone.quick.llama import QuickConfig, QuickLlama

__all__ = ["QuickTokenizer", "quick_model", "read_config"]

_PLAIN = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "quantization_config": None,
}
"""Values that a config.json must have, or leave out, for `QuickLlama` to be the same model."""


class QuickTokenizer:
    """A saved tokenizer with the few calls of transformers' tokenizers that latentbank needs.

    `kind` is the name of the class that transformers loads; a tokenizer's fingerprint holds it.
    """

    kind = "TokenizersBackend"

    def __init__(
        self, file: Path, start: str | None, end: str | None, chat_template: str = ""
    ) -> None:
        from tokenizers import Tokenizer

        self.bos_token, self.eos_token, self.chat_template = start, end, chat_template

        self._tokenizer: Any = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = [None if one is None else self._tokenizer.token_to_id(one) for one in (start, end)]
        self.bos_token_id, self.eos_token_id = ids

    @classmethod
    def read(cls, folder: Path) -> QuickTokenizer | None:
        """The tokenizer of a saved model, or None for a kind that needs transformers."""
        values, file = _json(folder / "tokenizer_config.json"), folder / "tokenizer.json"
        tokens = [values.get(name) for name in ("bos_token", "eos_token")]
        plain = all(one is None or isinstance(one, str) for one in tokens)
        unusual = values.get("clean_up_tokenization_spaces") or "add_prefix_space" in values
        if values.get("tokenizer_class") != cls.kind or not plain or unusual or not file.exists():
            return None
        chat = folder / "chat_template.jinja"
        start, end = tokens
        return cls(file, start, end, chat.read_text("utf-8") if chat.exists() else "")

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, list[list[int]]]:
        """Token ids of texts, without special tokens, whatever the `options`."""
        rows = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
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
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary


def read_config(folder: Path) -> QuickConfig | None:
    """The config of a saved model, or None where `QuickLlama` would compute something else."""
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
    names = QuickConfig.__dataclass_fields__
    if any(name not in values for name in names):
        return None
    return QuickConfig(**{name: values[name] for name in names})


def quick_model(
    folder: Path, dtype: torch.dtype | None
) -> tuple[QuickLlama, QuickTokenizer] | None:
    """(model, tokenizer) of a saved model, or None where they must come from transformers.

    Weights of `dtype`, or of the file's where that is None, are mapped into memory, not copied.

    Raises:
        OSError, ValueError: a file is damaged.
    """
    if not (folder / "model.safetensors").exists():  # in shards, or on the hub
        return None
    config, tokenizer = read_config(folder), QuickTokenizer.read(folder)
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
    if dtype is None:
        dtype = weights["model.embed_tokens.weight"].dtype
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
    model.samples = _samples(folder / "model.safetensors")
    return model, tokenizer


def _samples(file: Path) -> dict[str, torch.Tensor]:
    """Name → `weight_sample` of each weight.

    From a mapping of its own: sampling touches nearly every page, and those of the model's mapping
    would stay in memory, where an engine has its own copy of the weights.
    """
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as weights:
        return {name: weight_sample(weights.get_tensor(name)).clone() for name in weights.keys()}  # noqa: SIM118


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file.

    Raises ValueError for any other content.
    """
    if not file.exists():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return values
