"""The time that a question asks about: "as of May 2023", "before 2020", "the latest price".

Knows English phrases and instants; knows no index and no bank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError
from latentbank.parts.retrieval.lexical import Ranking

__all__ = ["AskedTime", "asked_time", "newest_first"]

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    r"Jan\.?|Feb\.?|Mar\.?|Apr\.?|Jun\.?|Jul\.?|Aug\.?|Sept?\.?|Oct\.?|Nov\.?|Dec\.?)"
)
_DATE = (
    rf"(?P<date>\d{{4}}-\d{{2}}(?:-\d{{2}})?|\d{{1,2}} {_MONTH},? \d{{4}}|"
    rf"{_MONTH} \d{{1,2}},? \d{{4}}|{_MONTH},? \d{{4}}|\d{{4}})(?![\d-])"
)
_PHRASE = re.compile(
    rf"[\s,(]*\b(?P<sign>as of|as at|as known (?:on|in)|before|prior to|until)\s+(?:the\s+)?{_DATE}"
    r"\)?,?",
    re.IGNORECASE,
)
_NEWEST = re.compile(
    r"\b(?:now|nowadays|currently|current|latest|newest|most recent|most recently|today|"
    r"at present|at the moment|these days)\b",
    re.IGNORECASE,
)
_BEFORE = ("before", "prior to", "until")
_ALIKE = 0.99  # of the best document's match; a document with less says something else
_NEAR = 0.5  # of the best document's score


@dataclass(frozen=True)
class AskedTime:
    """What a question says of the time of its documents.

    Attributes:
        rest: the question without the phrase.
        date: the date that it names, if any.
        strict: documents must be from before the date, not only known by then.
        newest: the newest document counts.
    """

    rest: str
    date: Instant | None = None
    strict: bool = False
    newest: bool = False

    def allows(self, time: str) -> bool:
        """Whether a document of this canonical time may answer; one without a time may."""
        if not time or self.date is None:
            return True
        when = parse_time(time)
        return when.before(self.date) if self.strict else when.known_at(self.date)


def asked_time(question: str) -> AskedTime | None:
    """The time that a question asks about; None where it names none that can be read."""
    match = _PHRASE.search(question)
    if match is not None:
        try:
            date = parse_time(match["date"].replace(",", ""))
        except InputError:
            return None
        rest = f"{question[: match.start()]}{question[match.end() :]}".strip()
        if not re.search(r"\w", rest):
            return None
        return AskedTime(rest, date, match["sign"].lower() in _BEFORE)
    return AskedTime(question, newest=True) if _NEWEST.search(question) else None


def newest_first(
    ranking: Ranking, matches: Sequence[float], age: Callable[[str], tuple[str, int]]
) -> tuple[Ranking, tuple[str, ...]]:
    """(ranking with the newest of the documents that fit equally well first, the older of them).

    Only documents with a time take part. The newest gets the best score; the older ones go.
    """
    if not ranking:
        return ranking, ()
    best, top = max(matches), ranking[0][1]
    alike = [
        id
        for (id, score), fit in zip(ranking, matches, strict=True)
        if fit >= _ALIKE * best and score >= _NEAR * top and age(id)[0]
    ]
    if len(alike) < 2 or ranking[0][0] not in alike:
        return ranking, ()
    latest = max(alike, key=age)
    older = tuple(id for id in alike if id != latest)
    rest = [pair for pair in ranking if pair[0] not in alike]
    return [(latest, top), *rest], older
