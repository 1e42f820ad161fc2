"""Texts as the word index holds them: hashes of their stems, and which words they may hold.

Stems are those of SQLite's FTS5 (Porter stemming, no accents, no case), which is asked once for
each word that comes up. Knows words; knows no index and no bank.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain, islice
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from latentbank.bank.words.segment import signature
from latentbank.parts.retrieval.analysis import COMMON, analysed
from latentbank.parts.retrieval.versions import is_short, word_list

__all__ = ["KIND", "Hashed", "Stemmer", "TextHasher"]

KIND = "fts5 porter unicode61, scripts, 2"  # changes when the same text would give other hashes
_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f\ue000-\uf8ff])+")  # accents may be characters
_REMEMBERED = 1 << 18  # words
_TEXTS_REMEMBERED = 1 << 13

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
        plain = [word for word in words if word.isascii()]  # of one stem each: asked as one text
        rest = [word for word in words if not word.isascii()]
        stems: list[list[int]] = [[] for _ in rest]
        self._db.execute("INSERT INTO words(rowid, text) VALUES (-1, ?)", (" ".join(plain),))
        self._db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", enumerate(rest))
        found = self._db.execute("SELECT doc, term FROM stems ORDER BY doc, offset")
        first = [(_hash(stem),) for _, stem in islice(found, len(plain))]
        for at, stem in found:
            stems[at].append(_hash(stem))
        self._db.execute("INSERT INTO words(words) VALUES ('delete-all')")
        self._known.update(zip(plain, first, strict=True))
        self._known.update(zip(rest, map(tuple, stems), strict=True))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _hash(stem: str) -> int:
    return int.from_bytes(blake2b(stem.encode(), digest_size=8).digest(), "little")


class Hashed(NamedTuple):
    """What the index holds of a text; see `Row` for `short` and `sign`."""

    terms: Numbers
    short: bytes
    sign: bytes


class TextHasher:
    """Hashes of texts. Remembers the last ones: a text that fades to another level comes again.

    It keeps digests of texts and not the texts, which may have been deleted.
    """

    def __init__(self) -> None:
        self.stemmer = Stemmer()
        self._words = _WordHashes()
        self._texts: dict[bytes, Hashed] = {}  # by digest

    def __call__(self, texts: Sequence[str]) -> list[Hashed]:
        """What the index holds of each text."""
        digests = [_digest(text) for text in texts]
        known = self._texts
        new = {d: text for d, text in zip(digests, texts, strict=True) if d not in known}
        if len(known) + len(new) > _TEXTS_REMEMBERED:
            known = self._texts = {d: known[d] for d in digests if d in known}
        written = [analysed(text) for text in new.values()]
        stems = self.stemmer.hashes(written)
        for (digest, text), words, terms in zip(new.items(), written, stems, strict=True):
            known[digest] = Hashed(terms, *self._rest(text, word_list(words)))
        return [known[digest] for digest in digests]

    def _rest(self, text: str, words: list[str]) -> tuple[bytes, bytes]:
        """(`Row.short`, `Row.sign`)."""
        if len(self._words) > _REMEMBERED // 4:
            self._words.clear()
        hashed, short = self._words.__getitem__, b""
        if is_short(text, words):
            hashes = np.fromiter(map(hashed, words), np.uint32, len(words))
            short = hashes.astype(np.uint16).tobytes()
        return short, signature(map(hashed, set(words) - COMMON))


class _WordHashes(dict[str, int]):
    """The CRC-32 of words, each computed once."""

    def __missing__(self, word: str) -> int:
        found = self[word] = crc32(word.encode(errors="replace"))
        return found
