"""Amortisers: a text's features → T latents.

The default is a Perceiver resampler over the backbone's own states; the papers' encoder-decoder is
in `t5`. MAC (Tack et al., 2024), section 3.1; MBC and CMT share it. Knows tensors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.errors import InputError
from latentbank.parts.amortised.cross_attention import (
    HIDDEN,
    MEAN_GAIN,
    CrossAttention,
    cross_blocks,
)
from latentbank.parts.pooling import segment_means

__all__ = ["PerceiverAmortiser", "TokenwiseMLP"]

INDEX_GAIN = 2.0  # scale of the codes that mark the latents of a text, from sweeps in LOG.md


class PerceiverAmortiser(nn.Module):
    """Features [B, L, F] (mask [B, L] bool) → latents [B, T, D].

    T learned queries cross-attend the features (a Perceiver resampler). Then each latent passes its
    own MLP (LayerNorm, Linear, tanh, Linear, plus skip), as in MAC. Padding is masked.

    With `start` "mean" a latent starts as a sum. One term is a small code of its own. The other,
    outside the span of the codes, is `base` plus `MEAN_GAIN` times the mean of the text. The output
    of the attention starts at zero. The features must have the latents' width.
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
                for block in cross_blocks(self.blocks):
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
        for block in cross_blocks(self.blocks):
            latents = block(latents, *block.project(entered), bias)
        out: Tensor = self.heads(latents)
        return out


class TokenwiseMLP(nn.Module):
    """One MLP for each of T tokens [B, T, D]: LayerNorm, Linear, tanh, Linear, plus skip.

    The result is [B, T, `out`], by default of the same width. To another width the skip is a linear
    map of its own for each token, as in MAC's published code.
    """

    def __init__(self, tokens: int, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        out = width if out is None else out
        self.norm = nn.LayerNorm(width)
        self.first = nn.Parameter(torch.randn(tokens, width, hidden) / width**0.5)
        self.first_bias = nn.Parameter(torch.zeros(tokens, hidden))
        self.second = nn.Parameter(torch.zeros(tokens, hidden, out))
        self.second_bias = nn.Parameter(torch.zeros(tokens, out))
        if out != width:
            self.skip = nn.Parameter(torch.randn(tokens, width, out) / width**0.5)
            self.skip_bias = nn.Parameter(torch.zeros(tokens, out))

    def forward(self, x: Tensor) -> Tensor:
        """The tokens after their MLPs, same shape."""
        hidden = torch.einsum("btd,tdh->bth", self.norm(x), self.first) + self.first_bias
        added = torch.einsum("bth,tho->bto", hidden.tanh(), self.second) + self.second_bias
        if not hasattr(self, "skip"):
            return x + added
        return torch.einsum("btd,tdo->bto", x, self.skip) + self.skip_bias + added
