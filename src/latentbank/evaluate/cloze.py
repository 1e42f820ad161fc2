"""Questions made from plain text, so that any corpus can train an adapter without questions.

A sentence becomes a question when question words replace an answer in it: "The comet came back in
what year?". Answers are dates, years, numbers, quotations and names. Regular expressions find them,
for English only. The idea comes from unsupervised question answering by cloze translation (Lewis et
al., 2019, https://arxiv.org/abs/1906.04980). Knows texts; knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentbank.documents.document import Document, chunk
from latentbank.documents.readers import read_documents
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question

MIN_WORDS, MAX_WORDS = 6, 60  # of a sentence
PIECE = 1200  # characters of the pieces that a longer text is cut into
CLAUSE_WORDS = 8, 24  # a question has at least 8 words; a sentence above 24 is cut to clauses
_BREAK = re.compile(r"(?<=[.!?])[\"”)\]]*\s+(?=[A-Z\"“(\d])|\n+")
# An abbreviation at the end of a piece, which does not end the sentence.
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]|\b(?:al|Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|Inc|Ltd|Co|ca|cf))\.$"
)
_CLAUSE = re.compile(r"(?<=[,;:])\s+")
# First words of sentences that depend on the sentence before them.
_DANGLING = re.compile(
    r"(?:He|She|It|They|We|I|You|This|That|These|Those|There|Here|His|Her|Its|Their|Such|"
    r"However|But|And|Or|So)\b"
)
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_CAPITAL = rf"(?!{_MONTH}\b|{_DAY}\b)[A-Z][\w-]*\w"
_OWNER = r"(?:['’]s(?= [A-Z]))?"  # "'s" inside a name, as in "St Mary's Church"
_JOIN = r"(?: (?:of the|of|de|van|von|and the))? "
_VERB = "was|were|and|has|had|have|which|that|who|the|for|with|from|but|are|did|will|would|when"
# In the order of trying: (kind, pattern whose last group is the answer, question words).
KINDS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("date", re.compile(rf"\b(\d{{1,2}} {_MONTH}(?:,? \d{{4}})?)"), "what date"),
    ("date", re.compile(rf"\b({_MONTH} \d{{1,2}}\b(?:,? \d{{4}})?)"), "what date"),
    ("year", re.compile(r"\b(1[0-9]{3}|20[0-9]{2})\b(?![,.]?\d)"), "what year"),
    ("share", re.compile(r"\b(\d[\d,.]*(?:%| percent| per cent))"), "what percentage"),
    (
        "count",
        re.compile(
            r"(?<![A-Z]\w )\b(\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion))?)"
            rf"(?= (?!(?:{_VERB})\b)[a-z]{{3,}})"
        ),
        "how many",
    ),
    ("quotation", re.compile(r"[\"“]([^\"“”]{3,40})[\"”]"), "what"),
    (
        "name",
        re.compile(rf"\b(?:The |An? )?({_CAPITAL}{_OWNER}(?:{_JOIN}{_CAPITAL}{_OWNER})*)"),
        "who or what",
    ),
)


@dataclass(frozen=True)
class Cloze:
    """A question about one sentence and the words that answer it; `kind` names the rule."""

    question: str
    answer: str
    kind: str


def cloze_questions(text: str) -> Iterator[Cloze]:
    """Every question that the rules find in a text, sentence by sentence.

    The answer occurs once in its sentence and never in the question. Skips sentences of fewer than
    `MIN_WORDS` or more than `MAX_WORDS` words, and those that start with a pronoun. A long sentence
    is cut to the clauses around the answer.
    """
    for sentence in _sentences(text):
        if MIN_WORDS <= len(sentence.split()) <= MAX_WORDS and not _DANGLING.match(sentence):
            yield from _of_sentence(sentence)


def _sentences(text: str) -> Iterator[str]:
    """Sentences without their full stop, with single spaces."""
    held = ""
    for piece in _BREAK.split(text):
        held = f"{held} {piece}".strip()
        if held and not _ABBREVIATION.search(held):
            yield " ".join(held.split()).rstrip(".!?")
            held = ""
    if held:
        yield " ".join(held.split()).rstrip(".!?")


def _of_sentence(sentence: str) -> Iterator[Cloze]:
    taken: list[tuple[int, int]] = []
    for kind, pattern, asks in KINDS:
        for match in pattern.finditer(sentence):
            start, end = match.span(1)
            if any(start < last and first < end for first, last in taken):
                continue
            taken.append((start, end))
            answer = match.group(1).strip()
            # The first word of a sentence has a capital even where it is no name.
            maybe_no_name = kind == "name" and start == 0 and " " not in answer
            if maybe_no_name or sentence.lower().count(answer.lower()) > 1:
                continue
            asked = _clauses(sentence, start, end, asks)
            yield Cloze(f"{asked[0].upper()}{asked[1:]}?", answer, kind)


def _clauses(sentence: str, start: int, end: int, asks: str) -> str:
    """The question about the answer at start … end of a sentence.

    A long sentence is cut to the answer's clause and, while that is short, its neighbours.
    """
    least, most = CLAUSE_WORDS
    edges = [0, *(match.end() for match in _CLAUSE.finditer(sentence)), len(sentence)]
    first = max(edge for edge in edges if edge <= start)
    last = min(edge for edge in edges if edge >= end)
    while len(sentence[first:last].split()) < least and (first > 0 or last < len(sentence)):
        if first > 0:
            first = max(edge for edge in edges if edge < first)
        else:
            last = min(edge for edge in edges if edge > last)
    if len(sentence.split()) <= most:
        first, last = 0, len(sentence)
    return (sentence[first:start] + asks + sentence[end:last]).rstrip(" ,;:")


def cloze_dataset(
    name: str, documents: Sequence[Document], per_document: int = 5, seed: int = 0
) -> QADataset:
    """Up to `per_document` questions about each document, drawn by `seed`.

    No kind of question comes twice while another is left. Documents without questions stay in the
    data as distractors.

    Raises:
        InputError: no document gives a question, or `per_document` is below 1.
    """
    if per_document < 1:
        raise InputError(f"per_document must be at least 1, got {per_document}")
    unique = list({document.text: document for document in documents}.values())
    questions: list[Question] = []
    for index, document in enumerate(unique):
        draw = np.random.default_rng([seed, index])
        possible = list(cloze_questions(document.text))
        for number, chosen in enumerate(_spread(possible, per_document, draw)):
            label = f"{document.id}?{number}"
            questions.append(Question(label, chosen.question, (chosen.answer,), index))
    if not questions:
        raise InputError(
            f"{name} has no sentence to make a question of. Expected a date, number, name or "
            f"quotation in an English sentence of {MIN_WORDS} to {MAX_WORDS} words."
        )
    return QADataset(name, tuple(unique), tuple(questions))


def _spread(questions: Sequence[Cloze], count: int, draw: np.random.Generator) -> list[Cloze]:
    """`count` of the questions, drawn in rounds over the kinds."""
    order = [questions[i] for i in draw.permutation(len(questions))]
    seen: dict[str, int] = {}
    ranked = []
    for place, item in enumerate(order):
        ranked.append((seen.get(item.kind, 0), place, item))
        seen[item.kind] = seen.get(item.kind, 0) + 1
    return [item for _, _, item in sorted(ranked, key=lambda row: row[:2])[:count]]


def corpus_dataset(
    path: str | Path,
    per_document: int = 5,
    seed: int = 0,
    on_bad: Callable[[InputError], None] | None = None,
) -> QADataset:
    """`cloze_dataset` over a file or a folder that `read_documents` can read.

    Long texts are cut into pieces of at most `PIECE` characters.

    Raises:
        InputError: as `read_documents` and `cloze_dataset`.
    """
    pieces = [
        piece
        for document in read_documents([path], on_bad)
        for piece in chunk(document, lambda texts: [len(text) for text in texts], PIECE)
    ]
    return cloze_dataset(Path(path).name or str(path), pieces, per_document, seed)
