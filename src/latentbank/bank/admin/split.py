"""A bank split into several: by source, by time, or by a condition.

Knows entries, their ledgers, blobs and state; nothing about pages or methods.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from latentbank.bank.admin.rows import Progress, Row, bank_like, bank_rows, insert_rows
from latentbank.bank.reader import BankReader
from latentbank.bank.reports import HISTOGRAM
from latentbank.documents.conditions import Conditions
from latentbank.documents.time import parse_time, time_key
from latentbank.errors import InputError

__all__ = ["split_bank"]

_WAYS = ("source", "time", "where")


def split_bank(
    bank: BankReader,
    folder: str | Path,
    by: str,
    at: Sequence[str] = (),
    progress: Progress | None = None,
    where: Conditions | None = None,
) -> dict[str, str]:
    """Make several new banks of one in a new folder. The bank itself is not changed.

    Args:
        bank: what is split.
        folder: a folder that is missing or empty.
        by: "source": one bank per source. "time": one per stretch between the times `at`. A
            document belongs to the stretch in which its time starts: the year 2024 lies before May
            2024. "where": one bank of the documents that meet `where`, one of the others.
        at: times at which to cut.
        progress: is called with the documents read and their number.
        where: conditions that must all hold.

    Documents without a source, or without a time that can be read, form a part of their own. Files
    are numbered, so no source can choose the name of a file. A histogram (blob `mass`) belongs to
    no document and goes with the first part.

    Returns what each file in the folder holds: a source, "until T", "from T", or "with CONDITION"
    and "without CONDITION". `parts.json` says the same. Raises `InputError` for another `by`, a
    time that cannot be read, a condition that no document meets, without a full ledger, or if the
    bank has a state: it describes all documents together. Whatever it raises, no part is left.
    """
    if by not in _WAYS or (by == "time") != bool(at) or (by == "where") != bool(where):
        raise InputError(
            "Split by 'source', by 'time' with the times at which to cut, or by 'where' with a "
            "condition."
        )
    if bank.settings.ledger != "full":
        raise InputError(
            f"Bank {bank.name} keeps no sources, times or metadata (ledger "
            f"{bank.settings.ledger!r}); it cannot be split by them."
        )
    if bank.get_state():
        raise InputError(
            f"Bank {bank.name} has a state that describes all of its documents together; it cannot "
            "be split."
        )
    folder = Path(folder)
    is_new = not folder.exists()
    if not is_new and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty, or no folder; choose another one for the parts.")
    group_of = _grouping(bank, by, at, where)
    groups: dict[str, list[Row]] = {}
    for row in sorted(bank_rows(bank, progress), key=lambda row: row.fact[0]):
        groups.setdefault(group_of(row), []).append(row)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _write_parts(bank, folder, groups)
    except BaseException:
        for left in [*folder.glob("part-*.bank*"), folder / "parts.json"]:
            left.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # somebody else put a file there meanwhile
                folder.rmdir()
        raise


def _write_parts(bank: BankReader, folder: Path, groups: dict[str, list[Row]]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for number, (group, rows) in enumerate(sorted(groups.items()), start=1):
        name = f"part-{number:04d}.bank"
        with bank_like(bank, str(folder / name), None) as made:
            for blob in bank.blobs():
                if blob != HISTOGRAM or number == 1:
                    made.put_blob(blob, bank.get_blob(blob) or b"")
            insert_rows(made, rows)
        parts[name] = group
    (folder / "parts.json").write_text(json.dumps(parts, indent=1, sort_keys=True) + "\n")
    return parts


def _grouping(
    bank: BankReader, by: str, at: Sequence[str], where: Conditions | None
) -> Callable[[Row], str]:
    """The function that names the part of a document."""
    if by == "source":
        return _source
    if by == "time":
        cuts = sorted(str(parse_time(time)) for time in at)
        return lambda row: _stretch(row, cuts)
    conditions = where or Conditions()
    chosen = frozenset(bank.select(conditions))
    if not chosen:
        raise InputError(f"The bank {bank.name} holds no document with {conditions}.")
    return lambda row: f"{'with' if row.entry.id in chosen else 'without'} {conditions}"


def _source(row: Row) -> str:
    return "no source" if row.entry.source is None else f"source {row.entry.source}"


def _stretch(row: Row, cuts: Sequence[str]) -> str:
    time = time_key(row.entry.time)
    if not time:
        return "no time"
    place = bisect_right(cuts, time)
    return f"from {cuts[place - 1]}" if place else f"until {cuts[0]}"
