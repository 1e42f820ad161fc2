"""Residual vector quantisation: level l codes what the levels before it left over, and every prefix
of levels decodes on its own.

Knows tensors only. Juang and Gray (1982); level dropout as in SoundStream (Zeghidour et al., 2021,
https://arxiv.org/abs/2107.03312). One level is a plain `Codebook`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentbank.codec.quantizer import Codebook, CodebookConfig, CodebookHealth, Quantized
from latentbank.errors import InputError


@dataclass(frozen=True)
class ResidualCodebookConfig(CodebookConfig):
    """`levels` codebooks of `codes` codewords. In training the last levels are dropped at random
    from a share `level_dropout` of the steps, at least one level left, so that short prefixes are
    learned too.
    """

    levels: int = 8
    level_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 1:
            raise InputError(f"levels must be at least 1, got {self.levels}")
        if not 0 <= self.level_dropout <= 1:
            raise InputError(f"level_dropout lies in [0, 1], got {self.level_dropout}")


class ResidualCodebook(nn.Module):
    """L codebooks [K, D] on top of each other; codes are [N, l], l ≤ L, coarsest level first."""

    def __init__(self, width: int, config: ResidualCodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.books = nn.ModuleList([Codebook(width, config) for _ in range(config.levels)])

    @property
    def levels(self) -> list[Codebook]:
        """The codebooks, coarsest first."""
        return [book for book in self.books if isinstance(book, Codebook)]

    def draw_levels(self, generator: torch.Generator | None = None) -> int:
        """How many levels a training step uses: all, or by level dropout 1 … L at random."""
        kept = torch.rand((), generator=generator) >= self.config.level_dropout
        if bool(kept):
            return self.config.levels
        return int(torch.randint(1, self.config.levels + 1, (), generator=generator))

    def nearest(self, latents: Tensor, levels: int | None = None) -> Tensor:
        """Codes [N, l] of latents [N, D] with the first `levels` levels, all by default."""
        rest, codes = latents.detach(), []
        for book in self._first(levels):
            codes.append(book.nearest(rest))
            rest = rest - book.decode(codes[-1]).detach()
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sums [..., D] of the codewords of codes [..., l]."""
        books = self._first(codes.shape[-1])
        return torch.stack([book.decode(codes[..., i]) for i, book in enumerate(books)]).sum(0)

    def forward(self, latents: Tensor, levels: int | None = None) -> Quantized:
        """Quantises latents [N, D] with the first `levels` levels; updates nothing.

        The loss is the sum of the levels' own.
        """
        rest, codes = latents, []
        loss = latents.new_zeros(())
        for book in self._first(levels):
            found = book(rest)
            loss = loss + found.loss
            codes.append(found.codes)
            rest = rest - book.decode(found.codes).detach()
        stacked = torch.stack(codes, 1)
        words = self.decode(stacked).detach()
        return Quantized(latents + (words - latents).detach(), stacked, loss)

    def _first(self, levels: int | None) -> list[Codebook]:
        count = self.config.levels if levels is None else levels
        if not 1 <= count <= self.config.levels:
            raise InputError(f"levels must be 1 to {self.config.levels}, got {count}")
        return self.levels[:count]

    # ---- learning

    @torch.no_grad()
    def update(
        self,
        latents: Tensor,
        codes: Tensor,
        decay: float | None = None,
        protected: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """One step of every level that codes [N, l] use; the replaced codes of each level.

        Each level learns from what the levels before it left over when the codes were taken.
        `protected` [L, K] bool; the rest as `Codebook.update`.
        """
        rest, replaced = latents, []
        for i, book in enumerate(self._first(codes.shape[1])):
            left = rest - book.decode(codes[:, i])
            shield = None if protected is None else protected[i]
            replaced.append(book.update(rest, codes[:, i], decay, shield, generator))
            rest = left
        return replaced

    @torch.no_grad()
    def fit(self, latents: Tensor, rounds: int = 20, seed: int = 0) -> None:
        """Starts each level from k-means on what the levels before it leave of latents [N, D].

        Raises:
            InputError: fewer latents than codes.
        """
        rest = latents
        for i, book in enumerate(self.levels):
            book.fit(rest, rounds, seed + i)
            rest = rest - book.decode(book.nearest(rest))

    @torch.no_grad()
    def health(self, latents: Tensor | None = None) -> list[CodebookHealth]:
        """Telemetry of each level; `residual` is what is missed with the levels up to it, NaN
        without latents.
        """
        found = [book.health() for book in self.levels]
        if latents is None:
            return found
        codes = self.nearest(latents)
        spread = (latents - latents.mean(0)).square().sum()
        missed = [
            float((latents - self.decode(codes[:, : i + 1])).square().sum() / spread)
            for i in range(self.config.levels)
        ]
        return [
            dataclasses.replace(health, residual=residual)
            for health, residual in zip(found, missed, strict=True)
        ]
