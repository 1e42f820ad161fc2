"""What speaks for a text in its own words: the features of one question and one text.

Knows words and their weights; knows no index, no bank and no score of the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from latentbank.parts.retrieval.analysis import COMMON, WORD, analysed
from latentbank.parts.retrieval.rerank.passages import (
    CONTENT,
    NAME,
    NUMBER,
    YEAR,
    Passage,
    Stemmer,
    kind_of,
)

__all__ = ["Asked", "Evidence", "evidence"]

WINDOW = 20  # words
_LEAST_STEM = 4  # letters of a stem that a longer or shorter word may share
_ASKING = frozenset(WORD.findall("what which who whom whose when where why how many much name did"))
# The kind of word that answers a question, by what it asks for.
_ANSWERS = (
    (YEAR, re.compile(r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|decade|century)\b")),
    (
        NUMBER,
        re.compile(
            r"\bhow (?:many|much|long|old|far|tall|large|big|high|often|fast|deep)\b|percentage"
            r"|\bwhat (?:number|population|amount)\b"
        ),
    ),
    (
        NAME,
        re.compile(
            r"\b(?:who|whom|whose|where)\b|\b(?:what|which) (?:city|country|state|company|team"
            r"|person|name|university|school|group|organization|album|song|book|film)\b"
        ),
    ),
)


@dataclass(frozen=True)
class Evidence:
    """Features of a question and a text; weights of words are inverse document frequencies.

    Attributes:
        score: BM25 of the whole text.
        held: weight of the question's words that the text holds.
        sentence: the same for the one sentence that holds most.
        window: the same for the `WINDOW` successive words that hold most.
        pairs: number of successive words of the question, function words included, that also follow
            each other in the text.
        content_pairs: weight of the successive content words that do so, function words left out.
        names_missing: weight of the question's names that the text does not hold.
        answer: 1 if the best sentence holds another word of the kind that is asked for (a year, a
            number, a name), 0.5 if another sentence does, 0 if none; 0.8 if no kind is known.
        alike: weight of words that are missing, but of which the text holds a relative: one that
            begins with the same letters.
        start: place of the first word of the question that the text holds, divided by 50.
        length: logarithm of the number of words.
    """

    score: float
    held: float
    sentence: float
    window: float
    pairs: float
    content_pairs: float
    names_missing: float
    answer: float
    alike: float
    start: float
    length: float

    def values(self) -> list[float]:
        """The features in the order of the fields."""
        return [getattr(self, one.name) for one in fields(self)]


@dataclass(frozen=True)
class Asked:
    """A question as its words.

    Attributes:
        weights: content stem → weight, in the question's order.
        names: the content stems that are names.
        pairs: successive stems.
        content_pairs: successive content stems, words that only ask left out.
        kind: the kind of word that answers; 0 if it is not known.
    """

    weights: Mapping[str, float]
    names: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    content_pairs: frozenset[tuple[str, str]]
    kind: int

    @classmethod
    def of(cls, question: str, weights: Mapping[str, float], stemmer: Stemmer) -> Asked:
        """`weights`: content word of the question, in lower case → its weight."""
        words = WORD.findall(analysed(question))
        lower = [word.lower() for word in words]
        stems = stemmer.stems(lower)
        stem_of = dict(zip(lower, stems, strict=True))
        content = [
            stem
            for word, stem in zip(lower, stems, strict=True)
            if word not in COMMON and word not in _ASKING
        ]
        return cls(
            weights={stem_of[word]: weight for word, weight in weights.items()},
            names=frozenset(
                stem
                for i, (word, stem) in enumerate(zip(words, stems, strict=True))
                if kind_of(word, first=i == 0) & (NAME | CONTENT) == NAME | CONTENT
            ),
            pairs=frozenset(pairwise(stems)),
            content_pairs=frozenset(pairwise(content)),
            kind=next((kind for kind, sign in _ANSWERS if sign.search(question.lower())), 0),
        )


def evidence(asked: Asked, passage: Passage, score: float) -> Evidence:
    """The features of a question and a text whose BM25 score is `score`."""
    weights, stems = asked.weights, passage.stems
    hits = [(i, stem) for i, stem in enumerate(stems) if stem in weights]
    held = {stem for _, stem in hits}
    missing = [stem for stem in weights if stem not in held]
    best, sentence = _best_sentence(hits, passage.sentences, weights)
    content = [s for s, kind in zip(stems, passage.kinds, strict=True) if kind & CONTENT]
    followed = asked.content_pairs.intersection(pairwise(content))
    return Evidence(
        score=score,
        held=sum(weights[stem] for stem in held),
        sentence=sentence,
        window=_best_window(hits, weights),
        pairs=len(asked.pairs.intersection(pairwise(stems))),
        content_pairs=sum(weights.get(a, 0.0) + weights.get(b, 0.0) for a, b in followed),
        names_missing=sum(weights.get(stem, 0.0) for stem in asked.names if stem not in held),
        answer=_answer(asked, passage, held, best),
        alike=sum(weights[stem] for stem in missing if _relative(stem, passage.lines)),
        start=hits[0][0] / 50 if hits else 0.0,
        length=math.log(len(stems) + 1),
    )


def _best_sentence(
    hits: Sequence[tuple[int, str]], sentences: bytes, weights: Mapping[str, float]
) -> tuple[int, float]:
    """(number, weight) of the sentence that holds most of the question."""
    inside: dict[int, set[str]] = {}
    for i, stem in hits:
        inside.setdefault(sentences[i], set()).add(stem)
    totals = {number: sum(weights[s] for s in found) for number, found in inside.items()}
    best = max(totals, key=lambda number: (totals[number], -number), default=0)
    return best, totals.get(best, 0.0)


def _best_window(hits: Sequence[tuple[int, str]], weights: Mapping[str, float]) -> float:
    """The weight of the question's words in the `WINDOW` words that hold most of it."""
    best, first = 0.0, 0
    counts: dict[str, int] = {}
    total = 0.0
    for i, stem in hits:
        if not counts.get(stem):
            total += weights[stem]
        counts[stem] = counts.get(stem, 0) + 1
        while i - hits[first][0] > WINDOW:
            gone = hits[first][1]
            counts[gone] -= 1
            if not counts[gone]:
                total -= weights[gone]
            first += 1
        best = max(best, total)
    return best


def _answer(asked: Asked, passage: Passage, held: set[str], best: int) -> float:
    if not asked.kind or not passage.stems:
        return 0.8
    found = 0.0
    for stem, sentence, kind in zip(passage.stems, passage.sentences, passage.kinds, strict=True):
        if kind & asked.kind and stem not in held:
            if sentence == best:
                return 1.0
            found = 0.5
    return found


def _relative(stem: str, lines: str) -> bool:
    """Whether another word, in a line of its own, begins as a stem does: "invad" and "invas"."""
    if len(stem) < _LEAST_STEM:
        return False
    start = stem[: max(_LEAST_STEM, len(stem) - 2)]
    return f"\n{start}" in lines
