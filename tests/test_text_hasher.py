"""What the word index holds of texts: the same, whether a text is remembered or new."""

from __future__ import annotations

import pytest

from latentbank.parts.retrieval import tokens
from latentbank.parts.retrieval.tokens import Hashed, TextHasher

TEXTS = ["Mara Venn repairs the lighthouse.", "Der Hafen öffnet früh.", "readFile fails", "灯台"]


def same(one: Hashed, other: Hashed) -> bool:
    return one.terms.tolist() == other.terms.tolist() and one[1:] == other[1:]


def test_a_text_gives_the_same_however_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [TextHasher()([text])[0] for text in TEXTS]
    monkeypatch.setattr(tokens, "_TEXTS_REMEMBERED", 3)  # some are forgotten in between
    hasher = TextHasher()
    for texts in (TEXTS[:2], TEXTS, [TEXTS[3], TEXTS[0], TEXTS[0]], TEXTS[1:], ["\ud800 lone"]):
        found = hasher(texts)
        known = [
            (f, alone[TEXTS.index(t)]) for f, t in zip(found, texts, strict=True) if t in TEXTS
        ]
        assert all(same(*pair) for pair in known) and len(found) == len(texts)


def test_no_text_is_kept() -> None:
    hasher = TextHasher()
    hasher(TEXTS)
    assert all(isinstance(key, bytes) and len(key) == 16 for key in hasher._texts)
