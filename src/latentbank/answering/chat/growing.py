"""A text that grows token by token, shown sentence by sentence with the numbers of its sources.

What was shown is never taken back. Knows sentences; knows no model and no document.
"""

from __future__ import annotations

from collections.abc import Callable

from latentbank.answering.chat.sentences import closed_sentences
from latentbank.documents.ends import finish, whole_characters

__all__ = ["Growing"]


class Growing:
    """Takes the text so far, and gives what may be shown of it.

    `cite` gives the place of the source of a sentence, from 0, or None. `sentences`: after so many
    the answer has `ended`; a sentence that was said before ends it, too. `numbers` are the sources
    that were named, from 1.
    """

    def __init__(
        self, cite: Callable[[str], int | None] | None = None, sentences: int | None = None
    ) -> None:
        self._cite, self._most = cite, sentences
        self._said: list[str] = []
        self._done = 0  # characters of the raw text in whole sentences
        self._text, self._shown = "", ""  # whole sentences with numbers; what was shown last
        self._raw = ""
        self.numbers: list[int] = []
        self.ended = False

    def take(self, raw: str, finished: bool, near_limit: bool = False) -> str:
        """What may be shown of the text `raw`; `near_limit`: its last word may be cut off."""
        self._raw = raw if finished else whole_characters(raw).rstrip()
        for start, end in closed_sentences(self._raw, self._done, finished):
            sentence = self._raw[start:end].strip()
            if sentence in self._said:
                return self._end()
            self._text += self._raw[self._done : end] + self._number(sentence)
            self._said.append(sentence)
            self._done = end
            if self._most is not None and len(self._said) >= self._most:
                return self._end()
        tail = self._raw[self._done :]
        if finished:
            self._text += tail
            return self._end()
        if near_limit:
            tail = tail[: max(0, tail.rfind(" "))]
        held = tail.strip()
        if any(one.startswith(held) for one in self._said):
            tail = ""  # it may be said again
        self._show(self._text + tail)
        return self._shown

    def close(self) -> str:
        """The text at the limit of tokens: it ends behind a sentence or a word."""
        tail = self._raw[self._done :]
        if not self._said and tail:
            self._show(finish(tail))
        self.ended = False
        return self._shown

    def _show(self, text: str) -> None:
        text = text.rstrip()
        if text.startswith(self._shown):
            self._shown = text

    def _end(self) -> str:
        self.ended = True
        self._show(self._text)
        return self._shown

    def _number(self, sentence: str) -> str:
        place = None if self._cite is None else self._cite(sentence)
        if place is None:
            return ""
        if place + 1 not in self.numbers:
            self.numbers.append(place + 1)
        return f" [{place + 1}]"
