"""Words of a text as a few 16-bit hashes, so that an entry without its text can still be found by
BM25, alone or together with dense keys.

Knows words and ids; knows no bank and no backbone. Words are stemmed by SQLite's FTS5 as in
`LexicalIndex`; a hash that two stems share (65,536 values) makes them one word.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from torch import Tensor

from latentbank.errors import BankError, InputError
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.lexical import COMMON, WORD, LexicalIndex

SKETCH_REPEATS = 3  # a stem is kept at most so often in one sketch
# chosen on 256 validation paragraphs, one question each: 91.8 % first by BM25, 62.1 % by cosine,
# 93.4 % by both
COSINE_WEIGHT = 16.0
FUSED_CANDIDATES = 32


def sketches(texts: Sequence[str]) -> list[bytes]:
    """The sketch of each text: sorted uint16 hashes of its stems, up to `SKETCH_REPEATS` times
    each, without function words.
    """
    return [_pack(stems) for stems in _stems(texts)]


def _stems(texts: Sequence[str]) -> list[list[tuple[str, int]]]:
    """(stem, count) of each text, function words left out before stemming."""
    db = sqlite3.connect(":memory:")
    try:
        db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61')"
        )
        db.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(words, 'instance')")
        kept = (
            " ".join(w for w in WORD.findall(text) if w.lower() not in COMMON) for text in texts
        )
        db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", enumerate(kept))
        found: list[list[tuple[str, int]]] = [[] for _ in texts]
        rows = db.execute("SELECT doc, term, count(*) FROM terms GROUP BY doc, term")
        for doc, term, count in rows:
            found[doc].append((term, count))
    finally:
        db.close()
    return found


def _hash(stem: str) -> int:
    return int.from_bytes(blake2b(stem.encode(), digest_size=2).digest(), "little")


def _pack(stems: Iterable[tuple[str, int]]) -> bytes:
    hashes = [_hash(stem) for stem, n in stems for _ in range(min(n, SKETCH_REPEATS))]
    return np.array(sorted(hashes), "<u2").tobytes()


def _text(sketch: bytes) -> str:
    """The sketch as words of digits, which no stemmer changes."""
    return " ".join(map(str, np.frombuffer(sketch, "<u2")))


def join_sketch(sketch: bytes, body: bytes) -> bytes:
    """A payload: the sketch's length as uint16, the sketch, the rest."""
    if len(sketch) > 2 * 0xFFFF:
        raise InputError(f"a sketch holds at most {0xFFFF} words, got {len(sketch) // 2}")
    return (len(sketch) // 2).to_bytes(2, "little") + sketch + body


def split_sketch(payload: bytes) -> tuple[bytes, bytes]:
    """The inverse of `join_sketch`. Raises BankError where the length cannot be."""
    end = 2 + 2 * int.from_bytes(payload[:2], "little")
    if len(payload) < max(2, end):
        raise BankError(f"a payload of {len(payload)} bytes cannot hold a sketch of {end - 2}")
    return payload[2:end], payload[end:]


class SketchIndex:
    """BM25 over sketches, incremental; the words of a question are hashed the same way."""

    def __init__(self) -> None:
        self._words = LexicalIndex(background=None)  # hashes are no words

    def __len__(self) -> int:
        return len(self._words)

    def add(self, ids: Sequence[str], found: Sequence[bytes]) -> None:
        """Indexes sketches; an id that is already there is left as it is."""
        self._words.add(ids, [_text(sketch) for sketch in found])

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        self._words.remove(ids)

    def search(self, questions: Sequence[str], top: int) -> list[list[tuple[str, float]]]:
        """For each question the `top` best (id, BM25 score), best first."""
        return [self._words.search(_text(one), top) for one in sketches(questions)]

    def matches(self, questions: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """As `LexicalIndex.matches`, for the documents named in each question's row."""
        asked = sketches(questions)
        return [self._words.matches(_text(q), row) for q, row in zip(asked, rows, strict=True)]


class FusedIndex:
    """Sketches and dense keys of the same documents: BM25 + `COSINE_WEIGHT` · cosine, over the best
    `FUSED_CANDIDATES` of each.
    """

    def __init__(self, key_width: int) -> None:
        self._sketches, self._keys = SketchIndex(), DenseKeys(key_width)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, ids: Sequence[str], found: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """Adds documents with their sketches and int8 keys; ids must be new."""
        self._sketches.add(ids, found)
        self._keys.add(ids, keys)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        self._sketches.remove(ids)
        self._keys.remove(ids)

    def matches(self, questions: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """As `LexicalIndex.matches`, for the documents named in each question's row."""
        return self._sketches.matches(questions, rows)

    def search(
        self, questions: Sequence[str], asked: Tensor, top: int
    ) -> list[list[tuple[str, float]]]:
        """For each question, with its unit key in asked [B, width], the `top` (id, score)."""
        reach = max(top, FUSED_CANDIDATES)
        words = self._sketches.search(questions, reach)
        dense = self._keys.search(asked, reach)
        named = self._keys.cosines(asked, [[name for name, _ in row] for row in words])
        result = []
        for by_word, by_key, cosines in zip(words, dense, named, strict=True):
            scores = {name: COSINE_WEIGHT * cosine for name, cosine in by_key}
            for (name, score), cosine in zip(by_word, cosines, strict=True):
                scores[name] = score + COSINE_WEIGHT * cosine
            best = sorted(scores.items(), key=lambda pair: -pair[1])
            result.append(best[:top])
        return result
