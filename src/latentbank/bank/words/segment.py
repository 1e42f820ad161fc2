"""`Segment`: documents by rows, their inverted lists, and which of them still count.

Knows ids, digests and hashed words; knows no texts, files or banks. A segment never changes except
that rows cease to count. Rows are in the order of writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import is_hex_id
from latentbank.bank.words.files import FileColumn
from latentbank.bank.words.lists import (
    Column,
    Floats,
    Lists,
    Numbers,
    Places,
    build_lists,
    merge_lists,
    norms,
    without_rows,
)

__all__ = ["SIGN_BYTES", "Row", "Segment", "build_segment", "merge_segments", "signature"]

SIGN_BYTES = 32
EVERYTHING = b"\xff" * SIGN_BYTES  # of a document that may hold any word
_SIGN_MASK = 8 * SIGN_BYTES - 1


class Row(NamedTuple):
    """One document on its way into the index.

    Attributes:
        number: the number that stands for its id in the bank.
        id: the id itself.
        digest: 8 bytes that differ when what the bank holds of it does, as a number.
        terms: the hashes of its words in order, uint64 [words].
        short: the words of a short text in order, as 16-bit hashes; b"" for a long one.
        order: its place in the bank's order of writing.
        time: its time, which sorts by instant; "" without one.
        sign: `SIGN_BYTES` bytes that say which words it may hold; see `signature`.
    """

    number: int
    id: str
    digest: int
    terms: Numbers
    short: bytes
    order: int = 0
    time: str = ""
    sign: bytes = EVERYTHING


def signature(hashes: Iterable[int]) -> bytes:
    """A bit for each of these hashes, in `SIGN_BYTES` bytes; several hashes share one."""
    bits = 0
    for hash in hashes:
        bits |= 1 << (hash & _SIGN_MASK)
    return bits.to_bytes(SIGN_BYTES, "little")


@dataclass
class Segment:
    """Up to some 100,000 documents.

    Attributes:
        numbers, digests: see `Row`; uint64 [n].
        lengths: words of each document, uint32 [n].
        name_ends, names: where each id ends in the bytes `names`. An id of 16 hexadecimal digits
            takes none: it is its number.
        short_ends, shorts: the same for `Row.short`, uint16.
        orders: see `Row`, uint32 [n].
        time_ends, times: the same as `names` for `Row.time`.
        signs: see `Row`, uint8 [n · SIGN_BYTES].
        lists: the inverted lists of the rows.
        live: which rows count, bool [n].
        file: the name of its file; "" if it is in memory only.
        dead, words: the rows that do not count, the words of all those that do.
    """

    numbers: Numbers
    digests: Numbers
    lengths: npt.NDArray[np.uint32]
    name_ends: npt.NDArray[np.uint32]
    names: Column
    short_ends: npt.NDArray[np.uint32]
    shorts: Column
    orders: npt.NDArray[np.uint32]
    time_ends: npt.NDArray[np.uint32]
    times: Column
    signs: Column
    lists: Lists
    live: npt.NDArray[np.bool_]
    file: str = ""
    dead: int = field(init=False)
    words: int = field(init=False)
    _norms: tuple[float, Floats] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.count()

    def count(self) -> None:
        """Counts `dead` and `words` anew."""
        self.dead = int(len(self.live) - self.live.sum())
        self.words = int((self.lengths[self.live] if self.dead else self.lengths).sum())

    def __len__(self) -> int:
        """Number of rows, dead ones included."""
        return len(self.numbers)

    @cached_property
    def _order(self) -> Places:
        return np.argsort(self.numbers, kind="stable")

    @cached_property
    def _sorted(self) -> Numbers:
        return self.numbers[self._order]

    def rows(self, numbers: Numbers) -> Places:
        """The last row of each number [n], dead ones included; -1 where there is none."""
        at = np.searchsorted(self._sorted, numbers, side="right") - 1
        inside = np.maximum(at, 0)
        known = (at >= 0) & (self._sorted[inside] == numbers)
        return np.where(known, self._order[inside], -1)

    def bury(self, rows: Places) -> None:
        """These rows do not count from now on."""
        self.live[rows] = False
        self.count()

    def norms(self, mean: float) -> Floats:
        """See `lists.norms`, [n]."""
        if self._norms is None or self._norms[0] != mean:
            self._norms = mean, norms(self.lengths, mean)
        return self._norms[1]

    def id(self, row: int) -> str:
        """The id of a row."""
        start = int(self.name_ends[row - 1]) if row else 0
        end = int(self.name_ends[row])
        if start == end:
            return f"{int(self.numbers[row]):016x}"
        return np.asarray(self.names[start:end]).tobytes().decode(errors="replace")

    def short_texts(self, rows: Places) -> list[npt.NDArray[np.uint16]]:
        """The words of the short texts among the rows [n], 16-bit hashes; none for long ones."""
        starts, stops = _spans(self.short_ends, rows)
        return [np.frombuffer(data, np.uint16) for data in _pieces(self.shorts, starts, stops)]

    def ages(self, rows: Places) -> list[tuple[str, int]]:
        """(time, order) of each row [n]: larger for a newer document."""
        orders = self.orders[rows].tolist()
        if not len(self.times):
            return [("", order) for order in orders]
        times = _pieces(self.times, *_spans(self.time_ends, rows))
        return [(time.decode(), order) for time, order in zip(times, orders, strict=True)]

    def may_hold(self, rows: Places, hashes: Sequence[int]) -> Places:
        """How many of the words with these hashes each row [n] holds at most; see `signature`."""
        starts = (rows * SIGN_BYTES).tolist()
        data = _pieces(self.signs, starts, [start + SIGN_BYTES for start in starts])
        bits = np.frombuffer(b"".join(data), np.uint8).reshape(-1, SIGN_BYTES)
        asked = np.array([hash & _SIGN_MASK for hash in hashes], np.int64)
        held: Places = (bits[:, asked >> 3] >> (asked & 7).astype(np.uint8) & 1).sum(1)
        return held

    def without_dead(self) -> Segment:
        """The same documents without a trace of those that do not count."""
        return self if not self.dead else _join([self], without_rows(self.lists, _moved(self)))


def build_segment(rows: Sequence[Row]) -> Segment:
    """A segment in memory."""
    lengths = np.array([len(row.terms) for row in rows], np.uint32)
    places = np.repeat(np.arange(len(rows)), lengths)
    terms = np.concatenate([row.terms for row in rows]) if rows else np.empty(0, np.uint64)
    names = [b"" if is_hex_id(row.id) else row.id.encode(errors="replace") for row in rows]
    return Segment(
        np.array([row.number for row in rows], np.uint64),
        np.array([row.digest for row in rows], np.uint64),
        lengths,
        np.array([*accumulate(map(len, names))], np.uint32),
        np.frombuffer(b"".join(names), np.uint8),
        np.array([*accumulate(len(row.short) // 2 for row in rows)], np.uint32),
        np.frombuffer(b"".join(row.short for row in rows), np.uint16),
        np.array([row.order for row in rows], np.uint32),
        np.array([*accumulate(len(row.time.encode()) for row in rows)], np.uint32),
        np.frombuffer("".join(row.time for row in rows).encode(), np.uint8),
        np.frombuffer(b"".join(row.sign for row in rows), np.uint8),
        build_lists(places, terms, lengths),
        np.ones(len(rows), bool),
    )


def merge_segments(segments: Sequence[Segment]) -> Segment:
    """One segment of several, in their order, without rows that do not count; in memory."""
    if len(segments) == 1:
        return segments[0].without_dead()
    moved, first = [], 0
    for segment in segments:
        moved.append(_moved(segment, first))
        first += len(segment) - segment.dead
    lengths = np.concatenate([segment.lengths[segment.live] for segment in segments])
    parts = [(segment.lists, rows) for segment, rows in zip(segments, moved, strict=True)]
    return _join(segments, merge_lists(parts, lengths))


def _moved(segment: Segment, first: int = 0) -> Places:
    """The new row of each row, from `first` on; -1 for those that do not count."""
    return np.where(segment.live, np.cumsum(segment.live) - 1 + first, -1)


def _join(segments: Sequence[Segment], lists: Lists) -> Segment:
    names = [_kept(s.name_ends, s.names, s.live) for s in segments]
    shorts = [_kept(s.short_ends, s.shorts, s.live) for s in segments]
    times = [_kept(s.time_ends, s.times, s.live) for s in segments]
    signs = [
        np.asarray(s.signs[0 : len(s.signs)]).reshape(-1, SIGN_BYTES)[s.live] for s in segments
    ]
    return Segment(
        np.concatenate([s.numbers[s.live] for s in segments]),
        np.concatenate([s.digests[s.live] for s in segments]),
        np.concatenate([s.lengths[s.live] for s in segments]),
        np.cumsum(np.concatenate([sizes for sizes, _ in names])).astype(np.uint32),
        np.concatenate([data for _, data in names]),
        np.cumsum(np.concatenate([sizes for sizes, _ in shorts])).astype(np.uint32),
        np.concatenate([data for _, data in shorts]),
        np.concatenate([s.orders[s.live] for s in segments]),
        np.cumsum(np.concatenate([sizes for sizes, _ in times])).astype(np.uint32),
        np.concatenate([data for _, data in times]),
        np.concatenate(signs).reshape(-1),
        lists,
        np.ones(sum(len(s) - s.dead for s in segments), bool),
    )


def _spans(ends: npt.NDArray[np.uint32], rows: Places) -> tuple[list[int], list[int]]:
    """Where each row's elements begin and end."""
    starts = np.where(rows > 0, ends[rows - 1], 0)
    return starts.tolist(), ends[rows].tolist()


def _pieces(column: Column, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
    """The bytes of many short slices."""
    if isinstance(column, FileColumn):
        return column.pieces(starts, stops)
    return [column[one:two].tobytes() for one, two in zip(starts, stops, strict=True)]


def _kept(
    ends: npt.NDArray[np.uint32], data: Column, live: npt.NDArray[np.bool_]
) -> tuple[Places, npt.NDArray[Any]]:
    """(the sizes of the rows that count, their elements)."""
    edges = ends.astype(np.int64)
    sizes: Places = edges - np.concatenate([[0], edges[:-1]])
    everything = np.asarray(data[0 : len(data)])
    if live.all():
        return sizes, everything
    return sizes[live], everything[np.repeat(live, sizes)]
