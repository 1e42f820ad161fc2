"""Texts as the reranker reads them: stems in order, sentences, names and numbers.

Stems are those of SQLite's FTS5, as in `LexicalIndex`. Knows texts and words; knows no index, no
bank and no question.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latentbank.parts.retrieval.analysis import COMMON, WORD, analysed

__all__ = ["CONTENT", "NAME", "NUMBER", "YEAR", "Passage", "Passages", "Stemmer"]

CONTENT, NUMBER, YEAR, NAME = 1, 2, 4, 8  # what a word is; bits of `Passage.kinds`
_REMEMBERED = 1 << 17  # words
_SENTENCE = re.compile(r"[.!?][\"')\]]*(?=\s+[\"'(\[]*[^\W_a-z])|[。！？]|.(?=\n)")
_MOST_SENTENCES = 255
_KEPT = 8192  # passages; about 2 kB for a paragraph of 130 words
_FIRST_YEAR, _LAST_YEAR = 1000, 2999


class Stemmer:
    """The stem of a word, in lower case and without accents; remembers words that came up."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61')"
        )
        self._db.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, 'instance')")

    def stems(self, words: Sequence[str]) -> list[str]:
        """The stem of each word; a word that FTS5 splits has its stems joined by blanks."""
        known, used = self._known, set(words)
        if len(known) + len(used) > _REMEMBERED:
            known.clear()
        new = [word for word in used if word not in known]
        if new:
            self._learn(new)
        return [known[word] for word in words]

    def _learn(self, words: Sequence[str]) -> None:
        parts: list[list[str]] = [[] for _ in words]
        self._db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", enumerate(words))
        for at, stem in self._db.execute("SELECT doc, term FROM stems ORDER BY doc, offset"):
            parts[at].append(stem)
        self._db.execute("INSERT INTO words(words) VALUES ('delete-all')")
        self._known.update((w, " ".join(p) or w) for w, p in zip(words, parts, strict=True))


@dataclass(frozen=True)
class Passage:
    """The words of a text in order.

    Attributes:
        stems: the stem of each word.
        sentences: the number of the sentence that each word stands in, at most 255.
        kinds: for each word the sum of `CONTENT` (no function word), `NUMBER`, `YEAR` and `NAME` (a
            capital that no sentence begins with).
    """

    stems: tuple[str, ...]
    sentences: bytes
    kinds: bytes

    @functools.cached_property
    def lines(self) -> str:
        """Every stem in a line of its own, behind its line break."""
        return "".join(f"\n{stem}" for stem in self.stems)

    @classmethod
    def of_all(cls, texts: Sequence[str], stemmer: Stemmer) -> list[Passage]:
        """The words of each of `texts`; new words are learnt together."""
        texts = [analysed(text) for text in texts]
        found = [[(one.group(), one.start()) for one in WORD.finditer(text)] for text in texts]
        words = [[word.lower() for word, _ in row] for row in found]
        stemmer.stems([word for row in words for word in row])
        stems = map(stemmer.stems, words)
        return [cls._of(*row) for row in zip(texts, found, stems, strict=True)]

    @classmethod
    def _of(cls, text: str, found: Sequence[tuple[str, int]], stems: Sequence[str]) -> Passage:
        ends = [match.end() for match in _SENTENCE.finditer(text)]
        sentences = bytes(min(bisect_right(ends, at), _MOST_SENTENCES) for _, at in found)
        kinds, before = bytearray(len(found)), -1
        for i, (word, _) in enumerate(found):
            kinds[i] = kind_of(word, sentences[i] != before)
            before = sentences[i]
        return cls(tuple(stems), sentences, bytes(kinds))


@functools.lru_cache(_REMEMBERED)
def kind_of(word: str, first: bool) -> int:
    """The sum of what a word is; `first`: a sentence begins with it."""
    kind = 0 if word.lower() in COMMON else CONTENT
    if word.isdecimal() and len(word) == 4 and _FIRST_YEAR <= int(word) <= _LAST_YEAR:
        kind |= YEAR
    if not word.isalpha() and any(character.isdigit() for character in word):
        kind |= NUMBER
    if word[0].isupper() and not first:
        kind |= NAME
    return kind


class Passages:
    """The passages that were read last, by id.

    `texts_of` gives the texts of ids that are not remembered, several at once; "" for one that is
    gone.
    """

    def __init__(self, texts_of: Callable[[Sequence[str]], Sequence[str]]) -> None:
        self.stemmer = Stemmer()
        self._texts_of = texts_of
        self._known: OrderedDict[str, Passage] = OrderedDict()

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """The passage of each id."""
        known = self._known
        cold = [id for id in ids if id not in known]
        texts = self._texts_of(cold) if cold else ()
        known.update(zip(cold, Passage.of_all(texts, self.stemmer), strict=True))
        for id in ids:
            known.move_to_end(id)
        found = [known[id] for id in ids]
        while len(known) > _KEPT:
            known.popitem(last=False)
        return found

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets passages; unknown ids are ignored."""
        for id in ids:
            self._known.pop(id, None)

    def clear(self) -> None:
        """Forgets every passage; stems are kept."""
        self._known.clear()
