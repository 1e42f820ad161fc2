"""Texts as hashes of their stems, word by word as SQLite's FTS5 would index them.

FTS5 (Porter stemming, no accents, no case) is asked once for each word that comes up. Knows words;
knows no index and no bank.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain

import numpy as np
import numpy.typing as npt

__all__ = ["KIND", "Stemmer"]

KIND = "fts5 porter unicode61, scripts, 2"  # changes when the same text would give other hashes
_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f\ue000-\uf8ff])+")  # accents may be characters
_REMEMBERED = 1 << 18  # words

Numbers = npt.NDArray[np.uint64]


class Stemmer:
    """Remembers the stems of the words that came up lately. About 100 bytes for a word."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, ...]] = {}
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61')"
        )
        self._db.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, 'instance')")

    def hashes(self, texts: Sequence[str]) -> list[Numbers]:
        """The hashes of the stems of each text in order, uint64 [words]; see `analysed`."""
        split = [_WORD.findall(text.lower()) for text in texts]
        known, used = self._known, set().union(*split)
        if len(known) + len(used) > _REMEMBERED:
            known.clear()
        self._learn([word for word in used if word not in known])
        return [
            np.fromiter(chain.from_iterable(map(known.__getitem__, words)), np.uint64)
            for words in split
        ]

    def _learn(self, words: list[str]) -> None:
        if not words:
            return
        stems: list[list[int]] = [[] for _ in words]
        self._db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", enumerate(words))
        for at, stem in self._db.execute("SELECT doc, term FROM stems ORDER BY doc, offset"):
            stems[at].append(_hash(stem))
        self._db.execute("INSERT INTO words(words) VALUES ('delete-all')")
        self._known.update(zip(words, map(tuple, stems), strict=True))


def _hash(stem: str) -> int:
    return int.from_bytes(blake2b(stem.encode(), digest_size=8).digest(), "little")
