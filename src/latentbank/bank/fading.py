"""Room in a full bank: the least valuable documents go one step down their ladder.

Knows pages, values and the method's `fade`; nothing about what a level means. The pages stand in
an SQLite index by the value of their lowest quarter, so the next to fade is found without looking
at the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from latentbank.bank.entry import Entry
from latentbank.bank.ladder import MASS, mass_counts
from latentbank.bank.pages import MAX_DEPTH, Page, Slot
from latentbank.bank.write import Write
from latentbank.errors import BankError, InputError

__all__ = ["Fading"]

_ENTRY_BYTES = 9  # of an entry beside payload, key and ledger
_NEAR = 0.05  # values that differ by less are as good as equal: whole pages then fade at once
_LEAST_PAGES = 6  # of the file of a bank without documents
_STEPS_AT_ONCE = 32  # until an entry that does not get smaller is forgotten


@dataclass
class _Fated:
    """What fading has taken off its pages and not put anywhere yet."""

    lowered: list[tuple[Slot, Entry, int, tuple[int, int, int, int]]] = field(default_factory=list)
    masses: list[bytes] = field(default_factory=list)
    bytes: int = 0


@dataclass
class Fading:
    """Makes room during one write and remembers whom it cost.

    Attributes:
        fade: one entry to its next level, or None: forgotten. None: nothing may fade.
        faded, forgotten: the documents' ids; one that fades and is then forgotten is in the latter.
    """

    work: Write
    fade: Callable[[Entry], Entry | None] | None
    faded: dict[str, None] = field(default_factory=dict)
    forgotten: dict[str, None] = field(default_factory=dict)

    def make_room(self, need: int, what: str = "nothing of this write was kept") -> None:
        """Fade until `need` bytes are free. Raises `BankError` if all of the bank is not enough."""
        work = self.work
        least = (
            need + work.bank.blobs_bytes(work.connection) + _LEAST_PAGES * work.space.sqlite_page
        )
        hopeless = self.fade is None or least > work.file_limit()
        if not hopeless:
            work.fill()
        while (missing := need - work.free_bytes()) > 0:
            if hopeless or not self.step(missing + work.bank.settings.space.slack):
                size, budget = work.file_bytes() + need, work.bank.settings.budget_bytes
                if work.turns:
                    what = "earlier parts of this write were kept"
                raise BankError(
                    f"Bank {work.bank.name} would take {size} bytes with its log, more than its "
                    f"budget of {budget}; {what}. Delete documents or make a larger bank."
                )

    def step(self, missing: int) -> bool:
        """Fade the least valuable documents of the least valuable pages, as many as one part of a
        write may change, until `missing` bytes are freed; False if there are none.
        """
        work = self.work
        space = work.bank.settings.space
        allowed = space.reserve if space.reckons else 1 << 60
        work.reserve(allowed)
        base = work.cost(0)
        spent, freed, fated = base, 0, _Fated()
        tails: set[Slot] = set()
        while freed < missing:
            rows, page = self._lowest()
            if page is None:
                break
            cost = work.cost(2 * page.size_bytes, pages=1) - base
            last = work.cost(2 * space.page_bytes + fated.bytes, pages=2 * len(tails) + 1) - base
            if spent + cost + last > allowed and freed:
                break
            spent += cost
            other = rows[1][1] if len(rows) > 1 and isinstance(rows[1][1], float) else np.inf
            freed += self._fade_page(page, missing - freed, other, fated)
            tails = {slot for slot, *_ in fated.lowered}
        work.place(fated.lowered)
        if fated.masses:
            self._count(fated.masses)
        work.trim()
        last = work.cost(2 * space.page_bytes + fated.bytes, pages=2 * len(tails)) - base
        work.refund(max(0, allowed - spent - last))
        return freed > 0

    def _fade_page(self, page: Page, missing: int, other: float, fated: _Fated) -> int:
        """Takes documents off one page and decides what becomes of them; returns bytes freed.

        In the order of their value: those about under the next page's mark `other`, and at least
        the page's lowest quarter, until enough bytes are freed.
        """
        work = self.work
        facts = work.bank._read_facts(work.connection, page.seq, page.count)
        values, rows, counts = work.values(page, facts), facts.rows(), page.counts()
        each = page.key_bytes + len(page.ledger or b"") // page.count + _ENTRY_BYTES
        chosen, freed = [], 0
        for rank, at in enumerate(np.argsort(values, kind="stable").tolist()):
            above = rank > (page.count - 1) // 4 and values[at] > other + _NEAR
            if rank and (freed >= missing or above):
                break
            entry = page.entry(at)
            lower = self._lower(entry)
            chosen.append(at)
            freed += each + len(entry.payload)
            if lower is None:
                self._forget(entry.id)
                continue
            if lower.level == MASS and entry.level != MASS:
                fated.masses.append(lower.payload)
                lower = Entry(entry.id, MASS, b"")
            self.faded[entry.id] = None
            freed = max(1, freed - each - len(lower.payload) - len(lower.key) + page.key_bytes)
            slot = Slot(lower.level, len(lower.key), min(page.depth + 1, MAX_DEPTH))
            fated.bytes += len(lower.payload) + len(lower.key) + each
            fated.lowered.append((slot, lower, counts[at], rows[at]))
        work.cut_page(page, frozenset(chosen))
        return freed

    def _forget(self, id: str) -> None:
        self.faded.pop(id, None)
        self.forgotten[id] = None
        number = self.work.bank._number(id)
        if number is not None:
            self.work.move(number, 0)

    def _lowest(self) -> tuple[list[tuple[int, object]], Page | None]:
        """The two least valuable pages, as (number, mark), and the first of them."""
        query = "SELECT seq, low FROM facts ORDER BY low LIMIT 2"
        rows = self.work.connection.execute(query).fetchall()
        return rows, self.work.page(rows[0][0])[0] if rows else None

    def _lower(self, entry: Entry) -> Entry | None:
        """The next level that takes fewer bytes, or None."""
        assert self.fade is not None
        lower: Entry | None = entry
        for _ in range(_STEPS_AT_ONCE):
            lower = self.fade(lower) if lower is not None else None
            if lower is None:
                return None
            if lower.id != entry.id:
                raise InputError(f"fade gave document {lower.id!r} for {entry.id!r}.")
            if lower.level == MASS and entry.level != MASS:
                return lower
            if len(lower.payload) + len(lower.key) < len(entry.payload) + len(entry.key):
                return dataclasses.replace(lower, surprise=None, redundancy=None)
        return None

    def _count(self, payloads: list[bytes]) -> None:
        bank, connection = self.work.bank, self.work.connection
        held = bank._get(connection, "blob", MASS)
        bank._put(connection, "blob", MASS, mass_counts(held, payloads))
