"""Which documents fade first: policies that put a value on each document.

Knows the facts of documents (age, hits, surprise, redundancy); nothing about pages, levels or
files. A value depends only on the document, never on the time of asking, so that a bank can keep
its pages sorted by value and find the least valuable one without looking at the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from latentbank.bank.facts import Facts
from latentbank.errors import InputError, unknown

__all__ = ["DEFAULT_POLICY", "POLICIES", "Policy", "make_policy"]

Values = npt.NDArray[np.float64]

DEFAULT_POLICY = "age=1,hits=1,surprise=0.5,redundancy=0.5"
_TIE = 1e-3  # of age, where a criterion says nothing
_GOLDEN = (5**0.5 - 1) / 2


class Policy(Protocol):
    """The least valuable documents fade first; one level down counts as 1 more of value, and what
    can fade without loss goes before everything else.
    """

    def value(self, facts: Facts, span: float) -> Values:
        """Values [n] of n documents; `span` is the number of documents that ages a document by 1.

        Raises nothing; needs no state.
        """


def _hint(column: npt.NDArray[np.uint8], missing: float) -> Values:
    known: Values = (column.astype(np.float64) - 1) / 254
    return np.where(column == 0, missing, known)


@dataclass(frozen=True)
class Age:
    """What was written later is worth more: 1 for every `span` documents."""

    def value(self, facts: Facts, span: float) -> Values:
        found: Values = facts.order.astype(np.float64) / span
        return found


@dataclass(frozen=True)
class Hits:
    """What helped to answer is worth more: 0.25 for one hit, 1 for fifteen."""

    def value(self, facts: Facts, span: float) -> Values:
        found: Values = np.log2(1.0 + facts.hits) / 4
        return found


@dataclass(frozen=True)
class Surprise:
    """What the backbone could not have predicted is worth more; unknown counts as 0.5."""

    def value(self, facts: Facts, span: float) -> Values:
        return _hint(facts.surprise, 0.5)


@dataclass(frozen=True)
class Redundancy:
    """What the bank held already is worth less; unknown counts as not held."""

    def value(self, facts: Facts, span: float) -> Values:
        found: Values = 1.0 - _hint(facts.redundancy, 0.0)
        return found


@dataclass(frozen=True)
class Sample:
    """Old and new alike: multiples of the golden ratio, modulo 1, in the order of writing. Those
    over any threshold lie evenly in the stream, so what the bank keeps is a sample of all of it.
    """

    def value(self, facts: Facts, span: float) -> Values:
        found: Values = facts.order.astype(np.float64) * _GOLDEN % 1.0
        return found


POLICIES: Mapping[str, Policy] = {
    "age": Age(),
    "hits": Hits(),
    "redundancy": Redundancy(),
    "sample": Sample(),
    "surprise": Surprise(),
}


@dataclass(frozen=True)
class Blend:
    """A weighted sum of policies; age breaks ties, of which a sample has none."""

    weights: Mapping[str, float] = field(default_factory=dict)

    def value(self, facts: Facts, span: float) -> Values:
        tie = 0.0 if "sample" in self.weights else _TIE
        total = tie * POLICIES["age"].value(facts, span)
        for name, weight in self.weights.items():
            total = total + weight * POLICIES[name].value(facts, span)
        return total


def make_policy(text: str) -> Policy:
    """The policy of a text: a name ("age"), a blend ("age=1,hits=2"), or "blend", the default.

    Raises UnknownNameError for an unknown name, InputError for a weight that is no number.
    """
    if text == "blend":
        text = DEFAULT_POLICY
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (piece.strip() for piece in part.partition("="))
        if name not in POLICIES:
            raise unknown("fading policy", name, [*POLICIES, "blend"])
        try:
            weights[name] = float(number) if sign else 1.0
        except ValueError:
            weights[name] = float("nan")
        if not 0 <= weights[name] <= 1e6:
            raise InputError(f"The weight of policy {name!r} is a number from 0, got {number!r}.")
    return Blend(weights)
