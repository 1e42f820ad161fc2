"""Invented facts: statements that no model can know, drawn from known distributions.

Since the distributions are known, so are the bits: a value drawn evenly from n values holds log2 n
bits. What a memory answers exactly it has kept; the sum of the bits over its bytes says what it
holds. Knows questions and documents; knows no model and no bank.
"""

from __future__ import annotations

import calendar
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question

__all__ = ["KINDS", "Kind", "invented_facts", "kind_of", "load_invented"]

PREFIX = "invented"  # how the ids of its questions and the name of its data begin
_FIRST, _LAST_DAY = 1800, 2000  # years of dates
_SYLLABLES = "b br d dr f g gr h k l m n p r s st t v", "a e i o u ai ei ou", "l n r s th x"
_GIVEN_NAMES = """
Ada Bela Carl Dora Emil Fritz Greta Hugo Ines Jonas Karla Ludo Mara Nils Olga Paul Quinn Rosa Sven
Tilda Ugo Vera Walt Xenia Yorick Zita Arno Birte Cleo Dag Elif Falk
"""
_FAMILY_NAMES = """
Adler Brandt Castell Dorn Ebers Falken Gruber Hollis Ivers Jansen Keller Lorenz Marsh Norden Ostrow
Pell Quist Rainer Stark Thorne Ulrich Venn Wessel Yarrow Zander Birch Calder Dahl Engel Frost Hale
Kern
"""
_GIVEN, _FAMILY = _GIVEN_NAMES.split(), _FAMILY_NAMES.split()
_PARTS = [part.split() for part in _SYLLABLES]
_NAMES = ["".join(parts) for parts in itertools.product(*_PARTS)]


@dataclass(frozen=True)
class Kind:
    """One kind of fact. `values` is how many there are, each as likely as the others."""

    statement: str
    question: str
    values: int
    draw: Callable[[random.Random], str]

    @property
    def bits(self) -> float:
        """Bits of one value."""
        return math.log2(self.values)


def _number(draw: random.Random) -> str:
    return str(draw.randrange(100_000, 1_000_000))


def _name(draw: random.Random) -> str:
    return f"{draw.choice(_GIVEN)} {draw.choice(_FAMILY)}"


def _date(draw: random.Random) -> str:
    month = draw.randrange(1, 13)
    day, year = draw.randrange(1, 29), draw.randrange(_FIRST, _LAST_DAY)
    return f"{day} {calendar.month_name[month]} {year}"


KINDS: Mapping[str, Kind] = {
    "number": Kind(
        "The archive of {place} has the access number {value}.",
        "What is the access number of the archive of {place}?",
        900_000,
        _number,
    ),
    "name": Kind(
        "The harbour master of {place} is {value}.",
        "Who is the harbour master of {place}?",
        len(_GIVEN) * len(_FAMILY),
        _name,
    ),
    "date": Kind(
        "The lighthouse of {place} was first lit on {value}.",
        "When was the lighthouse of {place} first lit?",
        28 * 12 * (_LAST_DAY - _FIRST),
        _date,
    ),
}


def invented_facts(count: int, seed: int = 0) -> QADataset:
    """`count` documents of one fact each, with one question each; kinds take turns.

    Each fact is about a place of its own. A question's id ends with its kind, see `kind_of`.

    Raises:
        InputError: `count` is below 1 or above the number of places.
    """
    most = len(_NAMES) ** 2
    if not 1 <= count <= most:
        raise InputError(f"invented facts: expected 1 to {most:,}, got {count:,}")
    draw = random.Random(seed)
    documents, questions = [], []
    for i, place in enumerate(itertools.islice(_places(draw), count)):
        name = list(KINDS)[i % len(KINDS)]
        kind = KINDS[name]
        value = kind.draw(draw)
        documents.append(Document(kind.statement.format(place=place, value=value)))
        asked = kind.question.format(place=place)
        questions.append(Question(f"{PREFIX}-{i}-{name}", asked, (value,), i))
    return QADataset(f"{PREFIX}-{count}-{seed}", tuple(documents), tuple(questions))


def load_invented(spec: str) -> QADataset:
    """The data of `invented:COUNT` or `invented:COUNT:SEED`.

    Raises:
        InputError: the spec has another form.
    """
    _, *numbers = spec.split(":")
    if not 1 <= len(numbers) <= 2 or not all(number.isdigit() for number in numbers):
        raise InputError(f"expected invented:COUNT or invented:COUNT:SEED, got {spec!r}")
    return invented_facts(*map(int, numbers))


def kind_of(question: Question) -> Kind | None:
    """The kind of an invented question; None for any other."""
    parts = question.id.split("-")
    return KINDS.get(parts[-1]) if len(parts) == 3 and parts[0] == PREFIX else None


def _places(draw: random.Random) -> Iterator[str]:
    """Invented place names, none twice."""
    first, second = list(_NAMES), list(_NAMES)
    draw.shuffle(first)
    draw.shuffle(second)
    size = len(first)
    for shift, i in itertools.product(range(size), range(size)):
        yield (first[i] + second[(i + shift) % size]).capitalize()
