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

from latentbank.bank_entry import Entry
from latentbank.bank_ladder import MASS, mass_counts
from latentbank.bank_pages import MAX_DEPTH, Page, Slot
from latentbank.bank_write import Write
from latentbank.errors import BankError, InputError

__all__ = ["Fading"]

_ENTRY_BYTES = 9  # of an entry beside payload, key and ledger
_STEPS_AT_ONCE = 32  # until an entry that does not get smaller is forgotten


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
        while (missing := need - work.free_bytes()) > 0:
            if self.fade is None or not self.step(missing + work.bank.settings.space.slack):
                size, budget = work.file_bytes() + need, work.bank.settings.budget_bytes
                if work.turns:
                    what = "earlier parts of this write were kept"
                raise BankError(
                    f"Bank {work.bank.name} would take {size} bytes with its log, more than its "
                    f"budget of {budget}; {what}. Delete documents or make a larger bank."
                )

    def step(self, missing: int) -> bool:
        """Fade the least valuable documents of the least valuable page; False if there is none."""
        work = self.work
        rows, page = self._lowest()
        if page is None:
            return False
        turns, page_bytes = work.turns, work.bank.settings.space.page_bytes
        work.reserve(work.cost(3 * page.size_bytes + 2 * page_bytes, pages=4))
        if turns != work.turns:  # another process may have been here
            rows, page = self._lowest()
            if page is None:
                return False
        page, facts = work.page(page.seq)
        values = work.values(facts, page.depth)
        other = rows[1][1] if len(rows) > 1 and isinstance(rows[1][1], float) else np.inf
        chosen = self._choose(page, values, missing, other)
        counts, facts_rows = page.counts(), facts.rows()
        lowered, masses = [], []
        for at in chosen:
            entry = page.entry(at)
            lower = self._lower(entry)
            number = work.bank._number(entry.id)
            if lower is None:
                self.faded.pop(entry.id, None)
                self.forgotten[entry.id] = None
                if number is not None:
                    work.move(number, 0)
                continue
            if lower.level == MASS and entry.level != MASS:
                masses.append(lower.payload)
                lower = Entry(entry.id, MASS, b"")
            self.faded[entry.id] = None
            slot = Slot(lower.level, len(lower.key), min(page.depth + 1, MAX_DEPTH))
            lowered.append((slot, lower, counts[at], facts_rows[at]))
        rest = work.builder(page.seq, frozenset(chosen))
        work.write_page(rest)
        work.place(lowered)
        if masses:
            self._count(masses)
        return True

    def _lowest(self) -> tuple[list[tuple[int, object]], Page | None]:
        """The two least valuable pages, as (number, mark), and the first of them."""
        query = "SELECT seq, low FROM facts ORDER BY low LIMIT 2"
        rows = self.work.connection.execute(query).fetchall()
        return rows, self.work.page(rows[0][0])[0] if rows else None

    def _choose(self, page: Page, values: np.ndarray, missing: int, other: float) -> list[int]:
        """Positions to fade, in the order of their value: those under the next page's mark and at
        least the lowest of the page's lowest quarter, until enough bytes are named.
        """
        ledger = len(page.ledger or b"") // page.count
        edges, chosen, freed = page.edges, [], 0
        for rank, at in enumerate(np.argsort(values, kind="stable").tolist()):
            if rank and freed >= missing:
                break
            if rank > (page.count - 1) // 4 and values[at] > other:
                break
            chosen.append(at)
            freed += edges[at + 1] - edges[at] + page.key_bytes + ledger + _ENTRY_BYTES
        return chosen

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
