"""Room in a full bank: the least valuable documents go one step down their ladder.

Knows pages, values and the method's `fade`; nothing about what a level means. The pages stand in
an SQLite index by the value of their lowest quarter, so the next one to fade is found without
looking at the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    slots: set[Slot] = field(default_factory=set)
    bytes: int = 0

    def add(self, items: Iterable[Placed], size: int) -> None:
        """Add items of `size` bytes together."""
        for item in items:
            self.items.append(item)
            self.slots.add(item.slot)
        self.bytes += size

    def cost(self, work: Write, more: Iterable[Slot] = (), size: int = 0) -> int:
        """Log bytes of placing all of them, and others of `size` bytes in the slots `more`.

        In each slot the first page that is not full is rewritten, and a new one begun.
        """
        slots = self.slots.union(more)
        small = (work.pages.changes.tails.pages(slot)[:1] for slot in slots)
        old = max(work.session.settings.space.page_bytes, sum(tail[0][1] for tail in small if tail))
        return work.cost(2 * old + self.bytes + size, pages=2 * len(slots) + 1) - work.cost(0)


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
        while freed < missing:
            rows = work.session.pages.lowest()
            if not rows:
                break
            page = work.pages.read(rows[0][0])[0]
            cost = work.cost(2 * page.size_bytes, pages=1) - base
            if spent + cost + lowered.cost(work) > allowed and freed:
                break
            spent += cost
            other = rows[1][1] if len(rows) > 1 and isinstance(rows[1][1], float) else np.inf
            freed += self._fade_page(page, missing - freed, other, lowered, allowed - spent)
            self._empty(page, lowered, allowed - spent)
        work.pages.place(lowered.items)
        work.trim()
        work.refund(max(0, allowed - spent - lowered.cost(work)))
        return freed > 0

    def _fade_page(
        self, page: Page, missing: int, other: float, lowered: _Lowered, allowed: int
    ) -> int:
        """Take documents off one page and decide what becomes of them; returns bytes freed.

        They go in the order of their value: at least the page's lowest quarter, and then those
        that are worth about as little as the next page's lowest (`other`), until `missing` bytes
        are freed. They are fewer where the slots they go to are so many that placing them would
        cost more than `allowed` bytes of log.
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
        freed, dear = 0, False
        while not dear and len(chosen) < most and (freed < missing or not chosen):
            # no more than are needed even if each were to free all of its bytes
            gain = max(1, freed // len(chosen)) if chosen else whole
            count = max(1, (missing - freed) // gain)
            part = order[len(chosen) : min(most, len(chosen) + count)]
            entries = [page.entry(at) for at in part]
            for at, entry, lower in zip(part, entries, self._lower(entries), strict=True):
                gone = each + len(entry.payload)
                if lower is None:
                    self._forget(entry.id)
                else:
                    slot = Slot(lower.level, len(lower.key), min(page.depth + 1, MAX_DEPTH))
                    size = len(lower.payload) + len(lower.key) + each
                    dear = bool(chosen) and lowered.cost(self.work, [slot], size) > allowed
                    if dear:
                        break
                    self.faded[entry.id] = None
                    lowered.add([Placed(slot, lower, counts[at], rows[at])], size)
                    gone += page.key_bytes - size
                chosen.append(at)
                freed = max(1, freed + gone)
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
        if lowered.cost(work, [left.slot], left.size_bytes) <= allowed:
            work.pages.drop(left.seq, left.slot)
            lowered.add(moved, left.size_bytes)

    def _forget(self, id: str) -> None:
        self.faded.pop(id, None)
        self.forgotten[id] = None
        number = self.work.session.number(id)
        if number is not None:
            self.work.pages.move([number], 0)

    def _lower(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """For each the next level that takes fewer bytes, or None.

        None, too, where fading has made the file grow instead: each small page of a level takes
        more of the file than its bytes, and a ladder may have very many levels.
        """
        assert self.fade is not None
        lowered: list[Entry | None] = [None] * len(entries)
        work = self.work
        space = work.session.settings.space
        if space.limits_log and work.session.size_bytes() > work.file_limit() + space.reserve // 4:
            return lowered
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
