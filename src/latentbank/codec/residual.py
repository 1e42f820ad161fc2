"""Vector quantisation of latents into bytes: `vq` with one codebook, `rvq` with several on top of
each other, where the bytes of the first levels decode on their own.

Knows arrays and bytes; nothing about banks, methods or models. Residual VQ: level l codes what the
levels before it left over (Juang and Gray, 1982; as in SoundStream, Zeghidour et al., 2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.codec.arrays import pack_bits, packed_bytes, unpack_bits
from latentbank.errors import BankError, InputError

__all__ = ["ResidualCodec", "fit_codebooks"]

Float32Array = npt.NDArray[np.float32]

_ROWS_AT_ONCE = 4096


class ResidualCodec:
    """Latents [T, D] to bytes and back through codebooks [L, K, D]; L = 1 is plain VQ.

    Layout: level after level, each the T codes of `bits` bits packed and padded to whole bytes, so
    that cutting a payload to its first levels is cutting bytes.

    Args:
        codebooks: float [L, K, D], 2 <= K <= 65536. What a method learned, or `fit_codebooks`.
    Raises `InputError` for another shape or numbers that are not finite.
    """

    def __init__(self, codebooks: npt.NDArray[np.floating[Any]]) -> None:
        books = np.asarray(codebooks, np.float32)
        if books.ndim != 3 or not len(books) or not 2 <= books.shape[1] <= 1 << 16:
            raise InputError(
                "Codebooks are an array [levels, codes, width] with 2 to 65,536 codes, got shape "
                f"{list(books.shape)}."
            )
        if not np.isfinite(books).all():
            raise InputError("Codebooks must be finite; got NaN or infinity.")
        self.codebooks = books
        self.levels, self.codes, self.width = books.shape
        self.bits = int(self.codes - 1).bit_length()
        self.name = "vq" if self.levels == 1 else "rvq"

    def level_bytes(self, tokens: int) -> int:
        """Bytes that one level of `tokens` latents takes."""
        return packed_bytes(self.bits, tokens)

    def quantize(self, latents: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int32]:
        """Codes [L, T] of latents [T, D]: at each level the nearest codeword to what is left."""
        rest = np.array(latents, np.float32)
        if rest.ndim != 2 or rest.shape[1] != self.width or not np.isfinite(rest).all():
            raise InputError(
                f"Latents to quantise are finite floats [tokens, {self.width}], got shape "
                f"{list(rest.shape)}."
            )
        found = np.empty((self.levels, len(rest)), np.int32)
        for level, book in enumerate(self.codebooks):
            half = 0.5 * (book * book).sum(1)
            for at in range(0, len(rest), _ROWS_AT_ONCE):
                part = rest[at : at + _ROWS_AT_ONCE]
                found[level, at : at + len(part)] = (half - part @ book.T).argmin(1)
            rest -= book[found[level]]
        return found

    def encode(self, latents: npt.NDArray[np.floating[Any]]) -> bytes:
        """Bytes of latents [T, D], all levels; raises `InputError` (see `quantize`)."""
        return b"".join(pack_bits(codes, self.bits) for codes in self.quantize(latents))

    def prefix(self, data: bytes, tokens: int, levels: int) -> bytes:
        """The bytes of the first `levels` levels of an encoding of `tokens` latents."""
        held = self.levels_of(data, tokens)
        if not 1 <= levels <= held:
            raise InputError(f"This encoding has 1 to {held} levels, asked for {levels}.")
        return data[: levels * self.level_bytes(tokens)]

    def levels_of(self, data: bytes, tokens: int) -> int:
        """How many levels an encoding holds; raises `BankError` if it is no whole number."""
        size = self.level_bytes(tokens)
        levels = len(data) // size if size else 0
        if not 1 <= levels <= self.levels or len(data) != levels * size:
            raise BankError(
                f"{self.name} codes are damaged: {tokens} latents take {size} bytes for each of "
                f"up to {self.levels} levels, got {len(data)}."
            )
        return levels

    def unpack(self, data: bytes, tokens: int) -> npt.NDArray[np.int32]:
        """Codes [levels, T]; raises `BankError` if damaged."""
        size = self.level_bytes(tokens)
        levels = self.levels_of(data, tokens)
        codes = np.stack(
            [
                unpack_bits(data[at * size : (at + 1) * size], self.bits, tokens)
                for at in range(levels)
            ]
        )
        if codes.max(initial=0) >= self.codes:
            raise BankError(f"{self.name} codes are damaged: code {int(codes.max())} is none.")
        return codes

    def decode(self, data: bytes, tokens: int) -> Float32Array:
        """Latents [T, D] from however many levels the bytes hold; raises `BankError` if damaged."""
        values = np.zeros((tokens, self.width), np.float32)
        for book, codes in zip(self.codebooks, self.unpack(data, tokens), strict=False):
            values += book[codes]
        return values


def fit_codebooks(
    latents: npt.NDArray[np.floating[Any]], levels: int, codes: int, rounds: int = 10, seed: int = 0
) -> Float32Array:
    """Codebooks [levels, codes, D] by k-means (Lloyd) on latents [N, D], level after level.

    An empty cluster takes the worst-coded latent. Raises `InputError` for fewer latents than codes.
    """
    rest = np.array(latents, np.float32)
    if rest.ndim != 2 or len(rest) < codes:
        raise InputError(
            f"k-means of {codes} codes needs at least as many latents [N, D], got shape "
            f"{list(rest.shape)}."
        )
    random = np.random.default_rng(seed)
    books = np.empty((levels, codes, rest.shape[1]), np.float32)
    for level in range(levels):
        book = rest[random.choice(len(rest), codes, replace=False)].copy()
        for _ in range(rounds):
            distance = 0.5 * (book * book).sum(1) - rest @ book.T
            near = distance.argmin(1)
            counts = np.bincount(near, minlength=codes)
            sums = np.zeros_like(book)
            np.add.at(sums, near, rest)
            full = counts > 0
            book[full] = sums[full] / counts[full, None]
            worst = np.argsort(((rest - book[near]) ** 2).sum(1))[::-1]
            book[~full] = rest[worst[: int((~full).sum())]]
        books[level] = book
        rest -= book[(0.5 * (book * book).sum(1) - rest @ book.T).argmin(1)]
    return books
