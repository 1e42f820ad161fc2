"""Chats as rows: what was said in one chat on one day is a document.

Knows messages; nothing about the programs that export them, nor about documents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from latentbank.documents.outline import Section
from latentbank.documents.readers.rows import Found, ReadOptions, text_row
from latentbank.documents.time import Instant
from latentbank.errors import InputError

__all__ = ["Chat", "Message", "chat_rows"]

_MAX_NAME = 300  # characters of a chat's name in an id


class Message(NamedTuple):
    """Who said what, and when; `when` is None where the export does not tell."""

    who: str
    text: str
    when: Instant | None = None

    @property
    def day(self) -> str:
        """The day as YYYY-MM-DD; "" where it is not known."""
        return "" if self.when is None else str(self.when)[:10]

    @property
    def clock(self) -> str:
        """The time of the day as HH:MM; "" where it is not known."""
        return "" if self.when is None else str(self.when)[11:16]


class Chat(NamedTuple):
    """A conversation; `id` tells it from others of the same title in the same file."""

    title: str
    messages: Sequence[Message]
    id: str = ""


def chat_rows(chats: Sequence[Chat], path: str, options: ReadOptions) -> Iterator[Found]:
    """A row for each day of each chat; its text has lines such as `Mara: See you at eight`."""
    base = os.path.normpath(path).replace(os.sep, "/")
    seen: dict[str, int] = {}
    empty = True
    for chat in chats:
        said = [message for message in chat.messages if message.text.strip()]
        for day, group in groupby(said, lambda message: message.day):
            empty = False
            name = ":".join(part for part in ((chat.id or chat.title)[:_MAX_NAME], day) if part)
            id = f"{base}:{name}" if name else base
            seen[id] = seen.get(id, 0) + 1  # a chat that is not in the order of time
            if seen[id] > 1:
                id = f"{id}:{seen[id]}"
            text, outline = _day(chat.title, list(group))
            where = f"{path}, {day}" if day else path
            yield text_row(
                where, text, options, outline, False, id=id, time=day or None, title=chat.title
            )
    if empty:
        yield InputError(f"{path}: the chat holds no message with a text.")


def _day(title: str, messages: list[Message]) -> tuple[str, tuple[Section, ...]]:
    text = f"{title}\n\n" if title else ""
    outline: list[Section] = []
    parts, length = [text], len(text)
    for message in messages:
        outline.append(Section(length, (), message.clock))
        line = f"{message.who}: {message.text.strip()}\n" if message.who else f"{message.text}\n"
        parts.append(line)
        length += len(line)
    return "".join(parts), tuple(outline)
