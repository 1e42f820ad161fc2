"""ψ of amortised memory: question latents × slots → memory tokens.

MAC (Tack et al., 2024), section 3; MBC and CMT share it. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentbank.errors import InputError
from latentbank.parts.amortised.cross_attention import HIDDEN, CrossAttention, cross_blocks
from latentbank.parts.pooling import whitening

__all__ = ["Aggregator"]

# Used by `Aggregator.compare`, from sweeps in LOG.md: standard deviation of the scores between
# texts, bonus of a latent at the same place, and shrinkage of the whitening.
SHARPNESS, PLACE_BONUS, SHRINKAGE = 8.0, 30.0, 0.3


class Aggregator(nn.Module):
    """ψ: question latents [B, T, D] × slots [S, D] → memory tokens [B, T, D].

    Pre-norm cross-attention blocks (4 in the papers) over all slots, without positions, with
    `+ log_mass` on the scores. With a `window` it aggregates hierarchically (MAC, section 3.3):
    each window of slots is aggregated by itself, and the results are the slots of the next round,
    until one window is left. A window that holds all slots gives the flat result. `copying`: see
    `CrossAttention`.
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
        """Projects the span of directions [n, D] out of the values of a copying aggregator."""
        basis = torch.linalg.qr(directions.T).Q  # (D, n)
        for block in cross_blocks(self.blocks):
            block.v.weight.sub_(block.v.weight @ basis @ basis.T)

    @torch.no_grad()
    def compare(self, questions: Tensor, documents: Tensor, codes: Tensor) -> None:
        """Sets queries and keys so that a question attends to its document before any training.

        `questions` [Q, T, D] and `documents` [N, T, D] are latents; there must be one head. Latents
        are compared after whitening their scatter within documents, which emphasises what
        distinguishes one passage from the next. The codes [T, D] add a bonus for latents at the
        same place. The bias of the queries' norm removes the mean of all questions.
        """
        places = torch.linalg.qr(codes.T).Q  # (D, T)
        for block in cross_blocks(self.blocks):
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
        return any(bool(block.norm_q.bias.any()) for block in cross_blocks(self.blocks))

    @property
    def finder(self) -> CrossAttention:
        """The first block; its attention says which documents are read."""
        return cross_blocks(self.blocks)[0]

    def project(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of slots [B, S, D] for each block; the same for every question."""
        return [block.project(slots) for block in cross_blocks(self.blocks)]

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
        """Each block's attention [blocks, B] on the `wanted` of slots [S, D]; see `share`."""
        tokens, shares = question, []
        for block, (keys, values) in zip(
            cross_blocks(self.blocks), self.project(slots[None]), strict=True
        ):
            shares.append(block.share(tokens, keys, bias, wanted))
            tokens = block(tokens, keys, values, bias)
        return torch.stack(shares)

    def forward(
        self, question: Tensor, slots: Tensor, log_mass: Tensor | None = None, window: int = 0
    ) -> Tensor:
        """Memory tokens [B, T, D].

        `slots` are [S, D], shared by all questions, or [B, S, D]; `log_mass` is [S] or [B, S];
        `window` 0 aggregates all slots at once.

        Raises InputError for a window that holds fewer than two results.
        """
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
            if mass is not None:  # the result of a window of hidden slots is hidden
                hidden = (mass <= HIDDEN).all(1, keepdim=True).expand(-1, tokens)
                masses.append(torch.where(hidden, HIDDEN, 0.0).to(mass))
        results = torch.cat(masses, 1) if masses else None
        return self.forward(question, torch.cat(parts, 1), results, window)
