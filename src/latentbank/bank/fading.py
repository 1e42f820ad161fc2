"""Room in a full bank: the least valuable documents go one step down their ladder.

Knows pages, values and the method's `fade`; nothing about what a level means. The pages stand in
an SQLite index by the value of their lowest quarter, so the next one to fade is found without
looking at the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from latentbank.bank.entry import Entry
from latentbank.bank.ladder import Fade, fade_all
from latentbank.bank.store.page_writer import Placed
from latentbank.bank.store.pages import MAX_DEPTH, Page, Slot
from latentbank.bank.write import Write
from latentbank.errors import InputError

__all__ = ["Fading"]

_ENTRY_BYTES = 9  # of an entry beside payload, key and ledger
_NEAR = 0.05  # values that differ by less count as equal: whole pages then fade at once
_STEPS_AT_ONCE = 32  # after so many steps that make it no smaller an entry is forgotten


@dataclass
class _Lowered:
    """Entries that were taken off their pages and are not on lower ones yet."""

    items: list[Placed] = field(default_factory=list)
    bytes: int = 0


@dataclass
class Fading:
    """Makes room during one write and remembers which documents it cost.

    Attributes:
        fade: an entry at its next level, or None: forgotten. Without `fade` nothing may fade.
        faded, forgotten: ids of documents. One that fades and is then forgotten is in the latter.
    """

    work: Write
    fade: Fade | None
    faded: dict[str, None] = field(default_factory=dict)
    forgotten: dict[str, None] = field(default_factory=dict)

    def make_room(self, need: int) -> None:
        """Fade until `need` bytes are free.

        Raises `BudgetError` if they are more than the whole bank has, before anything fades.
        """
        work = self.work
        space = work.session.settings.space
        possible = self.fade is not None and work.empty_bytes() + need <= work.file_limit()
        if possible:
            work.fill()
        while (missing := need - work.free_bytes()) > 0:
            if not possible or not self.step(missing + space.slack):
                raise work.too_large(work.session.size_bytes() + need)

    def step(self, missing: int) -> bool:
        """Fade the least valuable documents of the least valuable pages.

        Takes as many as one part of a write may change, until `missing` bytes are freed. Returns
        False if there are none.
        """
        work = self.work
        space = work.session.settings.space
        allowed = space.reserve if space.limits_log else 1 << 60
        work.reserve(allowed)
        base = work.cost(0)
        spent, freed, lowered = base, 0, _Lowered()
        tails: set[Slot] = set()
        while freed < missing:
            rows = work.session.pages.lowest()
            if not rows:
                break
            page = work.pages.read(rows[0][0])[0]
            cost = work.cost(2 * page.size_bytes, pages=1) - base
            last = work.cost(2 * space.page_bytes + lowered.bytes, pages=2 * len(tails) + 1) - base
            if spent + cost + last > allowed and freed:
                break
            spent += cost
            other = rows[1][1] if len(rows) > 1 and isinstance(rows[1][1], float) else np.inf
            freed += self._fade_page(page, missing - freed, other, lowered)
            self._empty(page, lowered, allowed - spent + base)
            tails = {item.slot for item in lowered.items}
        work.pages.place(lowered.items)
        work.trim()
        last = work.cost(2 * space.page_bytes + lowered.bytes, pages=2 * len(tails)) - base
        work.refund(max(0, allowed - spent - last))
        return freed > 0

    def _fade_page(self, page: Page, missing: int, other: float, lowered: _Lowered) -> int:
        """Take documents off one page and decide what becomes of them; returns bytes freed.

        They go in the order of their value: at least the page's lowest quarter, and then those
        that are worth about as little as the next page's lowest (`other`), until `missing` bytes
        are freed.
        """
        pages = self.work.pages
        facts = self.work.session.pages.facts(page.seq, page.count)
        values, rows, counts = pages.values(page, facts), facts.rows(), page.counts()
        each = page.key_bytes + len(page.ledger or b"") // page.count + _ENTRY_BYTES
        order = np.argsort(values, kind="stable").tolist()
        least = 1 + (page.count - 1) // 4
        most = sum(rank < least or values[at] <= other + _NEAR for rank, at in enumerate(order))
        whole = each + len(page.payload) // page.count
        chosen: list[int] = []
        freed = 0
        while len(chosen) < most and (freed < missing or not chosen):
            # no more than are needed even if each were to free all of its bytes
            gain = max(1, freed // len(chosen)) if chosen else whole
            count = max(1, (missing - freed) // gain)
            part = order[len(chosen) : min(most, len(chosen) + count)]
            chosen += part
            entries = [page.entry(at) for at in part]
            for at, entry, lower in zip(part, entries, self._lower(entries), strict=True):
                freed += each + len(entry.payload)
                if lower is None:
                    self._forget(entry.id)
                    continue
                self.faded[entry.id] = None
                freed = max(1, freed - each - len(lower.payload) - len(lower.key) + page.key_bytes)
                slot = Slot(lower.level, len(lower.key), min(page.depth + 1, MAX_DEPTH))
                lowered.bytes += len(lower.payload) + len(lower.key) + each
                lowered.items.append(Placed(slot, lower, counts[at], rows[at]))
        pages.cut(page, frozenset(chosen))
        return freed

    def _empty(self, page: Page, lowered: _Lowered, allowed: int) -> None:
        """Have what is left of a page move to the last one of its slot, if a third of it is empty.

        Otherwise documents that fade here and there would leave many pages nearly empty. Done only
        where all that waits to be placed then costs no more than `allowed`.
        """
        work = self.work
        left = work.session.pages.find(page.seq)
        if left is None or 3 * len(left.payload) > 2 * work.pages.space.page_bytes:
            return
        facts = work.session.pages.facts(left.seq, left.count)
        moved = [
            Placed(left.slot, left.entry(at), count, fact)
            for at, (count, fact) in enumerate(zip(left.counts(), facts.rows(), strict=True))
        ]
        tails = {item.slot for item in (*lowered.items, *moved)}
        changed = 2 * work.pages.space.page_bytes + lowered.bytes + left.size_bytes
        if work.cost(changed, pages=2 * len(tails) + 1) <= allowed:
            work.pages.drop(left.seq, left.slot)
            lowered.items += moved
            lowered.bytes += left.size_bytes

    def _forget(self, id: str) -> None:
        self.faded.pop(id, None)
        self.forgotten[id] = None
        number = self.work.session.number(id)
        if number is not None:
            self.work.pages.move([number], 0)

    def _lower(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """For each the next level that takes fewer bytes, or None."""
        assert self.fade is not None
        lowered: list[Entry | None] = [None] * len(entries)
        waiting: list[tuple[int, Entry]] = list(enumerate(entries))
        for _ in range(_STEPS_AT_ONCE):
            found = fade_all(self.fade, [entry for _, entry in waiting])
            same = []
            for (at, _), lower in zip(waiting, found, strict=True):
                if lower is None:
                    continue
                entry = entries[at]
                if lower.id != entry.id:
                    raise InputError(f"fade gave document {lower.id!r} for {entry.id!r}.")
                if len(lower.payload) + len(lower.key) < len(entry.payload) + len(entry.key):
                    lowered[at] = lower
                else:
                    same.append((at, lower))
            waiting = same
            if not waiting:
                break
        return lowered
