"""Answers of a conversation: the text with [1] behind what a document says, and these documents.

A sentence is cited by its words, whoever wrote it, so it works with every model. Knows sentences
and texts; knows no method and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentbank.answering.chat.sentences import split_sentences, words_of
from latentbank.answering.growing_text import TextStream
from latentbank.documents.ends import clip

__all__ = ["ChatAnswer", "ChatStream", "Citation", "cited", "snippet_of"]

SNIPPET = 160  # characters
_SUPPORTED = 0.5  # share of a sentence's words that a document must hold to be cited for it
_FEWEST = 2  # words of a sentence that can be cited


@dataclass(frozen=True)
class Citation:
    """A document that was read for an answer.

    Attributes:
        number: its number in the answer's text, from 1: "[1]".
        id: the document's id.
        entry: the entry that was read, the document or one chunk of it.
        title, source, time: what the bank keeps of it; None where it keeps nothing.
        snippet: the part of its text that the answer was taken from, on one line.
        cited: whether the answer's text names its number.
    """

    number: int
    id: str
    entry: str
    title: str | None
    source: str | None
    time: str | None
    snippet: str
    cited: bool = False


@dataclass(frozen=True)
class ChatAnswer:
    """An answer in a conversation.

    Attributes:
        text: what is said, with "[1]" behind each sentence that a document supports.
        citations: the documents that were read, in the order of their numbers.
        from_memory: whether documents were read; else the model answered closed book.
        confidence: as `Answer.confidence`.
        question: the last question as it was understood, names in the place of pronouns.
        trimmed: messages of the conversation that were left out, because the model's context is
            shorter.
        seconds, first_token_seconds: from the call on.
        superseded: ids of older versions of what was read, newest first.
        finished: it came to its end before the limit of tokens.
        abstained: no answer was sure enough, so the text says that there is none.
    """

    text: str
    citations: tuple[Citation, ...]
    from_memory: bool
    confidence: float
    question: str
    trimmed: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    superseded: tuple[str, ...] = ()
    finished: bool = True
    abstained: bool = False


ChatStream = TextStream[ChatAnswer]
"""A conversation's answer as it grows."""


def cited(sentence: str, texts: Sequence[str]) -> int | None:
    """The place of the text that holds most of a sentence's words; None if none holds half."""
    words = words_of(sentence)
    if len(words) < _FEWEST:
        return None
    shares = [len(words & words_of(text)) / len(words) for text in texts]
    best = max(range(len(shares)), key=lambda i: shares[i], default=None)
    return best if best is not None and shares[best] >= _SUPPORTED else None


def snippet_of(text: str, answer: str) -> str:
    """The part of a text that an answer was taken from, or its beginning; one line."""
    line = " ".join(text.split())
    said = words_of(answer)
    sentences = split_sentences(line)
    if not said or len(sentences) < 2:
        return clip(line, SNIPPET)
    best = max(range(len(sentences)), key=lambda i: (len(words_of(sentences[i]) & said), -i))
    return clip(line[line.find(sentences[best]) :], SNIPPET)
