"""A small causal language model with a neural memory, in the form of Hugging Face.

`generate`, `save_pretrained` and `from_pretrained` work as usual. The state is a `Stream`, whose
size does not grow with the text. Training sets the outer parameters by the usual loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from latentbank.errors import InputError
from latentbank.parts.memory_lm.attention import WindowAttention
from latentbank.parts.memory_lm.config import MemoryLMConfig
from latentbank.parts.memory_lm.mixers import MIXERS, DeltaMixer
from latentbank.parts.memory_lm.stream import Carried, Stream
from latentbank.parts.neural_memory import NeuralMemory, State


class Block(nn.Module):
    """Mixer and feed-forward layer with residuals; MAL has attention between them."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        width = config.width
        self.mixer_norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = MIXERS[config.architecture](config)
        layered = config.architecture == "MAL"
        self.attention = WindowAttention(config) if layered else None
        self.attention_norm = nn.RMSNorm(width, eps=1e-5) if layered else None
        self.ffn_norm = nn.RMSNorm(width, eps=1e-5)
        self.ffn_in = nn.Linear(width, 2 * config.ffn, bias=False)
        self.ffn_out = nn.Linear(config.ffn, width, bias=False)

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """(x after the block [B, T, D], state)."""
        mixed, carried = self.mixer(self.mixer_norm(x), past)
        x = x + mixed
        if self.attention is not None and self.attention_norm is not None:
            seen, more = self.attention(self.attention_norm(x), past)
            x, carried = x + seen, {**carried, **more}
        gate, value = self.ffn_in(self.ffn_norm(x)).chunk(2, -1)
        return x + self.ffn_out(nn.functional.silu(gate) * value), carried


class MemoryLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A causal language model; `config.architecture` says how tokens are mixed."""

    config_class = MemoryLMConfig
    main_input_name = "input_ids"
    base_model_prefix = "model"
    _is_stateful = True
    _tied_weights_keys = {  # noqa: RUF012
        "head.weight": "embedding.weight"
    }

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]
        for module in self.modules():  # post_init sets every linear layer alike
            if isinstance(module, (NeuralMemory, DeltaMixer)):
                module.reset()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        """The vocabulary head."""
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Stream | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, T, V] of `input_ids` [B, T], which follow what `past_key_values` has read.

        `labels` [B, T] as usual: -100 is ignored, and they are shifted here. The state after the
        text is `past_key_values` of the output. `logits_to_keep`: the last positions only.

        Raises:
            InputError: a text without tokens, or padding: a memory would learn it.
        """
        if input_ids.dim() != 2 or not input_ids.shape[1]:
            raise InputError(
                f"expected token ids [batch, at least one token], got {list(input_ids.shape)}"
            )
        if attention_mask is not None and not bool(attention_mask.all()):
            raise InputError("this model takes no padding; give texts of one length at a time")
        past = past_key_values if past_key_values and past_key_values.layers else None
        x, layers = self.embedding(input_ids), []
        for i, block in enumerate(self.blocks):
            x, carried = block(x, None if past is None else past.layers[i])
            layers.append(carried)
        seen = input_ids.shape[1] + (0 if past is None else past.seen)
        logits = self.head(self.norm(x[:, -logits_to_keep:]))
        loss = None
        if labels is not None:
            shifted = labels[:, 1:].reshape(-1)
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), shifted)
        after: Any = Stream(layers, seen)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=after)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Stream | None = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """All of the prompt at first, the last token afterwards; the state carries the rest."""
        ids = input_ids if is_first_iteration else input_ids[:, -1:]
        mask = attention_mask if is_first_iteration else None
        return {"input_ids": ids, "past_key_values": past_key_values, "attention_mask": mask}

    @torch.no_grad()
    def read(self, input_ids: Tensor, stream: Stream | None = None, piece: int = 1024) -> Stream:
        """Reads `input_ids` [B, T] in pieces; memory is bounded by a piece, not by T."""
        for at in range(0, input_ids.shape[1], piece):
            part = input_ids[:, at : at + piece]
            stream = self(part, stream, logits_to_keep=1).past_key_values
        return stream or Stream()

    def guarded(self, stream: Stream) -> dict[str, int]:
        """Inner steps that were clipped and that were skipped, summed over layers and rows."""
        states = [v for layer in stream.layers for v in layer.values() if isinstance(v, State)]
        return {
            "clipped": sum(int(one.clipped.sum()) for one in states),
            "skipped": sum(int(one.skipped.sum()) for one in states),
        }
