"""What callers pass to `MemoryModel`, checked: documents, ids, questions, counts.

A single value stands for a list of one, and a text for a document. Everything else that does not
fit is refused before anything is written or read. Knows values; knows no bank and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from latentbank.documents.document import Document
from latentbank.errors import InputError

__all__ = ["as_count", "as_documents", "as_ids", "as_questions"]


def as_documents(given: Any) -> Iterator[Document]:
    """Documents one by one: of a `Document`, a text, or an iterable of such.

    Raises:
        InputError: something else; the sentence names it and its place.
    """
    if isinstance(given, (Document, str)):
        given = [given]
    elif isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"write takes documents, expected a list of Document or of texts, got {_kind(given)}"
        )
    return _documents(given)


def _documents(given: Iterable[Any]) -> Iterator[Document]:
    for place, item in enumerate(given, start=1):
        if isinstance(item, str):
            item = Document(item)
        elif not isinstance(item, Document):
            raise InputError(
                f"document {place}: expected a Document or a text, got {_kind(item)}; make one "
                "with Document(text, id=…, time=…)"
            )
        yield item


def as_ids(given: Any) -> list[str]:
    """Ids of documents; a text is one id, not its letters.

    Raises:
        InputError: something that is no id.
    """
    return _texts(given, "delete takes ids of documents", "id")


def as_questions(given: Any) -> list[str]:
    """Questions; a text is one question.

    Raises:
        InputError: something that is no text.
    """
    return _texts(given, "questions are texts", "question")


def as_count(value: Any, name: str) -> int:
    """A whole number of at least 1.

    Raises:
        InputError: another value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _texts(given: Any, rule: str, noun: str) -> list[str]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise InputError(f"{rule}, expected a text or a list of texts, got {_kind(given)}")
    texts = list(given)
    for place, item in enumerate(texts, start=1):
        if not isinstance(item, str):
            raise InputError(f"{noun} {place}: expected a text, got {_kind(item)}")
    return texts


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
