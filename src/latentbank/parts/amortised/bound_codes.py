"""Codes that stay with their document: residual levels, codebooks by place, a narrower space.

Residual vector quantisation: Juang and Gray, 1982; SoundStream (Zeghidour et al., 2021). Codes in a
narrower space: ViT-VQGAN (Yu et al., 2022). Knows tensors; knows no bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentbank.codec.quantizer import Codebook, CodebookConfig, usage_perplexity
from latentbank.config import require_at_least, setting

__all__ = ["BoundCodes", "BoundSettings"]


@dataclass(frozen=True)
class BoundSettings:
    """How documents are coded and chosen where codes stay with their document."""

    top_k: int = setting(4, "Documents whose codes a question reads; 0 reads all.")
    levels: int = setting(2, "Residual levels: codes for each latent.")
    places: bool = setting(False, "Whether each of the T latents has codebooks of its own.")
    width: int = setting(64, "Width of the codewords; 0 takes the latents' own.")
    key_width: int = setting(32, "Numbers of a document's key.")
    key_bits: int = setting(4, "Bits of each of them.")
    key_weight: float = setting(0.3, "Weight of the loss that draws a question to its key.")

    def __post_init__(self) -> None:
        require_at_least(self, 0, "top_k", "width", "key_weight")
        require_at_least(self, 1, "levels", "key_width", "key_bits")


class BoundCodes(nn.Module):
    """Latents [N, T, D] ↔ codes [N, T, L]: at each level the codeword nearest to what is left.

    Latents are mapped to `width` numbers before and back to D after (no maps where `width` is 0).
    There are L codebooks, or L · T where each place has its own.
    """

    def __init__(
        self, width: int, latents: int, settings: BoundSettings, config: CodebookConfig
    ) -> None:
        super().__init__()
        self.settings, self.latents = settings, latents
        inner = min(settings.width or width, width)
        self.places = latents if settings.places else 1
        self.down: nn.Module = nn.Identity()
        self.up: nn.Module = nn.Identity()
        if settings.width:
            self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.books = nn.ModuleList(
            [Codebook(inner, config) for _ in range(settings.levels * self.places)]
        )
        self._seen: list[tuple[Codebook, Tensor, Tensor]] = []

    def _book(self, level: int, place: int) -> Codebook:
        book = self.books[level * self.places + place]
        assert isinstance(book, Codebook)
        return book

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(latents [N, T, D] as their codes have them, with a straight-through gradient; the loss).

        The loss is that of a codebook, see `Quantized`. Keeps what `update` needs.
        """
        inner = self.down(latents)
        self._seen = []
        words = self._sum_of_words(inner)
        config = self._book(0, 0).config
        loss = config.beta * (words.detach() - inner).pow(2).mean()
        if config.learning == "gradient":
            loss = loss + (words - inner.detach()).pow(2).mean()
        return self.up(inner + (words - inner).detach()), loss

    def _sum_of_words(self, inner: Tensor) -> Tensor:
        """The sum [N, T, w] over levels of the codewords for `inner` [N, T, w]."""
        total = torch.zeros_like(inner)
        for level in range(self.settings.levels):
            rest = (inner - total).detach()
            found = []
            for place, part in enumerate(self._by_place(rest)):
                book, flat = self._book(level, place), part.flatten(0, 1)
                codes = book.nearest(flat)
                self._seen.append((book, flat, codes))
                found.append(book.decode(codes).view_as(part))
            total = total + torch.cat(found, 1)
        return total

    def _by_place(self, x: Tensor) -> Sequence[Tensor]:
        """[N, T, w] in parts with a codebook each: [N, 1, w] by place, or the whole."""
        return torch.split(x, 1, 1) if self.places > 1 else [x]

    def update(self, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """One step of all codebooks on what `forward` saw; (weights, replaced rows) of each."""
        seen, self._seen = self._seen, []
        return [
            (book.weight, book.update(latents, codes, generator=generator))
            for book, latents, codes in seen
        ]

    def perplexity(self) -> float:
        """Mean perplexity of the codebooks' usage."""
        books = [book for book in self.books if isinstance(book, Codebook)]
        return sum(usage_perplexity(book.usage) for book in books) / len(books)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> bool:
        """Starts the maps from principal components and the codebooks by k-means, level by level.

        Does nothing and is False where there are fewer latents [N, T, D] than codes of a book.
        """
        books = len(self._by_place(latents))
        if latents.shape[0] * self.latents // books < self._book(0, 0).config.codes:
            return False
        if isinstance(self.down, nn.Linear) and isinstance(self.up, nn.Linear):
            flat = latents.flatten(0, 1)
            mean = flat.mean(0)
            kept = torch.linalg.svd(flat - mean, full_matrices=False).Vh[: len(self.down.weight)]
            for layer in (self.down, self.up):
                layer.weight.zero_()
            self.down.weight[: len(kept)] = kept
            self.up.weight[:, : len(kept)] = kept.T
            self.down.bias.copy_(-self.down.weight @ mean)
            self.up.bias.copy_(mean)
        rest = self.down(latents)
        for level in range(self.settings.levels):
            found = []
            for place, part in enumerate(self._by_place(rest)):
                book, flat = self._book(level, place), part.flatten(0, 1)
                book.fit(flat)
                found.append(book.decode(book.nearest(flat)).view_as(part))
            rest = rest - torch.cat(found, 1)
        return True

    # ---- what a bank holds

    def words(self) -> Tensor:
        """All codewords [books, K, w], float16 on the CPU."""
        books = [book.weight for book in self.books if isinstance(book, Codebook)]
        return torch.stack(books).detach().half().cpu()

    @torch.no_grad()
    def encode(self, latents: Tensor, words: Tensor) -> Tensor:
        """Codes [N, T, L] of latents [N, T, D] with codewords as `words` gives them."""
        inner = self.down(latents)
        rest, books = inner, self._by_level(words.to(inner))
        levels = []
        for book in books:  # (places, K, w)
            half = 0.5 * book.pow(2).sum(-1)
            scores = torch.einsum("ntw,tkw->ntk", rest, book.expand(self.latents, -1, -1))
            codes = (half - scores).argmin(-1)
            levels.append(codes)
            rest = rest - self._named(codes, book)
        return torch.stack(levels, -1)

    def decode(self, codes: Tensor, words: Tensor) -> Tensor:
        """Latents [..., T, D] of codes [..., T, L] with codewords [books, K, w]."""
        levels = zip(codes.unbind(-1), self._by_level(words), strict=True)
        latents: Tensor = self.up(torch.stack([self._named(*level) for level in levels]).sum(0))
        return latents

    def _by_level(self, words: Tensor) -> Sequence[Tensor]:
        """Codewords [books, K, w] in parts [places, K, w], one for each level."""
        return torch.split(words, self.places)

    def _named(self, codes: Tensor, book: Tensor) -> Tensor:
        """Codewords [..., T, w] of codes [..., T] in one level's `book` [places, K, w]."""
        places = torch.arange(self.latents, device=codes.device) % self.places
        return book[places.expand_as(codes), codes]
