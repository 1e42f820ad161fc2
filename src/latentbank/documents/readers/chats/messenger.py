"""A chat that WhatsApp exported as text, such as `12/05/2024, 10:03 - Mara: Hello`.

Knows the lines of such a file; nothing about documents. Day and month are told apart by what no
month can be, by the order of the messages, or by the reader's options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

from latentbank.documents.readers.chats.chat import Chat, Message
from latentbank.documents.readers.rows import ReadOptions
from latentbank.documents.time import Instant, parse_time
from latentbank.errors import InputError

__all__ = ["messenger_chat"]

_DATE = r"(\d{1,4})([./-])(\d{1,2})\2(\d{2,4})"
_CLOCK = r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?[ \u202f\u00a0]?([AaPp]\.?[ ]?[Mm]\.?)?"
_HEAD = re.compile(
    rf"^[\u200e\u200f]?\[?{_DATE},? {_CLOCK}(?:\] | - )(?:([^:\n]{{1,80}}): )?", re.MULTILINE
)
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e]")
_NAMED = re.compile(r"(?:whatsapp chat (?:with|-) )(.+)", re.IGNORECASE)
_LEAST = 2  # messages that make a file a chat


class _Line(NamedTuple):
    numbers: tuple[int, int, int]
    sign: str
    clock: tuple[int, int, int]
    who: str
    text: str


def messenger_chat(text: str, path: str, options: ReadOptions) -> Chat | None:
    """The chat that a text is; None where it is none.

    Raises `InputError` where its dates can be read in two ways.
    """
    start = text[:200].lstrip("\ufeff\r\n ")
    if not _HEAD.match(start):
        return None
    lines = list(_lines(text))
    if sum(bool(line.who) for line in lines) < _LEAST:
        return None
    order = _order(lines, path, options)
    said = [line for line in lines if line.who]  # what names nobody is said by the program
    stem = PurePath(path).name.removesuffix(".gz").removesuffix(".txt")
    named = _NAMED.match(stem)
    title = named[1] if named else "" if stem.lstrip("_").lower() == "chat" else stem
    return Chat(title, [Message(one.who, one.text, _time(one, order)) for one in said])


def _lines(text: str) -> Iterator[_Line]:
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        first, sign, second, third, hour, minute, seconds, half, who = head.groups()
        hours = int(hour)
        if half:
            hours = hours % 12 + 12 * (half[0] in "pP")
        clock = (hours, int(minute), int(seconds or 0))
        body = _MARKS.sub("", text[head.end() : end]).strip()
        numbers = (int(first), int(second), int(third))
        yield _Line(numbers, sign, clock, (who or "").strip(), body)


def _order(lines: list[_Line], path: str, options: ReadOptions) -> str:
    """ "ymd", "dmy" or "mdy": where year, month and day are."""
    if lines[0].numbers[0] > 99:
        return "ymd"
    likely = [
        order for order in ("dmy", "mdy") if all(_day(line, order) is not None for line in lines)
    ]
    if len(likely) == 2 and len({line.numbers for line in lines}) > 1:
        back = {order: _steps_back(lines, order) for order in likely}
        if len(set(back.values())) > 1:
            return min(likely, key=lambda order: back[order])
    if len(likely) == 2:
        if options.dayfirst is None and lines[0].sign != ".":
            date = "/".join(map(str, lines[0].numbers))
            raise InputError(
                f"{path}: the dates of the chat can be read in two ways, such as {date}; say "
                "--dayfirst or --monthfirst."
            )
        return "mdy" if options.dayfirst is False else "dmy"
    if not likely:
        raise InputError(f"{path}: the dates of the chat are neither day first nor month first.")
    return likely[0]


def _steps_back(lines: list[_Line], order: str) -> int:
    days = [_day(line, order) or datetime.min for line in lines]
    return sum(one > two for one, two in pairwise(days))


def _day(line: _Line, order: str) -> datetime | None:
    first, second, third = line.numbers
    year, month, day = {
        "ymd": (first, second, third),
        "dmy": (third, second, first),
        "mdy": (third, first, second),
    }[order]
    try:
        return datetime(year + 2000 if year < 100 else year, month, day, *line.clock)
    except ValueError:
        return None


def _time(line: _Line, order: str) -> Instant | None:
    day = _day(line, order)
    return None if day is None else parse_time(day.replace(tzinfo=UTC))
