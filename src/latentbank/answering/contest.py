"""Several candidates for each question: documents and the closed book compete.

Knows candidates, weights and readings; knows no data and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from latentbank.answering.reading import Answer, Reading
from latentbank.backbone.generate import DecodingConfig
from latentbank.capabilities import Candidates
from latentbank.method import Method
from latentbank.parts.retrieval.candidates import Candidate

__all__ = ["Contest", "Winner", "choose_winners", "finish_contest", "open_contest", "settled"]


@dataclass(frozen=True)
class _Entrant:
    """A candidate of the question at position `question`."""

    question: int
    candidate: Candidate

    @property
    def weight(self) -> float:
        return self.candidate.weight


@dataclass
class Contest:
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
    first: Reading | None = None
    opened: list[_Entrant] = field(default_factory=list)
    """The first documents with their weights after the question gain, a row of `first` each."""
    least: dict[int, float] = field(default_factory=dict)
    """Question → what others must be above: weight times the first token's probability."""
    others: list[_Entrant] = field(default_factory=list)


@dataclass(frozen=True)
class Winner:
    """The candidate that answers a question: the row `row` of `reading`, and its weight.

    `score` is the weight times the probability of the answer's first token.
    """

    reading: Reading
    row: int
    weight: float
    score: float


def open_contest(
    method: Method,
    questions: Sequence[str],
    rows: Sequence[Sequence[Candidate]],
    decoding: DecodingConfig | None,
) -> Contest:
    """Reads the first document of each question and weighs it; answers nothing yet."""
    contest = Contest(method, questions, decoding)
    first, later = _entrants(rows)
    _score_closed_book(contest, rows)
    opening = [one for one in first if one.candidate.document is not None]
    contest.others = [*(one for one in first if one.candidate.document is None), *later]
    if opening:
        contest.first = _reading_of(contest, opening)
        with contest.first.attached():
            contest.opened = _run_documents(contest, contest.first, opening)
        sure = contest.first.first_token_probabilities()
        pairs = zip(contest.opened, sure, strict=True)
        contest.least = {one.question: one.weight * share for one, share in pairs}
    return contest


def settled(contest: Contest) -> Winner | None:
    """The winner of a contest about one question, where no other candidate is to be answered."""
    if contest.first is None or any(one.weight > contest.least[0] for one in contest.others):
        return None
    return Winner(contest.first, 0, contest.opened[0].weight, contest.least[0])


def finish_contest(contest: Contest, began: float) -> list[Answer]:
    """The winning answer of each question: of largest confidence times weight.

    The first document of each question is answered first, then the other documents, then the closed
    book. A candidate is skipped when its weight is not above the confidence of the leading answer,
    or not above the first document's weight times the probability of its first token.
    """
    if contest.first is not None:
        with contest.first.attached():
            answers = contest.first.answers(range(len(contest.opened)))
        _keep_best(contest, contest.opened, answers)
    others = contest.others
    _answer_documents(contest, [one for one in others if one.candidate.document is not None])
    _answer_closed_book(contest, [one for one in others if one.candidate.document is None])
    taken = time.perf_counter() - began
    rows = range(len(contest.questions))
    return [replace(contest.best[i], first_token_seconds=taken) for i in rows]


def choose_winners(
    method: Method,
    questions: Sequence[str],
    rows: Sequence[Sequence[Candidate]],
    decoding: DecodingConfig | None,
) -> list[Winner]:
    """The candidate of largest score for each question, before anything is answered.

    The score stands for what `finish_contest` compares: the probability of the first token for that
    of the whole answer. The first document of each question is read first. Where no other weight is
    above its score, it wins without question gain and the question is not run without memory. Else
    those whose weight is above the leading score are read, then the closed book.
    """
    contest = Contest(method, questions, decoding)
    leading: dict[int, Winner] = {}
    first, later = _entrants(rows)
    opening = [one for one in first if one.candidate.document is not None]
    for winner, one in zip(_read_documents(contest, opening), opening, strict=True):
        leading[one.question] = winner
    _weigh_unclear(contest, leading, rows)
    documents = [one for one in later if one.candidate.document is not None]
    closed = [one for one in first + later if one.candidate.document is None]
    for entrants, read in ((documents, _read_documents), (closed, _read_closed)):
        waiting = [
            one
            for one in entrants
            if one.question not in leading or one.weight > leading[one.question].score
        ]
        for winner, one in zip(read(contest, waiting), waiting, strict=True):
            before = leading.get(one.question)
            if before is None or winner.score > before.score:
                leading[one.question] = winner
    return [leading[i] for i in range(len(questions))]


def _weigh_unclear(
    contest: Contest, leading: dict[int, Winner], rows: Sequence[Sequence[Candidate]]
) -> None:
    """Applies the question gain to first documents that another candidate may beat.

    Runs their questions without memory. Does nothing for a method without question gain.
    """
    gain = contest.method.question_gain if isinstance(contest.method, Candidates) else None
    unclear = [
        i
        for i, one in leading.items()
        if max((other.weight for other in rows[i][1:]), default=0.0) > one.score
    ]
    if gain is None or not unclear:
        return
    reading, places = leading[unclear[0]].reading, [leading[i].row for i in unclear]
    given = reading.likelihoods(places)
    plain = _run_closed_book(contest, unclear, reading, places).likelihoods()
    contest.likelihoods = dict(zip(unclear, plain, strict=True))
    for i, likelihood in zip(unclear, given, strict=True):
        before, factor = leading[i], gain.weight(likelihood - contest.likelihoods[i])
        leading[i] = replace(before, weight=before.weight * factor, score=before.score * factor)


def _entrants(
    rows: Sequence[Sequence[Candidate]],
) -> tuple[list[_Entrant], list[_Entrant]]:
    """(the first candidate of each question, all others)."""
    first = [_Entrant(i, row[0]) for i, row in enumerate(rows)]
    return first, [_Entrant(i, one) for i, row in enumerate(rows) for one in row[1:]]


def _score_closed_book(contest: Contest, rows: Sequence[Sequence[Candidate]]) -> None:
    """Runs contested questions without memory where the method reranks by question gain."""
    method = contest.method
    if isinstance(method, Candidates) and method.question_gain is not None:
        contested = [i for i, row in enumerate(rows) if len(row) > 1 or row[0].document is None]
        if contested:
            likelihoods = _run_closed_book(contest, contested).likelihoods()
            contest.likelihoods = dict(zip(contested, likelihoods, strict=True))


def _can_win(contest: Contest, entrants: Sequence[_Entrant]) -> list[_Entrant]:
    """The entrants whose weight, an upper bound of their result, is above what leads."""
    best, least = contest.best, contest.least
    return [
        one
        for one in entrants
        if one.question not in best
        or one.weight > max(best[one.question].confidence, least.get(one.question, 0.0))
    ]


def _answer_documents(contest: Contest, entrants: Sequence[_Entrant]) -> None:
    """Reads a document for each entrant, reranks by question gain, answers those that can win."""
    entrants = _can_win(contest, entrants)
    if not entrants:
        return
    reading = _reading_of(contest, entrants)
    with reading.attached():
        weighed = _run_documents(contest, reading, entrants)
        kept = _can_win(contest, weighed)
        rows = [weighed.index(one) for one in kept]
        _keep_best(contest, kept, reading.answers(rows, _drafts(contest, kept)))


def _read_documents(contest: Contest, entrants: Sequence[_Entrant]) -> list[Winner]:
    """What each entrant would win with, after the question gain."""
    if not entrants:
        return []
    reading = _reading_of(contest, entrants)
    with reading.attached():
        weights = [one.weight for one in _run_documents(contest, reading, entrants)]
    sure = reading.first_token_probabilities()
    return [
        Winner(reading, row, weight, weight * share)
        for row, (weight, share) in enumerate(zip(weights, sure, strict=True))
    ]


def _read_closed(contest: Contest, entrants: Sequence[_Entrant]) -> list[Winner]:
    """The same for the closed book."""
    if not entrants:
        return []
    reading = contest.closed_book
    if reading is None or any(one.question not in contest.places for one in entrants):
        reading = _run_closed_book(contest, [one.question for one in entrants])
    sure = reading.first_token_probabilities()
    places = [contest.places[one.question] for one in entrants]
    return [
        Winner(reading, at, one.weight, one.weight * sure[at])
        for at, one in zip(places, entrants, strict=True)
    ]


def _reading_of(contest: Contest, entrants: Sequence[_Entrant]) -> Reading:
    """The documents of entrants, one for each row."""
    questions = [contest.questions[one.question] for one in entrants]
    documents = [one.candidate.document or "" for one in entrants]
    read = contest.method.read(questions, documents)
    return Reading(contest.method, questions, read, contest.decoding)


def _run_documents(
    contest: Contest, reading: Reading, entrants: Sequence[_Entrant]
) -> list[_Entrant]:
    """Runs the questions over their documents; the entrants with their weights after that."""
    plain, places = contest.closed_book, contest.places
    ran_before = all(one.question in places for one in entrants)
    if plain is not None and ran_before and reading.shares_lower_layers(plain):
        reading.run_over(plain, [places[one.question] for one in entrants])
    else:
        reading.run()
    if not any(one.question in contest.likelihoods for one in entrants):
        return list(entrants)
    likelihoods = reading.likelihoods()
    return [
        _reranked(contest, one, likelihood)
        for one, likelihood in zip(entrants, likelihoods, strict=True)
    ]


def _reranked(contest: Contest, entrant: _Entrant, likelihood: float) -> _Entrant:
    """The entrant with its weight times the factor of the question gain."""
    method, plain = contest.method, contest.likelihoods.get(entrant.question)
    if plain is None or not isinstance(method, Candidates) or method.question_gain is None:
        return entrant
    weight = entrant.weight * method.question_gain.weight(likelihood - plain)
    return replace(entrant, candidate=replace(entrant.candidate, weight=weight))


def _run_closed_book(
    contest: Contest,
    rows: Sequence[int],
    other: Reading | None = None,
    places: Sequence[int] = (),
) -> Reading:
    """Runs the questions `rows` without memory.

    `other` ran them with a memory, at `places`: what is the same there is not run again.
    """
    questions = [contest.questions[i] for i in rows]
    read = contest.method.closed_book()
    contest.closed_book = reading = Reading(contest.method, questions, read, contest.decoding)
    contest.places = {i: place for place, i in enumerate(rows)}
    with reading.attached():
        if other is not None and reading.shares_lower_layers(other):
            reading.run_over(other, places)
        else:
            reading.run()
    return reading


def _answer_closed_book(contest: Contest, entrants: Sequence[_Entrant]) -> None:
    entrants = _can_win(contest, entrants)
    if not entrants:
        return
    reading = contest.closed_book
    if reading is None:
        reading = _run_closed_book(contest, [one.question for one in entrants])
    with reading.attached():
        rows = [contest.places[one.question] for one in entrants]
        _keep_best(contest, entrants, reading.answers(rows, _drafts(contest, entrants)))


def _drafts(contest: Contest, entrants: Sequence[_Entrant]) -> list[str]:
    """The leading answers: candidates of one question often agree."""
    best = contest.best
    return [best[one.question].text if one.question in best else "" for one in entrants]


def _keep_best(contest: Contest, entrants: Sequence[_Entrant], answers: Sequence[Answer]) -> None:
    """Keeps each answer that beats the leading one; of equals the first stays."""
    for entrant, one in zip(entrants, answers, strict=True):
        confidence = one.confidence * entrant.weight
        leader = contest.best.get(entrant.question)
        if leader is None or confidence > leader.confidence:
            contest.best[entrant.question] = replace(one, confidence=confidence)
