"""Answers questions from a method's memory, one batch at a time.

A method either reads once for each question, or names several candidates: documents and the closed
book. Then they compete, and `quality` says how. Knows methods through their contract; knows no data
and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from latentbank.answering.contest import (
    Winner,
    choose_winners,
    finish_contest,
    open_contest,
    settled,
)
from latentbank.answering.questions import ASKED_TOGETHER, check_questions, question_batches
from latentbank.answering.reading import Answer, AnswerStream, Reading
from latentbank.answering.remote import answer_remotely, client_of, stream_remotely
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.transports import Conditioning
from latentbank.capabilities import Candidates, Retrieving
from latentbank.documents.identity import document_id
from latentbank.errors import unknown
from latentbank.method import NAMES_SOURCES, Method
from latentbank.parts.retrieval.candidates import Candidate

__all__ = [
    "ASKED_TOGETHER",
    "QUALITIES",
    "Answer",
    "AnswerStream",
    "answer_batch",
    "check_questions",
    "question_batches",
    "stream_answer",
]

QUALITIES = ("fast", "best")
"""How candidates compete. `fast`: by weight, question gain and the first token; one is answered.
`best`: each that can win is answered, and how sure the whole answer is counts."""


def answer_batch(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None = None,
    decoding: DecodingConfig | None = None,
    memory: bool = True,
    quality: str = "best",
) -> list[Answer]:
    """Answers to a batch of questions from the bound bank.

    `documents` [B] names the document to read for each question. With `memory` False the backbone
    answers closed book, with the method's low-rank weights and nothing else. `quality` is one of
    `QUALITIES`; else UnknownNameError.
    """
    if not questions:
        return []
    began = time.perf_counter()
    client = client_of(method)
    rows = None if client else _candidates(method, questions, documents, memory, quality)
    if client is not None:
        answers = answer_remotely(client, method, questions, documents, decoding, memory)
    elif rows is None:
        answers = _read_once(_reading(method, questions, documents, decoding, memory))
    elif quality == "best":
        answers = finish_contest(open_contest(method, questions, rows, decoding), began)
    else:
        answers = _answer_winners(choose_winners(method, questions, rows, decoding), began)
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


def stream_answer(
    method: Method,
    question: str,
    decoding: DecodingConfig | None = None,
    memory: bool = True,
    quality: str = "best",
) -> Iterator[Answer]:
    """The answer to one question as it grows; the last one is the whole answer.

    With beams, and where `best` has whole answers to compare, there is only one.
    """
    began = time.perf_counter()
    client = client_of(method)
    if client is not None:
        for one in stream_remotely(client, method, question, decoding, memory):
            yield replace(one, superseded=_superseded(method, question, one) if memory else ())
        return
    rows = _candidates(method, [question], None, memory, quality)
    beams = decoding is not None and decoding.beams > 1
    if beams:
        yield answer_batch(method, [question], None, decoding, memory, quality)[0]
        return
    weight = 1.0
    if rows is None:
        reading, row = _reading(method, [question], None, decoding, memory), 0
        with reading.attached():
            reading.run()
    else:
        winner: Winner | None
        if quality == "best":
            contest = open_contest(method, [question], rows, decoding)
            winner = settled(contest)
            if winner is None:
                [answer] = finish_contest(contest, began)
                yield _told(method, question, answer, memory, began)
                return
        else:
            [winner] = choose_winners(method, [question], rows, decoding)
        reading, row, weight = winner.reading, winner.row, winner.weight
    first = time.perf_counter() - began
    with reading.attached():
        for one in reading.stream(row):
            sure = replace(one, confidence=one.confidence * weight, first_token_seconds=first)
            yield _told(method, question, sure, memory, began)


def _told(method: Method, question: str, answer: Answer, memory: bool, began: float) -> Answer:
    """The answer with its time and with what it stood in for."""
    reads = _reads(method) if memory else None
    return replace(
        answer,
        seconds=time.perf_counter() - began,
        from_memory=bool(answer.documents) if reads is None else reads,
        superseded=_superseded(method, question, answer) if memory else (),
    )


def _candidates(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None,
    memory: bool,
    quality: str,
) -> list[list[Candidate]] | None:
    """The candidates of each question; None where the method reads once."""
    if quality not in QUALITIES:
        raise unknown("quality", quality, QUALITIES)
    if memory and documents is None and isinstance(method, Candidates):
        return method.candidates(questions)
    return None


def _reading(
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None,
    decoding: DecodingConfig | None,
    memory: bool,
) -> Reading:
    read: Conditioning = method.read(questions, documents) if memory else method.closed_book()
    return Reading(method, questions, read, decoding)


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


def _answer_winners(winners: Sequence[Winner], began: float) -> list[Answer]:
    """The answers of the winners, those of one reading together."""
    answers: dict[int, Answer] = {}
    readings = {id(one.reading): one.reading for one in winners}
    for key, reading in readings.items():
        places = [i for i, one in enumerate(winners) if id(one.reading) == key]
        taken = time.perf_counter() - began
        with reading.attached():
            found = reading.answers([winners[i].row for i in places])
        for i, one in zip(places, found, strict=True):
            confidence = one.confidence * winners[i].weight
            answers[i] = replace(one, confidence=confidence, first_token_seconds=taken)
    return [answers[i] for i in range(len(winners))]
