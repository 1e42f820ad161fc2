"""Salient spans of a text: names, dates and numbers, by rules or by a spaCy pipeline.

Guu et al., 2020, "REALM", https://arxiv.org/abs/2002.08909, mask such spans. Knows texts and
tokens; knows no method.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

__all__ = [
    "RULES", "answer_spans", "answer_starts", "salient_spans", "span_weights", "token_ends",
]  # fmt: skip

RULES = "rules"
_NUMBER = re.compile(r"\d(?:[\d,.:/-]*\d)?(?:(?:st|nd|rd|th|s)\b|%)?")
_NAME = re.compile(
    r"[^\W\d_a-z][\w'’.-]*(?: (?:of|the|de|van|von|and) (?=[^\W\d_a-z])| (?=[^\W\d_a-z]))?"
)
_START = re.compile(r"(?:^|[.!?:\n][\"”’)]*\s+)$")
_COMMON = frozenset(
    """a an and as at but by for from he her his how i if in it its my no not of on one or our she
    so some such that the their then there these they this those to was we what when where which
    while who why with you your after before during since although""".split()  # noqa: SIM905
)


def salient_spans(text: str, finder: str = RULES) -> list[tuple[int, int]]:
    """(start, end) in characters of names, dates and numbers, in order.

    `finder`: `rules`, or the name of an installed spaCy pipeline, whose entities are taken.

    Raises:
        InputError: spaCy or the pipeline is not installed.
    """
    if finder != RULES:
        return [(entity.start_char, entity.end_char) for entity in _pipeline(finder)(text).ents]
    spans = sorted([*_names(text), *(match.span() for match in _NUMBER.finditer(text))])
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _names(text: str) -> Iterator[tuple[int, int]]:
    """Capitalised words, without common words that begin a sentence."""
    for match in _NAME.finditer(text):
        word = match.group().split(" ")[0].strip("'’.-")
        if word.lower() in _COMMON and (word != "I") and _START.search(text[: match.start()]):
            continue
        if word.lower() not in _COMMON:
            start = match.start()
            yield start, start + len(match.group().rstrip(" .'’-"))


@cache
def _pipeline(name: str) -> Callable[[str], Any]:
    try:
        import spacy

        loaded: Callable[[str], Any] = spacy.load(name)
        return loaded
    except ImportError as error:
        raise InputError(
            f"spans={name} needs spaCy; pip install spacy and that pipeline, or take spans=rules"
        ) from error
    except OSError as error:
        raise InputError(
            f"spaCy has no pipeline {name}; python -m spacy download {name}, or take spans=rules"
        ) from error


def token_ends(backbone: Backbone, ids: Sequence[int]) -> list[int]:
    """Where each of the tokens `ids` ends in their text, in characters."""
    decode = backbone.tokenizer.decode
    return [len(decode(list(ids[: at + 1]))) for at in range(len(ids))]


def span_weights(
    backbone: Backbone, ids: Sequence[int], text: str, spans: Sequence[tuple[int, int]]
) -> Tensor:
    """1 for the tokens of `ids` [T] after the first that touch a span, else 0; [T-1] float32.

    `ids` are the start token and tokens of `text`.
    """
    ends = token_ends(backbone, ids[1:])
    starts = [0, *ends[:-1]]
    held = [
        any(start < to and end > begin for begin, to in spans)
        for start, end in zip(starts, ends, strict=True)
    ]
    return torch.tensor(held, dtype=torch.float32)


def answer_starts(backbone: Backbone, text: str, answer: str) -> list[int]:
    """The places among a text's tokens at which an answer begins; none if it is not there."""
    return [start for start, _ in answer_spans(backbone, text, answer)]


def answer_spans(backbone: Backbone, text: str, answer: str) -> list[tuple[int, int]]:
    """(start, end) among a text's tokens of each place where an answer stands."""
    if not answer:
        return []
    spans = [(found.start(), found.end()) for found in re.finditer(re.escape(answer), text)]
    if not spans:
        return []
    held = span_weights(backbone, backbone.encode([text])[0], text, spans)
    edges = torch.cat([held.new_zeros(1), held, held.new_zeros(1)]).diff()
    starts, ends = (torch.nonzero(edges == side).flatten().tolist() for side in (1, -1))
    return list(zip(starts, ends, strict=True))
