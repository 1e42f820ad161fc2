"""`BankReader`: everything that can be asked of an open bank without changing it.

Knows ids, pages and items; nothing about models or what a payload means. `bank.MemoryBank` adds
writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.bank.delete import selected_ids
from latentbank.bank.entry import Entry
from latentbank.bank.reports import BankFingerprint, Footprint, Settings
from latentbank.bank.store.items import BLOB, META, STATE
from latentbank.bank.store.pages import Page
from latentbank.bank.store.session import MEMORY, Session
from latentbank.documents.conditions import Conditions
from latentbank.documents.identity import find_entries
from latentbank.documents.time import time_key
from latentbank.errors import InputError

__all__ = ["BankReader"]


class BankReader:
    """An open bank, for reading. Methods may be called from several threads.

    All raise `BankError` with one sentence if the file is damaged or closed.

    Attributes:
        session: the open file, for `admin` and tests.
    """

    def __init__(self, session: Session) -> None:
        """Wraps an open session."""
        self.session = session

    # ------------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The file's path, or ":memory:"."""
        return self.session.name

    @property
    def read_only(self) -> bool:
        """Whether the bank refuses to write."""
        return self.session.read_only

    @property
    def settings(self) -> Settings:
        """What the bank was made with, as of the last call."""
        return self.session.settings

    @property
    def budget_bytes(self) -> int | None:
        """The largest size that the bank's files may have together, or None."""
        with self.session.reading():
            return self.session.settings.budget_bytes

    @property
    def fingerprint(self) -> BankFingerprint:
        """What wrote the bank; raises `BankError` if it cannot be read."""
        with self.session.reading():
            return self.session.items.fingerprint()

    # ----------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Number of documents."""
        with self.session.reading():
            return len(self.session.directory)

    @property
    def gone_share(self) -> float:
        """The share of the documents written so far that are not here any more, in [0, 1].

        Forgotten and deleted documents count alike. Those that were written after the newest one
        that is here are not known.
        """
        with self.session.reading():
            here, numbered = len(self.session.directory), self.session.directory.orders
        return max(0.0, 1 - here / numbered) if numbered else 0.0

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def get(self, id: str) -> Entry | None:
        """The entry of that id, or None."""
        place = self._find(id)
        return None if place is None else place[0].entry(place[1])

    def get_all(self, ids: Sequence[str]) -> list[Entry | None]:
        """The entry of each id, or None, as of one moment."""
        with self.session.reading():
            places = [self._place(id) for id in ids]
        return [None if place is None else place[0].entry(place[1]) for place in places]

    def count(self, id: str) -> int:
        """How often the document was written; 0 if it is not here."""
        place = self._find(id)
        return 0 if place is None else place[0].counts()[place[1]]

    def order(self, id: str) -> int:
        """The document's place in the order of writing, from 0; -1 if it is not here."""
        with self.session.reading():
            seq = self.session.locate(id)
            both = None if seq is None else self.session.page_and_facts(seq)
        if both is None or id not in both[0].document_ids:
            return -1
        return int(both[1].order[both[0].document_ids.index(id)])

    def age(self, id: str) -> tuple[str, int]:
        """(time, order) of a document: larger for a newer one.

        The time sorts as the instants do; it is "" where there is none or it cannot be read.
        """
        with self.session.reading():
            seq = self.session.locate(id)
            both = None if seq is None else self.session.page_and_facts(seq)
        if both is None or id not in both[0].document_ids:
            return "", -1
        page, at = both[0], both[0].document_ids.index(id)
        times = page.columns.get("time")
        return time_key(times[at] if times else None), int(both[1].order[at])

    def entries(self) -> Iterator[Entry]:
        """All entries, page by page: those of one level come in the order of writing.

        A page is read when it is reached. An entry written or deleted meanwhile may or may not be
        seen. Raises `BankError` at a damaged page.
        """
        for page in self.pages():
            for index in range(page.count):
                yield page.entry(index)

    def pages(self, level: str | None = None) -> Iterator[Page]:
        """Pages of one level (or all) in the order of writing, for reading in bulk.

        Of each `Page`, `payloads` and `document_ids` are lists in the same order, `payload` and
        `keys` the joined bytes, `id_keys` the ids as numbers [n]. The ledger is decoded only if
        it is asked for. Raises `BankError` at a damaged page.
        """
        with self.session.reading():
            numbers = self.session.pages.numbers(level)
        yield from self._checked(numbers)

    def _checked(self, numbers: Iterable[int]) -> Iterator[Page]:
        """Pages, each checked when it is its turn; skips those that are gone by then."""
        for seq in numbers:
            with self.session.reading():
                page = self.session.find_page(seq)
            if page is not None:
                page.check()
                yield page

    def page(self, number: int) -> Page | None:
        """One page, checked; None if it is gone. Raises `BankError` if it is damaged."""
        with self.session.reading():
            found = self.session.find_page(number)
        if found is not None:
            found.check()
        return found

    def page_and_orders(self, number: int) -> tuple[Page, list[int]] | None:
        """One page, checked, with its entries' places in the order of writing; None if gone.

        Raises `BankError` if it is damaged.
        """
        with self.session.reading():
            both = self.session.page_and_facts(number)
        return None if both is None else (both[0], both[1].order.tolist())

    @property
    def in_file(self) -> bool:
        """Whether the bank is a file of its own, not one in memory."""
        return self.name != MEMORY and Path(self.name).is_file()

    def levels(self) -> list[str]:
        """The levels that entries have."""
        with self.session.reading():
            return self.session.pages.levels()

    def number(self, id: str) -> int | None:
        """The number below 2^64 that stands for an id; None if the bank cannot hold such an id."""
        return self.session.number(id)

    def pages_of(self, numbers: Iterable[int]) -> set[int]:
        """The numbers of the pages that hold documents with these numbers."""
        with self.session.reading():
            found = {self.session.directory.find(number) for number in numbers}
        return {seq for seq in found if seq is not None}

    def numbers(self) -> npt.NDArray[np.uint64]:
        """The numbers of all ids, ascending, [n]."""
        with self.session.reading():
            return self.session.directory.numbers()

    def stamp(self) -> tuple[int, int]:
        """(what changes when others write, own commits): equal while the bank stays as it is."""
        return self.session.stamp()

    def marks(self) -> dict[int, tuple[bytes, object]]:
        """Number of each page → a value that differs when what the page holds does."""
        with self.session.reading():
            return self.session.marks()

    def ids(self) -> Iterator[str]:
        """All ids, in the order of `entries`."""
        for page in self.pages():
            yield from page.document_ids

    def entries_of(self, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the entries of these documents, chunks included, the ids that are not there).

        See `find_entries`; whole documents come first. Only pages that hold names are read.
        """
        with self.session.reading():
            named = self.session.pages.named()
            plain = [id for id in dict.fromkeys(ids) if "#" not in id]
            known = {id: None for id in plain if self.session.locate(id) is not None}
        names = (id for page in self._checked(named) for id in page.document_ids)
        return find_entries([*known, *(id for id in names if id not in known)], ids)

    def _find(self, id: str) -> tuple[Page, int] | None:
        """The page that holds an id and the position there."""
        with self.session.reading():
            return self._place(id)

    def _place(self, id: str) -> tuple[Page, int] | None:
        """As `_find`, inside a transaction that reads."""
        seq = self.session.locate(id)
        if seq is None:
            return None
        page = self.session.kept_page(seq)
        at = (page.id_keys == np.uint64(self.session.number(id) or 0)).nonzero()[0]
        same = [int(index) for index in at if page.document_id(int(index)) == id]
        return (page, same[0]) if same else None

    def select(self, conditions: Conditions) -> list[str]:
        """The ids of the entries whose documents meet the conditions, in the order of the pages.

        Reads ledgers, no payloads. Raises `InputError` without a full ledger, or without a
        condition: that would be the whole bank.
        """
        if not conditions:
            raise InputError("Choosing documents needs a condition; without one it is the bank.")
        if self.settings.ledger != "full":
            raise InputError(
                f"The bank {self.name} keeps no times, sources or metadata (ledger "
                f"{self.settings.ledger!r}), so documents can only be chosen by id."
            )
        return [id for page in self.pages() for id in selected_ids(page, conditions)]

    # ------------------------------------------------------------ blobs, state and metadata

    def get_blob(self, name: str) -> bytes | None:
        """The blob of that name, or None; raises `BankError` if its checksum does not match."""
        with self.session.reading():
            return self.session.items.get(BLOB, name)

    def get_state(self) -> dict[str, bytes]:
        """The state by name, as of one moment; raises `BankError` if a checksum does not match."""
        with self.session.reading():
            names = self.session.items.sizes(STATE)
            return {name: self.session.items.get(STATE, name) or b"" for name in names}

    def blobs(self) -> dict[str, int]:
        """Names of all blobs, in alphabetical order, with their bytes."""
        with self.session.reading():
            return self.session.items.sizes(BLOB)

    def get_meta(self, name: str, default: Any = None) -> Any:
        """The JSON value of that name, or `default`."""
        with self.session.reading():
            return self.session.items.get_json(META, name, default)

    def meta(self) -> dict[str, Any]:
        """All metadata values by name."""
        with self.session.reading():
            items = self.session.items
            return {name: items.get_json(META, name) for name in items.sizes(META)}

    # ----------------------------------------------------------------------------- sizes

    def file_bytes(self) -> int:
        """Bytes of all files of the bank now: the file, its log and the log's helper file."""
        return self.session.file_bytes()

    def root_hash(self) -> str:
        """One hash over all documents, blobs, state and settings as stored (not over hits)."""
        with self.session.reading():
            return self.session.pages.state_hash()

    def footprint(self) -> Footprint:
        """Bytes by component, after a checkpoint. While others read: as if after one."""
        session = self.session
        session.checkpoint()
        with session.reading():
            sizes = session.pages.sizes()
            blobs, state = session.items.total_bytes(BLOB), session.items.total_bytes(STATE)
            total, free = session.size_bytes(), session.unused_bytes()
        index = sizes.facts + 16 * sizes.pages  # a number and a page in two places each
        ledger = sizes.ids + sizes.ledgers
        rest = total - sizes.payloads - blobs - sizes.keys - ledger - index - state
        return Footprint(sizes.payloads, blobs, sizes.keys, ledger, rest, total, index, free, state)
