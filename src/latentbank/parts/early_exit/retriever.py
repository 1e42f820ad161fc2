"""Retrieval by coarse keys that are refined when a question comes near them.

Knows ids and keys; knows no encoder and no bank.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from typing import Any

from torch import Tensor

from latentbank.bank import MemoryBank
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.lexical import Ranking
from latentbank.parts.retrieval.retriever import RetrievalConfig, Retriever
from latentbank.parts.retrieval.stored import Take

__all__ = ["CoarseRetriever"]


class CoarseRetriever(Retriever):
    """Finds texts by unit keys of `width`; the match of a text is its cosine.

    A question's `reach` nearest coarse texts are refined before they are ranked: `refined` makes
    their better int8 keys. Words are not indexed.
    """

    def __init__(
        self,
        config: RetrievalConfig,
        words_of: Callable[[str], frozenset[Hashable]],
        age_of: Callable[[str], Any],
        width: int,
        vectors: Callable[[Sequence[str]], Tensor],
        refined: Callable[[Sequence[str]], dict[str, bytes]],
        reach: int,
    ) -> None:
        self._width = width
        super().__init__(config, words_of, age_of, lambda ids: [""] * len(ids))
        self._vectors, self._refined, self._reach = vectors, refined, reach

    def clear(self) -> None:
        """Forgets every document."""
        super().clear()
        self.dense = DenseKeys(self._width)
        self.coarse: set[str] = set()

    def open_stored(
        self, bank: MemoryBank, levels: Container[str], take: Take, slow: Container[str] = ()
    ) -> bool:
        """There is no index of words beside the bank."""
        return False

    def would_store(
        self, bank: MemoryBank, levels: Container[str], slow: Container[str] = ()
    ) -> bool:
        """There is no index of words beside the bank."""
        return False

    def add_known(self, ids: Sequence[str], keys: Sequence[bytes], coarse: Sequence[bool]) -> None:
        """Indexes texts by int8 keys; those that are there already are replaced."""
        self.remove(ids)
        self.dense.add(ids, keys)
        self.coarse.update(id for id, is_coarse in zip(ids, coarse, strict=True) if is_coarse)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        super().remove(ids)
        self.dense.remove(ids)
        self.coarse.difference_update(ids)

    def rank(self, questions: Sequence[str], top: int) -> list[Ranking]:
        """The `top` documents of each question by cosine, after refinement."""
        self._older = {}
        asked = self._vectors(questions)
        near = self._near(asked, max(top, self._reach))
        stale = list(dict.fromkeys(id for row in near for id, _ in row if id in self.coarse))
        if stale and self._reach:
            better = self._refined(stale)
            self.add_known(list(better), list(better.values()), [False] * len(better))
            rows = [[id for id, _ in row if id not in stale or id in better] for row in near]
            cosines = self.dense.cosines(asked, rows)
            near = [
                sorted(zip(row, found, strict=True), key=lambda pair: -pair[1])
                for row, found in zip(rows, cosines, strict=True)
            ]
        return [self._newest(q, row, top) for q, row in zip(questions, near, strict=True)]

    def _near(self, asked: Tensor, count: int) -> list[Ranking]:
        """The `count` nearest that may be found, by the keys that are known."""
        if self.only is None:
            return self.dense.search(asked, count)
        found = self.dense.search(asked, max(1, len(self.dense)))
        return [[pair for pair in row if pair[0] in self.only][:count] for row in found]

    def matches(self, questions: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """The cosine of each question with each document of its row, 0 … 1."""
        found = self.dense.cosines(self._vectors(questions), rows)
        return [[min(1.0, max(0.0, one)) for one in row] for row in found]
