"""Inverted lists of one segment: which rows hold a word, and how often.

Words are 64-bit hashes. Knows rows, counts and lengths; knows no texts, ids or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "K1",
    "MOST_ROWS",
    "MOST_TIMES",
    "Column",
    "Lists",
    "build_lists",
    "merge_lists",
    "norms",
]

K1, B = 1.2, 0.75  # of BM25, as in SQLite's FTS5
_TIMES_BITS = 6
MOST_TIMES = (1 << _TIMES_BITS) - 1  # a word counts at most so often in one document
MOST_ROWS = 1 << 26

Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Packed = npt.NDArray[np.uint32]


class Column(Protocol):
    """An array that may lie in a file; a slice of it is read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> npt.NDArray[Any]: ...


def norms(lengths: npt.NDArray[np.uint32], mean: float) -> Floats:
    """BM25's K1 · (1 - B + B · length / mean) of documents with these lengths in words, [n]."""
    found: Floats = K1 * (1 - B + B / max(mean, 1e-9) * lengths.astype(np.float64))
    return found


@dataclass(frozen=True)
class Lists:
    """Inverted lists, one after the other.

    Attributes:
        terms: hashes of the words, ascending, uint64 [T].
        starts: where each word's list begins in `postings`, int64 [T + 1].
        bounds: the largest times / (times + norm) in each list at the mean length `mean`,
            float32 [T]. A larger mean raises it at most in proportion.
        mean: see `bounds`.
        postings: rows ascending within a list, uint32 [P]: row · 64 + times.
    """

    terms: Numbers
    starts: Places
    bounds: npt.NDArray[np.float32]
    mean: float
    postings: Column

    def find(self, terms: Numbers) -> Places:
        """The places of words [n]; -1 where no row holds one."""
        at = np.searchsorted(self.terms, terms)
        inside = np.minimum(at, max(len(self.terms) - 1, 0))
        known = self.terms[inside] == terms if len(self.terms) else np.zeros(len(terms), bool)
        return np.where(known, at, -1)

    def size(self, place: int) -> int:
        """The number of rows in a list."""
        return int(self.starts[place + 1] - self.starts[place])

    def read(self, place: int) -> tuple[Places, Packed]:
        """(rows ascending, times in each) of a list, both [n]."""
        packed: Packed = self.postings[int(self.starts[place]) : int(self.starts[place + 1])]
        times: Packed = packed & np.uint32(MOST_TIMES)
        return (packed >> _TIMES_BITS).astype(np.int64), times

    def times(self, place: int, rows: Places) -> Places:
        """How often each of these rows [n] holds a word, [n]; 0 where it does not."""
        packed: Packed = self.postings[int(self.starts[place]) : int(self.starts[place + 1])]
        first = (rows << _TIMES_BITS).astype(np.uint32)
        near = packed[np.minimum(np.searchsorted(packed, first), len(packed) - 1)]
        held = near >> _TIMES_BITS == rows
        return np.where(held, near & np.uint32(MOST_TIMES), 0).astype(np.int64)

    def bound(self, place: int, mean: float) -> float:
        """The largest times / (times + norm) in a list, at a mean length; an upper bound."""
        return min(1.0, float(self.bounds[place]) * max(1.0, mean / self.mean))


def build_lists(rows: Places, terms: Numbers, lengths: npt.NDArray[np.uint32]) -> Lists:
    """The lists of words [n] in rows [n] ascending, of documents with these lengths in words."""
    order = np.argsort(terms, kind="stable")
    rows, terms = rows[order], terms[order]
    new = np.ones(len(terms), bool)
    new[1:] = (terms[1:] != terms[:-1]) | (rows[1:] != rows[:-1])
    at = np.flatnonzero(new)
    times = np.minimum(np.diff(at, append=len(terms)), MOST_TIMES)
    packed = (rows[at] << _TIMES_BITS | times).astype(np.uint32)
    words = terms[at]
    first = np.ones(len(words), bool)
    first[1:] = words[1:] != words[:-1]
    starts = np.append(np.flatnonzero(first), len(words))
    return _bounded(words[starts[:-1]], starts, packed, lengths)


def merge_lists(parts: Sequence[tuple[Lists, Places]], lengths: npt.NDArray[np.uint32]) -> Lists:
    """One from several: of each its lists, and the new row of each of its rows or -1 for none.

    New rows ascend within a part and from part to part. `lengths` are those of the new rows.
    """
    pieces = [_kept(lists, moved) for lists, moved in parts]
    terms, place = np.unique(np.concatenate([terms for terms, _, _ in pieces]), return_inverse=True)
    sizes = np.zeros(len(terms), np.int64)
    edges = np.cumsum([0, *(len(words) for words, _, _ in pieces)])
    places = [place[one:two] for one, two in pairwise(edges)]
    for at, (_, counts, _) in zip(places, pieces, strict=True):
        sizes[at] += counts
    starts = np.concatenate([[0], np.cumsum(sizes)])
    free = starts[:-1].copy()
    packed = np.empty(int(starts[-1]), np.uint32)
    for at, (_, counts, piece) in zip(places, pieces, strict=True):
        before = np.cumsum(counts) - counts
        target = np.repeat(free[at] - before, counts)
        target += np.arange(len(piece))
        packed[target] = piece
        free[at] += counts
    return _bounded(terms, starts, packed, lengths)


def without_rows(lists: Lists, moved: Places) -> Lists:
    """The lists without some rows: `moved` has the new row of each row, -1 for none."""
    terms, counts, packed = _kept(lists, moved)
    kept = np.isin(lists.terms, terms, assume_unique=True)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Lists(terms, starts, lists.bounds[kept], lists.mean, packed)


def _kept(lists: Lists, moved: Places) -> tuple[Numbers, Places, Packed]:
    """(words that are left, the size of each list, the postings with their new rows)."""
    packed = np.asarray(lists.postings[0 : len(lists.postings)])
    targets = moved.astype(np.int32)  # half the memory to gather from
    rows = targets[packed >> _TIMES_BITS]
    counts = np.diff(lists.starts)
    gone = np.flatnonzero(rows < 0)
    if not len(gone):
        return lists.terms, counts, _packed(rows, packed)
    lists_of_gone = np.searchsorted(lists.starts, gone, side="right") - 1
    counts = counts - np.bincount(lists_of_gone, minlength=len(counts))
    stays, left = rows >= 0, counts > 0
    return lists.terms[left], counts[left], _packed(rows[stays], packed[stays])


def _packed(rows: npt.NDArray[np.int32], times: Packed) -> Packed:
    """Postings of these rows [n] that are at least 0, with the times of other postings [n]."""
    found: Packed = rows.view(np.uint32) << np.uint32(_TIMES_BITS)
    found |= times & np.uint32(MOST_TIMES)
    return found


def _bounded(
    terms: Numbers, starts: Places, packed: Packed, lengths: npt.NDArray[np.uint32]
) -> Lists:
    mean = max(float(lengths.mean()) if len(lengths) else 0.0, 1.0)
    times = (packed & MOST_TIMES).astype(np.float32)
    share = times / (times + norms(lengths, mean).astype(np.float32)[packed >> _TIMES_BITS])
    best = np.maximum.reduceat(share, starts[:-1]) if len(packed) else share
    return Lists(terms, starts.astype(np.int64), best * np.float32(1 + 1e-5), mean, packed)
