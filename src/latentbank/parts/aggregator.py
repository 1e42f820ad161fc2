"""Amortised memory's networks: text features → latents, question × slots → memory tokens, and
memory tokens → what the backbone takes.

Knows tensors only. MAC (Tack et al., 2024), section 3; MBC and CMT share these parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.errors import InputError
from latentbank.parts.cross_attention import CrossAttention, quiet_mlp
from latentbank.parts.pooling import segment_means, whitening

HIDDEN = -1e9  # the log mass of a slot that must not be read
# A soft copy's start, from sweeps in LOG.md: size of the codes that tell the latents of a text
# apart, and of a text's mean in each of its latents.
INDEX_GAIN, MEAN_GAIN = 2.0, 12.0
# of `Aggregator.compare`: standard deviation of the scores between texts, what a latent of the same
# place has more, and how far small variances are lifted before they are whitened
SHARPNESS, PLACE_BONUS, SHRINKAGE = 8.0, 30.0, 0.3


def _cross(blocks: nn.ModuleList) -> list[CrossAttention]:
    return [block for block in blocks if isinstance(block, CrossAttention)]


class PerceiverAmortiser(nn.Module):
    """Features [B, L, F] (mask [B, L] bool) → latents [B, T, D].

    T learned queries cross-attend the features (a Perceiver resampler); then each latent passes its
    own MLP (LayerNorm, Linear, tanh, Linear, plus skip), as in MAC. Padding is masked. With `start`
    "mean" the query of latent t is a small code of its own and, outside the codes' span, what
    `forward` is given as `base` plus `MEAN_GAIN` times the mean of the whole text; the rest starts
    at zero; the features then have the latents' width.
    """

    def __init__(
        self,
        features: int,
        width: int,
        latents: int,
        inner: int,
        heads: int,
        blocks: int = 1,
        head_hidden: int = 64,
        start: str = "random",
    ) -> None:
        super().__init__()
        if start == "mean" and features != width:
            raise InputError(f"start={start!r} needs features of width {width}, got {features}")
        self.start = start
        self.enter = nn.Linear(features, width) if features != width else nn.Identity()
        self.queries = nn.Parameter(torch.randn(latents, width))
        self.blocks = nn.ModuleList(
            [CrossAttention(width, inner, heads, inner) for _ in range(blocks)]
        )
        if start == "mean":
            with torch.no_grad():
                self.queries.mul_(INDEX_GAIN)
                for block in _cross(self.blocks):
                    block.out.weight.zero_()
        self.heads = TokenwiseMLP(latents, width, head_hidden)

    def forward(self, features: Tensor, mask: Tensor, base: Tensor | None = None) -> Tensor:
        """Latents [B, T, D]; `base` [B, T, D] is for `start` "mean"."""
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, HIDDEN)
        entered = self.enter(features)
        latents = self.queries.expand(features.shape[0], -1, -1)
        if self.start == "mean":
            content = MEAN_GAIN * segment_means(entered, mask, 1)
            content = content if base is None else content + base
            places = torch.linalg.qr(self.queries.detach().T).Q  # (F, T), left to the codes
            latents = latents + content - content @ places @ places.T
        for block in _cross(self.blocks):
            latents = block(latents, *block.project(entered), bias)
        out: Tensor = self.heads(latents)
        return out


class TokenwiseMLP(nn.Module):
    """One MLP for each of T tokens [B, T, D]: LayerNorm, Linear, tanh, Linear, plus skip."""

    def __init__(self, tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Parameter(torch.randn(tokens, width, hidden) / width**0.5)
        self.first_bias = nn.Parameter(torch.zeros(tokens, hidden))
        self.second = nn.Parameter(torch.zeros(tokens, hidden, width))
        self.second_bias = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("btd,tdh->bth", self.norm(x), self.first) + self.first_bias
        return x + torch.einsum("bth,thd->btd", hidden.tanh(), self.second) + self.second_bias


class T5Amortiser(nn.Module):
    """The papers' amortiser: a T5 encoder-decoder whose decoder inputs are T learned prompts, each
    output passing its own MLP to the backbone's width (MAC, section 3.1).

    `t5` is any `T5Model` or `T5ForConditionalGeneration`; token ids come from its own tokenizer.
    """

    def __init__(self, t5: Any, width: int, latents: int, head_hidden: int = 512) -> None:
        super().__init__()
        self.t5 = t5
        inner = t5.config.d_model
        self.prompts = nn.Parameter(torch.randn(latents, inner) * 0.02)
        self.heads = TokenwiseMLP(latents, inner, head_hidden)
        self.leave = nn.Linear(inner, width) if inner != width else nn.Identity()

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Latents [B, T, D] of token ids [B, L], mask [B, L] bool."""
        base = getattr(self.t5, "model", self.t5)
        body = base if hasattr(base, "encoder") else self.t5
        seen = body.encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        out = body.decoder(
            inputs_embeds=self.prompts.expand(input_ids.shape[0], -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=mask.long(),
            use_cache=False,
        ).last_hidden_state
        latents: Tensor = self.leave(self.heads(out))
        return latents


class Aggregator(nn.Module):
    """ψ: question latents [B, T, D] × slots [S, D] → memory tokens [B, T, D].

    Pre-norm cross-attention blocks (4 in the papers) over all slots, without positions, with
    `+ log_mass` on the scores. `window` slots at a time aggregates hierarchically (MAC, section
    3.3): each window alone, the results as the new slots, until one window is left; a window that
    holds all slots gives the flat result. `copying`: see `CrossAttention`.
    """

    def __init__(
        self, width: int, inner: int, heads: int, blocks: int = 4, copying: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [CrossAttention(width, inner, heads, inner, copying) for _ in range(blocks)]
        )

    @torch.no_grad()
    def leave_out(self, directions: Tensor) -> None:
        """Takes the span of directions [n, D] out of what a copying aggregator reads."""
        basis = torch.linalg.qr(directions.T).Q  # (D, n)
        for block in _cross(self.blocks):
            block.v.weight.sub_(block.v.weight @ basis @ basis.T)

    @torch.no_grad()
    def compare(self, questions: Tensor, documents: Tensor, codes: Tensor) -> None:
        """Starts queries and keys of one head from latents [Q, T, D] of questions and [N, T, D] of
        documents, so that a question finds its document before any training.

        Latents are compared after whitening their scatter within documents, which makes what tells
        one passage from the next count; latents of one place are drawn together by their codes
        [T, D]. What all questions share is taken off by the bias of the queries' norm.
        """
        places = torch.linalg.qr(codes.T).Q  # (D, T)
        for block in _cross(self.blocks):
            kept = min(block.q.out_features - places.shape[1], places.shape[0])
            stored = block.norm_kv(documents)
            within = stored - stored.mean(1, keepdim=True)
            within = (within - within.mean(0)).flatten(0, 1)
            white = whitening(within.T @ within / len(within), kept, SHRINKAGE)
            white = white - places @ (places.T @ white)
            block.norm_q.bias.sub_(block.norm_q(questions).mean((0, 1)))
            asked, depth = block.norm_q(questions), block.q.out_features**0.5
            scores = (asked @ white).mean(1) @ (stored @ white).mean(1).T / depth
            same = ((asked @ places).diagonal(dim1=1, dim2=2)).mean(0) * (
                (stored @ places).diagonal(dim1=1, dim2=2)
            ).mean(0)
            white = white * (SHARPNESS / scores.std(1).mean()).sqrt()
            places_now = places * (PLACE_BONUS * depth / same.mean().clamp_min(1e-6)).sqrt()
            rows = torch.cat([white, places_now], 1).T
            for layer in (block.q, block.k):
                layer.weight.zero_()
                layer.weight[: len(rows)] = rows

    @property
    def compares(self) -> bool:
        """Whether `compare` or training has set the queries and keys."""
        return any(bool(block.norm_q.bias.any()) for block in _cross(self.blocks))

    @property
    def finder(self) -> CrossAttention:
        """The first block, whose attention finds what the others refine."""
        return _cross(self.blocks)[0]

    def project(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of slots [B, S, D] for each block; can be kept between questions."""
        return [block.project(slots) for block in _cross(self.blocks)]

    def attend(
        self, question: Tensor, projected: Sequence[tuple[Tensor, Tensor]], bias: Tensor | None
    ) -> Tensor:
        """Memory tokens [B, T, D] from projected slots; bias [B or 1, S]."""
        tokens = question
        for block, (keys, values) in zip(self.blocks, projected, strict=True):
            tokens = block(tokens, keys, values, bias)
        return tokens

    def shares(
        self, question: Tensor, slots: Tensor, bias: Tensor | None, wanted: Tensor
    ) -> Tensor:
        """Each block's attention [blocks, B] on the wanted of slots [S, D]; see `share`."""
        tokens, found = question, []
        for block, (keys, values) in zip(
            _cross(self.blocks), self.project(slots[None]), strict=True
        ):
            found.append(block.share(tokens, keys, bias, wanted))
            tokens = block(tokens, keys, values, bias)
        return torch.stack(found)

    def forward(
        self, question: Tensor, slots: Tensor, log_mass: Tensor | None = None, window: int = 0
    ) -> Tensor:
        """`slots` [S, D] shared or [B, S, D]; `log_mass` [S] or [B, S]; `window` 0 is flat."""
        if slots.dim() == 2:
            slots = slots[None]
        if log_mass is not None and log_mass.dim() == 1:
            log_mass = log_mass[None]
        if window <= 0 or slots.shape[1] <= window:
            return self.attend(question, self.project(slots), log_mass)
        tokens = question.shape[1]
        if window < 2 * tokens:
            raise InputError(
                f"a window must hold at least two results of {tokens} tokens, got {window} slots"
            )
        parts, masses = [], []
        for at in range(0, slots.shape[1], window):
            mass = None if log_mass is None else log_mass[:, at : at + window]
            part = self.project(slots[:, at : at + window])
            parts.append(self.attend(question, part, mass))
            if mass is not None:  # a window of hidden slots alone has a hidden result
                hidden = (mass <= HIDDEN).all(1, keepdim=True).expand(-1, tokens)
                masses.append(torch.where(hidden, HIDDEN, 0.0).to(mass))
        results = torch.cat(masses, 1) if masses else None
        return self.forward(question, torch.cat(parts, 1), results, window)


class PrefixAlignment(nn.Module):
    """π: memory tokens [B, T, D] → keys and values of `virtual` tokens for each layer.

    Token-wise MLPs of hidden width 768 (the papers'); the result is [2·L, B, H_kv, virtual, d_h]
    with the number of key/value heads, which grouped-query attention needs.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        layers: int,
        kv_heads: int,
        head_dim: int,
        virtual: int = 2,
        hidden: int = 768,
    ) -> None:
        super().__init__()
        self.shape = (layers, kv_heads, virtual, head_dim)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(tokens, virtual, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2 * layers * kv_heads * head_dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        layers, kv_heads, virtual, head_dim = self.shape
        mixed = self.mix(self.norm(tokens).transpose(1, 2)).transpose(1, 2)  # (B, virtual, D)
        out = self.mlp(mixed).view(-1, virtual, 2 * layers, kv_heads, head_dim)
        aligned: Tensor = out.permute(2, 0, 3, 1, 4)
        return aligned


class StateAlignment(nn.Module):
    """Memory tokens [B, T, D] → mid-layer states [B, T, D], in standardised units."""

    def __init__(self, width: int, hidden: int = 384) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.skip = nn.Linear(width, width)
        self.mlp = quiet_mlp(width, hidden)
        nn.init.eye_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        normal = self.norm(tokens)
        aligned: Tensor = self.skip(normal) + self.mlp(normal)
        return aligned
