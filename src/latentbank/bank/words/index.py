"""`WordIndex`: which documents of a bank hold which words, in memory and in a folder beside it.

A log-structured merge tree: new documents make small segments, small segments are merged into
larger ones. The latest are in memory until there are enough of them for a file. Knows hashed words
and ids; knows no texts.
"""

from __future__ import annotations

import errno
import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.words.folder import IndexFolder, State
from latentbank.bank.words.lists import Floats, Numbers, Places
from latentbank.bank.words.search import Found, best_rows, exact_rows
from latentbank.bank.words.segment import Row, Segment, build_segment, merge_segments
from latentbank.errors import BankError

__all__ = ["KEPT_ROWS", "Spots", "WordIndex"]


class Spots(NamedTuple):
    """Where documents are.

    Attributes:
        segments: the place of each one's segment, -1 for an unknown document, int64 [n].
        rows: its row there, int64 [n].
    """

    segments: Places
    rows: Places

    @classmethod
    def of(cls, found: Found) -> Spots:
        """Those of documents that a search found."""
        places = np.array([(at, row) for _, at, row in found], np.int64).reshape(-1, 2)
        return cls(places[:, 0], places[:, 1])


KEPT_ROWS = 8192  # documents that wait in memory for a file of their own
MOST_ROWS = 1 << 17  # of a segment: as many are rewritten at least when one of them is deleted
_DEAD_SHARE = 0.25  # of a segment's rows; with more it is rewritten
_PATIENCE_SECONDS = 5.0


class WordIndex:
    """An inverted index over the documents of one bank.

    Attributes:
        state: the segments and which pages of the bank they are made of.
        limit: the most bytes that its files may take.
        made: changes whenever the documents are no longer those that `add` and `remove` made.
    """

    def __init__(self, bank: str | Path, kind: str, limit: int) -> None:
        """`kind` names how texts become words: an index of another kind is not used."""
        self.state, self.limit = State(), limit
        self.made = 0
        self._folder = IndexFolder(bank, kind)
        self._dirty = self._resting = False
        self._chosen: tuple[object, list[npt.NDArray[np.bool_]]] | None = None

    # ------------------------------------------------------------------------------ the files

    def load(self) -> bool:
        """Takes what the folder holds; returns whether there was an index.

        Raises `DamagedFile` if it is damaged.
        """
        if self._resting or not self._folder.exists:
            return False
        self.state, self._dirty, self._chosen = self._folder.load(self.state.segments), False, None
        self.made += 1
        return True

    def clear(self) -> None:
        """Forgets everything, also in the folder. Raises `OSError` if the disk refuses."""
        self.state, self._dirty, self._chosen = State(), True, None
        self.made += 1
        if self._folder.path.is_dir():
            self._folder.clear()

    def rest(self) -> None:
        """From here on the index is in memory only; the folder is emptied, as far as it can be."""
        self._resting = True
        with suppress(OSError):
            self._folder.clear()

    @property
    def waiting(self) -> int:
        """Documents that are in memory only."""
        return sum(len(segment) for segment in self.state.segments if not segment.file)

    def keep(self, force: bool = False) -> None:
        """Writes what is in memory into the folder, if it is enough for that or `force` is given.

        Does nothing while another process writes. Where that one has written before, this index
        then has what it wrote and no more, and `made` changes. Raises `OSError` if the disk
        refuses, `DamagedFile` for what another process wrote.
        """
        if self._resting or not (
            self.waiting >= KEPT_ROWS or (force and (self._dirty or self.state.owed))
        ):
            return
        with self._folder.lock() as alone:
            if alone and not (self._folder.changed() and self.load()):
                self._purge(np.empty(0, np.uint64))
                self._compact()
                self._save()

    def purge(self, numbers: Numbers, pages: Iterable[int], later: bool = False) -> None:
        """Rewrites the segments that have a trace of these documents [n], or of owed ones.

        `pages` are those of the bank that hold the documents: they are read again next time. With
        `later` the documents are only noted, and owed. Raises `OSError` if the disk refuses,
        `DamagedFile` for damage, `BankError` if another process writes the index all the time.
        """
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._folder.path.is_dir():
            with self._folder.lock() as alone:
                if alone and self._resting:
                    self._folder.clear()
                if alone:
                    if self._folder.changed():
                        self.load()
                    self._forget(numbers, pages)
                    if later:
                        self.state.owed.update(numbers.tolist())
                    else:
                        self._purge(numbers)
                        self._compact()
                    if not self._resting:
                        self._save()
                    return
            if time.monotonic() > end:
                raise BankError(
                    f"The word index {self._folder.path} is being written by another process; "
                    "try again when it is done."
                )
            time.sleep(0.01)
        self._forget(numbers, pages)

    def _forget(self, numbers: Numbers, pages: Iterable[int]) -> None:
        """Documents do not count from now on, and their pages are not known any more."""
        for page in pages:
            self.state.marks.pop(page, None)
        self.remove(numbers)
        self.made += 1

    def _purge(self, numbers: Numbers) -> None:
        owed = np.fromiter(self.state.owed, np.uint64, len(self.state.owed))
        doomed = np.concatenate([numbers, owed])
        if not len(doomed):
            return
        left = [
            segment.without_dead() if (segment.rows(doomed) >= 0).any() else segment
            for segment in self.state.segments
        ]
        self.state.segments = [segment for segment in left if len(segment)]
        self.state.owed, self._chosen, self._dirty = set(), None, True

    def _compact(self) -> None:
        """Merges the newest segments into one, as large as it may be, and drops many dead rows."""
        done = []
        for segment in self.state.segments:
            crowded = segment.dead > _DEAD_SHARE * len(segment)
            done.append(segment.without_dead() if segment.file and crowded else segment)
        tail: list[Segment] = []
        size = 0
        while done:
            rows = len(done[-1]) - done[-1].dead
            large = bool(done[-1].file) or rows > KEPT_ROWS
            if large and (rows > 2 * size or size + rows > MOST_ROWS):
                break
            size += rows
            tail.insert(0, done.pop())
        self._replace(done, tail)

    def _replace(self, kept: list[Segment], merged: list[Segment]) -> None:
        joined = [merge_segments(merged)] if merged else []
        self.state.segments = [segment for segment in [*kept, *joined] if len(segment)]
        self._chosen = None

    def _save(self) -> None:
        if not self._folder.save(self.state, self.limit):
            raise OSError(errno.EFBIG, f"it would take more than its limit of {self.limit} bytes")
        self._dirty = False

    # ------------------------------------------------------------------------------- documents

    def __len__(self) -> int:
        """Documents with words that count."""
        return sum(len(segment) - segment.dead for segment in self.state.segments)

    @property
    def documents(self) -> int:
        """All documents that it knows of, those without words included."""
        return len(self) + len(self.state.apart)

    def add(self, rows: Sequence[Row], apart: Mapping[int, int] | None = None) -> None:
        """Adds documents in place of those with the same numbers; see `State` for `apart`."""
        for number in apart or ():
            self.state.apart.pop(number, None)
        self.remove(np.array([row.number for row in rows], np.uint64))
        self.state.apart |= apart or {}
        self._dirty = True
        if not rows:
            return
        segments = [*self.state.segments, build_segment(rows)]
        while len(segments) > 1 and not segments[-2].file:
            one, two = segments[-2:]
            if len(one) > 2 * len(two):
                break
            segments[-2:] = [merge_segments([one, two])]
        self.state.segments, self._chosen = segments, None

    def remove(self, numbers: Numbers) -> None:
        """Documents do not count from now on; skips those that are not there."""
        for number in numbers.tolist() if self.state.apart else ():
            self.state.apart.pop(number, None)
        for segment in self.state.segments:
            rows = segment.rows(numbers)
            rows = rows[rows >= 0]
            rows = rows[segment.live[rows]]
            if len(rows):
                segment.bury(rows)
                self._dirty, self._chosen = True, None

    def mark(self, marks: Mapping[int, bytes]) -> None:
        """Notes which state of the bank's pages the documents are of."""
        self._dirty |= marks != self.state.marks
        self.state.marks = dict(marks)

    def digests(self, numbers: Numbers) -> tuple[npt.NDArray[np.bool_], Numbers]:
        """(which numbers [n] are known, their digests [n])."""
        known, digests = np.zeros(len(numbers), bool), np.zeros(len(numbers), np.uint64)
        for segment in self.state.segments:
            rows = segment.rows(numbers)
            at = np.flatnonzero(rows >= 0)
            at = at[segment.live[rows[at]]]
            known[at], digests[at] = True, segment.digests[rows[at]]
        if self.state.apart:
            for place in np.flatnonzero(~known).tolist():
                digest = self.state.apart.get(int(numbers[place]))
                if digest is not None:
                    known[place], digests[place] = True, digest
        return known, digests

    def missing(self, numbers: Numbers) -> list[tuple[int, str]]:
        """(number, id) of the documents that are not among these numbers [n], ascending."""
        lost: list[tuple[int, str]] = []
        for segment in self.state.segments:
            gone = segment.live & ~_among(segment.numbers, numbers)
            lost += [
                (int(segment.numbers[row]), segment.id(row))
                for row in np.flatnonzero(gone).tolist()
            ]
        apart = np.array(list(self.state.apart), np.uint64)
        return lost + [(number, "") for number in apart[~_among(apart, numbers)].tolist()]

    # ------------------------------------------------------------------------------- searching

    def mean(self) -> float:
        """Mean length of the documents in words."""
        return sum(segment.words for segment in self.state.segments) / max(1, len(self))

    def counts(self, terms: Numbers) -> Places:
        """How many documents hold each word [n]."""
        total = np.zeros(len(terms), np.int64)
        for segment in self.state.segments:
            for at, place in enumerate(segment.lists.find(terms).tolist()):
                if place >= 0:
                    size = segment.lists.size(place)
                    if segment.dead:
                        size = int(segment.live[segment.lists.read(place)[0]].sum())
                    total[at] += size
        return total

    def search(
        self, terms: Numbers, weights: Floats, top: int, only: Numbers | None = None
    ) -> Found:
        """The `top` best by BM25 with a weight for each word [n], best first.

        `only`: numbers of the documents that may be found; the same array for the same documents.
        """
        chosen = None if only is None else self._masks(only)
        return best_rows(self.state.segments, terms, weights, self.mean(), top, chosen)

    def _masks(self, only: Numbers) -> list[npt.NDArray[np.bool_]]:
        if self._chosen is None or self._chosen[0] is not only:
            asked = np.sort(only)
            masks = [s.live & _among(s.numbers, asked) for s in self.state.segments]
            self._chosen = only, masks
        return self._chosen[1]

    def locate(self, numbers: Numbers) -> Spots:
        """Where the documents with these numbers [n] are; see `Spots`."""
        at = np.full(len(numbers), -1, np.int64)
        rows = np.full(len(numbers), -1, np.int64)
        for number, segment in enumerate(self.state.segments):
            found = segment.rows(numbers)
            known = np.flatnonzero(found >= 0)
            known = known[segment.live[found[known]]]
            at[known], rows[known] = number, found[known]
        return Spots(at, rows)

    def _parts(self, spots: Spots) -> Iterator[tuple[Segment, Places, Places]]:
        """(segment, places in `spots` [m], rows [m]) of each segment that has one of them."""
        for number, segment in enumerate(self.state.segments):
            places = np.flatnonzero(spots.segments == number)
            if len(places):
                yield segment, places, spots.rows[places]

    def ids(self, spots: Spots) -> list[str]:
        """The ids of documents that are there, [n]."""
        segments = self.state.segments
        pairs = zip(spots.segments.tolist(), spots.rows.tolist(), strict=True)
        return [segments[at].id(row) for at, row in pairs]

    def holds(self, terms: Numbers, spots: Spots) -> npt.NDArray[np.bool_]:
        """Whether each document [n] holds each word [m], bool [m, n]; unknown ones hold none."""
        held = np.zeros((len(terms), len(spots.rows)), bool)
        for segment, places, rows in self._parts(spots):
            for word, place in enumerate(segment.lists.find(terms).tolist()):
                if place >= 0:
                    held[word, places] = segment.lists.times(place, rows) > 0
        return held

    def holders(
        self,
        terms: Numbers,
        weights: Floats,
        kinds: npt.NDArray[np.bool_],
        least: Sequence[float],
        most: int,
        only: Numbers | None = None,
    ) -> list[Found]:
        """For each of the kinds [k, n], the `most` best that hold exactly its words of the words.

        Best first, the later one of equals. Leaves out scores below `least` [k]. The kinds are all
        different. `weights` and `only` are as for `search`.
        """
        masks = None if only is None else self._masks(only)
        mean = self.mean()
        found: list[Found] = [[] for _ in kinds]
        for at, segment in enumerate(self.state.segments):
            mask = segment.live if masks is None else masks[at]
            exact = exact_rows(segment, terms, weights, kinds, mean, mask)
            for own, bar, (rows, scores) in zip(found, least, exact, strict=True):
                good = scores >= bar
                pairs = zip(scores[good].tolist(), rows[good].tolist(), strict=True)
                own += [(score, at, row) for score, row in pairs]
        return [heapq.nlargest(most, own) for own in found]

    def ages(self, spots: Spots) -> list[tuple[str, int] | None]:
        """(time, order) of documents [n], larger for a newer one; None for an unknown one."""
        ages: list[tuple[str, int] | None] = [None] * len(spots.rows)
        for segment, places, rows in self._parts(spots):
            for place, age in zip(places.tolist(), segment.ages(rows), strict=True):
                ages[place] = age
        return ages

    def short_texts(self, spots: Spots) -> list[npt.NDArray[np.uint16]]:
        """The words of short texts [n] as 16-bit hashes; none for long or unknown ones."""
        texts = [np.empty(0, np.uint16)] * len(spots.rows)
        for segment, places, rows in self._parts(spots):
            for place, text in zip(places.tolist(), segment.short_texts(rows), strict=True):
                texts[place] = text
        return texts

    def may_hold(self, spots: Spots, hashes: Sequence[int]) -> Places:
        """How many of the words with these hashes each document [n] holds at most."""
        most = np.full(len(spots.rows), len(hashes), np.int64)
        for segment, places, rows in self._parts(spots):
            most[places] = segment.may_hold(rows, hashes)
        return most


def _among(asked: npt.NDArray[Any], known: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of `asked` [n] are in `known`, which ascends."""
    if not len(known):
        return np.zeros(len(asked), bool)
    near = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[near] == asked
    return found
