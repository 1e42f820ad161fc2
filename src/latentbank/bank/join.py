"""Banks made of banks: merged, split, and compared.

Knows entries, levels, counts and histograms; nothing about pages or methods.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentbank.bank.insert import Row, bank_rows, insert_rows
from latentbank.bank.ladder import MASS, Fade, mass_sum
from latentbank.bank.memory_bank import MemoryBank
from latentbank.errors import BankError, FingerprintError, InputError

__all__ = ["BankDiff", "diff_banks", "merge_banks", "split_bank"]

Progress = Callable[[int, int], None]


def merge_banks(
    sources: Sequence[MemoryBank],
    path: str | Path,
    budget: int | str | None = None,
    fade: Fade | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Make a new bank at `path` of the documents of several banks with one fingerprint.

    Ids unite: a document of two banks is kept once, at its higher level, and its counts and hits
    add up. Histograms (blob `mass`) add up; other blobs must be equal. Documents come in the order
    of the banks given, in each in the order of writing. Returns the ids that `fade` let go.
    Raises `FingerprintError` for banks of different adapters, `BankError` for different blobs
    (banks whose codebooks learned on their own), or if the documents do not fit.
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
    rows = _merged_rows(sources)
    made = _like(first, path, budget)
    try:
        with made:
            made.put_blobs(blobs)
            fading = insert_rows(made, rows, progress=progress, fade=fade)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return tuple(fading.forgotten)


def _merged_rows(sources: Sequence[MemoryBank]) -> list[Row]:
    rows: dict[str, Row] = {}
    anonymous = sources[0].settings.ledger == "none"
    for place, bank in enumerate(sources):
        for row in sorted(bank_rows(bank), key=lambda row: row.fact[0]):
            name = f"{place}/{row.entry.id}" if anonymous else row.entry.id
            held = rows.get(name)
            if held is None:
                rows[name] = row
                continue
            better = held if held.depth <= row.depth else row
            fact = better.fact[0], held.fact[1] + row.fact[1], *better.fact[2:]
            rows[name] = Row(better.entry, better.depth, held.count + row.count, fact)
    return list(rows.values())


def _merged_blobs(sources: Sequence[MemoryBank]) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    for bank in sources:
        for name in bank.blobs():
            data = bank.get_blob(name) or b""
            if name == MASS:
                blobs[name] = mass_sum(blobs.get(name), data)
            elif blobs.setdefault(name, data) != data:
                raise BankError(
                    f"Bank {bank.name} has another {name!r} than {sources[0].name}: its codebook "
                    "learned on its own, so codes of the one mean nothing in the other."
                )
    return blobs


def _like(bank: MemoryBank, path: str | Path, budget: int | str | None) -> MemoryBank:
    """A new bank with the fingerprint, settings and metadata of another."""
    settings = bank.settings
    return MemoryBank.create(
        path,
        bank.fingerprint,
        budget=budget,
        ledger=settings.ledger,
        policy=settings.policy,
        lossless=settings.lossless,
        meta=bank.meta(),
    )


def split_bank(
    bank: MemoryBank,
    folder: str | Path,
    by: str,
    at: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, str]:
    """Make one new bank per source, or per stretch of time between the times `at`.

    The bank itself is not changed. Returns what each file in the folder holds: a source, or
    "until T", "from T"; also written as `parts.json`. Documents without one form a part of their
    own. Files are numbered, so no source can choose a name. A histogram (blob `mass`) belongs to no
    document and goes with the first part. Raises `InputError` for another `by`, or without a full
    ledger.
    """
    if by not in ("source", "time") or (by == "time") != bool(at):
        raise InputError("Split by 'source', or by 'time' with the times at which to cut.")
    if bank.settings.ledger != "full":
        raise InputError(f"Bank {bank.name} keeps no {by}s (ledger {bank.settings.ledger!r}).")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another folder for the parts.")
    groups: dict[str, list[Row]] = {}
    for row in sorted(bank_rows(bank, progress), key=lambda row: row.fact[0]):
        groups.setdefault(_group(row, by, sorted(at)), []).append(row)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, str] = {}
    for number, (group, rows) in enumerate(sorted(groups.items()), start=1):
        name = f"part-{number:04d}.bank"
        with _like(bank, folder / name, None) as made:
            for blob in bank.blobs():
                if blob != MASS or number == 1:
                    made.put_blob(blob, bank.get_blob(blob) or b"")
            insert_rows(made, rows)
        parts[name] = group
    (folder / "parts.json").write_text(json.dumps(parts, indent=1, sort_keys=True) + "\n")
    return parts


def _group(row: Row, by: str, at: Sequence[str]) -> str:
    value = row.entry.source if by == "source" else row.entry.time
    if value is None:
        return f"no {by}"
    if by == "source":
        return f"source {value}"
    place = bisect_right(at, value)
    return f"from {at[place - 1]}" if place else f"until {at[0]}"


@dataclass(frozen=True)
class BankDiff:
    """What differs between two banks.

    Attributes:
        only_first, only_second: ids.
        changed: ids with what differs: "level", "payload", "key", "ledger" or "count".
        blobs, meta: names of blobs and metadata that differ.
        fingerprint: whether the fingerprints are equal.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    blobs: tuple[str, ...]
    meta: tuple[str, ...]
    fingerprint: bool

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        lists = (self.only_first, self.only_second, self.changed, self.blobs, self.meta)
        return self.fingerprint and not any(lists)


def diff_banks(first: MemoryBank, second: MemoryBank, progress: Progress | None = None) -> BankDiff:
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
