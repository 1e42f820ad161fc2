"""Converts a GGUF file of a Llama to the folder that transformers would write, in a few seconds.

Knows the names and layout of Llama's tensors in both formats; nothing about where models lie.
transformers' own conversion parses the file three times and takes about five times as long. A file
that is unusual in any way is left to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["convert_llama"]

_CONFIG = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
}
"""Fields `llama.NAME` of a GGUF and the names of the same values in a config; all are needed."""

_TOKENS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "unknown_token_id": "unk_token_id",
    "padding_token_id": "pad_token_id",
}

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_llama(gguf: Path, folder: Path) -> bool:
    """Write config, tokenizer and bfloat16 weights of `gguf` into `folder`.

    The files hold what `AutoModelForCausalLM` and `AutoTokenizer` of transformers would save.

    Returns:
        False, with nothing written, for a file that is not a plain Llama with a byte-level BPE.

    Raises:
        ValueError: the file is no GGUF.
    """
    reader = _read(gguf)
    config = _config(reader)
    names = None if config is None else _names(reader, config)
    if config is None or names is None:
        return False
    from safetensors.torch import save_file
    from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    try:
        weights = {names[one.name]: _weight(one, heads) for one in reader.tensors}
    except NotImplementedError:  # a quantization that the library does not decode
        return False
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    saved = LlamaConfig(**config, architectures=["LlamaForCausalLM"], dtype=torch.bfloat16)
    saved.save_pretrained(folder)
    GenerationConfig.from_model_config(saved).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    return True


def _read(gguf: Path) -> Any:
    """The file's fields and tensors, not decoded yet."""
    from gguf import GGUFReader

    class Reader(GGUFReader):
        """Slices a plain array: a slice of a memory map takes twice as long, and there are many."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return Reader(str(gguf))


def _config(reader: Any) -> dict[str, Any] | None:
    """Arguments of `LlamaConfig`, or None for a model of another kind."""
    values = {
        name: field.contents()
        for name, field in reader.fields.items()
        if name.startswith(("general.", "llama.")) or name in _token_fields()
    }
    shape = {name[6:]: value for name, value in values.items() if name.startswith("llama.")}
    name = str(values.get("general.name", ""))
    model = reader.fields.get("tokenizer.ggml.model")
    plain = values.get("general.architecture") == "llama" and set(shape) == set(_CONFIG)
    if not plain or "mistral" in name or model is None or model.contents() != "gpt2":
        return None
    config = {ours: shape[theirs] for theirs, ours in _CONFIG.items()}
    theta = config.pop("rope_theta")
    config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    for theirs, ours in _TOKENS.items():
        if f"tokenizer.ggml.{theirs}" in values:
            config[ours] = values[f"tokenizer.ggml.{theirs}"]
    config["_model_name_or_path"] = name
    config["tie_word_embeddings"] = all(one.name != "output.weight" for one in reader.tensors)
    return config


def _token_fields() -> set[str]:
    return {f"tokenizer.ggml.{name}" for name in _TOKENS}


def _names(reader: Any, config: dict[str, Any]) -> dict[str, str] | None:
    """Each tensor's name in a saved Llama; None if one is missing or one is unknown."""
    names = {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in _OUTER.items()}
    if config["tie_word_embeddings"]:
        del names["output.weight"]
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _IN_LAYER.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
    return names if {one.name for one in reader.tensors} == set(names) else None


def _weight(tensor: Any, heads: dict[str, int]) -> torch.Tensor:
    """A tensor of the file as bfloat16, in its shape and with its rows in Llama's order.

    llama.cpp stores the two halves of each query and key head interleaved, for its way of rotary
    positions; see `permute` in its convert_hf_to_gguf.py.
    """
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    kind = tensor.name.split(".")[-2]
    if kind in heads:
        rows, columns = values.shape
        halves = values.reshape(heads[kind], rows // heads[kind] // 2, 2, columns)
        values = halves.swapaxes(1, 2).reshape(rows, columns)
    return torch.from_numpy(values.copy()).to(torch.bfloat16).contiguous()
