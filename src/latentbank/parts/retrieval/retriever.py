"""Retrieval as one component: which documents to read for a question, and with what weight.

Texts are found by BM25 and reranked by their words. Entries without text are found by the hashes of
their words and by dense keys. Of several versions of a document the newest is taken. Knows ids,
texts and keys; knows no backbone, and of a bank only that a word index may lie beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latentbank.bank import MemoryBank
from latentbank.config import require_at_least, require_share, setting
from latentbank.functions.expression import parse
from latentbank.parts.retrieval.asked_time import asked_time, newest_first
from latentbank.parts.retrieval.candidates import (
    Candidate,
    QuestionGain,
    supported,
    weighed,
)
from latentbank.parts.retrieval.lexical import LexicalIndex, Ranking
from latentbank.parts.retrieval.rerank.reranker import FEATURES, Reranker
from latentbank.parts.retrieval.sketch import FusedIndex
from latentbank.parts.retrieval.stored import StoredIndex, Take, open_stored, stores_words
from latentbank.parts.retrieval.versions import NEAR, REACH, Resolved, ShortTexts, Versions, Words

__all__ = ["FLAT_NAMES", "RetrievalConfig", "Retriever"]

FLAT_NAMES = {
    name: f"retrieval.{name}"
    for name in (
        "candidates",
        "least_match",
        "closed_weight",
        "closed_gone",
        "gain_half",
        "gain_scale",
    )
}
"""Where the fields of this group stood before they were a group; see `config.ALIASES`."""

_MOST = 4096  # texts to look for versions in
_DEEPER = 16  # times as many texts are looked at where only those of a time may answer
_STILL = 0.8  # of the best match of any time; a date with less is not about the documents' times
_REMEMBERED = 512  # contents of documents, about 10 kB each


@dataclass(frozen=True)
class RetrievalConfig:
    """How documents are chosen for a question."""

    candidates: int = setting(4, "Documents that are read one by one; the best answer wins.")
    rerank: int = setting(16, "Best texts by BM25 that are reranked by their words; 0: none.")
    fusion: str = setting(
        "", "Expression over the reranker's features that orders texts; empty: its linear model."
    )
    together: int = setting(1, "Documents that are read together; above 1 there is no contest.")
    least_match: float = setting(
        0.3, "Share of a question's words that a document must hold to be read."
    )
    closed_weight: float = setting(
        0.0, "Weight of the closed-book answer beside candidates; 0 leaves it out."
    )
    closed_gone: float = setting(
        0.0, "What is added to that weight where all texts written are gone; a share, for a share."
    )
    gain_half: float = setting(10.0, "Question gain in nats at which a candidate's weight halves.")
    gain_scale: float = setting(0.0, "Nats over which the gain counts; 0 switches reranking off.")
    index_bytes: int = setting(
        1 << 30, "Limit of the word index beside a bank of many documents; 0: it is in memory only."
    )

    def __post_init__(self) -> None:
        require_at_least(self, 1, "candidates", "together")
        require_share(self, "least_match", "closed_weight", "closed_gone")
        require_at_least(self, 0, "rerank", "gain_scale", "index_bytes")
        if self.fusion:
            parse(self.fusion, FEATURES)

    @property
    def question_gain(self) -> QuestionGain | None:
        """The reranker, or None where it is switched off."""
        return QuestionGain.of(self.gain_half, self.gain_scale)


class Retriever:
    """Index over the documents of a bank.

    `words_of` gives the content of a document, as words or hashes. `age_of` gives a value that is
    larger for a newer document. Both are called only for documents that may be versions of one.
    `texts_of` gives the texts of several documents, "" for one that is gone; it is called for those
    that are reranked and not remembered.
    `question_keys` makes unit keys [B, key_width] of B questions, for entries that have keys.
    `only` holds the ids that may be found; None: all.
    """

    def __init__(
        self,
        config: RetrievalConfig,
        words_of: Callable[[str], frozenset[Hashable]],
        age_of: Callable[[str], Any],
        texts_of: Callable[[Sequence[str]], Sequence[str]],
        key_width: int = 0,
        question_keys: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        self.config = config
        self._words_of = functools.lru_cache(_REMEMBERED)(words_of)
        self._age_of, self._question_keys = age_of, question_keys
        self._key_width = key_width
        self._reranker = Reranker(texts_of, fusion=config.fusion)
        self.only: frozenset[str] | None = None
        self._older: dict[tuple[str, str], tuple[str, ...]] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets every document."""
        self.texts: LexicalIndex | StoredIndex = LexicalIndex()
        self.keys = FusedIndex(self._key_width)
        self.short: Callable[[str], Words] = ShortTexts()
        self._older = {}
        self._reranker.passages.clear()
        self._words_of.cache_clear()

    def open_stored(
        self, bank: MemoryBank, levels: Container[str], take: Take, slow: Container[str] = ()
    ) -> bool:
        """Uses the word index beside a bank of many texts; False where there is to be none.

        From then on `follow` calls `take` with the ids that are gone and the entries that are new
        in the bank. Entries of `levels` are texts; those of `slow` take long to decode.
        """
        stored = open_stored(bank, levels, self.config.index_bytes, take, slow)
        if stored is None:
            return False
        self.texts, self.short = stored, stored.short
        stored.follow()
        return True

    def would_store(
        self, bank: MemoryBank, levels: Container[str], slow: Container[str] = ()
    ) -> bool:
        """Whether `open_stored` would use an index."""
        return stores_words(bank, levels, self.config.index_bytes, slow)

    @property
    def stored(self) -> bool:
        """Whether the words are in an index beside the bank."""
        return isinstance(self.texts, StoredIndex)

    def follow(self) -> None:
        """Takes in what happened to the bank, where the words are in an index beside it."""
        if isinstance(self.texts, StoredIndex):
            self.texts.follow()

    def add_texts(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Indexes texts; an id that is already there is left as it is."""
        self._words_of.cache_clear()
        self.texts.add(ids, texts)
        if isinstance(self.short, ShortTexts):
            self.short.add(ids, texts)

    def add_keys(
        self, ids: Sequence[str], sketches: Sequence[bytes], keys: Sequence[bytes]
    ) -> None:
        """Indexes entries without text by their sketches and int8 keys; the ids must be new."""
        self._words_of.cache_clear()
        self.keys.add(ids, sketches, keys)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        if ids:
            self._words_of.cache_clear()
        self.texts.remove(ids)
        if isinstance(self.short, ShortTexts):
            self.short.remove(ids)
        self._reranker.passages.drop(ids)
        self.keys.remove(ids)

    def select(self, questions: Sequence[str]) -> tuple[list[Ranking], tuple[float, ...]]:
        """(documents to read together for each question, best match of each question)."""
        rankings = self.rank(questions, self.config.together)
        matches = self.matches(questions, [[id for id, _ in row] for row in rankings])
        return supported(rankings, matches, self.config.least_match)

    def choose(
        self, questions: Sequence[str], documents: Sequence[str] | None
    ) -> tuple[list[Ranking], tuple[float, ...]]:
        """As `select`, or the documents that the caller names, one for each question."""
        if documents is None:
            return self.select(questions)
        return [[(id, 1.0)] for id in documents], ()

    def candidates(
        self, questions: Sequence[str], closed_differs: bool, gone: float
    ) -> list[list[Candidate]] | None:
        """The candidates of each question, best first; None where `select` alone decides.

        `closed_differs`: the closed book is answered with other weights than the documents are.
        `gone`: the share of the texts written that the bank does not hold any more.
        """
        by_key = bool(len(self.keys))
        top = 1 if by_key else self.config.candidates
        own = self.config
        closed = 0.0 if by_key else min(1.0, own.closed_weight + own.closed_gone * gone)
        contested = top > 1 or closed_differs or closed > 0
        if self.config.together > 1 or not contested:
            return None
        rankings = self.rank(questions, top)
        matches = self.matches(questions, [[id for id, _ in row] for row in rankings])
        least = self.config.least_match
        return [weighed(*row, least, closed) for row in zip(rankings, matches, strict=True)]

    def rank(self, questions: Sequence[str], top: int) -> list[Ranking]:
        """The `top` documents of each question, best first.

        The square of a text's score is its weight; that of the first need not be 1.
        """
        self._older = {}
        lexical = [self._rank_in_time(question, top) for question in questions]
        if not len(self.keys) or self._question_keys is None:
            return lexical
        reach = max(top, REACH)
        depth = reach if self.only is None else len(self.keys)
        by_key = self.keys.search(questions, self._question_keys(questions), depth)
        if self.only is not None:
            by_key = [[pair for pair in row if pair[0] in self.only][:reach] for row in by_key]
        fused = [self._newest(q, row, top) for q, row in zip(questions, by_key, strict=True)]
        if not len(self.texts):
            return fused
        both = [a + b for a, b in zip(lexical, fused, strict=True)]  # their scores do not compare
        matches = self.matches(questions, [[id for id, _ in row] for row in both])
        ranked = [
            sorted(zip(row, fits, strict=True), key=lambda pair: -pair[1])
            for row, fits in zip(both, matches, strict=True)
        ]
        return [[pair for pair, _ in row[:top]] for row in ranked]

    def matches(self, questions: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """The share of each question that each document of its row holds, in [0, 1]."""
        lexical = [self.texts.matches(q, row) for q, row in zip(questions, rows, strict=True)]
        if not len(self.keys):
            return lexical
        fused = self.keys.matches(questions, rows)
        return [
            [max(pair) for pair in zip(a, b, strict=True)]
            for a, b in zip(lexical, fused, strict=True)
        ]

    def _rank_in_time(self, question: str, top: int) -> Ranking:
        """As `_rank_texts`, of the time that the question asks about, where texts have times."""
        asked = asked_time(question)
        plain = self._rank_texts(question, top if asked is None else max(top, REACH))
        if asked is None or not any(self._age_of(id)[0] for id, _ in plain):
            return plain[:top]
        if asked.newest:
            return self._newest_first(question, question, plain)[:top]
        found = self.texts.search(asked.rest, min(_MOST, _DEEPER * max(top, REACH)), self.only)
        found = [pair for pair in found if asked.allows(self._age_of(pair[0])[0])]
        best = [
            max(self.matches([asked.rest], [[id for id, _ in row[:REACH]]])[0], default=0.0)
            for row in (found, plain)
        ]
        if best[0] < _STILL * best[1]:  # the date is about something else
            return plain[:top]
        ranking = self._rank_texts(question, max(top, REACH), found)
        return self._newest_first(question, asked.rest, ranking)[:top]

    def _newest_first(self, question: str, words: str, ranking: Ranking) -> Ranking:
        """The newest of the documents that hold as much of `words` first; notes the older ones."""
        matches = self.matches([words], [[id for id, _ in ranking]])[0]
        ranking, older = newest_first(ranking, matches, self._age_of)
        if older:
            key = (question, ranking[0][0])
            both = {*older, *self._older.get(key, ())}
            self._older[key] = tuple(sorted(both, key=self._age_of, reverse=True))
        return ranking

    def _rank_texts(self, question: str, top: int, found: Ranking | None = None) -> Ranking:
        """The `top` texts, reranked; of several versions, which BM25's scores tell, the newest.

        `found`: what a search found, where it was made before.
        """
        found = self._search_texts(question, top) if found is None else found
        few = found[: self.config.rerank]
        if len(few) < 2:
            return self._newest(question, found, top)
        reranked = self._reranker.rerank(question, self.texts.weights(question), few)
        by_word, scores = dict(found), dict(reranked)
        order = [(id, by_word[id]) for id, _ in reranked] + found[len(few) :]
        return self._newest(question, order, top, scores)

    def _search_texts(self, question: str, top: int) -> Ranking:
        """The best texts; searches deeper where many versions of a short best text may follow."""
        reach = max(top, REACH, self.config.rerank)
        if isinstance(self.texts, StoredIndex):
            return self.texts.search_versions(question, top, reach, self.only)
        while True:
            ranking = self.texts.search(question, reach, self.only)
            full = len(ranking) == reach < _MOST and len(self.short(ranking[0][0])) > 0
            if not full or ranking[-1][1] < NEAR * ranking[0][1]:
                return ranking
            reach = min(8 * reach, _MOST)

    def resolve(self, question: str, ranking: Ranking, top: int) -> list[Resolved]:
        """The `top` of a ranking, without documents that a newer version supersedes."""

        def matches(ids: Sequence[str]) -> list[float]:
            return self.matches([question], [ids])[0]

        if isinstance(self.texts, StoredIndex):
            texts = self.texts
            versions = Versions(self._words_of, texts.age, self.short, matches, texts.sharing)
        else:
            versions = Versions(self._words_of, functools.cache(self._age_of), self.short, matches)
        return versions.resolve(ranking, top)

    def superseded(self, question: str, id: str) -> tuple[str, ...]:
        """The older versions of a document that the latest `rank` passed over for it.

        Newest first. Empty for a question that `rank` was not asked last.
        """
        return self._older.get((question, id), ())

    def _newest(
        self, question: str, ranking: Ranking, top: int, scores: Mapping[str, float] | None = None
    ) -> Ranking:
        """The `top` of a ranking in their newest versions, with the best of their versions' scores.

        `scores`: those to give instead of the ranking's own; 0 for a document that it lacks.
        """
        resolved = self.resolve(question, ranking, top)
        for one in resolved:
            if one.superseded:
                age = self.texts.age if isinstance(self.texts, StoredIndex) else self._age_of
                older = sorted(one.superseded, key=age, reverse=True)
                self._older[question, one.id] = tuple(older)
        if scores is None:
            return [(one.id, one.score) for one in resolved]
        return [
            (one.id, max(scores.get(id, 0.0) for id in (one.id, *one.superseded)))
            for one in resolved
        ]
