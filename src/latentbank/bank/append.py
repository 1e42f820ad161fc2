"""Storing entries: duplicates counted, new ones placed on pages, room made for them.

Knows a write and its session; nothing about files or what a payload means. `Carried` is what a
write brings beside its entries: blobs and a method's state.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from latentbank.bank.entry import Entry, check_entry, is_hex_id
from latentbank.bank.fading import Fading
from latentbank.bank.ladder import Fade
from latentbank.bank.reports import AppendReport
from latentbank.bank.store.facts import Facts
from latentbank.bank.store.items import BANK, BLOB, STATE
from latentbank.bank.store.page_writer import Placed
from latentbank.bank.store.pages import Slot
from latentbank.bank.store.session import Session
from latentbank.bank.write import Write, writing
from latentbank.errors import BankError, InputError

__all__ = ["Carried", "Hits", "append_entries", "choose_span", "store_items"]

_ENTRY_BYTES = 14  # of an entry beside payload, key and ledger; an upper bound
_LEDGER_BYTES = 40  # of the brackets and names around an entry's ledger
_HIT_PAGES = 64  # whose hits are written at once
_HITS_WAITING = 512  # documents with unwritten hits after which they are written


@dataclass(frozen=True)
class Carried:
    """Blobs and state that are stored together with entries; a name → its bytes."""

    blobs: Mapping[str, bytes] = field(default_factory=dict)
    state: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, items in self.kinds():
            for name, data in items.items():
                if not name or not isinstance(data, bytes):
                    raise InputError(f"{kind.title()} {name!r} must have a name and be bytes.")

    def __bool__(self) -> bool:
        return bool(self.blobs or self.state)

    def kinds(self) -> tuple[tuple[str, Mapping[str, bytes]], ...]:
        """Both mappings with the kind of item that they are stored as."""
        return (BLOB, self.blobs), (STATE, self.state)

    def needs(self, work: Write) -> tuple[int, int]:
        """Bytes that they add to the file, and to the log."""
        both = [work.item_needs(kind, items) for kind, items in self.kinds()]
        return sum(size for size, _ in both), sum(cost for _, cost in both)

    def put(self, work: Write) -> None:
        """Store them in the present transaction."""
        for kind, items in self.kinds():
            for name, data in items.items():
                work.session.items.put(kind, name, data)

    def check_room(self, work: Write) -> None:
        """Raise `BudgetError` if even a bank without entries has no room for them."""
        need, cost = self.needs(work)
        space = work.session.settings.space
        least = need + work.empty_bytes()
        if least > space.file_limit(cost + work.cost(0)):
            raise work.too_large(least)


NOTHING = Carried()


class Hits:
    """Hits of documents that are not written yet."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        """Number of documents whose hits wait."""
        return len(self._waiting)

    def add(self, ids: Iterable[str]) -> bool:
        """Count a hit of each document; returns whether so many wait that they should be written.

        Hits beyond the last write are lost when the process is killed.
        """
        self._waiting.update(list(ids))  # of a mapping its names, not its values
        return len(self._waiting) >= _HITS_WAITING

    def write(self, work: Write) -> None:
        """Write the hits that wait, page by page; those of many more pages wait for the next."""
        waiting, self._waiting = self._waiting, Counter()
        by_page: dict[int, dict[int, int]] = {}
        for id, times in waiting.items():
            number, seq = work.session.number(id), work.pages.locate(id)
            if number is None or seq is None:
                continue  # it has left the bank since
            if seq not in by_page and len(by_page) >= _HIT_PAGES:
                self._waiting[id] = times
            else:
                by_page.setdefault(seq, {})[number] = times
        for seq, hits in by_page.items():
            work.reserve(work.cost(0, pages=1))
            if work.session.pages.find(seq) is None:
                continue
            page, facts = work.pages.read(seq)
            rows = facts.rows()
            for at, number in enumerate(page.id_keys.tolist()):
                if number in hits:
                    order, known = rows[at]
                    rows[at] = order, known + hits[number]
            work.pages.put_facts(page, Facts.of(rows))


def rekey_entries(work: Write, keys: Mapping[str, bytes]) -> int:
    """See `MemoryBank.rekey`."""
    by_page: dict[int, dict[int, bytes]] = {}
    for id, key in keys.items():
        number, seq = work.session.number(id), work.pages.locate(id)
        if number is not None and seq is not None:
            by_page.setdefault(seq, {})[number] = key
    changed = 0
    for seq, own in by_page.items():
        stored = work.session.pages.find(seq)
        if stored is not None:
            work.reserve(work.cost(2 * stored.size_bytes, pages=1))
            changed += work.pages.rekey(seq, own) if work.session.pages.find(seq) else 0
    return changed


_AGAIN = "again"  # the level of an entry that stands for an id: compared by identity


def append_entries(
    session: Session,
    batch: Sequence[Entry],
    carried: Carried,
    fade: Fade | None,
    hits: Hits,
    again: Sequence[str] = (),
) -> AppendReport:
    """See `MemoryBank.append`."""
    for entry in batch:
        check_entry(entry)
    batch = [*batch, *(Entry(id, _AGAIN, b"") for id in again)]
    unique: dict[str, Entry] = {}
    for entry in batch:
        unique.setdefault(entry.id, entry)
    with writing(session) as work:
        times = Counter(entry.id for entry in batch)
        appender = _Appender(work, Fading(work, fade), times)
        if carried and session.settings.space.limits_log:
            carried.check_room(work)
            work.begin_pending()
        choose_span(work, [appender.size(entry) for entry in unique.values()])
        if hits:
            hits.write(work)
        # documents that are there first: a part with few of them and of new ones costs least
        waiting = deque(sorted(unique.values(), key=lambda one: appender.page_of(one) is None))
        while True:
            part = appender.next_part(waiting)
            appender.store(part, NOTHING if waiting else carried)
            if not waiting:
                break
        work.end_pending()
        work.join_small_pages()
    return appender.report(len(batch))


def store_items(session: Session, kind: str, items: Mapping[str, bytes]) -> None:
    """Items without entries, in one write; nothing fades for them."""
    with writing(session) as work:
        need, cost = work.item_needs(kind, items)
        work.reserve(cost + work.cost(0))
        if work.free_bytes() < need:
            raise work.too_large(session.size_bytes() + need)
        for name, data in items.items():
            session.items.put(kind, name, data)
        work.check_size()


def choose_span(work: Write, sizes: Sequence[int], span: float = 0.0) -> None:
    """Choose a bank's span at its first write, from the bytes of each entry written.

    One level counts as much as the age of half the documents that the budget holds. A `span` that
    is given is taken instead.
    """
    session = work.session
    budget = session.settings.budget_bytes
    if budget is None or session.settings.span or not sizes:
        return
    chosen = span or float(max(8, round(budget * len(sizes) / sum(sizes) / 2)))
    work.reserve(work.cost(64, items=1))
    session.items.put_json(BANK, "span", chosen)
    session.settings = dataclasses.replace(session.settings, span=chosen)


class _Appender:
    """One append and what it has stored so far."""

    def __init__(self, work: Write, fading: Fading, times: Counter[str]) -> None:
        self.work, self.fading, self.times = work, fading, times
        self.stored: dict[str, int] = {}  # id as given -> bytes
        self.stored_ids: dict[str, str] = {}
        self.absent: list[str] = []

    def size(self, entry: Entry) -> int:
        """Bytes that an entry adds to the file; an upper bound."""
        size = len(entry.payload) + len(entry.key) + _ENTRY_BYTES
        if self.work.session.settings.ledger == "full":
            extra = [entry.time, entry.source, *(entry.metadata or ())]
            if any(extra):
                size += _LEDGER_BYTES + len(str(extra)) + len(str(entry.metadata))
        size += len(entry.version) + 3 if entry.version else 0
        return size if is_hex_id(entry.id) else size + 2 * len(entry.id)

    def page_of(self, entry: Entry) -> int | None:
        """The page that holds an entry's id, or None."""
        return self.work.pages.locate(entry.id)

    def next_part(self, waiting: deque[Entry]) -> list[Entry]:
        """Take as many entries as one transaction may store; at least one, if there is one."""
        space = self.work.session.settings.space
        part: list[Entry] = []
        pages: set[int] = set()
        total, limit, most = 0, space.part_bytes, space.part_pages
        while waiting and (limit is None or (total < limit and len(pages) < most)):
            entry = waiting.popleft()
            part.append(entry)
            if limit is None:
                continue
            seq = self.page_of(entry)
            if seq is None:
                total += self.size(entry)
            else:
                pages.add(seq)
                total += self.size(entry) // 8  # its count
        return part

    def store(self, part: list[Entry], carried: Carried) -> None:
        """Store one part, all or nothing: counts of what is there, new entries, what is carried."""
        work, space = self.work, self.work.session.settings.space
        if space.budget is None:
            self.stored |= self._write(part, carried)
            return
        new = [entry for entry in part if self.page_of(entry) is None]
        size = sum(self.size(entry) for entry in new)
        tails = len({(entry.level, len(entry.key)) for entry in new})
        again = len({self.page_of(entry) for entry in part}) - bool(new)
        pages = tails + again + min(len(new), 2 * (size // space.page_bytes) + 1)
        old = 2 * tails * (space.tail_bytes if size <= space.tail_bytes else space.page_bytes)
        item_bytes, item_cost = carried.needs(work)
        cost = work.cost(size + old + 3 * again * space.page_bytes, pages) + item_cost
        need = size + item_bytes + (space.margin_bytes if new else 0)
        while True:
            work.reserve(cost)
            if work.free_bytes() < need:
                self.fading.make_room(need)
                continue
            before = work.save()
            stored = self._write(part, carried)
            over = work.trim()
            if over <= 0:
                self.stored |= stored
                return
            work.restore(before)  # pages are not filled to the last byte: more room, once more
            need = work.free_bytes() + over + space.sqlite_page
            self.fading.make_room(need)

    def _write(self, part: list[Entry], carried: Carried) -> dict[str, int]:
        """Store what is carried, count duplicates, place the others; ids placed → their bytes."""
        work, session = self.work, self.work.session
        carried.put(work)
        again: dict[int, list[Entry]] = {}
        new: list[Placed] = []
        numbers: set[int | None] = set()
        stored: dict[str, int] = {}
        for entry in part:
            seq = self.page_of(entry)
            if seq is not None:
                again.setdefault(seq, []).append(entry)
                continue
            if entry.level is _AGAIN:
                self.absent.append(entry.id)
                continue
            kept = self._kept(entry)
            number = session.number(kept.id)
            if number in numbers:  # two ids of this call with one hash
                raise _collision(entry.id)
            numbers.add(number)
            slot = Slot(entry.level, len(entry.key), 0)
            new.append(Placed(slot, kept, self.times[entry.id], (work.pages.next_order(), 0)))
            stored[entry.id] = len(entry.payload) + len(entry.key)
        for seq, entries in again.items():
            builder = work.pages.builder(seq)
            for entry in entries:
                if not builder.holds(entry.id):
                    raise _collision(entry.id)
                builder.bump(entry.id, self.times[entry.id])
            work.pages.store(builder)
        work.pages.place(new, fill=sum(stored.values()) > work.pages.space.tail_bytes)
        return stored

    def _kept(self, entry: Entry) -> Entry:
        """The entry as far as the bank's ledger keeps it."""
        ledger = self.work.session.settings.ledger
        if ledger == "full":
            return entry
        id = entry.id
        if ledger == "none":
            id = self.stored_ids[entry.id] = f"{self.work.pages.changes.orders:08x}"
        version = "" if ledger == "none" else entry.version
        return dataclasses.replace(
            entry, id=id, time=None, source=None, metadata={}, version=version
        )

    def report(self, given: int) -> AppendReport:
        """What happened to the `given` entries."""
        absent = tuple(dict.fromkeys(self.absent))  # a part may be tried twice
        return AppendReport(
            len(self.stored),
            given - len(self.stored) - sum(self.times[id] for id in absent),
            sum(self.stored.values()),
            tuple(self.fading.faded),
            tuple(self.fading.forgotten),
            self.stored_ids,
            absent,
        )


def _collision(id: str) -> BankError:
    return BankError(
        f"The id {id!r} has the same 8-byte hash as another id of the bank; give it another id."
    )
