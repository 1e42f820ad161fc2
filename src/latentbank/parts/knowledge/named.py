"""Which questions name a triple: its entity and its property stand in the question, word by word.

Knows words; knows no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["NamedKeys"]

_WORD = re.compile(r"\w+")
_ARTICLES = ("the", "a", "an")

Words = tuple[str, ...]


class NamedKeys:
    """(entity, property) of triples, found in questions without regard to case and punctuation.

    An article before an entity may be missing. A question is searched from each of its words on, so
    the time does not grow with the number of triples.
    """

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        self._properties: dict[Words, set[Words]] = {}
        self._lengths: dict[str, set[int]] = {}
        for entity, property in keys:
            name, asked = _words(entity), _words(property)
            name = name[1:] if len(name) > 1 and name[0] in _ARTICLES else name
            if name and asked:
                self._properties.setdefault(name, set()).add(asked)
                self._lengths.setdefault(name[0], set()).add(len(name))

    def named(self, question: str) -> bool:
        """Whether the question names entity and property of a triple, in different words of it."""
        words = _words(question)
        for at, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                known = self._properties.get(words[at : at + length], ())
                rest = (words[:at], words[at + length :])
                if any(_within(asked, part) for asked in known for part in rest):
                    return True
        return False


def _words(text: str) -> Words:
    return tuple(_WORD.findall(text.casefold()))


def _within(wanted: Words, words: Sequence[str]) -> bool:
    size = len(wanted)
    return any(words[i : i + size] == wanted for i in range(len(words) - size + 1))
