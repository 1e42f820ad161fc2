"""What a bank holds, as people look at it: documents with level, source, time and text; what faded.

Reads the bank's file by itself, so that looking never waits for a question or a write. Knows banks
and texts; knows no tenants.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentbank.backbone.model import Backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.documents.identity import document_id, group, split
from latentbank.parts.text_levels import TEXTS, TextLevels

__all__ = ["Contents", "Event", "Events", "Kept"]

_EVENTS = 512
_SEARCHED = 4096  # entries whose texts are looked through


@dataclass(frozen=True)
class Kept:
    """A document as the bank keeps it.

    Attributes:
        entries: ids of its entries, its chunks in their order.
        order: its place in the order of writing; larger for a newer one.
        bytes: of payloads and keys.
    """

    id: str
    entries: tuple[str, ...]
    levels: tuple[str, ...]
    time: str | None
    source: str | None
    metadata: Mapping[str, Any]
    order: int
    bytes: int


@dataclass(frozen=True)
class Event:
    """Something that happened to documents: added, faded, forgotten, deleted."""

    seconds: float  # since 1970, by the system's clock
    kind: str
    count: int
    ids: tuple[str, ...]


class Events:
    """The last events of a bank since it was opened; a deleted document's id leaves it, too."""

    def __init__(self) -> None:
        self._all: deque[Event] = deque(maxlen=_EVENTS)
        self._lock = threading.Lock()

    def add(self, kind: str, ids: Iterable[str], count: int | None = None) -> None:
        """Notes an event with the documents of these entries; none where there are none."""
        names = tuple(dict.fromkeys(document_id(id) for id in ids))
        number = len(names) if count is None else count
        if number:
            with self._lock:
                self._all.append(Event(time.time(), kind, number, names[:64]))

    def forget(self, ids: Iterable[str]) -> None:
        """Takes the names of deleted documents out of earlier events."""
        gone = {document_id(id) for id in ids}
        with self._lock:
            kept = [
                Event(e.seconds, e.kind, e.count, tuple(i for i in e.ids if i not in gone))
                for e in self._all
            ]
            self._all = deque(kept, maxlen=_EVENTS)

    def latest(self, limit: int) -> list[Event]:
        """The last events, newest first."""
        with self._lock:
            return list(self._all)[::-1][:limit]


class Contents:
    """A bank, looked at. Safe for threads."""

    def __init__(self, path: Path, backbone: Backbone) -> None:
        """`backbone`: whose tokens code the texts; it does not run."""
        self.bank = MemoryBank.open(path, read_only=True)
        self._texts = TextLevels(backbone)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._kept: dict[str, Kept] = {}

    def close(self) -> None:
        """Closes the file."""
        self.bank.close()

    def documents(self) -> dict[str, Kept]:
        """All documents by id, the newest first."""
        with self._lock:
            stamp = self.bank.stamp()
            if stamp != self._stamp:
                self._kept = self._read()
                self._stamp = stamp
                self._texts.forget_texts()
            return self._kept

    def _read(self) -> dict[str, Kept]:
        entries: dict[str, tuple[int, Entry]] = {}
        session = self.bank.session
        for number in self.bank.marks():
            with session.reading():
                both = session.page_and_facts(number)
            if both is not None:
                page, facts = both
                for at in range(page.count):
                    entry = page.entry(at)
                    entries[entry.id] = int(facts.order[at]), entry
        made = [_kept(id, [entries[one] for one in ids]) for id, ids in group(entries).items()]
        return {one.id: one for one in sorted(made, key=lambda one: -one.order)}

    def find(
        self,
        words: str = "",
        source: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[list[Kept], int]:
        """(documents newest first, number of all that fit).

        `words` stand in the id, the source, the metadata or, in a small bank, the text. `before`:
        the order below which to go on.
        """
        found = list(self.documents().values())
        if source is not None:
            found = [one for one in found if one.source == source]
        if words:
            texts = sum(len(one.entries) for one in found) <= _SEARCHED
            found = [one for one in found if self._has(one, words.casefold(), texts)]
        count = len(found)
        if before is not None:
            found = [one for one in found if one.order < before]
        return found[:limit], count

    def _has(self, one: Kept, words: str, texts: bool) -> bool:
        known = [one.id, one.source or "", json.dumps(dict(one.metadata), ensure_ascii=False)]
        if any(words in value.casefold() for value in known):
            return True
        return texts and words in self.text(one.entries, False).casefold()

    def text(self, entries: Sequence[str], slow: bool = True) -> str:
        """The text of entries, one after another; empty where none is kept as text.

        `slow`: also what takes a second to decode.
        """
        found = [self.bank.get(id) for id in entries]
        kept = [entry for entry in found if entry is not None and entry.level in TEXTS]
        if not slow:
            kept = [entry for entry in kept if not entry.level.startswith("lm")]
        with self._lock:
            return "\n".join(self._texts.decode(kept))

    def get(self, id: str) -> Kept | None:
        """The document, or None; the id of one of its chunks will do."""
        documents = self.documents()
        return documents.get(id) or documents.get(document_id(id))

    def describe(self, entry: str) -> dict[str, Any]:
        """Source, time and title of an entry that answered."""
        found = self.bank.get(entry)
        if found is None:
            return {"source": None, "time": None, "metadata": {}}
        return {"source": found.source, "time": found.time, "metadata": dict(found.metadata)}

    def levels(self) -> dict[str, dict[str, int]]:
        """Level → documents and bytes."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for one in self.documents().values():
            counts[one.levels[0]] += 1
            sizes[one.levels[0]] += one.bytes
        return {level: {"documents": counts[level], "bytes": sizes[level]} for level in counts}


def _kept(id: str, parts: Sequence[tuple[int, Entry]]) -> Kept:
    order, first = max(order for order, _ in parts), parts[0][1]
    entries = [entry for _, entry in parts]
    return Kept(
        id,
        tuple(entry.id for entry in sorted(entries, key=lambda one: split(one.id)[1] or 0)),
        tuple(dict.fromkeys(entry.level for entry in entries)),
        first.time,
        first.source,
        first.metadata,
        order,
        sum(len(entry.payload) + len(entry.key) for entry in entries),
    )
