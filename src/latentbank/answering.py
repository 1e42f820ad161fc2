"""Asks a method questions in batches: which memory is read for each, and which answer counts.

Knows methods through their contract; knows no data and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from latentbank.backbone import Backbone
from latentbank.conditioning import prompt_ids
from latentbank.errors import InputError
from latentbank.generation import DecodingConfig, generate, prompt_likelihoods
from latentbank.method import Method
from latentbank.selection import Selected


@dataclass(frozen=True)
class Answer:
    """An answer with the documents it was read from (id, share). `confidence` in [0, 1]: the mean
    probability of its tokens, times how well the document fits the question where the method can
    tell, or times the weight of the model without memory where that answered.
    """

    text: str
    documents: tuple[tuple[str, float], ...]
    confidence: float
    seconds: float
    first_token_seconds: float


def answer(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None = None,
    decoding: DecodingConfig | None = None,
    memory: bool = True,
) -> list[Answer]:
    """Answers to a batch of questions from the bound bank.

    `documents` [B] names the document to read for each question instead of selecting. With
    `memory` False the plain model answers, with the method's low-rank weights and nothing else.
    """
    if not questions:
        return []
    began = time.perf_counter()
    shortlist = method.shortlist(questions) if memory and documents is None else None
    if shortlist is None:
        found, _ = _read(method, questions, documents, decoding, memory)
    else:
        found = _Contest(method, questions, decoding, began).surest(shortlist)
    seconds = (time.perf_counter() - began) / len(questions)
    method.helped([one.documents for one in found])
    return [replace(one, seconds=seconds) for one in found]


def _read(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None,
    decoding: DecodingConfig | None,
    memory: bool,
    worth: Callable[[Sequence[float]], Sequence[bool]] | None = None,
) -> tuple[list[Answer], list[float]]:
    """(answers of one batch, each read once, their `seconds` not set; log-likelihoods of the
    questions where `worth` asks for them). `worth` is as for `generate`.
    """
    began = time.perf_counter()
    backbone = method.backbone
    conditioning = method.read(questions, documents) if memory else method.read_nothing()
    prompts = prompt_ids(backbone, questions, conditioning.passages)
    scored = None if worth is None else _question_tokens(backbone, questions)
    read = time.perf_counter() - began
    with conditioning.attach(backbone):
        attached = time.perf_counter() - began
        found = generate(backbone, prompts, decoding, conditioning.contrast, scored, worth)
    sources = conditioning.sources or ((),) * len(questions)
    support = conditioning.support or (1.0,) * len(questions)
    first = max(read, attached)
    answers = [
        Answer(g.text, s, g.confidence * fits, 0.0, first + g.first_token_seconds)
        for g, s, fits in zip(found, sources, support, strict=True)
    ]
    return answers, [g.likelihood for g in found]


def _question_tokens(backbone: Backbone, questions: Sequence[str]) -> list[int]:
    """How many tokens of each prompt are the question's, with its labels."""
    return [len(row) - 1 for row in prompt_ids(backbone, questions)]


def _likelihoods_without_memory(method: Method, questions: Sequence[str]) -> list[float]:
    """Log-likelihoods [B] of the questions, in nats, where nothing is read."""
    backbone = method.backbone
    prompts = prompt_ids(backbone, questions)
    with method.read_nothing().attach(backbone):
        return prompt_likelihoods(backbone, prompts, [len(row) - 1 for row in prompts])


class _Contest:
    """For each question the answer of most confidence times weight from its shortlist: documents
    read one by one, or the model without memory. Where the method says so, an answer from a
    document counts the less, the less likely its document makes the question.
    """

    def __init__(
        self,
        method: Method,
        questions: Sequence[str],
        decoding: DecodingConfig | None,
        began: float,
    ) -> None:
        self.method, self.questions, self.decoding = method, questions, decoding
        self.began = began
        self.best: dict[int, Answer] = {}
        self.plain: dict[int, float] = {}  # log-likelihood of a question where nothing is read

    def surest(self, shortlist: Sequence[Selected]) -> list[Answer]:
        """The first of each row is asked first, of the others those whose weight could still win;
        what its likelihood tells cannot win is not answered. One alone in its row has won.
        """
        if self.method.question_gain is not None:
            rivals = [i for i, row in enumerate(shortlist) if len(row) > 1]
            found = _likelihoods_without_memory(self.method, [self.questions[i] for i in rivals])
            self.plain = dict(zip(rivals, found, strict=True))
        heads = [(i, *row[0]) for i, row in enumerate(shortlist)]
        others = [(i, *pair) for i, row in enumerate(shortlist) for pair in row[1:]]
        for rows in (heads, others):
            self._ask([row for row in rows if row[1]], memory=True)
            self._ask([row for row in rows if not row[1]], memory=False)
        return [self.best[i] for i in range(len(self.questions))]

    def _ask(self, rows: Sequence[tuple[int, str, float]], memory: bool) -> None:
        before = time.perf_counter() - self.began
        rows = [row for row in rows if self._could_win(row[0], row[2])]
        if not rows:
            return
        numbers, names, weights = zip(*rows, strict=True)
        contested = memory and any(i in self.plain for i in numbers)
        gain = self.method.question_gain if contested else None

        def weighed(likelihoods: Sequence[float]) -> list[float]:
            if gain is None:
                return list(weights)
            return [
                weight * gain.weight(found - self.plain[i]) if i in self.plain else weight
                for i, weight, found in zip(numbers, weights, likelihoods, strict=True)
            ]

        def worth(likelihoods: Sequence[float]) -> list[bool]:
            return [
                self._could_win(i, weight)
                for i, weight in zip(numbers, weighed(likelihoods), strict=True)
            ]

        answers, likelihoods = _read(
            self.method,
            [self.questions[i] for i in numbers],
            names if memory else None,
            self.decoding,
            memory,
            None if gain is None else worth,
        )
        for i, weight, one in zip(numbers, weighed(likelihoods), answers, strict=True):
            sure = one.confidence * weight
            if self._could_win(i, sure):
                first = before + one.first_token_seconds
                self.best[i] = replace(one, confidence=sure, first_token_seconds=first)

    def _could_win(self, i: int, weight: float) -> bool:
        return i not in self.best or weight > self.best[i].confidence


def check_questions(
    backbone: Backbone,
    questions: Sequence[str],
    decoding: DecodingConfig | None = None,
    places: Sequence[str] = (),
) -> None:
    """Refuses what cannot be asked, before a memory is read for it.

    `places` [B]: where each question stands, for the sentence.

    Raises:
        InputError: a question that is empty, is no valid text, or does not fit into the backbone's
            positions with its prompt and the answer, memory aside.
    """
    kept = (decoding or DecodingConfig()).max_new_tokens
    positions = backbone.geometry.max_positions
    for i, question in enumerate(questions):
        place = f"{places[i]}: the" if places and places[i] else "The"
        if not question.strip():
            raise InputError(f"{place} question is empty.")
        if any("\ud800" <= character <= "\udfff" for character in question):
            raise InputError(f"{place} question is not valid Unicode text.")
        if 4 * (len(question) + 64) + kept <= positions:  # a character is four tokens at most
            continue
        if len(prompt_ids(backbone, [question])[0]) + kept > positions:
            tokens = backbone.count_tokens([question])[0]
            raise InputError(
                f"{place} question has {tokens} tokens; with its prompt and {kept} for the answer "
                f"it does not fit into the {positions} of {backbone.name}. Shorten it."
            )


def batches(
    questions: Sequence[str], documents: Sequence[str] | None = None, batch: int = 16
) -> list[list[int]]:
    """Indices of the questions in the batches to ask them in: those of one document or of like
    length go together.
    """
    order = sorted(
        range(len(questions)),
        key=lambda i: (documents[i] if documents is not None else "", len(questions[i])),
    )
    return [order[at : at + batch] for at in range(0, len(order), batch)]


def in_batches(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None = None,
    batch: int = 16,
    decoding: DecodingConfig | None = None,
    memory: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(index, answer) of every question; questions of the same document or length go together."""
    for part in batches(questions, documents, batch):
        given = None if documents is None else [documents[i] for i in part]
        answers = answer(method, [questions[i] for i in part], given, decoding, memory)
        yield from zip(part, answers, strict=True)
        if advance is not None:
            advance(len(part))
