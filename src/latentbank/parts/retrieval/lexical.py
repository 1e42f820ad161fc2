"""BM25 over the words of documents. Knows ids and words; knows no bank and no backbone.

A small collection cannot tell which words are common: of five notes one holds "now" and one holds
"Anna". So below `LEAST_COLLECTION` texts a word counts as if the missing texts were English prose.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from latentbank.parts.retrieval.analysis import analysed, content_words, with_stems
from latentbank.parts.retrieval.background import background_share

__all__ = ["LEAST_COLLECTION", "LexicalIndex", "Ranking", "SharedWords", "rarity"]

Ranking = list[tuple[str, float]]
"""Documents of one question with their scores, best first."""

LEAST_COLLECTION = 1000  # a word's rarity is computed as if the index held at least so many texts


class LexicalIndex:
    """BM25 over document texts: SQLite's FTS5 with Porter stemming, in memory, incremental.

    Holds the inverted index only, not the texts. `background` gives the share of texts in general
    that hold a word; None: the words are no words of a language. From `LEAST_COLLECTION` texts on
    it has no influence.
    """

    def __init__(self, background: Callable[[str], float] | None = background_share) -> None:
        self._background = background
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, "
            "tokenize='porter unicode61')"
            if sqlite3.sqlite_version_info >= (3, 43)
            else "CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter unicode61')"
        )
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Indexes documents; an id that is already there is left as it is."""
        rows = []
        for name, text in zip(ids, texts, strict=True):
            if name not in self._rows:
                self._ids.append(name)
                self._rows[name] = len(self._ids)
                rows.append((len(self._ids), analysed(text)))
        self._db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        rows = [(self._rows.pop(name),) for name in ids if name in self._rows]
        self._db.executemany("DELETE FROM words WHERE rowid = ?", rows)

    def search(self, question: str, top: int, only: frozenset[str] | None = None) -> Ranking:
        """The `top` best (id, BM25 score), best first; fewer where fewer share a word.

        Function words count only in a question of nothing else. `only`: documents that may be
        found; None: all.
        """
        words = content_words(question)
        if not words or not self._rows:
            return []
        rows = None if only is None else {self._rows[id] for id in only if id in self._rows}
        if self._background is not None and len(self._rows) < LEAST_COLLECTION:
            return self._search_few(words, top, rows)
        query = " OR ".join(f'"{word}"' for word in words)
        kept = "" if rows is None else "AND rowid IN (SELECT value FROM json_each(?)) "
        hits = self._db.execute(
            "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? "
            f"{kept}ORDER BY rank LIMIT ?",
            (query, top) if rows is None else (query, json.dumps(sorted(rows)), top),
        )
        return [(self._ids[row - 1], float(score)) for row, score in hits]

    def _search_few(self, words: Sequence[str], top: int, rows: set[int] | None) -> Ranking:
        """The search of a small collection: BM25 with `_weight` in place of FTS5's own weights."""
        scores: dict[int, float] = {}
        for word in words:
            held = self._db.execute(
                "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", (f'"{word}"',)
            ).fetchall()
            count, size = len(held), len(self._rows)
            own = max(math.log((size - count + 0.5) / (count + 0.5)), 1e-6)  # FTS5's weight
            for row, score in held:
                if rows is not None and row not in rows:
                    continue
                scores[row] = scores.get(row, 0.0) + score / own * self._weight(word, count)
        best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top]
        return [(self._ids[row - 1], score) for row, score in best]

    def _weight(self, word: str, count: int) -> float:
        return rarity(word, count, len(self._rows), self._background)

    def matches(self, question: str, ids: Sequence[str]) -> list[float]:
        """For each document, the share of the question's words that it holds, from 0 to 1.

        A word counts with its inverse document frequency, and once with its stem. Unknown ids hold
        no word.
        """
        held, weights, total = [0.0] * len(ids), self.weights(question), 0.0
        places: dict[int, list[int]] = {}
        for i, name in enumerate(ids):
            places.setdefault(self._rows.get(name, 0), []).append(i)
        rows = json.dumps(list(places))
        for forms in with_stems(weights):
            weight = max(weights[word] for word in forms)
            total += weight
            for row in set().union(*(self._holding(word, rows) for word in forms)):
                for i in places[row]:
                    held[i] += weight
        return [one / total if total else 0.0 for one in held]

    def weights(self, question: str) -> dict[str, float]:
        """Content word of a question, in lower case → its inverse document frequency."""
        return {word: self._weight(word, n) for word, n in self.counts(question).items()}

    def counts(self, question: str) -> dict[str, int]:
        """Content word of a question, in lower case → how many texts hold it."""
        counted = "SELECT count(*) FROM words WHERE words MATCH ?"
        return {
            word: self._db.execute(counted, (f'"{word}"',)).fetchone()[0]
            for word in content_words(question)
        }

    def _holding(self, word: str, rows: str) -> set[int]:
        """Those of `rows`, numbers as JSON, that hold a word."""
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? "
            "AND rowid IN (SELECT value FROM json_each(?))",
            (f'"{word}"', rows),
        )
        return {row for (row,) in found}


class SharedWords(LexicalIndex):
    """The words of some texts of a larger collection, where a word is as rare as it is there."""

    def __init__(self) -> None:
        super().__init__()
        self._size, self._counts = 0, dict[str, int]()

    def tell(self, size: int, counts: Mapping[str, int]) -> None:
        """How many of the collection's `size` texts hold each word of the next question."""
        self._size, self._counts = size, dict(counts)

    def _weight(self, word: str, count: int) -> float:
        return rarity(word, self._counts.get(word, count), max(self._size, len(self)))


def rarity(
    word: str, count: int, texts: int, background: Callable[[str], float] | None = background_share
) -> float:
    """The inverse document frequency of a word that `count` of so many texts hold."""
    size = max(texts, LEAST_COLLECTION)
    missing = size - texts
    held = count + (missing * background(word) if background and missing else 0.0)
    return math.log(1 + (size - held + 0.5) / (held + 0.5))
