"""The stream of documents: in the order of time, long documents in chunks.

Knows data and token counts; knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from latentbank.documents.chunking import CountTokens
from latentbank.documents.document import Document, chunk
from latentbank.evaluate.data import QADataset, Question


def by_time(data: QADataset) -> QADataset:
    """`data` with its documents in the order of their times; equal times keep their order.

    Returns `data` itself if it is in order, or if a document has no time.
    """
    times = [document.time or "" for document in data.documents]  # sorts as the instants do
    order = sorted(range(len(times)), key=times.__getitem__)
    if order == list(range(len(times))) or not all(times):
        return data
    place = {old: new for new, old in enumerate(order)}
    return replace(
        data,
        documents=tuple(data.documents[i] for i in order),
        questions=tuple(replace(q, document=place[q.document]) for q in data.questions),
    )


def chunked(data: QADataset, count_tokens: CountTokens, chunk_tokens: int = 512) -> QADataset:
    """`data` with long documents in chunks; `data` itself if there is none.

    Each chunk counts as a document. A question belongs to the first chunk that holds one of its
    answers, or to the first chunk if none does.
    """
    pieces: list[list[Document]] = []
    for document in data.documents:
        short = len(document.text.encode()) <= chunk_tokens  # a token is at least one byte
        pieces.append([document] if short else _pieces(document, count_tokens, chunk_tokens))
    if all(len(part) == 1 for part in pieces):
        return data
    first = [0]
    for part in pieces:
        first.append(first[-1] + len(part))
    questions = tuple(
        replace(q, document=first[q.document] + _holder(pieces[q.document], q))
        for q in data.questions
    )
    documents = tuple(document for part in pieces for document in part)
    return replace(data, documents=documents, questions=questions)


def _pieces(document: Document, count_tokens: CountTokens, chunk_tokens: int) -> list[Document]:
    """Chunks as documents of their own, named `document/0`, `document/1` and so on."""
    pieces = chunk(document, count_tokens, chunk_tokens)
    if len(pieces) == 1:
        return pieces
    return [replace(piece, id=f"{document.id}/{i}") for i, piece in enumerate(pieces)]


def _holder(pieces: Sequence[Document], question: Question) -> int:
    holders = (i for i, d in enumerate(pieces) if any(a in d.text for a in question.answers if a))
    return next(holders, 0)
