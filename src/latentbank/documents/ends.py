"""Where a text may be cut: behind a sentence, behind a word, never inside a character.

Knows strings; nothing about tokens or models. A character is a grapheme cluster (UAX #29): a
Korean syllable, a Hindi letter with its vowel sign, an emoji with its skin tone.
"""

from __future__ import annotations

import re

__all__ = ["clip", "finish", "whole_characters"]

_SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]{0,3}(?=\s|$)|[。！？｡।॥؟۔][」』”’）]{0,3}")
_SPACE = re.compile(r"\s+")
_HALF = "\ufffd"
_MOST_LOST = 0.5  # of a text may be given up for an end at a sentence


def whole_characters(text: str) -> str:
    """The text without half a character at its end: a replacement sign, a lone surrogate."""
    end = len(text)
    while end and (text[end - 1] == _HALF or "\ud800" <= text[end - 1] <= "\udfff"):
        end -= 1
    return text[:end]


def clip(text: str, limit: int) -> str:
    """The beginning of a text, of at most `limit` code points, ended as well as it can be.

    A text that fits is returned as it is. Else it ends behind its last sentence, if that keeps
    half of `limit`; else behind its last word; else, in a script without spaces or in one long
    word, behind its last whole character.
    """
    if len(text) <= limit:
        return text
    complete = text[limit].isspace() or text[limit - 1 : limit].isspace()
    return _ended(text[:limit], complete, following=text[limit])


def finish(text: str) -> str:
    """A text that was stopped at a limit, ended as well as it can be; see `clip`.

    What follows is not known, so the last word counts as cut unless a sentence ends there.
    """
    whole = whole_characters(text)
    stripped = whole.rstrip()
    ends = list(_SENTENCE.finditer(stripped))
    if ends and ends[-1].end() == len(stripped):
        return stripped
    return _ended(whole, complete=len(stripped) < len(whole), following="")


def _ended(text: str, complete: bool, following: str) -> str:
    """`text` cut at its best end; `complete`: its last word is whole."""
    text = _without_half(text, following)
    end = 0
    for match in _SENTENCE.finditer(text):
        end = match.end()
    if end >= _MOST_LOST * len(text):
        return text[:end]
    if complete:
        return text.rstrip()
    spaces = list(_SPACE.finditer(text.rstrip()))
    word = spaces[-1].start() if spaces else 0
    if not text[:word].strip():
        return text.rstrip()
    # In a script without spaces a "word" may be most of the text: then a character is an end.
    tail = text[word:]
    return text.rstrip() if len(tail) > 40 and _spaceless(tail) else text[:word].rstrip()


def _spaceless(text: str) -> bool:
    """Whether most of a text is in a script that does not part words: Chinese, Japanese, Thai."""
    letters = [char for char in text if char.isalpha()]
    parted = sum(_is_spaceless(ord(char)) for char in letters)
    return parted * 2 > len(letters)


def _is_spaceless(code: int) -> bool:
    return (
        0x0E00 <= code <= 0x0EFF  # Thai, Lao
        or 0x1000 <= code <= 0x109F  # Burmese
        or 0x1780 <= code <= 0x17FF  # Khmer
        or 0x3040 <= code <= 0x30FF  # Hiragana, Katakana
        or 0x3400 <= code <= 0x9FFF  # Chinese characters
        or 0x20000 <= code <= 0x3FFFF
    )


def _without_half(text: str, following: str) -> str:
    """`text` without its last character if `following` would belong to that one."""
    import regex

    text = whole_characters(text)
    if not following or not text:
        return text
    characters = regex.findall(r"\X", text[-64:] + following)
    if characters and len(characters[-1]) > len(following):
        return text[: len(text) - (len(characters[-1]) - len(following))]
    return text
