"""`Following`: a word index that takes in what happens to its bank, page by page.

Pages whose hash is known are not read again. Damage is named in one sentence, and the index is made
anew. Knows pages, entries and digests; knows no texts and no questions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import Entry
from latentbank.bank.reader import BankReader
from latentbank.bank.store.pages import Page
from latentbank.bank.words.files import DamagedFile
from latentbank.bank.words.index import KEPT_ROWS, WordIndex
from latentbank.documents.time import time_key
from latentbank.errors import BankError, DamageWarning

__all__ = ["Following", "Take"]

_PAGES_TOGETHER = 32
_TRIES = 4

Take = Callable[[Sequence[str], Sequence[Entry]], None]
Changed = tuple[tuple[str, ...], tuple[Entry, ...]]
T = TypeVar("T")


class Following:
    """An index that `follow` keeps level with its bank; a subclass adds the words."""

    def __init__(self, bank: BankReader, index: WordIndex, take: Take) -> None:
        """`take` gets the ids that are gone and the entries that are new, and adds the latter."""
        self._bank, self._index, self._take = bank, index, take
        self._seen: tuple[tuple[int, int], int] | None = None  # stamp of the bank, of the index
        self._pending: dict[str, tuple[int, int, str]] = {}  # id → digest, order, time of `take`'s
        self._reason = "is missing"
        try:
            self._index.load()
            again = bank.pages_of(self._index.state.apart)  # so that they are named once more
            for seq in again:
                self._index.state.marks.pop(seq, None)
            self._index.state.apart = {}
            if self._index.state.owed:
                self.keep(force=True)
        except (DamagedFile, OSError) as error:
            self._empty(error)

    def follow(self) -> None:
        """Has `take` called with what changed in the bank since the last time.

        Raises `BankError` at a damaged page when it reads the bank for the first time.
        """
        for _ in range(_TRIES):
            made = self._index.made
            try:
                for gone, entries in self._changes():
                    self._take(gone, entries)
            except DamagedFile as error:
                self._empty(error)
                continue
            if made == self._index.made:  # else it was read from files that others have written
                return

    def _changes(self) -> Iterator[Changed]:
        """What is gone and what is new, part by part; see `follow`."""
        stamp, made = self._bank.stamp(), self._index.made
        if (stamp, made) == self._seen:
            return
        self._forget()
        first, self._seen = self._seen is None, None
        now = self._bank.marks()
        marks = {seq: hash for seq, (hash, buried) in now.items() if not buried}
        known = self._index.state.marks
        pages = [seq for seq in now if seq not in marks or known.get(seq) != marks[seq]]
        if first and len(self._bank) - self._index.documents > KEPT_ROWS:
            self._say(f"{self._reason}; it is built anew from {len(self._bank):,} documents.")
        for at in range(0, len(pages), _PAGES_TOGETHER):
            entries = self._news(pages[at : at + _PAGES_TOGETHER], first)
            if entries:
                yield (), entries
                self._finish()
        if self._index.documents != len(self._bank):
            lost = self._index.missing(self._bank.numbers())
            self._index.remove(np.array([number for number, _ in lost], np.uint64))
            self._index.state.owed.update(number for number, _ in lost)
            if gone := tuple(id for _, id in lost if id):
                yield gone, ()
        if made == self._index.made:
            self._index.mark(marks)
            self._seen = stamp, made
            if first and self._index.state.owed:
                self.keep(force=True)

    def _news(self, pages: Sequence[int], strict: bool) -> tuple[Entry, ...]:
        found: list[Entry] = []
        for seq in pages:
            try:
                both = self._bank.page_and_orders(seq)
            except BankError:
                if strict:
                    raise
                continue
            if both is None:
                continue
            page, orders = both
            digests = _digests(page, orders)
            known, old = self._index.digests(page.id_keys)
            for at in np.flatnonzero(~known | (old != digests)).tolist():
                found.append(page.entry(at))
                time = time_key(found[-1].time)
                self._pending[found[-1].id] = int(digests[at]), orders[at], time
        return tuple(found)

    def _finish(self) -> None:
        """Notes the entries that were given and not added: they have no words."""
        apart = {self._number(id): pending[0] for id, pending in self._pending.items()}
        if apart:
            self._index.add([], apart)
        self._pending = {}
        self.keep()

    def keep(self, force: bool = False) -> None:
        """Writes what is in memory beside the bank, if it is enough for that."""
        try:
            self._index.keep(force and not self._bank.read_only)
        except (OSError, DamagedFile) as error:
            self._say(f"{_sentence(error)}; from here on it is in memory only.")
            self._index.rest()

    def _empty(self, error: Exception) -> None:
        """Begins anew, with nothing in it."""
        self._reason, self._seen = _sentence(error), None
        self._forget()
        try:
            self._index.clear()
        except OSError:
            self._index.rest()

    def _say(self, what: str) -> None:
        sentence = f"The word index of {self._bank.name} {what} Answers are the same."
        warnings.warn(sentence, DamageWarning, stacklevel=3)

    def _whole(self, ask: Callable[[], T]) -> T:
        """What `ask` gives; where the index turns out to be damaged, after building it anew."""
        for _ in range(_TRIES):
            try:
                return ask()
            except DamagedFile as error:
                self._empty(error)
                self.follow()
        raise BankError(f"The word index of {self._bank.name} cannot be read; remove it.")

    def _forget(self) -> None:
        """Forgets what was remembered of the documents as they were."""

    def _number(self, id: str) -> int:
        number = self._bank.number(id)
        return (1 << 64) - 1 if number is None else number


def _digests(page: Page, orders: Sequence[int]) -> npt.NDArray[np.uint64]:
    """8 bytes for each entry of a page that differ when what it holds does, as numbers [n]."""
    empty = [None] * page.count
    names = ("time", "source", "version", "metadata")
    ledgers = zip(*(page.columns.get(name, empty) for name in names), strict=True)
    level, width, keys = page.level.encode(), page.key_bytes, page.keys or b""
    found = bytearray()
    for at, (payload, ledger) in enumerate(zip(page.payloads, ledgers, strict=True)):
        rest = b"" if ledger == (None,) * len(names) else repr(ledger).encode()
        order = orders[at].to_bytes(4, "little")
        data = (level, order, keys[at * width : (at + 1) * width], rest, payload)
        found += blake2b(b"\0".join(data), digest_size=8).digest()
    return np.frombuffer(bytes(found), "<u8").astype(np.uint64)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read or written ({error.strerror or error})"
    return f"is damaged ({error})"
