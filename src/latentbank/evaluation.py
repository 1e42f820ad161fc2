"""Asks a method questions and scores the answers: shared by training, the CLI and the bench.

Knows methods through their contract; knows no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from latentbank.backbone import Backbone
from latentbank.bank import BankFingerprint, MemoryBank
from latentbank.conditioning import prompt_ids
from latentbank.data import QADataset
from latentbank.errors import InputError
from latentbank.generation import DecodingConfig, Generation, generate
from latentbank.method import Method
from latentbank.metrics import contains_answer, exact_match, f1, prefix_match


@dataclass(frozen=True)
class Answer:
    """An answer with the documents it was read from (id, share). `confidence` in [0, 1]: the mean
    probability of its tokens, times how well the selected document fits the question where the
    method can tell, or times the weight of the model without memory where that answered.
    """

    text: str
    documents: tuple[tuple[str, float], ...]
    confidence: float
    seconds: float
    first_token_seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Per-question scores in the order of the data's questions, in [0, 1]; times in seconds."""

    answers: tuple[Answer, ...]
    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    contains: tuple[float, ...]
    prefix_match: tuple[float, ...]
    selected: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """Means; EM, F1 and the like in percent, `milliseconds` per question."""
        return {
            "exact_match": 100 * float(np.mean(self.exact_match)),
            "f1": 100 * float(np.mean(self.f1)),
            "contains_answer": 100 * float(np.mean(self.contains)),
            "prefix_match": 100 * float(np.mean(self.prefix_match)),
            "gold_selected": 100 * float(np.mean(self.selected)),
            "milliseconds": 1000 * float(np.mean([a.seconds for a in self.answers])),
        }


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
        found = _read(method, questions, documents, decoding, memory)
    else:
        found = _surest(method, questions, shortlist, decoding, began)
    seconds = (time.perf_counter() - began) / len(questions)
    method.helped([one.documents for one in found])
    return [replace(one, seconds=seconds) for one in found]


def _read(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None,
    decoding: DecodingConfig | None,
    memory: bool,
) -> list[Answer]:
    """The answers of one batch, each read once; their `seconds` are not set."""
    began = time.perf_counter()
    backbone = method.backbone
    conditioning = method.read(questions, documents) if memory else method.read_nothing()
    prompts = prompt_ids(backbone, questions, conditioning.passages)
    read = time.perf_counter() - began
    with conditioning.attach(backbone):
        attached = time.perf_counter() - began
        found: list[Generation] = generate(backbone, prompts, decoding, conditioning.contrast)
    sources = conditioning.sources or ((),) * len(questions)
    support = conditioning.support or (1.0,) * len(questions)
    first = max(read, attached)
    return [
        Answer(g.text, s, g.confidence * fits, 0.0, first + g.first_token_seconds)
        for g, s, fits in zip(found, sources, support, strict=True)
    ]


def _surest(
    method: Method,
    questions: Sequence[str],
    shortlist: Sequence[Sequence[tuple[str, float]]],
    decoding: DecodingConfig | None,
    began: float,
) -> list[Answer]:
    """For each question the answer of most confidence times weight from its shortlist: documents
    read one by one, or the model without memory.

    The first of each is asked first, of the others those whose weight could still win.
    """
    best: dict[int, Answer] = {}

    def ask(rows: Sequence[tuple[int, str, float]], memory: bool) -> None:
        before = time.perf_counter() - began
        part = [
            row
            for row in rows
            if bool(row[1]) == memory and (row[0] not in best or row[2] > best[row[0]].confidence)
        ]
        asked = [questions[i] for i, _, _ in part]
        named = [name for _, name, _ in part] if memory else None
        found = _read(method, asked, named, decoding, memory) if part else []
        for (i, _, weight), one in zip(part, found, strict=True):
            first, sure = before + one.first_token_seconds, one.confidence * weight
            if i not in best or sure > best[i].confidence:
                best[i] = replace(one, confidence=sure, first_token_seconds=first)

    heads = [(i, *row[0]) for i, row in enumerate(shortlist)]
    others = [(i, *pair) for i, row in enumerate(shortlist) for pair in row[1:]]
    for rows in (heads, others):
        ask(rows, memory=True)
        ask(rows, memory=False)
    return [best[i] for i in range(len(questions))]


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


def fresh_bank(method: Method) -> MemoryBank:
    """An empty bank in memory, bound to `method`."""
    bank = MemoryBank.create(
        ":memory:",
        BankFingerprint(
            method.name, "", method.backbone.fingerprint, method.backbone.tokenizer_fingerprint
        ),
    )
    method.bind(bank)
    return bank


def write_all(
    method: Method,
    data: QADataset,
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Writes every document in order; returns the seconds spent in `write`."""
    seconds = 0.0
    for at in range(0, len(data.documents), batch):
        part = data.documents[at : at + batch]
        seconds += method.write(part).seconds
        if advance is not None:
            advance(len(part))
    return seconds


def ask_all(
    method: Method,
    data: QADataset,
    gold: bool = False,
    batch: int = 16,
    decoding: DecodingConfig | None = None,
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """Asks every question of `data` against the bound bank; `gold` gives each its document."""
    wanted = [data.documents[q.document].id for q in data.questions]
    texts = [q.text for q in data.questions]
    found: list[Answer | None] = [None] * len(texts)
    for i, item in in_batches(
        method, texts, wanted if gold else None, batch, decoding, advance=advance
    ):
        found[i] = item
    return score_answers([a for a in found if a is not None], data)


def score_answers(answers: Sequence[Answer], data: QADataset) -> Evaluation:
    """Scores one answer for each question of `data`, in their order.

    `data` may hold no documents (closed book): then none counts as selected.
    """
    wanted = [data.documents[q.document].id if data.documents else "" for q in data.questions]
    pairs = [(a.text, q.answers) for a, q in zip(answers, data.questions, strict=True)]
    return Evaluation(
        answers=tuple(answers),
        exact_match=tuple(exact_match(a, r) for a, r in pairs),
        f1=tuple(f1(a, r) for a, r in pairs),
        contains=tuple(contains_answer(a, r) for a, r in pairs),
        prefix_match=tuple(prefix_match(a, r) for a, r in pairs),
        selected=tuple(
            float(any(name == w for name, _ in a.documents))
            for a, w in zip(answers, wanted, strict=True)
        ),
    )


def evaluate(method: Method, data: QADataset, gold: bool = False, batch: int = 16) -> Evaluation:
    """Writes `data` into a fresh bank in memory, asks, and puts the method's own bank back.

    A method that had none has none afterwards, and nothing of `data` in its working state.
    """
    before = method.bank
    with fresh_bank(method):
        try:
            write_all(method, data)
            return ask_all(method, data, gold, batch)
        finally:
            if before is not None:
                method.bind(before)
            else:
                with fresh_bank(method):
                    method.bank = None
