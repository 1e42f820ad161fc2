"""Banks merged and compared.

Knows entries, levels, counts, blobs and state; nothing about pages or methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentbank.bank.admin.rows import Progress, Row, bank_like, bank_rows, insert_rows
from latentbank.bank.entry import is_hex_id
from latentbank.bank.ladder import Fade
from latentbank.bank.reader import BankReader
from latentbank.bank.reports import HISTOGRAM
from latentbank.documents.identity import document_id
from latentbank.errors import BankError, FingerprintError, InputError

__all__ = ["BankDiff", "MergeReport", "diff_banks", "merge_banks", "sum_histograms"]

_MAX_CODES = 1 << 16


class MergeReport(NamedTuple):
    """What a merge left out.

    Attributes:
        forgotten: ids of entries that did not fit.
        replaced: ids of documents of which a later bank had another version.
    """

    forgotten: tuple[str, ...]
    replaced: tuple[str, ...]


def merge_banks(
    sources: Sequence[BankReader],
    path: str | Path,
    budget: int | str | None = None,
    fade: Fade | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Make a new bank at `path` of the documents of several banks with one fingerprint.

    A document of two banks is kept once, at its higher level; its counts and hits add up. Of two
    versions of a document that of the later bank is kept, whole, and the other one replaced.
    Histograms (blob `mass`) add up. Other blobs, and states, must be equal. Documents come in the
    order of the banks given, and within each in the order of writing.

    Returns what was left out. Raises `FingerprintError` for banks of
    different adapters, and `BankError` if the documents do not fit or if blobs or states differ:
    banks whose codebooks learned on their own.
    """
    if len(sources) < 2:
        raise InputError(f"Merging takes at least two banks, got {len(sources)}.")
    first = sources[0]
    for other in sources[1:]:
        if other.fingerprint != first.fingerprint:
            raise FingerprintError(other.fingerprint.mismatch(other.name, first.fingerprint))
        if other.settings.ledger != first.settings.ledger:
            raise InputError(
                f"Bank {first.name} keeps ledger {first.settings.ledger!r}, {other.name} "
                f"{other.settings.ledger!r}; only banks of one kind can be merged."
            )
    blobs = _merged_blobs(sources)
    rows, replaced = _merged_rows(sources)
    state = _merged_state(sources)
    made = bank_like(first, str(path), budget)
    try:
        with made:
            made.put_blobs(blobs)
            made.put_state(state)
            fading = insert_rows(made, rows, progress=progress, fade=fade)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return MergeReport(tuple(fading.forgotten), replaced)


def _merged_rows(sources: Sequence[BankReader]) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of all banks, and the ids of documents of which an older version was replaced."""
    rows: dict[str, Row] = {}
    versions: dict[str, str] = {}
    replaced: dict[str, None] = {}
    anonymous = sources[0].settings.ledger == "none"
    for place, bank in enumerate(sources):
        merged = sorted(bank_rows(bank), key=lambda row: row.fact[0])
        if not anonymous:
            for id in _changed(merged, versions, rows):
                replaced[id] = None
        for row in merged:
            key = f"{place}/{row.entry.id}" if anonymous else row.entry.id
            held = rows.get(key)
            if held is None:
                rows[key] = row
                continue
            better = held if held.depth <= row.depth else row
            fact = better.fact[0], held.fact[1] + row.fact[1]
            rows[key] = Row(better.entry, better.depth, held.count + row.count, fact)
    return list(rows.values()), tuple(replaced)


def _changed(ordered: Sequence[Row], versions: dict[str, str], rows: dict[str, Row]) -> set[str]:
    """Documents of which `ordered` has another version than `rows`; these leave `rows`.

    Where a version is not known, two payloads of one level that differ tell that a text changed.
    """
    changed: set[str] = set()
    latest: dict[str, str] = {}
    for row in ordered:
        entry, id = row.entry, document_id(row.entry.id)
        latest[id] = entry.version
        held = rows.get(entry.id)
        before, after = (
            version.partition("+")[0] for version in (versions.get(id, ""), entry.version)
        )
        if before and after and before != after:
            changed.add(id)
        elif held is not None and not (entry.version and held.entry.version):
            same_level = held.entry.level == entry.level and not is_hex_id(id)
            if same_level and held.entry.payload != entry.payload:
                changed.add(id)
    for key in [key for key in rows if document_id(key) in changed]:
        del rows[key]
    versions.update(latest)
    return changed


def _merged_blobs(sources: Sequence[BankReader]) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    for bank in sources:
        for name in bank.blobs():
            data = bank.get_blob(name) or b""
            if name == HISTOGRAM:
                blobs[name] = sum_histograms(blobs.get(name, b""), data)
            elif blobs.setdefault(name, data) != data:
                raise BankError(
                    f"Bank {bank.name} has another {name!r} than {sources[0].name}: its codebook "
                    "learned on its own, so codes of the one mean nothing in the other."
                )
    return blobs


def _merged_state(sources: Sequence[BankReader]) -> dict[str, bytes]:
    state = sources[0].get_state()
    for bank in sources[1:]:
        if bank.get_state() != state:
            raise BankError(
                f"Bank {bank.name} has another state than {sources[0].name}: each state describes "
                "the documents of its own bank. Write the documents into one bank instead."
            )
    return state


def sum_histograms(one: bytes, other: bytes) -> bytes:
    """The sum of two histograms, uint32 [K] each; the shorter one counts 0 for what it lacks.

    Raises `BankError` if the bytes are no histogram, or a count reaches 2^32.
    """
    counts, added = _histogram(one), _histogram(other)
    size = max(len(counts), len(added))
    total = np.pad(counts, (0, size - len(counts))) + np.pad(added, (0, size - len(added)))
    if size and total.max() >= 1 << 32:
        raise BankError("The bank's histogram is full: a code was counted 2^32 times.")
    return total.astype("<u4").tobytes()


def _histogram(data: bytes) -> npt.NDArray[np.int64]:
    if len(data) % 4 or len(data) > 4 * _MAX_CODES:
        raise BankError(f"The bank's histogram is damaged: it has {len(data)} bytes.")
    return np.frombuffer(data, "<u4").astype(np.int64)


@dataclass(frozen=True)
class BankDiff:
    """What differs between two banks.

    Attributes:
        only_first, only_second: ids.
        changed: ids with what differs: "level", "payload", "key", "ledger" or "count".
        blobs, meta: names of blobs and metadata that differ.
        state: whether the states are equal.
        fingerprint: whether the fingerprints are equal.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    blobs: tuple[str, ...]
    meta: tuple[str, ...]
    fingerprint: bool
    state: bool = True

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        lists = (self.only_first, self.only_second, self.changed, self.blobs, self.meta)
        return self.fingerprint and self.state and not any(lists)


def diff_banks(first: BankReader, second: BankReader, progress: Progress | None = None) -> BankDiff:
    """Compare two banks document by document; hits and order are not compared."""
    other = {row.entry.id: row for row in bank_rows(second)}
    only_first: list[str] = []
    changed: dict[str, tuple[str, ...]] = {}
    for row in bank_rows(first, progress):
        match = other.pop(row.entry.id, None)
        if match is None:
            only_first.append(row.entry.id)
        elif differences := _differences(row, match):
            changed[row.entry.id] = differences
    names = {*first.blobs(), *second.blobs()}
    one, two = first.meta(), second.meta()
    return BankDiff(
        tuple(sorted(only_first)),
        tuple(sorted(other)),
        changed,
        tuple(sorted(name for name in names if first.get_blob(name) != second.get_blob(name))),
        tuple(sorted(n for n in {*one, *two} if n not in one or n not in two or one[n] != two[n])),
        first.fingerprint == second.fingerprint,
        first.get_state() == second.get_state(),
    )


def _differences(one: Row, two: Row) -> tuple[str, ...]:
    a, b = one.entry, two.entry
    ledger = [dataclasses.replace(e, level="", payload=b"", key=b"") for e in (a, b)]
    found = {
        "level": a.level != b.level,
        "payload": a.payload != b.payload,
        "key": a.key != b.key,
        "ledger": ledger[0] != ledger[1],
        "count": one.count != two.count,
    }
    return tuple(name for name, differs in found.items() if differs)
