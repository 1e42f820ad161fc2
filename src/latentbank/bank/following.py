"""What was seen of a bank's entries, to notice what others write and delete.

Others are processes, threads and models that have the same bank. A change is found by the bank's
counter of transactions; then only the pages that changed are read. Knows pages and entries; whom
the changes matter to, it does not know.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from latentbank.bank.entry import Entry
from latentbank.bank.reader import BankReader
from latentbank.bank.store.pages import Page
from latentbank.errors import BankError

__all__ = ["Changes", "Follower"]

_DIGEST = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Changes:
    """What happened since the last look.

    Attributes:
        gone: ids of entries that are there no more.
        entries: entries that are new or hold something else now.
        by_others: whether somebody else wrote; else all of it is this session's own.
    """

    gone: tuple[str, ...]
    entries: tuple[Entry, ...]
    by_others: bool


class _Known(NamedTuple):
    """A page as it was seen: its mark, its ids as JSON, and a digest of each entry."""

    mark: object
    ids: bytes
    digests: array[int]

    def items(self) -> Iterator[tuple[str, int]]:
        """(id, digest) of each entry."""
        return zip(json.loads(self.ids), self.digests, strict=True)


class Follower:
    """Notices changes of a bank. About 20 bytes of memory for an entry with a short id."""

    def __init__(self, bank: BankReader) -> None:
        """Takes the bank as it is now: what a method binds later is never older."""
        self._bank = bank
        self._pages: dict[int, _Known] = {}
        self._stamp: tuple[int, int] = (-1, -1)
        for number, mark in self._begin().items():
            self._pages[number] = _known(self._read(number), mark)

    def changes(self) -> Changes | None:
        """What changed since the last call; None if nothing was written."""
        before, stamp = self._stamp, self._bank.stamp()
        if stamp == before:
            return None
        lost, found = self._look()
        gone = tuple(id for id in lost if id not in found)
        entries = tuple(
            page.entry(at) for id, (digest, page, at) in found.items() if lost.get(id) != digest
        )
        return Changes(gone, entries, stamp[0] != before[0])

    def _look(self) -> tuple[dict[str, int], dict[str, tuple[int, Page, int]]]:
        """(id → digest of what the changed pages held, the same of what they hold now)."""
        marks = self._begin()
        lost: dict[str, int] = {}
        found: dict[str, tuple[int, Page, int]] = {}
        for number in [n for n, known in self._pages.items() if marks.get(n) != known.mark]:
            lost.update(self._pages.pop(number).items())
        for number, mark in marks.items():
            if number not in self._pages:
                page = self._read(number)
                self._pages[number] = known = _known(page, mark)
                if page is not None:
                    found |= {id: (d, page, at) for at, (id, d) in enumerate(known.items())}
        return lost, found

    def _begin(self) -> dict[int, object]:
        """The marks of the pages. The stamp is taken first: what is written meanwhile shows."""
        self._stamp = self._bank.stamp()
        return dict(self._bank.marks())

    def _read(self, number: int) -> Page | None:
        """A page; None for one that is gone, or damaged: `verify` names it, reading it refuses."""
        try:
            return self._bank.page(number)
        except BankError:
            return None


def _known(page: Page | None, mark: object) -> _Known:
    if page is None:
        return _Known(mark, b"[]", array("Q"))
    entries = [page.entry(at) for at in range(page.count)]
    digests = (
        hash((e.level, e.payload, e.key, e.time, e.source, e.version)) & _DIGEST for e in entries
    )
    return _Known(mark, json.dumps([e.id for e in entries]).encode(), array("Q", digests))
