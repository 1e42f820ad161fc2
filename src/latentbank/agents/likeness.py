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
_INDEXES = 8  # lists of texts that are remembered


class Likeness(Protocol):
    """Cosines of texts."""

    def cosines(self, text: str, others: Sequence[str]) -> Array:
        """The cosines [n] of a text with n others, -1 … 1."""


class WordLikeness:
    """Cosines of word counts, with words and pairs of words weighted by how rare they are.

    How rare is counted among the others. The index of a list of others is kept for the next call.
    """

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, ...], _Index] = {}

    def cosines(self, text: str, others: Sequence[str]) -> Array:
        """See `Likeness`."""
        key = tuple(others)
        index = self._indexes.pop(key, None) or _Index(key)
        self._indexes[key] = index
        if len(self._indexes) > _INDEXES:
            del self._indexes[next(iter(self._indexes))]
        return index.cosines(text)


class _Index:
    """Word → (places, weights) in a list of texts; each text's weights have length 1."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        rows = [_features(one) for one in texts]
        self._seen = Counter(name for row in rows for name in row)
        places: dict[str, list[int]] = {}
        weights: dict[str, list[float]] = {}
        for place, row in enumerate(rows):
            for name, value in self._weighted(row).items():
                places.setdefault(name, []).append(place)
                weights.setdefault(name, []).append(value)
        self._words = {name: (np.array(places[name]), np.array(weights[name])) for name in places}

    def cosines(self, text: str) -> Array:
        """The cosines [n] of a text with those of the list."""
        found = np.zeros(self._count)
        for name, value in self._weighted(_features(text)).items():
            if name in self._words:
                places, weights = self._words[name]
                found[places] += value * weights
        return found

    def _weighted(self, row: Counter[str]) -> dict[str, float]:
        rare = {name: math.log(1 + self._count / max(1, self._seen[name])) for name in row}
        size = math.sqrt(sum((count * rare[name]) ** 2 for name, count in row.items()))
        return {name: count * rare[name] / size for name, count in row.items()} if size else {}


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
