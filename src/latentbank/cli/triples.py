"""Triples that a command writes: which of two values of one key counts, told on stderr.

Knows banks through methods that keep triples, and through the metadata of other documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from latentbank.cli.common import count, notice

if TYPE_CHECKING:
    from latentbank.documents.document import Document
    from latentbank.documents.facts import Triple
    from latentbank.model import MemoryModel

__all__ = ["newest_triples"]

_SHOWN = 10  # replaced values that are told one by one


def newest_triples(documents: Iterator[Document], model: MemoryModel) -> Iterator[Document]:
    """The triples that count; the value that each replaces in input or bank is told."""
    from latentbank.capabilities import Knowledge
    from latentbank.documents.identity import entry_id
    from latentbank.documents.readers.triples import newest

    told = 0

    def held(id: str) -> tuple[str, str | None] | None:
        method = model.method
        if not isinstance(method, Knowledge):
            return None
        for name in (entry_id(id), entry_id(id, 0)):  # a second version has a number
            fact, entry = method.fact(name), model.bank.get(name)
            if fact is not None and entry is not None:
                return fact[2], entry.time
        return None

    def tell(sentence: str) -> None:
        nonlocal told
        told += 1
        if told <= _SHOWN:
            notice(sentence)

    yield from newest(cast("Iterator[Triple]", documents), held, tell)
    if told > _SHOWN:
        notice(f"and {count(told - _SHOWN, 'value')} more that were replaced or left out")
