"""BM25 over the words of a bank's documents, from an index beside the bank.

`StoredIndex` stands in for `LexicalIndex` where a bank has many documents: it is there as soon as
the bank is open, and it follows the bank's pages by itself. Scores are the same. Knows texts, ids
and a bank; knows no backbone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from latentbank.bank import MemoryBank
from latentbank.bank.words.folder import index_folder, remove_index
from latentbank.bank.words.following import Following, Take
from latentbank.bank.words.index import Spots, WordIndex
from latentbank.bank.words.search import Found
from latentbank.bank.words.segment import Row
from latentbank.errors import BankError
from latentbank.parts.retrieval.analysis import content_words, with_stems
from latentbank.parts.retrieval.lexical import LEAST_COLLECTION, Ranking, rarity
from latentbank.parts.retrieval.tokens import KIND, Numbers, TextHasher
from latentbank.parts.retrieval.versions import NEAR, REACH

__all__ = ["INDEX_FROM", "SLOW_FROM", "StoredIndex", "Take", "open_stored", "stores_words"]

INDEX_FROM = 4096  # documents; half as many where there is an index already
SLOW_FROM = 32  # where some of them take long to decode
_LEAST_WEIGHT = 1e-6  # FTS5's, of a word that more than half of the documents hold
_MOST = 4096  # texts to look for versions in

_UNKNOWN = 0, 0, ""


class _Asked(NamedTuple):
    """What a question asks for.

    Attributes:
        terms: hashes of its stems, ascending, uint64 [n].
        scales: what each counts in BM25, [n].
        weights: content word → its inverse document frequency.
        stems: the hashes of the stems of each content word.
        counts: content word → how many texts hold it.
    """

    terms: Numbers
    scales: npt.NDArray[np.float64]
    weights: dict[str, float]
    stems: list[Numbers]
    counts: dict[str, int]


def stores_words(
    bank: MemoryBank, levels: Container[str], limit: int, slow: Container[str] = ()
) -> bool:
    """Whether an index beside the bank is used: it is a file of many texts, of `levels` only.

    Few are many if some of them are of the levels `slow`, which take long to decode.
    """
    if limit <= 0 or not bank.in_file:
        return False
    held = bank.levels()
    least = SLOW_FROM if any(level in slow for level in held) else INDEX_FROM
    if index_folder(bank.name).is_dir():
        least //= 2
    return len(bank) >= least and all(level in levels for level in held)


def open_stored(
    bank: MemoryBank, levels: Container[str], limit: int, take: Take, slow: Container[str] = ()
) -> StoredIndex | None:
    """The index beside a bank, or None where it has none; see `stores_words`.

    An index that is of no use any more is removed. Raises `BankError` if it cannot be.
    """
    if stores_words(bank, levels, limit, slow):
        return StoredIndex(bank, limit, take)
    if bank.in_file and not bank.read_only:
        try:
            remove_index(bank.name)
        except OSError as error:
            raise BankError(
                f"The word index {index_folder(bank.name)} is of no use any more and cannot be "
                f"removed: {error.strerror or error}."
            ) from error
    return None


class StoredIndex(Following):
    """BM25 as in `LexicalIndex`, with the documents and words in segments beside the bank."""

    def __init__(self, bank: MemoryBank, limit: int, take: Take) -> None:
        """`take` gets the ids that are gone and the entries that are new, and adds the latter."""
        self._hashed = TextHasher()
        self._only: tuple[frozenset[str], Numbers] | None = None
        self._last: tuple[str, _Asked] | None = None  # the last question
        self._ages: dict[str, tuple[str, int]] = {}  # of documents that it found
        self._shorts: dict[str, npt.NDArray[np.uint16]] = {}
        index = WordIndex(bank.name, KIND, limit)
        bank.words.index = index
        super().__init__(bank, index, take)

    def __len__(self) -> int:
        return len(self._index)

    # ------------------------------------------------------------------------- as LexicalIndex

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Indexes documents in place of those with the same ids."""
        self._forget()
        rows = []
        for id, hashed in zip(ids, self._hashed(texts), strict=True):
            digest, order, time = self._pending.pop(id, _UNKNOWN)
            terms, short, sign = hashed
            rows.append(Row(self._number(id), id, digest, terms, short, order, time, sign))
        self._index.add(rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        if ids:
            self._forget()
            self._index.remove(self._numbers(ids))

    def _forget(self) -> None:
        """Forgets what was remembered of the last question."""
        self._last, self._ages, self._shorts = None, {}, {}

    def search(self, question: str, top: int, only: frozenset[str] | None = None) -> Ranking:
        """See `LexicalIndex.search`."""
        return self._whole(lambda: self._search(question, top, only))

    def _search(self, question: str, top: int, only: frozenset[str] | None) -> Ranking:
        asked = self._asked(question)
        if not len(asked.terms):
            return []
        return self._ranking(self._index.search(asked.terms, asked.scales, top, self._chosen(only)))

    def _ranking(self, found: Found) -> Ranking:
        ids = self._index.ids(Spots.of(found))
        return [(id, score) for id, (score, _, _) in zip(ids, found, strict=True)]

    def _asked(self, question: str) -> _Asked:
        """What the question asks for; remembers the last one until something changes."""
        if self._last is not None and self._last[0] == question:
            return self._last[1]
        words, size = content_words(question), len(self._index)
        stems = self._hashed.stemmer.hashes(words)
        terms = np.unique(np.concatenate(stems)) if stems else np.empty(0, np.uint64)
        counts, scales = self._index.counts(terms), np.zeros(len(terms))
        weights: dict[str, float] = {}
        held: dict[str, int] = {}
        for word, own in zip(words, stems, strict=True):
            places = np.searchsorted(terms, own).tolist()
            held[word] = min((int(counts[at]) for at in places), default=0)
            weights[word] = rarity(word, held[word], size)
            for at in places:
                count = int(counts[at])
                weight = rarity(word, count, size)
                if size >= LEAST_COLLECTION:
                    weight = max(math.log((size - count + 0.5) / (count + 0.5)), _LEAST_WEIGHT)
                scales[at] += weight / len(own)  # the parts of "foo_bar" count as one word
        asked = _Asked(terms, scales, weights, stems, held)
        self._last = question, asked
        return asked

    def search_versions(
        self, question: str, top: int, reach: int, only: frozenset[str] | None
    ) -> Ranking:
        """The `reach` best, and what may be a version of a short one of them.

        Versions of a short text hold the same words of the question, so the lists of these words
        lead to them; see `Versions`. Searches deeper if nearly all hold the same words.
        """
        return self._whole(lambda: self._search_versions(question, top, reach, only))

    def _search_versions(
        self, question: str, top: int, reach: int, only: frozenset[str] | None
    ) -> Ranking:
        asked, index = self._asked(question), self._index
        if not len(asked.terms) or not len(index):
            return []
        terms, weights, chosen = asked.terms, asked.scales, self._chosen(only)
        kinds: dict[bytes, tuple[float, npt.NDArray[np.bool_], int]] = {}
        while True:
            ranking = index.search(terms, weights, reach, chosen)
            spots = Spots.of(ranking)
            if len(ranking) < reach or ranking[-1][0] < NEAR * ranking[0][0]:
                return self._noted(ranking)
            held = index.holds(terms, spots)
            kinds = {}
            for place, (words, one) in enumerate(zip(held.T, ranking, strict=True)):
                kinds.setdefault(words.tobytes(), (one[0], words, place))
            if len(kinds) >= top or reach >= _MOST:
                break
            reach = min(8 * reach, _MOST)
        found = {(at, row): score for score, at, row in ranking}
        best = list(kinds.values())[:REACH]
        firsts = np.array([place for _, _, place in best], np.int64)
        texts = index.short_texts(Spots(spots.segments[firsts], spots.rows[firsts]))
        short = [one for one, text in zip(best, texts, strict=True) if len(text)]
        if short:
            least = [NEAR * score for score, _, _ in short]
            words = np.array([words for _, words, _ in short])
            for more in index.holders(terms, weights, words, least, _MOST, chosen):
                found = {(at, row): score for score, at, row in more} | found
        order = sorted(found.items(), key=lambda pair: -pair[1])
        return self._noted([(score, at, row) for (at, row), score in order])

    def _noted(self, found: Found) -> Ranking:
        """A ranking; notes what is asked next of its documents."""
        ranking, spots = self._ranking(found), Spots.of(found)
        ids = [id for id, _ in ranking]
        ages = zip(ids, self._index.ages(spots), strict=True)
        self._ages = {id: age for id, age in ages if age is not None}
        self._shorts = dict(zip(ids, self._index.short_texts(spots), strict=True))
        return ranking

    def matches(self, question: str, ids: Sequence[str]) -> list[float]:
        """See `LexicalIndex.matches`."""
        return self._whole(lambda: self._matches(question, ids))

    def _matches(self, question: str, ids: Sequence[str]) -> list[float]:
        asked = self._asked(question)
        if not asked.weights or not ids:
            return [0.0] * len(ids)
        terms, stems = asked.terms, asked.stems
        held = self._index.holds(terms, self._index.locate(self._numbers(ids)))
        hashes, total, shares = (
            dict(zip(asked.weights, stems, strict=True)),
            0.0,
            np.zeros(len(ids)),
        )
        for forms in with_stems(asked.weights):
            weight, there = max(asked.weights[word] for word in forms), np.zeros(len(ids), bool)
            for word in forms:
                if len(hashes[word]):
                    there |= held[np.searchsorted(terms, hashes[word])].all(0)
            shares += weight * there
            total += weight
        found: list[float] = (shares / total).tolist()
        return found

    def weights(self, question: str) -> dict[str, float]:
        """Content word of a question, in lower case → its inverse document frequency."""
        return dict(self._whole(lambda: self._asked(question)).weights)

    def counts(self, question: str) -> dict[str, int]:
        """See `LexicalIndex.counts`."""
        return dict(self._whole(lambda: self._asked(question)).counts)

    def short(self, id: str) -> npt.NDArray[np.uint16]:
        """The words of a short text in order, as 16-bit hashes; see `ShortTexts`."""
        found = self._shorts.get(id)
        if found is None:
            asked = self._numbers([id])
            found = self._whole(lambda: self._index.short_texts(self._index.locate(asked)))[0]
            self._shorts[id] = found
        return found

    def age(self, id: str) -> tuple[str, int]:
        """See `MemoryBank.age`."""
        found = self._ages.get(id)
        if found is None:
            asked = self._numbers([id])
            found = self._whole(lambda: self._index.ages(self._index.locate(asked)))[0]
            self._ages[id] = found = self._bank.age(id) if found is None else found
        return found

    def sharing(self, words: frozenset[Hashable], ids: Sequence[str]) -> Sequence[str]:
        """Those of the documents [n] that may hold half of these words; see `content`."""
        if len(ids) < 2:
            return ids
        hashes = [crc32(str(word).encode(errors="replace")) for word in words]
        asked = self._numbers(ids)
        most = self._whole(lambda: self._index.may_hold(self._index.locate(asked), hashes))
        return [
            id for id, count in zip(ids, (2 * most >= len(words)).tolist(), strict=True) if count
        ]

    def _chosen(self, only: frozenset[str] | None) -> Numbers | None:
        if only is None:
            return None
        if self._only is None or self._only[0] is not only:
            self._only = only, self._numbers(sorted(only))
        return self._only[1]

    def _numbers(self, ids: Sequence[str]) -> Numbers:
        return np.fromiter(map(self._number, ids), np.uint64, len(ids))
