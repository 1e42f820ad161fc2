"""The records of a folder: found, cut to the newest of each kind, named and grouped for comparison.

Knows records and folders; draws nothing and runs nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from latentbank.bench.record import Machine, Record, read_record
from latentbank.errors import InputError


@dataclass(frozen=True)
class Result:
    """A record and where it lies; `name` is its path below the folder that was searched."""

    path: Path
    name: str
    record: Record

    @property
    def label(self) -> str:
        """`config["name"]`, or the method's name."""
        return str(self.record.config.get("name") or self.record.method)

    def value(self, metric: str) -> float | None:
        """The metric's number, fractions in percent; None if the record has it not."""
        found = self.record.metrics.get(metric)
        if found is None:
            return None
        return 100 * found.value if found.unit == "fraction" else found.value


@dataclass(frozen=True)
class Folder:
    """What a folder holds: records, and the names of JSON files that are something else."""

    results: tuple[Result, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Records that may stand in one figure: one task on one dataset. `labels` are unique and go
    with `results`, best F1 first; `skipped` are the records without numbers.
    """

    task: str
    data_name: str
    data_hash: str
    results: tuple[Result, ...]
    labels: tuple[str, ...]
    skipped: tuple[Result, ...]

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Where the records were made, each machine once; speeds are comparable within one only."""
        return tuple(dict.fromkeys(r.record.machine for r in self.results))


def load_results(folder: str | Path, nested: bool = False) -> Folder:
    """Read every record (*.json) of a folder, with `nested` of its subfolders too.

    A JSON file without a schema version is no record and is named in `foreign`; so is one with a
    dot before its name. Raises InputError if there is no such folder, no record in it, or a record
    that is damaged or of an unknown version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder with result records.")
    results, foreign = [], []
    for path in sorted(folder.rglob("*.json") if nested else folder.glob("*.json")):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") or _is_foreign(path):
            foreign.append(name)
        else:
            results.append(Result(path, name, read_record(path)))
    if not results:
        others = f"; {', '.join(foreign)} is something else" if foreign else ""
        raise InputError(f"{folder} holds no result record (*.json){others}.")
    return Folder(tuple(results), tuple(foreign))


def newest(results: Sequence[Result], by_machine: bool = False) -> list[Result]:
    """The latest of the records that are equal in task, data, label, reading and budget.

    `by_machine` keeps one for each machine and dtype. In the order of the input.
    """
    found: dict[tuple[object, ...], Result] = {}
    for result in results:
        record = result.record
        key: tuple[object, ...] = (
            record.task, record.data.hash, result.label, record.read_as, record.budget_bytes,
        )  # fmt: skip
        if by_machine:
            key = (*key, record.machine, record.dtype)
        if key not in found or _time(record) >= _time(found[key].record):
            found[key] = result
    kept = {id(result) for result in found.values()}
    return [result for result in results if id(result) in kept]


def best_first(results: Sequence[Result]) -> list[Result]:
    """In the order of falling F1, records without it last."""

    def key(result: Result) -> tuple[float, str, str]:
        score = result.value("f1")
        return (-1.0 if score is None else score) * -1, result.label, result.name

    return sorted(results, key=key)


def groups(results: Sequence[Result]) -> list[Group]:
    """The newest records by task and data: most rows first, then the longest stream.

    A row that has no bank at any budget is the same at all of them, and comes once.
    """
    parts: dict[tuple[str, str], list[Result]] = {}
    for result in _once_without_bank(newest(results, by_machine=True)):
        parts.setdefault((result.record.task, result.record.data.hash), []).append(result)
    found = []
    for (task, digest), members in sorted(parts.items()):
        done = best_first([m for m in members if not m.record.skipped])
        skipped = sorted((m for m in members if m.record.skipped), key=lambda m: m.label)
        name = members[0].record.data.name
        labels = unique_labels(done)
        found.append(Group(task, name, digest, tuple(done), tuple(labels), tuple(skipped)))

    def rank(group: Group) -> tuple[float, float, str]:
        longest = max((r.value("documents") or 0.0 for r in group.results), default=0.0)
        return -len(group.results), -longest, group.task

    return sorted(found, key=rank)


def _once_without_bank(results: Sequence[Result]) -> list[Result]:
    """The results, of the budgets of a row that never has a bank only the last one."""
    rows: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        r = result.record
        key = (r.task, r.data.hash, result.label, r.read_as, r.machine, r.dtype, r.skipped)
        rows.setdefault(key, []).append(result)
    left_out = {
        id(result)
        for members in rows.values()
        if all(m.value("bank_bytes") == 0 for m in members)
        for result in members[:-1]
    }
    return [result for result in results if id(result) not in left_out]


def _limit(result: Result) -> str:
    """What the row's bank may take, for each document of the stream where the record tells."""
    each = result.record.config.get("budget_per_document")
    if isinstance(each, int):
        return f"≤ {each:,} B/doc"
    total = result.record.budget_bytes
    return "" if total is None else f"≤ {format_bytes(total)}"


def unique_labels(results: Sequence[Result]) -> list[str]:
    """Labels that tell the results apart: where limits differ each row names its own, and equal
    labels get the reading, machine and so on added.
    """
    parts: Sequence[Callable[[Result], str]] = (
        lambda r: r.record.read_as,
        lambda r: r.record.machine.device,
        lambda r: r.record.machine.cpu,
        lambda r: r.record.dtype,
        lambda r: r.name,
    )
    limits = [_limit(result) for result in results]
    labels = [result.label for result in results]
    if len(set(limits)) > 1:
        pairs = zip(labels, limits, strict=True)
        labels = [f"{label}, {limit}" if limit else label for label, limit in pairs]
    for part in parts:
        seen = Counter(labels)
        twins: dict[str, set[str]] = {}
        for label, result in zip(labels, results, strict=True):
            twins.setdefault(label, set()).add(part(result))
        labels = [
            f"{label}, {part(result)}"
            if seen[label] > 1 and len(twins[label]) > 1 and part(result)
            else label
            for label, result in zip(labels, results, strict=True)
        ]
    return labels


def format_bytes(size: float) -> str:
    """1536 → "1.5 kB", in powers of 1000, as the axes count."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if abs(size) < 999.5 else f"{size:,.0f} {unit}"


def _is_foreign(path: Path) -> bool:
    """Whether the file is JSON but never was a record; what is not JSON may be a record cut off."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(content, dict) or "schema_version" not in content


def _time(record: Record) -> datetime:
    created = datetime.fromisoformat(record.created)
    return created if created.tzinfo else created.replace(tzinfo=UTC)
