"""Relative dates of a text ("yesterday", "last Friday") as dates, by the time of the text.

Knows English phrases and calendars (dateutil); nothing about documents or models. The rules are
its own: `dateparser.search` takes "We", "sun" and "the march of" for dates and does not know "the
week before last", at 0.4 s of import and several milliseconds a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from latentbank.documents.time import Instant, Precision, parse_time
from latentbank.errors import InputError

__all__ = ["RelativeDate", "annotate", "relative_dates"]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # their first months
_SHIFT = {"last": -1, "this": 0, "next": 1, "past": -1, "coming": 1}

_COUNT = rf"(?P<count>\d{{1,3}}|an?|a couple of|{'|'.join(_NUMBERS)})"
_UNIT = r"(?P<unit>day|week|fortnight|weekend)s?"
_YEARS = r"(?P<unit>year|decade)s?"
_WHICH = rf"(?P<which>{'|'.join(_SHIFT)})"
_STRICT = r"(?P<which>last|this|next)"  # "the past week" is no calendar week
_FUTURE = re.compile(r"\b(?:will|won['’]t|shall|going to|see you|due)\b|['’]ll\b", re.IGNORECASE)
_HINT = re.compile(  # a text without any of these has no relative date
    r"day|morrow|tonight|night|this|last|next|past|coming|ago|now|in |before|after", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?\n]")
_PART = r"(?: morning| afternoon| evening| night)?"


@dataclass(frozen=True)
class RelativeDate:
    """A phrase of a text and the days that it means.

    Attributes:
        start, end: where the phrase stands in the text.
        phrase: its words, as written.
        first, last: the days that it means; one day if they are equal.
        meaning: these days in words: "7 May 2023", "June 2023", "the week of 1 May 2023".
    """

    start: int
    end: int
    phrase: str
    first: date
    last: date
    meaning: str


_Span = tuple[date, date, str]
_Rule = Callable[[re.Match[str], date], _Span]


def relative_dates(text: str, time: Instant) -> list[RelativeDate]:
    """The phrases of a text that name a date relative to its `time`, in the order of the text.

    A phrase finer than the time's precision is left out: "yesterday" in a text of 2023.
    """
    dates: dict[int, RelativeDate] = {}
    for precision, pattern, rule in _RULES:
        if precision > time.precision:
            continue
        for match in pattern.finditer(text):
            try:
                first, last, meaning = rule(match, time.start.date())
            except (OverflowError, ValueError):  # outside the years 1 to 9999
                continue
            start, end = match.span()
            dates.setdefault(start, RelativeDate(start, end, match[0], first, last, meaning))
    return list(_apart(sorted(dates.values(), key=lambda one: (one.start, -one.end))))


def _apart(dates: list[RelativeDate]) -> Iterator[RelativeDate]:
    end = 0
    for one in dates:
        if one.start >= end:
            end = one.end
            yield one


def annotate(text: str, time: str | Instant | None) -> str:
    """The text with the meaning of each relative date in brackets behind it.

    "We met yesterday." of 8 May 2023 becomes "We met yesterday (7 May 2023).". A text without a
    relative date, without a time or with a stored time that cannot be read comes back as it is.
    """
    if not time or not _HINT.search(text):
        return text
    try:
        when = parse_time(time)
    except InputError:
        return text
    parts, at = [], 0
    for one in relative_dates(text, when):
        parts += [text[at : one.end], f" ({one.meaning})"]
        at = one.end
    return "".join([*parts, text[at:]])


# ---- spans of days


def _day(when: date) -> _Span:
    return when, when, f"{when.day} {MONTHS[when.month - 1]} {when.year}"


def _days(first: date, count: int) -> _Span:
    last = first + timedelta(days=count - 1)
    return first, last, f"{_day(first)[2]} to {_day(last)[2]}"


def _week(when: date) -> _Span:
    first = when - timedelta(days=when.weekday())
    return first, first + timedelta(days=6), f"the week of {_day(first)[2]}"


def _month(when: date) -> _Span:
    first = when.replace(day=1)
    last = _later(first, "months", 1) - timedelta(days=1)
    return first, last, f"{MONTHS[when.month - 1]} {when.year}"


def _year(year: int) -> _Span:
    return date(year, 1, 1), date(year, 12, 31), str(year)


def _later(when: date, unit: str, count: int) -> date:
    """So many calendar units later, the day cut to the length of the month."""
    from dateutil.relativedelta import relativedelta

    moved: date = when + relativedelta(**{unit: count})
    return moved


# ---- rules


def _fixed(days: int) -> _Rule:
    return lambda match, today: _day(today + timedelta(days=days))


def _which_day(match: re.Match[str], today: date) -> _Span:
    """Last: the latest such day before today; next: the first after it; this: of this week."""
    shift = _SHIFT[match["which"].lower()]
    ahead = _DAYS.index(match["day"].lower()) - today.weekday()
    if shift < 0:
        ahead -= 7 * (ahead >= 0)
    elif shift > 0:
        ahead += 7 * (ahead <= 0)
    return _day(today + timedelta(days=ahead))


def _which_unit(match: re.Match[str], today: date) -> _Span:
    return _shifted(match["unit"].lower(), _SHIFT[match["which"].lower()], today)


def _before_last(match: re.Match[str], today: date) -> _Span:
    return _shifted(match["unit"].lower(), -2, today)


def _after_next(match: re.Match[str], today: date) -> _Span:
    return _shifted(match["unit"].lower(), 2, today)


def _shifted(unit: str, shift: int, today: date) -> _Span:
    if unit == "week":
        return _week(today + timedelta(weeks=shift))
    if unit == "weekend":
        monday = today - timedelta(days=today.weekday())
        return _days(monday + timedelta(days=5, weeks=shift), 2)
    if unit == "month":
        return _month(_later(today.replace(day=1), "months", shift))
    return _year(today.year + shift)


def _which_month(match: re.Match[str], today: date) -> _Span:
    shift = _SHIFT[match["which"].lower()]
    month = [name.lower() for name in MONTHS].index(match["month"].lower()) + 1
    year = today.year
    if shift < 0:
        year -= month >= today.month
    elif shift > 0:
        year += month <= today.month
    return _month(date(year, month, 1))


def _which_season(match: re.Match[str], today: date) -> _Span:
    """Seasons of the northern half; winter has the year in which it begins."""
    name = match["season"].lower()
    shift = _SHIFT[match["which"].lower()]
    first = date(today.year, _SEASONS[name], 1)
    if name == "winter" and today.month < 3:
        first = date(today.year - 1, 12, 1)
    end = _later(first, "months", 3)
    if (shift < 0 and end > today) or (shift == 0 and end <= today and name == "winter"):
        shift_years = -1 if shift < 0 else 1
        first = _later(first, "years", shift_years)
    elif shift > 0 and first <= today:
        first = _later(first, "years", 1)
    last = _later(first, "months", 3) - timedelta(days=1)
    years = f"{first.year}" if last.year == first.year else f"{first.year}/{last.year}"
    return first, last, f"{name} {years}"


def _number(text: str) -> int:
    text = text.lower()
    if text.isdigit():
        return int(text)
    if text == "a couple of":
        return 2
    return 1 if text in ("a", "an") else _NUMBERS.index(text) + 1


def _counted(sign: int) -> _Rule:
    def rule(match: re.Match[str], today: date) -> _Span:
        count, unit = sign * _number(match["count"]), match["unit"].lower()
        if unit in ("day", "week", "fortnight"):
            days = {"day": 1, "week": 7, "fortnight": 14}[unit]
            return _day(today + timedelta(days=days * count))
        if unit == "decade":
            return _year(today.year + 10 * count)
        return _shifted(unit, count, today)

    return rule


def _future(match: re.Match[str], today: date) -> _Span:
    """ "in two weeks" where its sentence speaks of the future; else it may be how long it took."""
    before = _SENTENCE_END.split(match.string[: match.start()])[-1]
    if not _FUTURE.search(before):
        raise ValueError("a duration")
    return _counted(1)(match, today)


def _rule(
    precision: Precision, pattern: str, rule: _Rule
) -> tuple[Precision, re.Pattern[str], _Rule]:
    return precision, re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), rule


_D, _M, _Y = Precision.DAY, Precision.MONTH, Precision.YEAR
_MONTH_NAMES = f"(?-i:{'|'.join(MONTHS)})"  # "this may" is no month
_RULES = (
    _rule(_D, r"the day before yesterday", _fixed(-2)),
    _rule(_D, r"the day after tomorrow", _fixed(2)),
    _rule(_D, rf"yesterday{_PART}|last night", _fixed(-1)),
    _rule(_D, rf"tomorrow{_PART}", _fixed(1)),
    _rule(_D, r"today|tonight|this morning|this afternoon|this evening", _fixed(0)),
    _rule(_D, rf"{_WHICH} (?P<day>{'|'.join(_DAYS)}){_PART}", _which_day),
    _rule(_D, rf"{_WHICH} (?P<unit>weekend)", _which_unit),
    _rule(_D, rf"{_STRICT} (?P<unit>week)", _which_unit),
    _rule(_M, rf"{_STRICT} (?P<unit>month)", _which_unit),
    _rule(_Y, rf"{_STRICT} (?P<unit>year)", _which_unit),
    _rule(_M, rf"{_WHICH} (?P<month>{_MONTH_NAMES})", _which_month),
    _rule(_M, rf"{_WHICH} (?P<season>{'|'.join(_SEASONS)})", _which_season),
    *(
        _rule(precision, rf"the (?P<unit>{unit}) {words}", rule)
        for precision, unit in ((_D, "week|weekend"), (_M, "month"), (_Y, "year"))
        for words, rule in (("before last", _before_last), ("after next", _after_next))
    ),
    *(
        _rule(precision, pattern.format(unit=unit, count=_COUNT), rule)
        for precision, unit in ((_D, _UNIT), (_M, "(?P<unit>month)s?"), (_Y, _YEARS))
        for pattern, rule in (
            ("{count} {unit} ago", _counted(-1)),
            ("{count} {unit} from now", _counted(1)),
            ("in {count} {unit}", _future),
        )
    ),
)
