"""Answers questions from a method's memory, one batch at a time.

A method either reads once for each question, or names several candidates: documents and the closed
book. Then each candidate is answered and the answer of largest confidence times weight wins. Knows
methods through their contract; knows no data and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from latentbank.backbone.generate import DecodingConfig, Generation, PromptRun
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.backbone.transports import Conditioning
from latentbank.capabilities import Candidates, Retrieving
from latentbank.documents.ends import finish, whole_characters
from latentbank.documents.identity import document_id
from latentbank.errors import InputError
from latentbank.method import NAMES_SOURCES, Method
from latentbank.parts.retrieval.candidates import Candidate

__all__ = ["ASKED_TOGETHER", "Answer", "answer_batch", "check_questions", "question_batches"]

ASKED_TOGETHER = 16  # questions


@dataclass(frozen=True)
class Answer:
    """An answer and the documents that it was read from, as (id, share).

    `confidence` in [0, 1] is the mean probability of the answer's tokens, times the candidate's
    weight or the support of what was read, where the method gives one. `seconds` is the time of the
    batch divided by its questions. With several candidates the first token is known when the winner
    is. Without `from_memory` nothing was read: the model answered closed book. `superseded` are the
    ids of older versions of what was read, newest first, for which it stood in.
    """

    text: str
    documents: tuple[tuple[str, float], ...]
    confidence: float
    seconds: float
    first_token_seconds: float
    from_memory: bool = True
    superseded: tuple[str, ...] = ()


def answer_batch(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None = None,
    decoding: DecodingConfig | None = None,
    memory: bool = True,
) -> list[Answer]:
    """Answers to a batch of questions from the bound bank.

    `documents` [B] names the document to read for each question. With `memory` False the backbone
    answers closed book, with the method's low-rank weights and nothing else.
    """
    if not questions:
        return []
    began = time.perf_counter()
    rows: list[list[Candidate]] | None = None
    if memory and documents is None and isinstance(method, Candidates):
        rows = method.candidates(questions)
    if rows is None:
        read = method.read(questions, documents) if memory else method.closed_book()
        answers = _read_once(Reading(method, questions, read, decoding))
    else:
        answers = _run_contest(method, questions, rows, decoding, began)
    seconds = (time.perf_counter() - began) / len(questions)
    reads = _reads(method) if memory else None
    return [
        replace(
            one,
            seconds=seconds,
            from_memory=bool(one.documents) if reads is None else reads,
            superseded=_superseded(method, question, one) if memory and documents is None else (),
        )
        for question, one in zip(questions, answers, strict=True)
    ]


def _superseded(method: Method, question: str, answer: Answer) -> tuple[str, ...]:
    """Entries of other documents that the documents of an answer supersede."""
    if not isinstance(method, Retrieving):
        return ()
    read = {document_id(id) for id, _ in answer.documents}
    older = [
        id for name, _ in answer.documents for id in method.retriever.superseded(question, name)
    ]
    return tuple(dict.fromkeys(id for id in older if document_id(id) not in read))


def _reads(method: Method) -> bool | None:
    """Whether a method that names no sources has something to read; None if it names them."""
    if NAMES_SOURCES in method.claims:
        return None
    bank = method.require_bank()
    return bool(len(bank) or bank.blobs())


def _read_once(reading: Reading) -> list[Answer]:
    with reading.attached():
        reading.run()
        return reading.answers(range(len(reading.questions)))


class Reading:
    """A batch of questions with what is read for them. Runs and answers while `attached`."""

    def __init__(
        self,
        method: Method,
        questions: Sequence[str],
        read: Conditioning,
        decoding: DecodingConfig | None,
    ) -> None:
        self.questions, self.read = questions, read
        self._backbone, self._decoding = method.backbone, decoding
        self._began = time.perf_counter()
        self._prompts: PromptRun

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches what was read for the length of the block."""
        with self.read.attach(self._backbone):
            yield

    def run(self, scored: bool = False) -> list[float]:
        """Runs the prompts. Returns the questions' log-likelihoods [B] in nats where `scored`."""
        prompts = prompt_ids(self._backbone, self.questions, self.read.passages)
        counts = None
        if scored:  # the tokens of the question with its labels, without those of a passage
            counts = [len(row) - 1 for row in prompt_ids(self._backbone, self.questions)]
        split = 0 if self.read.passages else self.read.layer
        return self._ran(
            PromptRun(self._backbone, prompts, self._decoding, self.read.contrast, counts, split)
        )

    def run_over(self, plain: Reading, places: Sequence[int]) -> list[float]:
        """As `run`, from the layer where memory enters.

        `plain` ran the same questions without memory; `places` are their positions in it.
        """
        return self._ran(plain._prompts.repeat(places))

    def shares_lower_layers(self, plain: Reading) -> bool:
        """Whether this reading computes what `plain`, without memory, does below the memory."""
        memory = self._backbone.memory
        if memory is None or self.read.passages is not None or self.read.contrast:
            return False
        return 0 < memory.layer == self.read.layer == plain.read.layer

    def _ran(self, prompts: PromptRun) -> list[float]:
        self._prompts = prompts
        self._seconds = time.perf_counter() - self._began
        return prompts.likelihoods

    def answers(self, rows: Sequence[int], drafts: Sequence[str] = ()) -> list[Answer]:
        """Answers to the questions `rows`; can be asked for once. Their `seconds` are not set.

        `drafts` are likely answers: a draft that is right saves steps and changes nothing.
        """
        read, count = self.read, len(self.questions)
        texts = read.quotable or read.passages or ("",) * count
        quotable = [f" {texts[i]}" for i in rows]
        if drafts:
            pairs = zip(drafts, quotable, strict=True)
            quotable = [f" {draft}{text}" if draft else text for draft, text in pairs]
        generated = self._prompts.answers(rows, self._backbone.encode(quotable, start=False))
        config = self._decoding or DecodingConfig()
        sources, support = read.named_sources() or ((),) * count, read.support or (1.0,) * count
        return [
            Answer(_ended(one, config), sources[i], one.confidence * support[i], 0.0, self._seconds)
            for i, one in zip(rows, generated, strict=True)
        ]


def _ended(found: Generation, config: DecodingConfig) -> str:
    """The text of an answer; one that reached the limit has no half character at its end."""
    if found.finished:
        return found.text
    return finish(found.text) if config.whole_words else whole_characters(found.text).rstrip()


# ---- several candidates


@dataclass(frozen=True)
class _Entrant:
    """A candidate of the question at position `question`."""

    question: int
    candidate: Candidate

    @property
    def weight(self) -> float:
        return self.candidate.weight


@dataclass
class _Contest:
    """The candidates of a batch of questions. `best` holds the leading answer of each question."""

    method: Method
    questions: Sequence[str]
    decoding: DecodingConfig | None
    best: dict[int, Answer] = field(default_factory=dict)
    closed_book: Reading | None = None
    places: dict[int, int] = field(default_factory=dict)
    """Question → its position in `closed_book`."""
    likelihoods: dict[int, float] = field(default_factory=dict)
    """Question → its log-likelihood without memory, in nats."""


def _run_contest(
    method: Method,
    questions: Sequence[str],
    rows: Sequence[Sequence[Candidate]],
    decoding: DecodingConfig | None,
    began: float,
) -> list[Answer]:
    """The winning answer of each question.

    The first document of each question is answered first, then the other documents, then the closed
    book. A candidate is skipped when its weight is not above the confidence of the leading answer.
    """
    contest = _Contest(method, questions, decoding)
    first = [_Entrant(i, row[0]) for i, row in enumerate(rows)]
    later = [_Entrant(i, one) for i, row in enumerate(rows) for one in row[1:]]
    if isinstance(method, Candidates) and method.question_gain is not None:
        contested = [i for i, row in enumerate(rows) if len(row) > 1 or row[0].document is None]
        likelihoods = _run_closed_book(contest, contested, scored=True)
        contest.likelihoods = dict(zip(contested, likelihoods, strict=True))
    for entrants in (first, later):
        _answer_documents(contest, [one for one in entrants if one.candidate.document is not None])
    _answer_closed_book(contest, [one for one in first + later if one.candidate.document is None])
    taken = time.perf_counter() - began
    return [replace(contest.best[i], first_token_seconds=taken) for i in range(len(questions))]


def _can_win(contest: _Contest, entrants: Sequence[_Entrant]) -> list[_Entrant]:
    """The entrants whose weight, an upper bound of their result, is above the leading answer."""
    best = contest.best
    return [
        one
        for one in entrants
        if one.question not in best or one.weight > best[one.question].confidence
    ]


def _answer_documents(contest: _Contest, entrants: Sequence[_Entrant]) -> None:
    """Reads a document for each entrant, reranks by question gain, answers those that can win."""
    entrants = _can_win(contest, entrants)
    if not entrants:
        return
    questions = [contest.questions[one.question] for one in entrants]
    documents = [one.candidate.document or "" for one in entrants]
    read = contest.method.read(questions, documents)
    reading = Reading(contest.method, questions, read, contest.decoding)
    with reading.attached():
        plain, places = contest.closed_book, contest.places
        ran_before = all(one.question in places for one in entrants)
        if plain is not None and ran_before and reading.shares_lower_layers(plain):
            likelihoods = reading.run_over(plain, [places[one.question] for one in entrants])
        else:
            scored = any(one.question in contest.likelihoods for one in entrants)
            likelihoods = reading.run(scored)
        weighed = [
            _reranked(contest, one, likelihood)
            for one, likelihood in zip(entrants, likelihoods, strict=True)
        ]
        kept = _can_win(contest, weighed)
        rows = [weighed.index(one) for one in kept]
        _keep_best(contest, kept, reading.answers(rows, _drafts(contest, kept)))


def _reranked(contest: _Contest, entrant: _Entrant, likelihood: float) -> _Entrant:
    """The entrant with its weight times the factor of the question gain."""
    method, plain = contest.method, contest.likelihoods.get(entrant.question)
    if plain is None or not isinstance(method, Candidates) or method.question_gain is None:
        return entrant
    weight = entrant.weight * method.question_gain.weight(likelihood - plain)
    return replace(entrant, candidate=replace(entrant.candidate, weight=weight))


def _run_closed_book(contest: _Contest, rows: Sequence[int], scored: bool) -> list[float]:
    """Runs the questions `rows` without memory; their log-likelihoods where `scored`."""
    if not rows:
        return []
    questions = [contest.questions[i] for i in rows]
    read = contest.method.closed_book()
    contest.closed_book = Reading(contest.method, questions, read, contest.decoding)
    contest.places = {i: place for place, i in enumerate(rows)}
    with contest.closed_book.attached():
        return contest.closed_book.run(scored)


def _answer_closed_book(contest: _Contest, entrants: Sequence[_Entrant]) -> None:
    entrants = _can_win(contest, entrants)
    if not entrants:
        return
    if contest.closed_book is None:
        _run_closed_book(contest, [one.question for one in entrants], scored=False)
    reading = contest.closed_book
    if reading is not None:
        with reading.attached():
            rows = [contest.places[one.question] for one in entrants]
            _keep_best(contest, entrants, reading.answers(rows, _drafts(contest, entrants)))


def _drafts(contest: _Contest, entrants: Sequence[_Entrant]) -> list[str]:
    """The leading answers: candidates of one question often agree."""
    best = contest.best
    return [best[one.question].text if one.question in best else "" for one in entrants]


def _keep_best(contest: _Contest, entrants: Sequence[_Entrant], answers: Sequence[Answer]) -> None:
    """Keeps each answer that beats the leading one; of equals the first stays."""
    for entrant, one in zip(entrants, answers, strict=True):
        confidence = one.confidence * entrant.weight
        leader = contest.best.get(entrant.question)
        if leader is None or confidence > leader.confidence:
            contest.best[entrant.question] = replace(one, confidence=confidence)


# ---- questions


def check_questions(
    backbone: Backbone,
    questions: Sequence[str],
    decoding: DecodingConfig | None = None,
    places: Sequence[str] = (),
) -> None:
    """Refuses what cannot be asked, before a memory is read for it.

    `places` [B]: where each question stands, for the message.

    Raises:
        InputError: a question that is empty, is not valid text, or does not fit into the backbone's
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


def question_batches(
    questions: Sequence[str], documents: Sequence[str] | None = None, batch: int = ASKED_TOGETHER
) -> list[list[int]]:
    """Positions of the questions that are asked together: those of one document or like length."""
    order = sorted(
        range(len(questions)),
        key=lambda i: (documents[i] if documents is not None else "", len(questions[i])),
    )
    return [order[at : at + batch] for at in range(0, len(order), batch)]
