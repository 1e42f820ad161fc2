"""Splits a long text into pieces of at most so many tokens, at the best boundaries available.

Knows strings and a function that counts tokens; nothing about documents, files or tokenizers.
The work grows linearly with the text, also for a single line or a single word of many megabytes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from latentbank.errors import InputError

__all__ = ["CountTokens", "Span", "fits", "split_spans", "split_text"]

CountTokens = Callable[[Sequence[str]], list[int]]
"""Token counts of a batch of strings, in their order."""

Span = tuple[int, int]

_BATCH = 1024  # strings per call of the counting function
_LONG = 16  # a piece of more characters per allowed token than this is split without being counted

# Every repetition is bounded or cannot overlap itself, so that no text makes them backtrack far.
_PARAGRAPH = re.compile(r"\n(?=[ \t\r\f\v]*\n)")
_SENTENCE = re.compile(r"[.!?…][\"'”\u2019»)\]]{0,3}(?=\s)|[。\uff01\uff1f]|(?=\n)")
_SPACE = re.compile(r"\s")


def split_text(text: str, count_tokens: CountTokens, chunk_tokens: int) -> list[str]:
    """Split into stripped, non-empty pieces of at most `chunk_tokens` tokens each, in order.

    Boundaries, best first: paragraph, sentence or line, word, character. Joined, the pieces hold
    every character of the text but some of its white space. Returns [] for white space only.
    Raises `InputError` if `chunk_tokens` is under 1 or too small for a single character.
    """
    return [text[start:end] for start, end in split_spans(text, count_tokens, chunk_tokens)]


def split_spans(
    text: str, count_tokens: CountTokens, chunk_tokens: int, part: Span | None = None
) -> list[Span]:
    """The pieces of `split_text` as (start, end); `part`: of this part of the text alone."""
    if chunk_tokens < 1:
        raise InputError(f"chunk_tokens must be at least 1, got {chunk_tokens}.")
    counter = _Counter(text, count_tokens)
    whole = (0, len(text)) if part is None else part
    if fits(text[slice(*whole)], count_tokens, chunk_tokens):
        spans = [whole]
    else:
        atoms, counts = _atoms(counter, whole, chunk_tokens)
        spans = _enforce(counter, _pack(atoms, counts, chunk_tokens), chunk_tokens)
    return [span for given in spans if (span := _stripped(text, given))[0] < span[1]]


def fits(text: str, count_tokens: CountTokens, limit: int) -> bool:
    """Whether a text has at most `limit` tokens; one that is surely too long is not counted."""
    short = len(text) <= _LONG * limit
    return short and _Counter(text, count_tokens).counts([(0, len(text))])[0] <= limit


def _stripped(text: str, span: Span) -> Span:
    """A span without white space around it."""
    piece = text[slice(*span)]
    start = span[0] + len(piece) - len(piece.lstrip())
    return start, max(start, span[0] + len(piece.rstrip()))


class _Counter:
    """Counts tokens of spans of one text, in batches; white space around a piece's end is kept."""

    def __init__(self, text: str, count_tokens: CountTokens) -> None:
        self.text = text
        self._count_tokens = count_tokens

    def counts(self, spans: Sequence[Span], strip: bool = False) -> list[int]:
        result: list[int] = []
        for first in range(0, len(spans), _BATCH):
            pieces = [self.text[start:end] for start, end in spans[first : first + _BATCH]]
            counted = self._count_tokens([piece.strip() for piece in pieces] if strip else pieces)
            if len(counted) != len(pieces):
                raise InputError(
                    f"count_tokens must return one count per string: expected {len(pieces)}, "
                    f"got {len(counted)}."
                )
            result.extend(counted)
        return result


def _atoms(counter: _Counter, whole: Span, limit: int) -> tuple[list[Span], list[int]]:
    """Spans that cover the text and fit the limit each, as large as their boundaries allow."""
    spans, counts = [whole], [limit + 1]
    levels: list[Callable[[str, Span, int], Iterator[int]]] = [_paragraphs, _sentences, _words]
    for level in [*levels, _windows]:
        finer: list[Span] = []
        known: list[int | None] = []
        for span, count in zip(spans, counts, strict=True):
            if count <= limit:
                finer.append(span)
                known.append(count)
            else:
                parts = _cut(span, level(counter.text, span, limit))
                finer.extend(parts)
                known.extend([None] * len(parts))
        spans, counts = finer, _fill(counter, finer, known, limit)
    return spans, counts


def _fill(counter: _Counter, spans: list[Span], known: list[int | None], limit: int) -> list[int]:
    """Count the spans not counted yet; a span that is surely too long is not looked at."""
    todo = [
        index
        for index, (span, count) in enumerate(zip(spans, known, strict=True))
        if count is None and span[1] - span[0] <= _LONG * limit
    ]
    counts = [limit + 1 if count is None else count for count in known]
    for index, count in zip(todo, counter.counts([spans[i] for i in todo]), strict=True):
        counts[index] = count
    return counts


def _cut(span: Span, boundaries: Iterator[int]) -> list[Span]:
    edges = [span[0]]
    edges.extend(edge for edge in boundaries if edges[-1] < edge < span[1])
    edges.append(span[1])
    return list(pairwise(edges))


def _paragraphs(text: str, span: Span, _limit: int) -> Iterator[int]:
    return (match.start() for match in _PARAGRAPH.finditer(text, *span))


def _sentences(text: str, span: Span, _limit: int) -> Iterator[int]:
    return (match.end() for match in _SENTENCE.finditer(text, *span))


def _words(text: str, span: Span, limit: int) -> Iterator[int]:
    """Ends of groups of words of about `limit` / 2 characters; single words would be too many."""
    start, end = span
    step = max(1, limit // 2)
    while (match := _SPACE.search(text, min(start + step, end), end)) is not None:
        yield match.start()
        start = match.start()


def _windows(_text: str, span: Span, limit: int) -> Iterator[int]:
    return iter(range(span[0] + max(1, limit // 2), span[1], max(1, limit // 2)))


def _pack(atoms: list[Span], counts: list[int], limit: int) -> list[Span]:
    """Join neighbours as long as the sum of their counts fits."""
    packed: list[Span] = []
    total = 0
    for (start, end), count in zip(atoms, counts, strict=True):
        if packed and total + count <= limit:
            packed[-1] = (packed[-1][0], end)
            total += count
        else:
            packed.append((start, end))
            total = count
    return packed


def _enforce(counter: _Counter, spans: list[Span], limit: int) -> list[Span]:
    """Halve what is still too long: tokens of a whole may exceed the sum over its parts."""
    counts = counter.counts(spans, strip=True)
    while any(count > limit for count in counts):
        halves: list[Span] = []
        known: list[int | None] = []
        for (start, end), count in zip(spans, counts, strict=True):
            if count <= limit:
                halves.append((start, end))
                known.append(count)
                continue
            piece = counter.text[start:end].strip()
            if len(piece) < 2:
                raise InputError(
                    f"chunk_tokens={limit} is too small: the single character {piece!r} takes "
                    f"{count} tokens; raise it."
                )
            middle = _middle(counter.text, start, end)
            halves += [(start, middle), (middle, end)]
            known += [None, None]
        todo = [span for span, count in zip(halves, known, strict=True) if count is None]
        fresh = iter(counter.counts(todo, strip=True))
        spans = halves
        counts = [next(fresh) if count is None else count for count in known]
    return spans


def _middle(text: str, start: int, end: int) -> int:
    """Where to halve: at the white space nearest after the middle, else in the middle."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    middle = (start + end) // 2
    match = _SPACE.search(text, middle, end)
    return match.start() if match is not None and match.start() > start else middle
