"""How common English words are in general, for collections too small to tell it themselves.

The table ships with the package: the share of SQuAD's training paragraphs that hold a stem, counted
by scripts/count_words.py. Knows words; knows no documents and no index.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import Counter
from collections.abc import Iterable
from importlib import resources

__all__ = ["LEAST_SHARE", "background_share", "pack_shares", "stem_counts"]

LEAST_SHARE = 0.002  # of the paragraphs; a stem below it is not in the table
_ASSET = "assets/english.words"
_REMEMBERED = 65_536  # words


def background_share(word: str) -> float:
    """The share of English paragraphs that hold `word`; 0 for a rare one or no single word."""
    return _shares().get(_stem(word), 0.0)


def stem_counts(texts: Iterable[str]) -> Counter[str]:
    """Stem → number of the texts that hold it, stemmed as `LexicalIndex` does."""
    db = sqlite3.connect(":memory:")
    try:
        db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61')"
        )
        db.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, 'row')")
        db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", enumerate(texts, start=1))
        return Counter(dict(db.execute("SELECT term, doc FROM stems")))
    finally:
        db.close()


def pack_shares(counts: Counter[str], texts: int) -> str:
    """The table as text: a line for each share in tenths of a percent, then its stems."""
    lines: dict[int, list[str]] = {}
    for stem, count in counts.items():
        if count >= LEAST_SHARE * texts:
            lines.setdefault(round(1000 * count / texts), []).append(stem)
    return "".join(f"{share} {' '.join(sorted(lines[share]))}\n" for share in sorted(lines))


@functools.cache
def _shares() -> dict[str, float]:
    text = resources.files("latentbank").joinpath(_ASSET).read_text("utf-8")
    rows = (line.split() for line in text.splitlines())
    return {stem: int(share) / 1000 for share, *stems in rows for stem in stems}


@functools.lru_cache(_REMEMBERED)
def _stem(word: str) -> str:
    stems = list(stem_counts([word]))
    return stems[0] if len(stems) == 1 else ""
