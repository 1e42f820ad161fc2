"""`Segment`: documents by rows, their inverted lists, and which of them still count.

Knows ids, digests and hashed words; knows no texts, files or banks. A segment never changes except
that rows cease to count. Rows are in the order of writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import is_hex_id
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

__all__ = ["Row", "Segment", "build_segment", "merge_segments"]


class Row(NamedTuple):
    """One document on its way into the index.

    Attributes:
        number: the number that stands for its id in the bank.
        id: the id itself.
        digest: 8 bytes that differ when what the bank holds of it does, as a number.
        terms: the hashes of its words in order, uint64 [words].
        short: the words of a short text in order, as 16-bit hashes; b"" for a long one.
    """

    number: int
    id: str
    digest: int
    terms: Numbers
    short: bytes


@dataclass
class Segment:
    """Up to some 100,000 documents.

    Attributes:
        numbers, digests: see `Row`; uint64 [n].
        lengths: words of each document, uint32 [n].
        name_ends, names: where each id ends in the bytes `names`. An id of 16 hexadecimal digits
            takes none: it is its number.
        short_ends, shorts: the same for `Row.short`, uint16.
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

    def short(self, row: int) -> list[int]:
        """The words of a short text, as 16-bit hashes; none for a long one."""
        start = int(self.short_ends[row - 1]) if row else 0
        end = int(self.short_ends[row])
        return [] if start == end else np.asarray(self.shorts[start:end]).tolist()

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
    return Segment(
        np.concatenate([s.numbers[s.live] for s in segments]),
        np.concatenate([s.digests[s.live] for s in segments]),
        np.concatenate([s.lengths[s.live] for s in segments]),
        np.cumsum(np.concatenate([sizes for sizes, _ in names])).astype(np.uint32),
        np.concatenate([data for _, data in names]),
        np.cumsum(np.concatenate([sizes for sizes, _ in shorts])).astype(np.uint32),
        np.concatenate([data for _, data in shorts]),
        lists,
        np.ones(sum(len(s) - s.dead for s in segments), bool),
    )


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
