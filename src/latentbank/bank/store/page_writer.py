"""`PageWriter`: the pages that one transaction reads, fills, cuts and drops.

Knows pages, facts, the order of fading and the directory; nothing about room in the log or file,
which is `write.Write`'s. What it changed is in `changes`, for the directory to take over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import ID_BYTES, Entry
from latentbank.bank.policy import Policy, Signals, make_policy
from latentbank.bank.space import Space
from latentbank.bank.store.builder import PageBuilder
from latentbank.bank.store.directory import Changes
from latentbank.bank.store.facts import Fact, Facts, key_redundancy
from latentbank.bank.store.pages import NUMBER_BYTES, Page, Slot
from latentbank.bank.store.session import Session
from latentbank.errors import BankError

__all__ = ["PageWriter", "Placed"]

_LOSSLESS = 1e10  # more than any policy's value: what can give bytes without loss goes first
_DEFAULT_SPAN = 10_000.0


class Placed(NamedTuple):
    """One entry on its way to a page: where it belongs, how often it was written, its fact."""

    slot: Slot
    entry: Entry
    times: int
    fact: Fact


class PageWriter:
    """Pages within one transaction. `start` begins anew in the next one."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.paging: Space | None = None  # how pages are cut, if not as the budget has it
        self.changes = Changes()
        self._policy: Policy

    def start(self) -> None:
        """Begin a transaction that has changed nothing yet."""
        self.changes = self.session.directory.start()
        self._policy = make_policy(self.session.settings.policy, stored=True)

    @property
    def space(self) -> Space:
        """The limits of a page's size."""
        return self.paging or self.session.settings.space

    # ---------------------------------------------------------------------------- reading

    def find(self, number: int) -> int | None:
        """The page of an id's number, or None."""
        if number in self.changes.moved:
            return self.changes.moved[number] or None
        return self.session.directory.find(number)

    def locate(self, id: str) -> int | None:
        """The page of an id, or None."""
        number = self.session.number(id)
        return None if number is None else self.find(number)

    def read(self, seq: int) -> tuple[Page, Facts]:
        """A page and the facts of its documents; raises `BankError` if either is damaged."""
        page = self.session.pages.read(seq)
        return page, self.session.pages.facts(seq, page.count)

    def builder(self, seq: int) -> PageBuilder:
        """A page opened for changes."""
        page, facts = self.read(seq)
        return PageBuilder.reopen(page, facts, self.space)

    def values(self, page: Page, facts: Facts) -> npt.NDArray[np.float64]:
        """What each document of a page is worth, [n]. The least valuable fades first.

        A page's redundancy is computed from its keys each time, so that no trace is kept of a
        document deleted since.
        """
        settings = self.session.settings
        near = key_redundancy(page.keys or b"", page.count)
        signals = Signals(facts.order, facts.hits, near, np.diff(page.edges) + page.key_bytes)
        value = self._policy.value(signals, settings.span or _DEFAULT_SPAN)
        return value + page.depth - (page.level in settings.lossless) * _LOSSLESS

    # ---------------------------------------------------------------------------- writing

    def store(self, builder: PageBuilder) -> None:
        """Store a page, or drop it if nothing is left on it."""
        if len(builder):
            self._put(builder.build(), Facts.of(builder.facts))
        else:
            self.drop(builder.seq, builder.slot)

    def cut(self, page: Page, gone: frozenset[int]) -> None:
        """Take the entries at positions `gone` off a page, which was checked as it was read."""
        left = page.without(gone)
        if left is None:
            self.drop(page.seq, page.slot)
        else:
            facts = self.session.pages.facts(page.seq, page.count)
            self._put(left, facts.without(gone))

    def put_facts(self, page: Page, facts: Facts) -> None:
        """Store the facts of a page and its place in the order of fading.

        The place is the value of the page's least valuable quarter.
        """
        values = sorted(self.values(page, facts).tolist())
        self.session.pages.put_facts(page.seq, float(values[(len(values) - 1) // 4]), facts)

    def rekey(self, seq: int, keys: Mapping[int, bytes]) -> int:
        """Replace keys of a page's entries by others of the same length; returns how many.

        `keys`: number of an id → key.
        """
        page, facts = self.read(seq)
        size = page.key_bytes
        content, changed = bytearray(page.keys or b""), 0
        for at, number in enumerate(page.id_keys.tolist()):
            key = keys.get(number)
            if key is not None and len(key) == size:
                content[at * size : (at + 1) * size] = key
                changed += 1
        if changed:
            page = replace(page, keys=bytes(content) or None, hash=b"")
            self._put(replace(page, hash=page.checksum()), facts)
        return changed

    def drop(self, seq: int, slot: Slot) -> None:
        """Remove a page."""
        self.session.pages.drop(seq)
        self.changes.written[seq] = None
        self.changes.tails.drop(slot, seq)

    def move(self, numbers: Iterable[int], seq: int) -> None:
        """Note that ids are on this page from now on; 0: on none."""
        self.changes.moved.update(dict.fromkeys(numbers, seq))

    def next_order(self) -> int:
        """The place in the order of writing of the next new document."""
        self.changes.orders += 1
        return self.changes.orders - 1

    def place(self, items: Iterable[Placed], fill: bool = True) -> None:
        """Put entries on the last pages of their slots.

        Args:
            fill: whether they may join any small page. Without it they join a page of few bytes
                only, so that little is rewritten for them.
        """
        touched: dict[Slot, PageBuilder] = {}
        taken: set[int] = set()
        done: list[PageBuilder] = []
        for slot, entry, times, fact in items:
            builder = touched.get(slot)
            if builder is None:
                seq = self._tail(slot, fill)
                builder = None if seq is None else self.builder(seq)
            if builder is None or not builder.fits(entry):
                if builder is not None and slot in touched:
                    done.append(builder)
                builder = self._new_builder(slot, taken)
            taken.add(builder.seq)
            touched[slot] = builder
            builder.add(entry, times, fact)
            number = self.session.number(entry.id)
            if number is not None:
                self.changes.moved[number] = builder.seq
        done.extend(touched.values())
        for builder in sorted(done, key=lambda item: item.seq):
            self.store(builder)

    def join(self, slot: Slot, numbers: list[int]) -> bool:
        """Make one page of several small ones, as far as they fit; False if no two do."""
        first, joined = self.builder(numbers[0]), 1
        for seq in numbers[1:]:
            page, facts = self.read(seq)
            if not first.join(page, facts):
                break
            self.move(page.id_keys.tolist(), first.seq)
            self.drop(seq, slot)
            joined += 1
        if joined > 1:
            self.store(first)
        return joined > 1

    def _put(self, page: Page, facts: Facts) -> None:
        session = self.session
        session.pages.put(page)
        self.put_facts(page, facts)
        self.changes.written[page.seq] = page.hash
        size = page.size_bytes
        session.directory.largest_bytes = max(session.directory.largest_bytes, size)
        self.changes.tails.note(page.slot, page.seq, size, page.count, session.settings.space)

    def _tail(self, slot: Slot, fill: bool) -> int | None:
        """The page that takes the next entry of a slot, if one is open."""
        small = self.changes.tails.pages(slot)
        if small and (fill or small[-1][1] < self.space.tail_bytes):
            return small[-1][0]
        return None

    def _new_builder(self, slot: Slot, taken: set[int]) -> PageBuilder:
        """An empty page behind all others."""
        session = self.session
        last = session.pages.last_number()
        if not isinstance(last, int) or not 0 <= last < (1 << 32) - 1:
            raise BankError(f"Bank {session.name} is damaged: a page has the number {last!r:.30}.")
        width = NUMBER_BYTES if session.settings.ledger == "none" else ID_BYTES
        return PageBuilder(max(last, *taken, 0) + 1, slot, width, self.space)
