"""Conditions on documents: one small language for delete, split, list, inspect and ask.

Knows a document's id, time, source and metadata; nothing about banks.

    year=2020                       a number, also where it was read from text
    source~notes and lang!=de       contains; not equal; both must hold
    time<2024-05-01                 before an instant; also: before 2024-05-01
    time>=2024-05-01T10:00+02:00    from an instant on; also: since 2024-05-01T10:00+02:00
    time=2024-05                    within a month
    as-of 2024-05                   known by the end of the month
    title="Fish and chips"          a value in quotation marks may hold anything
    author.name=Ada                 a field inside metadata; metadata.id is metadata, id the id

Operators: `=` `!=` `<` `<=` `>` `>=` `~` (contains, in any case) `!~`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = ["Condition", "Conditions", "conditions_of", "parse_conditions"]

_NAME = r"[^\s=<>!~\"']+"
_OPERATOR = r"!=|<=|>=|!~|=|<|>|~"
_TERM = re.compile(
    rf"\s*(?:(?P<name>{_NAME})\s*(?P<sign>{_OPERATOR})|(?P<word>since|before|as-of)\s)\s*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")
_AND = re.compile(
    rf"\s+and\s+(?=(?:{_NAME})\s*(?:{_OPERATOR})|(?:since|before|as-of)\s)|\s*$", re.IGNORECASE
)
_WORDS = {"since": ">=", "before": "<", "as-of": "@"}
_EXAMPLE = "such as year=2020, source~notes or time<2024-01-01"


class _Missing:
    """Stands for a field that a document does not have."""


_MISSING = _Missing()


@dataclass(frozen=True)
class Condition:
    """One comparison.

    Attributes:
        name: `id`, `time`, `source`, or a name in metadata, with dots into nested values.
        sign: the operator; "@" for "as of".
        value: the wanted value, as written.
        quoted: it was in quotation marks, so it is text and no number, true, false or null.
        instant: the wanted value as a time, if it can be read as one.
    """

    name: str
    sign: str
    value: str
    quoted: bool = False
    instant: Instant | None = None

    def __str__(self) -> str:
        value = json.dumps(self.value, ensure_ascii=False) if self.quoted else self.value
        return f"as-of {value}" if self.sign == "@" else f"{self.name}{self.sign}{value}"

    def holds(
        self, id: str, time: str | None, source: str | None, metadata: Mapping[str, Any]
    ) -> bool:
        """Whether it holds for a document; one that lacks the field only meets `!=` and `!~`."""
        value: Any = {"id": id, "time": time, "source": source}.get(self.name, _MISSING)
        if value is _MISSING:
            value = _looked_up(metadata, self.name.removeprefix("metadata."))
        if self.sign in ("!=", "!~"):
            return not self._meets(value, self.sign[1])
        return self._meets(value, self.sign)

    def _meets(self, value: Any, sign: str) -> bool:
        if sign == "=" and not self.quoted and self.value.casefold() == "null":
            return value is None or value is _MISSING
        if value is None or value is _MISSING:
            return False
        if isinstance(value, list) and sign == "=":
            return any(self._meets(item, sign) for item in value)
        if sign == "~":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return self.value.casefold() in text.casefold()
        if self.name == "time":
            return self._meets_time(value, sign)
        if self.name == "source" and sign == "=":
            return _same_path(str(value), self.value)
        return self._equals(value) if sign == "=" else self._orders(value, sign)

    def _meets_time(self, value: Any, sign: str) -> bool:
        when = _instant(value)
        if when is None or self.instant is None:
            return False
        return _compared(when, self.instant, sign)

    def _equals(self, value: Any) -> bool:
        if isinstance(value, bool):
            return self.value.casefold() == str(value).casefold()
        if str(value) == self.value:
            return True
        if self.quoted:
            return False
        one, two = _number(value), _number(self.value)
        return one is not None and one == two

    def _orders(self, value: Any, sign: str) -> bool:
        """Numbers by value, times by instant, other text by its characters."""
        one, two = _number(value), _number(self.value)
        if one is not None and two is not None and not self.quoted:
            return _less(one, two, sign)
        when = _instant(value)
        if when is not None and self.instant is not None:
            return _compared(when, self.instant, sign)
        if two is not None or self.instant is not None or not isinstance(value, str):
            return False  # a word is neither less nor more than a number
        return _less(value, self.value, sign)


@dataclass(frozen=True)
class Conditions:
    """Conditions that must all hold; without any, every document meets them."""

    terms: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms))

    def holds(
        self, id: str, time: str | None, source: str | None, metadata: Mapping[str, Any] | None
    ) -> bool:
        """Whether a document with these values is meant."""
        return all(term.holds(id, time, source, metadata or {}) for term in self.terms)

    def __and__(self, other: Conditions) -> Conditions:
        return Conditions(self.terms + other.terms)


def parse_conditions(texts: str | Sequence[str], dayfirst: bool | None = None) -> Conditions:
    """Read one text or several, all of which must hold.

    Raises `InputError` for a text that is no condition, and for a `time` that cannot be read.
    """
    terms: list[Condition] = []
    for text in [texts] if isinstance(texts, str) else texts:
        terms += _terms(text, dayfirst)
    return Conditions(tuple(terms))


def _terms(text: str, dayfirst: bool | None) -> list[Condition]:
    terms: list[Condition] = []
    at = 0
    while at < len(text) or not terms:
        match = _TERM.match(text, at)
        if match is None:
            raise InputError(f"Expected a condition {_EXAMPLE}, got {text[at:]!r:.120}.")
        quoted = _QUOTED.match(text, match.end())
        end = _AND.match(text, quoted.end()) if quoted else _AND.search(text, match.end())
        if end is None:  # something stands behind the quotation mark
            raise InputError(
                f"Expected 'and' behind {text[: quoted.end() if quoted else 0]!r:.120}, got "
                f"{text[quoted.end() if quoted else 0 :]!r:.120}."
            )
        value = _unquoted(quoted) if quoted else text[match.end() : end.start()].strip()
        word = (match["word"] or "").casefold()
        name, sign = ("time", _WORDS[word]) if word else (match["name"], match["sign"])
        if not value and not quoted:
            raise InputError(
                f'The condition {text!r:.120} has no value behind {name}{sign}; write "" for none.'
            )
        terms.append(_condition(name, sign, value, quoted is not None, dayfirst))
        at = end.end()
    return terms


def _unquoted(match: re.Match[str]) -> str:
    inner = match[1] if match[1] is not None else match[2]
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def _condition(name: str, sign: str, value: str, quoted: bool, dayfirst: bool | None) -> Condition:
    folded = name.casefold()
    name = folded if folded in ("id", "time", "source") else name
    instant = None
    if name == "time" and sign not in ("~", "!~") and value.casefold() != "null":
        instant = parse_time(value, dayfirst)
    elif sign in ("<", "<=", ">", ">="):
        instant = _instant(value, dayfirst)
    return Condition(name, sign, value, quoted, instant)


def _looked_up(metadata: Mapping[str, Any], name: str) -> Any:
    """The value of a name, or of a path of names with dots."""
    if name in metadata:
        return metadata[name]
    head, dot, rest = name.partition(".")
    inner = metadata.get(head, _MISSING)
    return _looked_up(inner, rest) if dot and isinstance(inner, Mapping) else _MISSING


def _compared(when: Instant, wanted: Instant, sign: str) -> bool:
    """By whole spans: 2024 is not before 2024-05-01, since part of it is not."""
    if sign == "=":
        return when.within(wanted)
    if sign == "<":
        return when.before(wanted)
    if sign == ">":
        return when.after(wanted)
    if sign == "@":
        return when.known_at(wanted)
    return when.since(wanted) if sign == ">=" else when.end <= wanted.end


def _less(one: Any, two: Any, sign: str) -> bool:
    if sign == "<":
        return bool(one < two)
    if sign == "<=":
        return bool(one <= two)
    return bool(one > two) if sign == ">" else bool(one >= two)


def _number(value: Any) -> Decimal | None:
    """A number, or text that is one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _instant(value: Any, dayfirst: bool | None = None) -> Instant | None:
    try:
        return parse_time(value, dayfirst)
    except InputError:
        return None


def _same_path(path: str, wanted: str) -> bool:
    """Whether two sources are one, however their path is spelled; `notes/` means all below it."""
    if path == wanted:
        return True
    if "://" in path or "://" in wanted:
        return False
    one, two = os.path.abspath(path), os.path.abspath(wanted)
    if one == two:
        return True
    return wanted.endswith(("/", os.sep)) and one.startswith(two.rstrip(os.sep) + os.sep)


def conditions_of(
    where: Sequence[str] = (),
    source: str | None = None,
    since: str | None = None,
    before: str | None = None,
    as_of: str | None = None,
    dayfirst: bool | None = None,
) -> Conditions:
    """Conditions from the options of a command; all that are given must hold.

    `source` is a source, a path, or a folder with a slash at its end. `since`, `before` and
    `as_of` are times. Raises `InputError` as `parse_conditions` does.
    """
    terms = list(parse_conditions(where, dayfirst).terms)
    if source is not None:
        terms.append(Condition("source", "=", source, quoted=True))
    for value, sign in ((since, ">="), (before, "<"), (as_of, "@")):
        if value is not None:
            terms.append(_condition("time", sign, value, False, dayfirst))
    return Conditions(tuple(terms))
