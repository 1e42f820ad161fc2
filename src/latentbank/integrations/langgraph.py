"""A LangGraph store over a bank: long-term memory of agents within a byte budget.

Items are documents; `search` with a query retrieves them. When the budget is full, the least
valuable items fade, so `get` may find none. Needs langgraph-checkpoint.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.documents.document import Document
from latentbank.documents.identity import document_id, entry_id
from latentbank.errors import InputError
from latentbank.integrations.common import missing, opened

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
    )
except ImportError as error:
    raise missing("langgraph-checkpoint", "langgraph-checkpoint") from error

if TYPE_CHECKING:
    from latentbank.bank import Entry
    from latentbank.model import MemoryModel

__all__ = ["BankStore"]

_DEEP = 256  # results of a search that filters are applied to


class BankStore(BaseStore):
    """Keeps items in a bank.

    `bank`: a bank's file, made with `budget_bytes` where it is new, or a `MemoryModel`.

    Examples:
        >>> graph = builder.compile(store=BankStore("agents.bank"))  # doctest: +SKIP
    """

    def __init__(self, bank: str | Path | MemoryModel, budget_bytes: int = 8 << 20) -> None:
        self._model = opened(bank, budget_bytes=budget_bytes)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Runs operations in their order."""
        return [self._run(op) for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _run(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            entry = self._find(_id(op.namespace, op.key))
            return None if entry is None else Item(**_fields(entry))
        if isinstance(op, PutOp):
            self._put(op)
            return None
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        raise InputError(f"The store has no operation {type(op).__name__}.")

    def _put(self, op: PutOp) -> None:
        id = _id(op.namespace, op.key)
        if op.ttl is not None:
            raise InputError("The store keeps no time to live; items fade with the budget.")
        old = self._find(id)
        if op.value is None:
            if old is not None:
                self._model.delete([id])
            return
        now = datetime.now(UTC).isoformat()
        kept = {
            "namespace": list(op.namespace),
            "key": op.key,
            "value": dict(op.value),
            "created": now if old is None else old.metadata.get("created", now),
            "updated": now,
        }
        self._model.write([Document(_text(op.value), id, metadata=kept)])

    def _find(self, id: str) -> Entry | None:
        """The first entry of an item; a later version, or a long one, has numbered entries."""
        bank = self._model.bank
        entry = bank.get(entry_id(id)) or bank.get(entry_id(id, 0))
        if entry is None:
            found, _ = bank.entries_of([id])
            entry = bank.get(found[0]) if found else None
        return entry

    def _search(self, op: SearchOp) -> list[SearchItem]:
        length = len(op.namespace_prefix)
        found: list[SearchItem] = []
        seen: set[str] = set()
        for entry, score in self._candidates(op.query):
            item = document_id(entry.id)
            if item in seen:  # another chunk of it fits better
                continue
            seen.add(item)
            fields = _fields(entry)
            if fields["namespace"][:length] == op.namespace_prefix and _meets(
                fields["value"], op.filter
            ):
                found.append(SearchItem(**fields, score=score))
        if op.query is None:
            found.sort(key=lambda one: one.updated_at, reverse=True)
        return found[op.offset : op.offset + op.limit]

    def _candidates(self, query: str | None) -> Iterator[tuple[Entry, float | None]]:
        if query is None:
            for entry in self._model.bank.entries():
                yield entry, None
            return
        for id, score in self._model.search(query, _DEEP):
            kept = self._model.bank.get(id)
            if kept is not None:
                yield kept, score

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        every = {_fields(entry)["namespace"] for entry in self._model.bank.entries()}
        for condition in op.match_conditions or ():
            every = {one for one in every if _matches(one, condition)}
        if op.max_depth is not None:
            every = {one[: op.max_depth] for one in every}
        return sorted(every)[op.offset : op.offset + op.limit]


def _id(namespace: tuple[str, ...], key: str) -> str:
    return json.dumps([*namespace, key], ensure_ascii=False)


def _text(value: Mapping[str, Any]) -> str:
    """What is searched: the texts of a value, its names for all else."""
    parts = [one for one in value.values() if isinstance(one, str) and one.strip()]
    return "\n".join(parts) or json.dumps(dict(value), ensure_ascii=False)


def _fields(entry: Entry) -> dict[str, Any]:
    kept = entry.metadata
    if not {"namespace", "key", "value"} <= set(kept):
        return {
            "namespace": (),
            "key": entry.id,
            "value": {"source": entry.source},
            "created_at": datetime.fromtimestamp(0, UTC),
            "updated_at": datetime.fromtimestamp(0, UTC),
        }
    return {
        "namespace": tuple(kept["namespace"]),
        "key": kept["key"],
        "value": dict(kept["value"]),
        "created_at": datetime.fromisoformat(kept["created"]),
        "updated_at": datetime.fromisoformat(kept["updated"]),
    }


_COMPARED: dict[str, Any] = {
    "$eq": lambda a, b: a == b,
    "$ne": lambda a, b: a != b,
    "$gt": lambda a, b: a is not None and float(a) > float(b),
    "$gte": lambda a, b: a is not None and float(a) >= float(b),
    "$lt": lambda a, b: a is not None and float(a) < float(b),
    "$lte": lambda a, b: a is not None and float(a) <= float(b),
}


def _meets(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether a value has every field of a filter; {"$gt": 3} and the like compare."""
    for name, want in (wanted or {}).items():
        compared = isinstance(want, Mapping) and want and all(k.startswith("$") for k in want)
        if not compared:
            if value.get(name) != want:
                return False
            continue
        for sign, limit in want.items():
            if sign not in _COMPARED:
                raise InputError(f"A filter compares with {', '.join(_COMPARED)}, got {sign!r}.")
            if not _COMPARED[sign](value.get(name), limit):
                return False
    return True


def _matches(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return all(want in ("*", have) for have, want in zip(part, path, strict=False))
