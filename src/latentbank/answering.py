"""Asks a method questions in batches: which memory is read for each, and which answer counts.

Knows methods through their contract; knows no data and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from latentbank.backbone.generate import DecodingConfig, PromptRun
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.errors import InputError
from latentbank.method import Method
from latentbank.parts.retrieval.selection import Selected

_Candidate = tuple[int, str, float]  # question, document or "" for the model alone, weight


@dataclass(frozen=True)
class Answer:
    """An answer with the documents it was read from (id, share). `confidence` in [0, 1]: the mean
    probability of its tokens, times how well the document fits the question where the method can
    tell, or times the weight of the model without memory where that answered. Of several candidates
    the first token counts as known when the winner is.
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
        reading = _Reading(method, questions, documents, decoding, memory)
        with reading.attached():
            reading.run()
            found = reading.answers(range(len(questions)))
    else:
        found = _Contest(method, questions, decoding, began).surest(shortlist)
    seconds = (time.perf_counter() - began) / len(questions)
    method.helped([one.documents for one in found])
    return [replace(one, seconds=seconds) for one in found]


class _Reading:
    """A batch of questions with what is read for them; runs and answers while `attached`."""

    def __init__(
        self,
        method: Method,
        questions: Sequence[str],
        documents: Sequence[str] | None,
        decoding: DecodingConfig | None,
        memory: bool,
    ) -> None:
        self._began = time.perf_counter()
        self._backbone, self._questions, self._decoding = method.backbone, questions, decoding
        self._read = method.read(questions, documents) if memory else method.read_nothing()
        self._prompts: PromptRun

    @contextmanager
    def attached(self) -> Iterator[None]:
        """What was read, within the block."""
        with self._read.attach(self._backbone):
            yield

    def run(
        self, scored: bool = False, alone: _Reading | None = None, places: Sequence[int] = ()
    ) -> list[float]:
        """Runs the prompts. Log-likelihoods [B] of the questions, in nats, where `scored`.

        `alone` has run the same questions without memory, at `places`: what both have in common is
        not run again.
        """
        if alone is not None and self._begins_like(alone):
            self._prompts = alone._prompts.repeat(places)
        else:
            self._prompts = self._run(scored)
        self._seconds = time.perf_counter() - self._began
        return self._prompts.likelihoods

    def _begins_like(self, alone: _Reading) -> bool:
        """Whether a run without memory computes the same below the layer where memory enters."""
        read, memory = self._read, self._backbone.memory
        if memory is None or read.passages is not None or read.contrast:
            return False
        return 0 < memory.layer == read.layer == alone._read.layer

    def _run(self, scored: bool) -> PromptRun:
        prompts = prompt_ids(self._backbone, self._questions, self._read.passages)
        counts = None
        if scored:  # the question's tokens, with its labels
            counts = [len(row) - 1 for row in prompt_ids(self._backbone, self._questions)]
        split = 0 if self._read.passages else self._read.layer
        return PromptRun(
            self._backbone, prompts, self._decoding, self._read.contrast, counts, split
        )

    def answers(self, rows: Sequence[int], likely: Sequence[str] = ()) -> list[Answer]:
        """Answers to the questions `rows`, to be asked for once; their `seconds` are not set.
        `likely`: what each of them may be.
        """
        read, count = self._read, len(self._questions)
        sources, support = read.sources or ((),) * count, read.support or (1.0,) * count
        texts = read.quotable or read.passages or ("",) * count
        quotable = [f" {texts[i]}" for i in rows]
        if likely:
            pairs = zip(likely, quotable, strict=True)
            quotable = [f" {one}{text}" if one else text for one, text in pairs]
        found = self._prompts.answers(rows, self._backbone.encode(quotable, start=False))
        return [
            Answer(one.text, sources[i], one.confidence * support[i], 0.0, self._seconds)
            for i, one in zip(rows, found, strict=True)
        ]


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
        self.alone: _Reading | None = None  # without memory
        self.places: dict[int, int] = {}  # of questions in it
        self.plain: dict[int, float] = {}  # their log-likelihoods

    def surest(self, shortlist: Sequence[Selected]) -> list[Answer]:
        """The first document of each row is asked first, then of the others those whose weight
        could still win, last the model without memory; what its likelihood tells cannot win is not
        answered. One alone in its row has won.
        """
        if self.method.question_gain is not None:
            rivals = [i for i, row in enumerate(shortlist) if len(row) > 1 or not row[0][0]]
            self.plain = dict(zip(rivals, self._run_alone(rivals, scored=True), strict=True))
        first: list[_Candidate] = [(i, *row[0]) for i, row in enumerate(shortlist)]
        later: list[_Candidate] = [(i, *one) for i, row in enumerate(shortlist) for one in row[1:]]
        for rows in (first, later):
            self._ask([row for row in rows if row[1]])
        self._ask_alone([row for row in first + later if not row[1]])
        taken = time.perf_counter() - self.began
        return [
            replace(self.best[i], first_token_seconds=taken) for i in range(len(self.questions))
        ]

    def _ask(self, rows: Sequence[_Candidate]) -> None:
        """Asks documents."""
        rows = self._hopeful(rows)
        if not rows:
            return
        questions, documents = [self.questions[i] for i, _, _ in rows], [row[1] for row in rows]
        reading = _Reading(self.method, questions, documents, self.decoding, memory=True)
        with reading.attached():
            if all(i in self.places for i, _, _ in rows):
                found = reading.run(True, self.alone, [self.places[i] for i, _, _ in rows])
            else:
                found = reading.run(any(i in self.plain for i, _, _ in rows))
            rows = [
                (i, name, weight * self._gained(i, likelihood))
                for (i, name, weight), likelihood in zip(rows, found, strict=True)
            ]
            kept = self._hopeful(rows)
            places = [rows.index(row) for row in kept]
            self._count(kept, reading.answers(places, self._likely(kept)))

    def _ask_alone(self, rows: Sequence[_Candidate]) -> None:
        """Asks the model without memory."""
        rows = self._hopeful(rows)
        if not rows:
            return
        if self.alone is None:
            self._run_alone([i for i, _, _ in rows], scored=False)
        assert self.alone is not None
        with self.alone.attached():
            places = [self.places[i] for i, _, _ in rows]
            self._count(rows, self.alone.answers(places, self._likely(rows)))

    def _run_alone(self, rows: Sequence[int], scored: bool) -> list[float]:
        """Log-likelihoods of the questions `rows` where nothing is read, where `scored`."""
        if not rows:
            return []
        questions = [self.questions[i] for i in rows]
        self.alone = _Reading(self.method, questions, None, self.decoding, memory=False)
        self.places = {i: place for place, i in enumerate(rows)}
        with self.alone.attached():
            return self.alone.run(scored)

    def _gained(self, i: int, likelihood: float) -> float:
        """What an answer from a document counts that makes a question so likely."""
        gain = self.method.question_gain
        if gain is None or i not in self.plain:
            return 1.0
        return gain.weight(likelihood - self.plain[i])

    def _hopeful(self, rows: Sequence[_Candidate]) -> list[_Candidate]:
        """The candidates of which an answer could win."""
        return [
            (i, name, weight)
            for i, name, weight in rows
            if i not in self.best or weight > self.best[i].confidence
        ]

    def _likely(self, rows: Sequence[_Candidate]) -> list[str]:
        """The surest answers so far: candidates often agree."""
        return [self.best[i].text if i in self.best else "" for i, _, _ in rows]

    def _count(self, rows: Sequence[_Candidate], answers: Sequence[Answer]) -> None:
        """Keeps the answers that are the surest so far; of equals the first."""
        for (i, _, weight), one in zip(rows, answers, strict=True):
            sure = one.confidence * weight
            if i not in self.best or sure > self.best[i].confidence:
                self.best[i] = replace(one, confidence=sure)


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
