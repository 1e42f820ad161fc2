"""The best documents of several segments by BM25, without looking at all that share a word.

MaxScore (Turtle and Flood, Query evaluation: strategies and optimizations, 1995): words are taken
in the order of what they can add at most. Once the words that are left cannot lift a document over
the `top` best so far, they are looked up only for documents that were found already. Knows
segments and hashed words; knows no ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentbank.bank.words.lists import K1, Floats, Numbers, Places
from latentbank.bank.words.segment import Segment

__all__ = ["Found", "best_rows", "exact_rows"]

Found = list[tuple[float, int, int]]
"""(score, number of the segment, row), best first."""

_SLACK = 1 + 1e-9  # sums in another order may differ in the last digits


def best_rows(
    segments: Sequence[Segment],
    terms: Numbers,
    weights: Floats,
    mean: float,
    top: int,
    chosen: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> Found:
    """The `top` rows by the sum of weight · (K1 + 1) · times / (times + norm) over words [n].

    Args:
        mean: mean length of the documents in words.
        chosen: for each segment which rows may be found, bool [rows]; None: all that count.
    """
    best = _Best(top)
    order = sorted(range(len(segments)), key=lambda at: -len(segments[at]))
    for at in order:
        segment = segments[at]
        mask = None if chosen is None else chosen[at]
        if mask is None and segment.dead:
            mask = segment.live
        rows, scores = _search_one(segment, terms, weights, mean, best, mask)
        best.add(at, rows, scores)
    return best.found()


def exact_rows(
    segment: Segment,
    terms: Numbers,
    weights: Floats,
    kinds: npt.NDArray[np.bool_],
    mean: float,
    mask: npt.NDArray[np.bool_],
) -> list[tuple[Places, Floats]]:
    """For each of the kinds [k, n], all different, (rows that hold exactly its words, scores).

    `kinds` says which of the words [n] are held. `mask` says which rows of the segment may be
    found.
    """
    walk = _Walk(segment, terms, weights, kinds, mean)
    nothing = np.empty(0, np.int64), np.empty(0)
    present = walk.places >= 0
    alive = [at for at, kind in enumerate(kinds) if kind.any() and present[kind].all()]
    rarest = sorted(np.flatnonzero(present).tolist(), key=walk.size)
    for word in rarest:
        own = [at for at in alive if kinds[at, word]]
        if own:
            rows, times = segment.lists.read(int(walk.places[word]))
            stays = mask[rows]
            rows = rows[stays]
            scores = walk.scored(word, rows, times[stays])
            walk.split(rows, scores, [one for one in rarest if one != word], own)
            alive = [at for at in alive if at not in own]
    return [walk.found.get(at, nothing) for at in range(len(kinds))]


class _Walk:
    """Splits rows by the words that they hold, along those that the kinds have in common."""

    def __init__(
        self,
        segment: Segment,
        terms: Numbers,
        weights: Floats,
        kinds: npt.NDArray[np.bool_],
        mean: float,
    ) -> None:
        self.lists, self.norm = segment.lists, segment.norms(mean)
        self.places, self.weights, self.kinds = self.lists.find(terms), weights, kinds
        self.found: dict[int, tuple[Places, Floats]] = {}

    def size(self, word: int) -> int:
        """How many rows hold a word."""
        return self.lists.size(int(self.places[word]))

    def scored(self, word: int, rows: Places, times: npt.NDArray[np.integer]) -> Floats:
        """What a word adds to the scores of rows [n] that hold it so often [n]."""
        added: Floats = (K1 + 1) * self.weights[word] * (times / (times + self.norm[rows]))
        return added

    def split(self, rows: Places, scores: Floats, words: list[int], own: list[int]) -> None:
        """Finds the kinds `own` among rows [n], which agree with them but for `words`."""
        if not len(rows):
            return
        if not words:
            self.found[own[0]] = rows, scores
            return
        holding = [sum(self.kinds[at, word] for at in own) for word in words]
        most = max(holding)  # what leaves the fewest rows to look at first, then the shortest list
        word = words[holding.index(most)]
        rest = [one for one in words if one != word]
        times = self.lists.times(int(self.places[word]), rows)
        held = times > 0
        if most:
            kept = rows[held]
            sums = scores[held] + self.scored(word, kept, times[held])
            self.split(kept, sums, rest, [at for at in own if self.kinds[at, word]])
        others = [at for at in own if not self.kinds[at, word]]
        if others:
            self.split(rows[~held], scores[~held], rest, others)


class _Best:
    """The best rows so far, and the score that a further one must have."""

    def __init__(self, top: int) -> None:
        self.top, self.least = top, 0.0
        self._scores = np.empty(0)
        self._places = np.empty((0, 2), np.int64)

    def raise_least(self, scores: Floats) -> None:
        """Takes note of rows that have at least these scores and are not added yet."""
        known = np.concatenate([self._scores, scores])
        if len(known) >= self.top:
            least = np.partition(known, len(known) - self.top)[len(known) - self.top]
            self.least = max(self.least, float(least) / _SLACK)

    def add(self, segment: int, rows: Places, scores: Floats) -> None:
        """Adds rows with their scores."""
        places = np.stack([np.full(len(rows), segment), rows], axis=1)
        scores, places = (
            np.concatenate([self._scores, scores]), np.concatenate([self._places, places])
        )  # fmt: skip
        kept = np.lexsort((places[:, 1], places[:, 0], -scores))[: self.top]
        self._scores, self._places = scores[kept], places[kept]
        self.raise_least(np.empty(0))

    def found(self) -> Found:
        """The rows, best first."""
        pairs = zip(self._scores.tolist(), self._places.tolist(), strict=True)
        return [(score, segment, row) for score, (segment, row) in pairs]


def _search_one(
    segment: Segment,
    terms: Numbers,
    weights: Floats,
    mean: float,
    best: _Best,
    mask: npt.NDArray[np.bool_] | None,
) -> tuple[Places, Floats]:
    """Rows [n] of one segment that may be among the best, and their scores [n]."""
    lists, factor = segment.lists, K1 + 1
    asked = [
        (factor * weight * lists.bound(place, mean), factor * weight, place)
        for place, weight in zip(lists.find(terms).tolist(), weights.tolist(), strict=True)
        if place >= 0
    ]
    asked.sort(reverse=True)
    rest = np.cumsum([0.0, *(bound for bound, _, _ in reversed(asked))])[::-1] * _SLACK
    nothing = np.empty(0, np.int64), np.empty(0)
    if not asked or rest[0] < best.least:
        return nothing
    scores, norm = np.zeros(len(segment)), segment.norms(mean)
    touched = np.zeros(len(segment), bool)
    at = 0
    while at < len(asked) and rest[at] >= best.least:
        rows, times = lists.read(asked[at][2])
        if mask is not None:
            stays = mask[rows]
            rows, times = rows[stays], times[stays]
        scores[rows] += asked[at][1] * (times / (times + norm[rows]))
        touched[rows] = True
        best.raise_least(scores[rows])
        at += 1
    rows = np.flatnonzero(touched)
    found = scores[rows]
    for place in range(at, len(asked)):
        stays = found + rest[place] >= best.least
        rows, found = rows[stays], found[stays]
        if not len(rows):
            return nothing
        counts = lists.times(asked[place][2], rows)
        found += asked[place][1] * (counts / (counts + norm[rows]))
        best.raise_least(found)
    stays = found >= best.least
    return rows[stays], found[stays]
