"""Tiny random backbones and a byte-level tokenizer, made in code from one seed.

Weights are larger than a trained model's start, so that attention and memory change the answers.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5Model,
)

from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.method import Method
from latentbank.model import MemoryModel

NAMES = ("gpt2", "llama", "qwen3", "gemma3")
WIDTH, HEADS, KV_HEADS, POSITIONS, WINDOW = 32, 4, 2, 512, 8
SPECIAL = ("<pad>", "<s>", "</s>")

DOCUMENTS = (
    Document("Ada Lovelace wrote the first program in 1843.", source="a"),
    Document("The harbour of Oslo froze in the winter of 1924.", time="2024-01-01"),
    Document("Café Zürich serves 17 kinds of tea."),
    Document("Bees dance to tell the hive where the clover is."),
    Document("The comet returns every 76 years, next in 2061. It was seen in 1986."),
)
QUESTIONS = (
    "Who wrote the first program?",
    "When did the harbour of Oslo freeze?",
    "How many kinds of tea?",
    "What do bees tell?",
    "When will the comet return?",
)
ANSWERS = ("Ada Lovelace", "1924", "17", "where the clover is", "2061")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and three special ones: 259 in all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def model(name: str, layers: int = 3) -> PreTrainedModel:
    """A random causal LM of width 32 with 3 layers (Gemma-3: 4, two of them sliding)."""
    torch.manual_seed(0)
    common = {"vocab_size": 259, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama_like = {
        **common,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.2,
    }
    if name == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": layers, "n_head": HEADS, "n_positions": POSITIONS}
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(**common, **sizes, **dropout, initializer_range=0.2))
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**llama_like))
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**llama_like, head_dim=16))
    config = Gemma3TextConfig(
        **{**llama_like, "num_hidden_layers": 4},
        head_dim=16,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=16,
    )
    return Gemma3ForCausalLM(config)


def save_backbone(name: str, folder: Path) -> None:
    """Writes model and tokenizer as a folder that `load_backbone` takes."""
    made = model(name)
    made.generation_config.eos_token_id = 2
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_t5(folder: Path) -> None:
    """Writes a random T5 with the byte tokenizer."""
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=259, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    T5Model(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


class Backbones:
    """Loads each folder once; `fresh` gives a copy whose modules a test may wrap or change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._shared: dict[tuple[str, str], Backbone] = {}

    def folder(self, name: str) -> Path:
        folder = self.root / name
        if not folder.exists():
            save_backbone(name, folder)
        return folder

    def t5(self) -> Path:
        folder = self.root / "t5"
        if not folder.exists():
            save_t5(folder)
        return folder

    def shared(self, name: str, dtype: str = "float32") -> Backbone:
        """The same object for every test: nothing may be left changed on it."""
        if (name, dtype) not in self._shared:
            self._shared[name, dtype] = load_backbone(str(self.folder(name)), dtype=dtype)
        return self._shared[name, dtype]

    def fresh(self, name: str, dtype: str = "float32") -> Backbone:
        shared = self.shared(name, dtype)
        model, tokenizer = copy.deepcopy((shared.model, shared.tokenizer))
        return Backbone(model, tokenizer, shared.name)


def random_ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Token ids [B, T] without special ones."""
    return torch.randint(3, 259, (batch, length), generator=torch.Generator().manual_seed(seed))


def fresh_bank(method: Method) -> MemoryBank:
    """An empty bank in memory, bound to `method`."""
    return MemoryModel(method).bank
