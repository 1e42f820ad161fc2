"""Newer versions of a text before older ones, among what a search found.

Knows names, scores and words; knows no bank and no index.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from latentbank.parts.retrieval.lexical import COMMON, WORD, Ranking

REACH = 8  # candidates to look for versions in
NEAR = 0.8  # a version scores at least so much of the best document's score
ALIKE = 0.5  # two texts with this share of their words in common are versions of one


def content(text: str) -> frozenset[str]:
    """The words of a text that tell it from others, in lower case."""
    return frozenset(word.lower() for word in WORD.findall(text)) - COMMON


def newest(
    found: Ranking,
    top: int,
    words: Callable[[str], frozenset[Hashable]],
    age: Callable[[str], Any],
) -> Ranking:
    """The `top` of `found`, best first, each as its newest version; older ones are left out.

    `words` gives the content of a document, `age` what is larger for a newer one; both are asked
    only where two scores are near each other.
    """
    kept: Ranking = []
    rest = list(found)
    while rest and len(kept) < top:
        best, score = rest[0]
        near = [name for name, other in rest[1:] if other >= NEAR * score]
        versions = [best]
        if near:
            versions += [name for name in near if _alike(words(best), words(name))]
        kept.append((max(versions, key=age) if len(versions) > 1 else best, score))
        rest = [pair for pair in rest if pair[0] not in versions]
    return kept


def _alike(one: frozenset[Hashable], two: frozenset[Hashable]) -> bool:
    return len(one & two) >= ALIKE * max(len(one | two), 1)
