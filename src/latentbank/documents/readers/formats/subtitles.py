"""Subtitles, SubRip (.srt) and WebVTT (.vtt): what is said as one text, with its time codes.

Knows cues; nothing about documents.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from latentbank.documents.outline import Section
from latentbank.documents.readers.rows import Found, Note, ReadOptions, text_row
from latentbank.documents.readers.text import read_text
from latentbank.errors import InputError

__all__ = ["subtitle_rows"]

_CODE = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_TIMES = re.compile(rf"^[ \t]*{_CODE}[ \t]*-->[ \t]*{_CODE}", re.MULTILINE)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[ \t]+([^>]{1,80})>")
_TAG = re.compile(r"</?[a-zA-Z0-9][^<>]{0,200}>|\{\\[^{}]{0,80}\}")
_PAUSE_SECONDS = 4.0  # of silence, which begins a paragraph


class _Cue(NamedTuple):
    start: float
    end: float
    lines: list[str]


def subtitle_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """What is said as one row; a chunk of it names the time code at which it begins."""
    text, notes = read_text(file, path, options)
    yield from notes
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    cues = list(_cues(text))
    if not cues:
        raise InputError(
            f"{path} holds no subtitle: expected lines such as 00:00:01,000 --> 00:00:04,000."
        )
    silent = sum(not cue.lines for cue in cues)
    if silent == len(cues):
        raise InputError(f"{path}: none of its {silent} subtitles holds a text.")
    if cues[-1].end < cues[-1].start or not cues[-1].lines:
        yield Note("part", path, "the last subtitle is cut off")
    said, outline = _said([cue for cue in cues if cue.lines])
    yield text_row(path, said, options, outline)


def _cues(text: str) -> Iterator[_Cue]:
    """Cues in their order; a number or name in the line above a time is no text."""
    marks = list(_TIMES.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    for mark, end in zip(marks, ends, strict=True):
        lines = text[mark.end() : end].splitlines()[1:]  # behind the settings of the cue
        body: list[str] = []
        for line in lines:
            if not line.strip():
                break
            body.append(line)
        else:
            if end < len(text) and body and body[-1].strip().isdigit():
                body.pop()  # the number of the next cue, without a blank line
        yield _Cue(_seconds(mark.groups()[:4]), _seconds(mark.groups()[4:]), _clean(body))


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (int(part or 0) for part in parts)
    return 3600 * hours + 60 * minutes + seconds + fraction / float(10 ** len(parts[3] or "0"))


def _clean(lines: list[str]) -> list[str]:
    """Lines without markup; the name of a voice stands in front of what it says."""
    said = (_TAG.sub("", _VOICE.sub(r"\1: ", line)) for line in lines)
    return [line for line in (html.unescape(one).strip() for one in said) if line]


def _said(cues: list[_Cue]) -> tuple[str, tuple[Section, ...]]:
    """The text of cues; a line that rolls on through several cues is said once."""
    parts: list[str] = []
    outline: list[Section] = []
    length, before = 0, cues[0]
    shown: list[str] = []
    for cue in cues:
        fresh = [line for line in cue.lines if line not in shown]
        shown = cue.lines
        if not fresh:
            continue
        if parts:
            changes = cue.start - before.end >= _PAUSE_SECONDS or fresh[0].startswith("-")
            sign = "\n\n" if changes else "\n" if parts[-1].endswith((".", "!", "?")) else " "
            parts.append(sign)
            length += len(sign)
        whole = int(cue.start)
        code = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
        outline.append(Section(length, (), code))
        parts.append(" ".join(fresh))
        length += len(parts[-1])
        before = cue
    return "".join(parts), tuple(outline)
