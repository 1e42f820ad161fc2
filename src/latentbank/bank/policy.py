"""Which documents fade first: policies that put a value on each document.

Knows what is known of documents (age, hits, redundancy); nothing about pages, levels or files. A
value depends only on the document, never on the time of asking. So a bank can keep its pages sorted
by value and find the least valuable one without looking at the others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from latentbank.errors import InputError, unknown
from latentbank.functions.expression import Expression, parse

__all__ = [
    "DEFAULT_POLICY",
    "FORMULA",
    "POLICIES",
    "SIGNALS",
    "Formula",
    "Policy",
    "Signals",
    "make_policy",
    "packaged_formulas",
    "signals_by_name",
]

Values = npt.NDArray[np.float64]

DEFAULT_POLICY = "age=1,hits=1,redundancy=0.5"
_ASSET = "assets/policies.json"
_TIE = 1e-3  # weight of age where a policy does not name it
_GOLDEN = (5**0.5 - 1) / 2
_RETIRED = {"surprise": 0.5}  # policies of older banks, with the value that each document has by it
_DEFAULT_OFFSET = 0.25  # what the retired part added to "blend": old and new values then compare


class Signals(NamedTuple):
    """What a policy may know of n documents.

    Attributes:
        order: each one's place in the order of writing, integers [n].
        hits: how often each helped to answer, integers [n].
        redundancy: how much of each is in an earlier document, 0 to 1, [n].
        bytes: what each takes, key included, integers [n].
    """

    order: npt.NDArray[np.integer]
    hits: npt.NDArray[np.integer]
    redundancy: Values
    bytes: npt.NDArray[np.integer]


class Policy(Protocol):
    """The least valuable documents fade first.

    One level down counts as 1 more of value. What can fade without loss goes before everything.
    """

    def value(self, signals: Signals, span: float) -> Values:
        """Values [n] of n documents. `span` newer documents lower a document's value by 1."""


@dataclass(frozen=True)
class Age:
    """What was written later is worth more: 1 for every `span` documents."""

    def value(self, signals: Signals, span: float) -> Values:
        """Place in the order of writing, divided by `span`, [n]."""
        values: Values = signals.order.astype(np.float64) / span
        return values


@dataclass(frozen=True)
class Hits:
    """What helped to answer is worth more: 0.25 for one hit, 1 for fifteen."""

    def value(self, signals: Signals, span: float) -> Values:
        """log2(1 + hits) / 4, [n]."""
        values: Values = np.log2(1.0 + signals.hits) / 4
        return values


@dataclass(frozen=True)
class Redundancy:
    """What the bank held already is worth less."""

    def value(self, signals: Signals, span: float) -> Values:
        """1 - redundancy, [n]."""
        values: Values = 1.0 - signals.redundancy
        return values


@dataclass(frozen=True)
class Sample:
    """Old and new documents have equal chances to stay.

    The value is a multiple of the golden ratio, modulo 1, in the order of writing. The documents
    over any threshold lie evenly in the stream, so the bank keeps a sample of all of it.
    """

    def value(self, signals: Signals, span: float) -> Values:
        """order · (√5 - 1)/2 modulo 1, [n]."""
        values: Values = signals.order.astype(np.float64) * _GOLDEN % 1.0
        return values


@dataclass(frozen=True)
class Size:
    """What takes fewer bytes is worth more: 1 for half of the bytes.

    A cache that evicts by value for bytes serves more requests than one that looks at values alone
    (Cao and Irani, 1997, GreedyDual-Size), where requests do not grow with the size.
    """

    def value(self, signals: Signals, span: float) -> Values:
        """-log2(bytes), [n]."""
        values: Values = -np.log2(np.maximum(signals.bytes, 1))
        return values


POLICIES: Mapping[str, Policy] = {
    "age": Age(),
    "hits": Hits(),
    "redundancy": Redundancy(),
    "sample": Sample(),
    "size": Size(),
}


@dataclass(frozen=True)
class Blend:
    """A weighted sum of policies. Age breaks ties, except in a sample, which has none."""

    weights: Mapping[str, float]
    offset: float = 0.0

    def value(self, signals: Signals, span: float) -> Values:
        """The weighted sum plus `offset`, [n]."""
        tie = 0.0 if "sample" in self.weights else _TIE
        total = tie * POLICIES["age"].value(signals, span) + self.offset
        for name, weight in self.weights.items():
            total = total + weight * POLICIES[name].value(signals, span)
        return total


FORMULA = "formula:"
"""What a policy's text begins with where an expression follows; see `functions.expression`."""

SIGNALS = ("age", "hits", "redundancy", "sample")
"""What an expression may know of a document; see `signals_by_name`."""


def signals_by_name(signals: Signals, span: float) -> dict[str, Values]:
    """The signals [n] of an expression.

    `age` is the place in the order of writing, divided by `span`; `hits` a count; `redundancy` lies
    in 0 … 1; `sample` is the value that the policy of that name gives.
    """
    return {
        "age": POLICIES["age"].value(signals, span),
        "hits": signals.hits.astype(np.float64),
        "redundancy": np.asarray(signals.redundancy, np.float64),
        "sample": POLICIES["sample"].value(signals, span),
    }


@dataclass(frozen=True)
class Formula:
    """An expression over `SIGNALS`. Age breaks ties. What is no number counts as 0."""

    expression: Expression

    def value(self, signals: Signals, span: float) -> Values:
        """The expression's value, [n]."""
        known = signals_by_name(signals, span)
        tie = 0.0 if "sample" in self.expression.names else _TIE
        values: Values = self.expression.bounded(known) + tie * known["age"]
        return values


@functools.cache
def packaged_formulas() -> Mapping[str, str]:
    """Named expressions that ship with the package: policies that `latentbank evolve` found."""
    found = json.loads(resources.files("latentbank").joinpath(_ASSET).read_text("utf-8"))
    return {name: str(row["expression"]) for name, row in found.items()}


def make_policy(text: str, stored: bool = False) -> Policy:
    """The policy of a text: a name ("age"), a blend ("age=1,hits=2"), or "blend", the default.

    "formula:" and an expression over `SIGNALS` is a policy, too, as is a name of
    `packaged_formulas`.

    Args:
        stored: whether the text comes from a bank. One of an older version may name a policy that
            is retired since; it counts alike for all documents.

    Raises `UnknownNameError` for an unknown name, `InputError` for a weight that is no number.
    """
    offset = 0.0
    if text.startswith(FORMULA):
        return Formula(parse(text.removeprefix(FORMULA), SIGNALS))
    if text in packaged_formulas():
        return Formula(parse(packaged_formulas()[text], SIGNALS))
    if text == "blend":
        text, offset = DEFAULT_POLICY, _DEFAULT_OFFSET
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (piece.strip() for piece in part.partition("="))
        retired = stored and name in _RETIRED
        if name not in POLICIES and not retired:
            raise unknown("fading policy", name, [*POLICIES, "blend", *packaged_formulas()])
        try:
            weight = float(number) if sign else 1.0
        except ValueError:
            weight = float("nan")
        if not 0 <= weight <= 1e6:
            raise InputError(f"The weight of policy {name!r} is a number from 0, got {number!r}.")
        if retired:
            offset += weight * _RETIRED[name]
        else:
            weights[name] = weight
    return Blend(weights, offset)
