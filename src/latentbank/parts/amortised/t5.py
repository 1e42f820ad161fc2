"""The papers' amortiser: a T5 encoder-decoder with learned prompts as decoder inputs.

MAC (Tack et al., 2024), section 3.1; MBC and CMT share it. `packed_outputs` runs a T5 over texts of
any length without padding. Knows tensors and transformers' T5 modules; knows no bank.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.errors import InputError
from latentbank.parts.amortised.amortiser import TokenwiseMLP

__all__ = ["T5Amortiser", "T5Texts", "packed_outputs"]

TOKENS_AT_ONCE = 2048  # of a packed run; bounds the memory


class T5Amortiser(nn.Module):
    """The papers' amortiser: a T5 encoder-decoder with T learned prompts as decoder inputs.

    Each output passes its own MLP to the backbone's width (MAC, section 3.1).

    `t5` is any `T5Model` or `T5ForConditionalGeneration`; token ids come from its own tokenizer.
    """

    def __init__(self, t5: Any, width: int, latents: int) -> None:
        super().__init__()
        self.t5 = t5
        inner = t5.config.d_model
        self.prompts = nn.Parameter(torch.randn(latents, inner) * 0.02)
        self.heads = TokenwiseMLP(latents, inner, width, width)

    @property
    def body(self) -> Any:
        """The module with `encoder` and `decoder`."""
        base = getattr(self.t5, "model", self.t5)
        return base if hasattr(base, "encoder") else self.t5

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Latents [B, T, D] of token ids [B, L], right-padded; mask [B, L] bool.

        On a CPU, without dropout and gradients, the texts are packed, which skips the padding.
        """
        packs = input_ids.device.type == "cpu" and not self.training
        if packs and not torch.is_grad_enabled():
            lengths = mask.sum(1).tolist()
            out = packed_outputs(self.body, input_ids[mask], lengths, self.prompts)
        else:
            out = self._padded(input_ids, mask)
        latents: Tensor = self.heads(out)
        return latents

    def _padded(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """The decoder's outputs [B, T, d_model] by the T5's own forward pass."""
        seen = self.body.encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        out: Tensor = self.body.decoder(
            inputs_embeds=self.prompts.expand(input_ids.shape[0], -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=mask.long(),
            use_cache=False,
        ).last_hidden_state
        return out


@torch.no_grad()
def packed_outputs(body: Any, ids: Tensor, lengths: Sequence[int], prompts: Tensor) -> Tensor:
    """A T5's decoder outputs [B, T, d_model] for texts that stand one behind the other.

    `ids` [ΣL] are the texts' tokens, `lengths` [B] how many each has, `prompts` [T, d_model] the
    decoder's inputs for every text. Only attention knows where a text begins: all other layers run
    over the tokens of several texts at once. The result is that of the padded forward pass without
    dropout.
    """
    parts = []
    for first, last in _blocks(lengths):
        at = sum(lengths[:first])
        own = lengths[first:last]
        seen = _encode(body.encoder, ids[at : at + sum(own)], own)
        parts.append(_decode(body.decoder, seen, own, prompts))
    return torch.cat(parts)


def _blocks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Runs (first, last + 1) of texts with `TOKENS_AT_ONCE` tokens at most, or of one text."""
    blocks, first, held = [], 0, 0
    for at, length in enumerate(lengths):
        if at > first and held + length > TOKENS_AT_ONCE:
            blocks.append((first, at))
            first, held = at, 0
        held += length
    return [*blocks, (first, len(lengths))]


def _encode(encoder: Any, ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """The encoder's states [ΣL, d_model] of tokens `ids` [ΣL]."""
    states = encoder.embed_tokens(ids)
    bias = _first_attention(encoder).compute_bias(max(lengths), max(lengths))
    for block in encoder.block:
        attention, normal = _attention(block, 0, states)
        asked, keys, values = (
            _by_text(project(normal), attention, lengths)
            for project in (attention.q, attention.k, attention.v)
        )
        texts = zip(lengths, asked, keys, values, strict=True)
        seen = torch.cat([_attend(q, k, v, bias[..., :size, :size]) for size, q, k, v in texts])
        states = block.layer[-1](states + attention.o(seen))
    normal_states: Tensor = encoder.final_layer_norm(states)
    return normal_states


def _decode(decoder: Any, seen: Tensor, lengths: Sequence[int], prompts: Tensor) -> Tensor:
    """Outputs [B, T, d_model] of `prompts` [T, d_model] over the encoder's states [ΣL, d_model]."""
    batch, (count, width) = len(lengths), prompts.shape
    counts = [count] * batch
    states = prompts.expand(batch, -1, -1).reshape(-1, width)  # (B·T, d_model)
    bias = _first_attention(decoder).compute_bias(count, count)
    later = torch.ones(count, count, dtype=torch.bool, device=seen.device).triu(1)
    causal = bias.masked_fill(later, torch.finfo(bias.dtype).min)
    for block in decoder.block:
        attention, normal = _attention(block, 0, states)
        asked, keys, values = (
            torch.cat(_by_text(project(normal), attention, counts))
            for project in (attention.q, attention.k, attention.v)
        )
        states = states + attention.o(_attend(asked, keys, values, causal))
        attention, normal = _attention(block, 1, states)
        texts = zip(
            _by_text(attention.q(normal), attention, counts),
            _by_text(attention.k(seen), attention, lengths),
            _by_text(attention.v(seen), attention, lengths),
            strict=True,
        )
        read = torch.cat([_attend(q, k, v, None) for q, k, v in texts])
        states = block.layer[-1](states + attention.o(read))
    out: Tensor = decoder.final_layer_norm(states).view(batch, count, width)
    return out


def _first_attention(stack: Any) -> Any:
    """The self-attention of the first block, which holds the relative position bias of all."""
    return stack.block[0].layer[0].SelfAttention


def _attention(block: Any, place: int, states: Tensor) -> tuple[Any, Tensor]:
    """(attention module of a block's sublayer `place`, its normalised input)."""
    layer = block.layer[place]
    module = layer.EncDecAttention if place else layer.SelfAttention
    return module, layer.layer_norm(states)


def _by_text(x: Tensor, attention: Any, lengths: Sequence[int]) -> list[Tensor]:
    """States [ΣL, heads · d] of texts → [1, heads, L, d] for each text."""
    whole = x.view(1, x.shape[0], attention.n_heads, -1).transpose(1, 2)
    return [whole.narrow(2, at - size, size) for at, size in _ends(lengths)]


def _ends(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(end, length) of each text."""
    return list(zip(itertools.accumulate(lengths), lengths, strict=True))


def _attend(asked: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """T5's attention, which does not scale: [B, heads, Q, d] → [B · Q, heads · d].

    `bias` [1, heads, Q, K] is added to the scores.
    """
    seen = nn.functional.scaled_dot_product_attention(
        asked, keys, values, attn_mask=bias, scale=1.0
    )
    return seen.transpose(1, 2).flatten(0, 1).flatten(1)


class T5Texts:
    """The papers' encoder: a T5 with its own tokenizer, from a folder or the hub.

    Raises:
        InputError: the T5 cannot be loaded.
    """

    def __init__(self, name: str, width: int, latents: int, max_tokens: int = 512) -> None:
        from transformers import AutoTokenizer

        self.name, self.width, self.latents, self.max_tokens = name, width, latents, max_tokens
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"the T5 '{name}' could not be loaded: {first}") from error

    def build(self) -> T5Amortiser:
        """A fresh amortiser over a T5 of its own."""
        from transformers import T5Model

        return T5Amortiser(T5Model.from_pretrained(self.name), self.width, self.latents)

    def encode(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """(ids [B, L], mask [B, L] bool), right-padded, cut at `max_tokens`."""
        batch = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            padding_side="right",
            return_tensors="pt",
        )
        return batch["input_ids"].to(device), batch["attention_mask"].bool().to(device)
