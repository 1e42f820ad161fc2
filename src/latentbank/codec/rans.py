"""Entropy coding of many symbol streams side by side, with integers only.

Range asymmetric numeral systems (Duda, 2013, https://arxiv.org/abs/1311.2540): each stream has a
state that is renormalised by bytes. All streams advance together, so that numpy decodes thousands
of short texts quickly. Knows intervals only: the caller looks a symbol up from its point in
[0, TOTAL).

No length is stored. A state starts at 1, and every interval starts above 0, so a state is 1 again
only when all symbols are read. This start costs each stream about as many bits as TOTAL has. With
24 bits a SQuAD paragraph takes 0.9 bytes less than with 30, in spite of the coarser intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentbank.errors import BankError

__all__ = ["TOTAL", "Decoder", "encode"]

Int64Array = npt.NDArray[np.int64]

_BITS = 24
TOTAL = 1 << _BITS  # intervals of symbols lie in [1, TOTAL)
_LEAST = 1 << 40  # a state below this takes in a byte, if one is left
_RATIO = (_LEAST >> _BITS) << 8


def encode(lower: Int64Array, width: Int64Array, lengths: Sequence[int]) -> list[bytes]:
    """Bytes of every stream from the intervals of its symbols.

    `lower`, `width` [N, L]: symbol i of stream n has the interval [lower, lower + width) of TOTAL,
    with lower ≥ 1 and width ≥ 1. `lengths` [N] are the numbers of symbols. A stream takes about
    Σ log2(TOTAL / width) / 8 bytes.
    """
    count = np.asarray(lengths, np.int64)
    state = np.ones(len(count), np.int64)
    steps = int(count.max(initial=0))
    # Bytes are pushed in reverse order. One symbol pushes at most six.
    out = np.zeros((len(count), 6 * steps + 8), np.uint8)
    size = np.zeros(len(count), np.int64)
    for at in range(steps - 1, -1, -1):
        row = np.flatnonzero(count > at)
        x, low, wide = state[row], lower[row, at], width[row, at]
        while (full := x >= _RATIO * wide).any():
            held = row[full]
            out[held, size[held]] = x[full] & 0xFF
            size[held] += 1
            x[full] >>= 8
        state[row] = (x // wide << _BITS) + x % wide + low
    streams = []
    final: list[int] = state.tolist()
    for value, taken, pushed in zip(final, size.tolist(), out, strict=True):
        head = b"" if value == 1 else value.to_bytes((value.bit_length() + 7) // 8, "big")
        streams.append(head + pushed[:taken][::-1].tobytes())
    return streams


class Decoder:
    """Reads streams that `encode` wrote, symbol by symbol."""

    def __init__(self, streams: Sequence[bytes]) -> None:
        sizes = [len(data) for data in streams]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._at = self._ends - np.asarray(sizes, np.int64)
        self._data = np.frombuffer(b"".join(streams) + b"\0", np.uint8).astype(np.int64)
        self._state = np.zeros(len(streams), np.int64)
        self._renormalise(np.arange(len(streams)))
        self._state[np.asarray(sizes) == 0] = 1

    def _renormalise(self, rows: Int64Array) -> None:
        while len(rows := rows[(self._state[rows] < _LEAST) & (self._at[rows] < self._ends[rows])]):
            self._state[rows] = (self._state[rows] << 8) | self._data[self._at[rows]]
            self._at[rows] += 1

    def unfinished(self) -> Int64Array:
        """Indices of the streams that still hold symbols."""
        return np.flatnonzero((self._state != 1) | (self._at < self._ends))

    def points(self, rows: Int64Array) -> Int64Array:
        """The point in [0, TOTAL) of the next symbol of each of these streams."""
        return self._state[rows] & (TOTAL - 1)

    def advance(self, rows: Int64Array, lower: Int64Array, width: Int64Array) -> None:
        """Removes the symbols with these intervals from their streams.

        Raises BankError for a stream that no encoder writes.
        """
        x = self._state[rows]
        x = width * (x >> _BITS) + (x & (TOTAL - 1)) - lower
        if (x < 1).any():
            raise BankError("A stored text is damaged: its code ends within a symbol.")
        self._state[rows] = x
        self._renormalise(rows)
