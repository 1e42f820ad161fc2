"""Answers as they grow: the pieces of text, and the answer as it stands.

Knows answers that have a text; knows neither models nor banks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["TextStream"]


class _Told(Protocol):
    @property
    def text(self) -> str:
        """The text so far."""


A = TypeVar("A", bound=_Told)


class TextStream(Generic[A]):
    """An answer's text, piece by piece; the pieces together are the text of the whole answer.

    `answer` is the answer as it stands after the last piece, None before the first.
    """

    def __init__(self, growing: Generator[A, None, None]) -> None:
        self._growing = growing
        self.answer: A | None = None

    def close(self) -> None:
        """Ends the answer where it is; in the thread that took its pieces."""
        self._growing.close()

    def __iter__(self) -> Iterator[str]:
        sent = 0
        for answer in self._growing:
            self.answer, text = answer, answer.text
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
