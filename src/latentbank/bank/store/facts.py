"""What the fading policy may know of each document of a page: when it was written, and its hits.

Knows numbers in columns and their packed bytes; nothing about pages, SQLite or policies.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard

from latentbank.errors import BankError

__all__ = ["MAX_HITS", "Fact", "Facts", "key_redundancy"]

MAX_HITS = 0xFFFF
_WIDTH = 8  # bytes of one document before compression
_UNUSED = 2  # of them: two columns of the format that nothing sets; they are stored as zeros

Fact = tuple[int, int]  # (order, hits) of one document


class _PerThread(threading.local):
    """Zstandard's objects. They are slow to make, and two threads may not share one."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
        self.decompressor = zstandard.ZstdDecompressor()


_ZSTD = _PerThread()


@dataclass(frozen=True)
class Facts:
    """Columns over n documents.

    Attributes:
        order: each document's place in the order of writing, uint32 [n].
        hits: how often each helped to answer, uint16 [n], saturating at `MAX_HITS`.
    """

    order: npt.NDArray[np.uint32]
    hits: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, rows: list[Fact]) -> Facts:
        """From one (order, hits) per document."""
        order, hits = zip(*rows, strict=True) if rows else ((), ())
        return cls(np.array(order, np.uint32), np.minimum(hits, MAX_HITS).astype(np.uint16))

    def rows(self) -> list[Fact]:
        """The inverse of `of`."""
        return list(zip(self.order.tolist(), self.hits.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.order)

    def without(self, gone: frozenset[int]) -> Facts:
        """The facts of the documents that are not at positions `gone`."""
        kept = np.ones(len(self), bool)
        kept[list(gone)] = False
        return Facts(self.order[kept], self.hits[kept])

    def pack(self) -> bytes:
        """CRC-32, then the columns, byte plane by byte plane, compressed.

        Takes a fraction of a byte per document where documents were written in order and have no
        hits.
        """
        steps = np.diff(self.order.astype(np.int64), prepend=0).astype("<i4")
        planes = steps.view(np.uint8).reshape(-1, 4).T.tobytes()
        hits = self.hits.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes()
        packed = _ZSTD.compressor.compress(planes + hits + bytes(_UNUSED * len(self)))
        return zlib.crc32(packed).to_bytes(4, "little") + packed

    @classmethod
    def unpack(cls, data: object, count: int, seq: int) -> Facts:
        """The inverse of `pack` for page `seq`. Raises `BankError` if the bytes are damaged."""
        damaged = f"The facts of page {seq} of the bank are damaged"
        if not isinstance(data, bytes) or zlib.crc32(data[4:]).to_bytes(4, "little") != data[:4]:
            raise BankError(f"{damaged}: the checksum does not match.")
        try:
            raw = _ZSTD.decompressor.decompress(data[4:], max_output_size=_WIDTH * count)
        except zstandard.ZstdError as error:
            raise BankError(f"{damaged}: {error}.") from error
        if len(raw) != _WIDTH * count:
            raise BankError(f"{damaged}: they are not those of {count} documents.")
        flat = np.frombuffer(raw, np.uint8)
        steps = np.ascontiguousarray(flat[: 4 * count].reshape(4, count).T).view("<i4").reshape(-1)
        hits = np.ascontiguousarray(flat[4 * count : 6 * count].reshape(2, count).T).view("<u2")
        return cls(
            np.cumsum(steps.astype(np.int64)).astype(np.uint32), hits.reshape(-1).astype(np.uint16)
        )


def key_redundancy(keys: bytes, count: int) -> npt.NDArray[np.float64]:
    """For each of `count` int8 keys: its largest cosine with an earlier key, in [0, 1], [count].

    Only keys of one page are compared, so this finds repetitions that were written close together.
    The values are rounded to 1/254. Keys shorter than 8 bytes are not compared: 0.
    """
    width = len(keys) // count if count else 0
    if width < 8:
        return np.zeros(count)
    rows = np.frombuffer(keys, np.int8).reshape(count, width).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    best = np.where(np.tri(count, count, -1, dtype=bool), rows @ rows.T, 0.0).max(1, initial=0.0)
    rounded: npt.NDArray[np.float64] = np.rint(254 * np.clip(best, 0, 1)).astype(np.float64) / 254
    return rounded
