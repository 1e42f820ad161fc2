"""Reading a time: the spellings that people and programs use, as an `Instant`.

Knows the spellings of times; nothing about documents, files or banks.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

from latentbank.documents.instant import Instant, Precision
from latentbank.errors import InputError

__all__ = ["Instant", "Precision", "parse_time", "time_key"]


_FIELDS = ("year", "month", "day", "hour", "minute", "second", "microsecond")
_MAX_LENGTH = 100  # characters; no spelling of a time is longer

_YEAR = re.compile(r"\d{4}")
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_ORDINAL = re.compile(r"(\d{4})-(\d{3})")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ISO = re.compile(
    r"(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d{2}-?\d)"
    r"(?:[T ](?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?P<fraction>[.,]\d+)?)?)?"
    r" ?(?:Z|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?)?",
    re.IGNORECASE,
)
_NUMERIC_DATE = re.compile(r"(?<![\d./-])(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?![\d./-])")
_UTC_OFFSET = re.compile(r"\b(?:UTC|GMT) ?(?=[+-]\d)", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)")

# The zones of RFC 2822 and others whose name stands for one offset only, in hours.
_ZONES = {
    "UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7,
    "MDT": -6, "PST": -8, "PDT": -7, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2,
    "EEST": 3, "MSK": 3, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))  # below, per second
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_key(text: str | None) -> str:
    """The canonical text of a stored time, which sorts by instant; "" if none or unreadable.

    For ledgers that were written before times were checked.
    """
    if not text:
        return ""
    try:
        return str(parse_time(text))
    except InputError:
        return ""


def parse_time(value: object, dayfirst: bool | None = None) -> Instant:
    """Read a time.

    Takes ISO 8601; RFC 2822; dates in English words ("1:56 pm on 8 May, 2023"); Unix time in
    seconds, milliseconds, microseconds or nanoseconds, told apart by size, as a number or digits;
    a year; `datetime`, `date` and `Instant`. A time without an offset is in UTC. Numbers of
    another size than a year, a date (20240501) or Unix time since March 1973 are refused, and so
    are zero and years of two digits outside dates such as 31/12/99.

    `dayfirst`: how to read 01/02/2024. True: day first. False: month first. None: such a date is
    refused where both readings are possible. Raises `InputError`.
    """
    if isinstance(value, Instant):
        return value
    if isinstance(value, datetime):
        plain = datetime(
            *value.timetuple()[:6], value.microsecond, tzinfo=value.tzinfo, fold=value.fold
        )
        return _instant(plain, _clock(plain))
    if isinstance(value, date):
        return _instant(datetime(value.year, value.month, value.day), Precision.DAY)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value))
        if not number.is_finite():
            raise _unreadable(value)
        return _of_number(f"{number.normalize():f}", value)
    if not isinstance(value, str):
        raise _unreadable(value)
    return _of_text(value.strip(), dayfirst)


def _of_text(text: str, dayfirst: bool | None) -> Instant:
    if not text or len(text) > _MAX_LENGTH:
        raise _unreadable(text)
    if _NUMBER.fullmatch(text):
        return _of_number(text, text)
    try:
        if (match := _MONTH.fullmatch(text)) is not None:
            return _instant(datetime(int(match[1]), int(match[2]), 1), Precision.MONTH)
        if (match := _ORDINAL.fullmatch(text)) is not None:
            return _instant(datetime.strptime(text, "%Y-%j"), Precision.DAY)
        if (match := _ISO.fullmatch(text)) is not None:
            return _of_iso(text, match)
    except (ValueError, OverflowError) as error:
        raise _unreadable(text, str(error)) from error
    return _of_words(text, dayfirst)


def _of_iso(text: str, match: re.Match[str]) -> Instant:
    when = datetime.fromisoformat(text[:11].upper() + text[11:].upper().replace(" ", ""))
    if match["fraction"]:
        return _instant(when, Precision.INSTANT if when.microsecond else Precision.SECOND)
    given = [match[name] is not None for name in ("hour", "minute", "second")]
    return _instant(when, Precision(Precision.DAY + sum(given)))


def _of_number(text: str, given: object) -> Instant:
    """Digits: a year, a date without hyphens, or Unix time."""
    if _YEAR.fullmatch(text) and text != "0000":
        return _instant(datetime(int(text), 1, 1), Precision.YEAR)
    try:
        if len(text) == 8 and text.isdigit():
            return _instant(datetime.strptime(text, "%Y%m%d"), Precision.DAY)
        number = Decimal(text)
        if number < 10**8 and number > -(10**4):  # no Unix time since 1973, no clear one before
            raise _unreadable(given)
        for limit, per_second in _UNITS:
            if abs(number) < limit:
                micros = int(number * 10**6 / per_second)
                when = _EPOCH + timedelta(microseconds=micros)
                return _instant(when, _clock(when))
    except (ValueError, OverflowError) as error:
        raise _unreadable(given) from error
    raise _unreadable(given)


def _of_words(text: str, dayfirst: bool | None) -> Instant:
    """RFC 2822, dates with slashes and dates in words, by dateutil."""
    from dateutil import parser

    plain = _NUMERIC_DATE.sub(lambda match: _iso_date(match, dayfirst), text)
    plain = _UTC_OFFSET.sub("", _COMMENT.sub("", plain))
    if not re.search(r"(?<!\d)\d{4}(?!\d)", plain):
        raise _unreadable(text, "no year of four digits")
    # What the text does not say comes from the default, so two defaults show what it says.
    first, second = datetime(4, 1, 1), datetime(8, 2, 2, 1, 1, 1, 1)
    try:
        one = parser.parse(plain, default=first, tzinfos=_zone)
        two = parser.parse(plain, default=second, tzinfos=_zone)
    except (ValueError, OverflowError, TypeError, IndexError, ArithmeticError) as error:
        raise _unreadable(text) from error
    known = 0
    while known < len(_FIELDS) and _same(one, two, _FIELDS[known]):
        known += 1
    if known < 2:
        raise _unreadable(text, "neither a month nor a day")
    precision = Precision(known - 1)
    if precision is Precision.INSTANT and not one.microsecond:
        precision = Precision.SECOND
    return _instant(one, precision)


def _same(one: datetime, two: datetime, name: str) -> bool:
    return bool(getattr(one, name) == getattr(two, name))


def _iso_date(match: re.Match[str], dayfirst: bool | None) -> str:
    """ "31/12/1999" → "1999-12-31"; refuses a date that is ambiguous or contradicts `dayfirst`."""
    one, two, year = int(match[1]), int(match[3]), int(match[4])
    if len(match[4]) == 2:
        year += 1900 if year >= 69 else 2000  # as POSIX reads two digits
    if dayfirst is None:
        if one <= 12 and two <= 12 and one != two:
            raise InputError(
                f"The time {match[0]!r} can be read with the day or the month first; choose with "
                f"dayfirst (--dayfirst), or write {year}-{two:02d}-{one:02d} or "
                f"{year}-{one:02d}-{two:02d}."
            )
        dayfirst = one > 12
    day, month = (one, two) if dayfirst else (two, one)
    if not 1 <= month <= 12:
        order = "day" if dayfirst else "month"
        raise InputError(f"The time {match[0]!r} has no month {month}; it is read {order} first.")
    return f"{year:04d}-{month:02d}-{day:02d}"


def _zone(name: str | None, offset: int | None) -> tzinfo:
    if name is None or offset is not None:
        return timezone(timedelta(seconds=offset or 0))
    hours = _ZONES.get(name.upper())
    if hours is None:
        raise InputError(
            f"The time zone {name!r} is not known or has several meanings; give its offset, such "
            "as +02:00."
        )
    return timezone(timedelta(hours=hours))


def _instant(when: datetime, precision: Precision) -> Instant:
    """The instant in UTC; a time without an offset is taken as UTC.

    A date keeps its day whatever the offset: without a time of day there is no moment to move.
    """
    if when.tzinfo is None or precision <= Precision.DAY:
        return Instant(_cut(when.replace(tzinfo=UTC), precision), precision)
    try:
        moved = when.astimezone(UTC)
    except OverflowError as error:
        raise _unreadable(when.isoformat(), "outside the years 1 to 9999") from error
    if precision is Precision.HOUR and moved.minute:  # an offset such as +05:30
        precision = Precision.MINUTE
    return Instant(_cut(moved, precision), precision)


def _cut(when: datetime, precision: Precision) -> datetime:
    """The start of the span."""
    kept: dict[str, Any] = {name: getattr(when, name) for name in _FIELDS[: precision + 1]}
    return datetime(**{"month": 1, "day": 1, **kept}, tzinfo=UTC)


def _clock(when: datetime) -> Precision:
    return Precision.INSTANT if when.microsecond else Precision.SECOND


def _unreadable(value: object, why: str = "") -> InputError:
    reason = f" ({why})" if why else ""
    return InputError(
        "Expected a time such as 2024-05-01, 2024-05-01T23:30:00-05:00, 8 May 2023 or Unix "
        f"seconds, got {value!r:.120}{reason}."
    )
