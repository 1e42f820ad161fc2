"""How alike two lines are: the cosine of their vectors.

Knows texts and vectors; knows no episode.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from latentbank.errors import unknown

__all__ = ["Likeness", "SentenceLikeness", "WordLikeness", "likeness"]

Array = npt.NDArray[np.float64]
_WORD = re.compile(r"\w+")


class Likeness(Protocol):
    """Cosines of texts."""

    def cosines(self, text: str, others: Sequence[str]) -> Array:
        """The cosines [n] of a text with n others, -1 … 1."""


class WordLikeness:
    """Cosines of word counts, with words and pairs of words weighted by how rare they are."""

    def cosines(self, text: str, others: Sequence[str]) -> Array:
        """See `Likeness`."""
        rows = [self._features(one) for one in (text, *others)]
        seen = Counter(name for row in rows for name in row)
        rare = {name: math.log(1 + len(rows) / count) for name, count in seen.items()}
        weighted = [{n: c * rare[n] for n, c in row.items()} for row in rows]
        sizes = [math.sqrt(sum(v * v for v in row.values())) for row in weighted]
        own = weighted[0]
        found = [
            sum(value * row.get(name, 0.0) for name, value in own.items()) / (sizes[0] * size)
            if sizes[0] and size
            else 0.0
            for row, size in zip(weighted[1:], sizes[1:], strict=True)
        ]
        return np.array(found, np.float64)

    @staticmethod
    def _features(text: str) -> Counter[str]:
        words = _WORD.findall(text.lower())
        return Counter([*words, *map(" ".join, pairwise(words))])


class SentenceLikeness:
    """Cosines of the vectors of all-MiniLM-L6-v2. Raises InputError where it is not installed."""

    def __init__(self) -> None:
        from latentbank.parts.knowledge.features import PackagedMiniLM

        self._encoder = PackagedMiniLM()
        self._known: dict[str, Array] = {}

    def cosines(self, text: str, others: Sequence[str]) -> Array:
        """See `Likeness`."""
        wanted = list(dict.fromkeys(one for one in (text, *others) if one not in self._known))
        if wanted:
            made = self._encoder.vectors(wanted).numpy().astype(np.float64)
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            self._known.update(zip(wanted, made, strict=True))
        if not others:
            return np.zeros(0)
        found: Array = np.stack([self._known[one] for one in others]) @ self._known[text]
        return found


def likeness(name: str) -> Likeness:
    """`words`, or `minilm`."""
    if name == "words":
        return WordLikeness()
    if name == "minilm":
        return SentenceLikeness()
    raise unknown("likeness", name, ["words", "minilm"])
