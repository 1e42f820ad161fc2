"""Residual vector quantisation of latents for measurements; no method of the package uses it.

Knows arrays and bytes. Level l codes what the levels before it left over (Juang and Gray, 1982; as
in SoundStream, Zeghidour et al., 2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.codec.arrays import pack_bits, packed_bytes, unpack_bits
from latentbank.errors import InputError

Float32Array = npt.NDArray[np.float32]

_ROWS_AT_ONCE = 4096


class ResidualCodec:
    """Latents [T, D] to bytes and back through codebooks [L, K, D].

    Layout: level after level, each the T codes of `bits` bits, packed and padded to whole bytes. So
    the first levels of a payload are its first bytes.
    """

    def __init__(self, codebooks: npt.NDArray[np.floating[Any]]) -> None:
        self.codebooks = np.asarray(codebooks, np.float32)
        self.levels, self.codes, self.width = self.codebooks.shape
        self.bits = int(self.codes - 1).bit_length()

    def level_bytes(self, tokens: int) -> int:
        """Bytes that one level of `tokens` latents takes."""
        return packed_bytes(self.bits, tokens)

    def encode(self, latents: npt.NDArray[np.floating[Any]]) -> bytes:
        """Bytes of latents [T, D]: at each level the nearest codeword to what is left."""
        rest = np.array(latents, np.float32)
        parts = []
        for book in self.codebooks:
            half = 0.5 * (book * book).sum(1)
            codes = np.empty(len(rest), np.int32)
            for at in range(0, len(rest), _ROWS_AT_ONCE):
                part = rest[at : at + _ROWS_AT_ONCE]
                codes[at : at + len(part)] = (half - part @ book.T).argmin(1)
            rest -= book[codes]
            parts.append(pack_bits(codes, self.bits))
        return b"".join(parts)

    def decode(self, data: bytes, tokens: int) -> Float32Array:
        """Latents [T, D] from however many levels the bytes hold."""
        size = self.level_bytes(tokens)
        values = np.zeros((tokens, self.width), np.float32)
        for level in range(len(data) // size):
            codes = unpack_bits(data[level * size : (level + 1) * size], self.bits, tokens)
            values += self.codebooks[level][codes]
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
