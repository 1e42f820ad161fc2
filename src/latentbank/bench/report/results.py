"""The records of a folder: read, reduced to the newest of each kind, grouped, and put into words.

Knows records and folders; draws nothing and runs nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from latentbank.bench.record import Machine, Metric, Record, read_record
from latentbank.errors import InputError

MISSING = "\N{EN DASH}"
TITLES = {
    "f1": "F1", "exact_match": "EM", "contains_answer": "contains", "prefix_match": "prefix match",
    "bank_bytes": "bank size", "bytes_per_document": "bytes per document",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A record and its path; `name` is the path below the folder that was searched."""

    path: Path
    name: str
    record: Record

    @property
    def label(self) -> str:
        """The row's name, `config["name"]`; without one the method's name."""
        return str(self.record.config.get("name") or self.record.method)

    @property
    def ceiling(self) -> bool:
        """Whether the row was told which document to read."""
        return bool(self.record.config.get("gold")) or self.record.read_as == "gold"

    def value(self, metric: str) -> float | None:
        """The metric's number, a fraction in percent; None if the record lacks it."""
        metric_value = self.record.metrics.get(metric)
        if metric_value is None:
            return None
        return 100 * metric_value.value if metric_value.unit == "fraction" else metric_value.value


@dataclass(frozen=True)
class Folder:
    """What a folder holds: records, and the names of JSON files that are something else."""

    results: tuple[Result, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Records of one task on one dataset, which may share a figure.

    `labels` are unique, one for each of `results`, best F1 first. `skipped` have no numbers.
    """

    task: str
    data_name: str
    data_hash: str
    results: tuple[Result, ...]
    labels: tuple[str, ...]
    skipped: tuple[Result, ...]

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Each machine once. Times are comparable only within one machine."""
        return tuple(dict.fromkeys(r.record.machine for r in self.results))


def load_results(folder: str | Path, nested: bool = False) -> Folder:
    """Read every record (*.json) of a folder, with `nested` of its subfolders too.

    JSON files without a schema version and hidden files go to `foreign`. Raises InputError if the
    folder is missing or holds no record, or if a record is damaged or of an unknown version.
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
    """The latest of those records that agree in task, data, label, `read_as` and budget.

    `by_machine` keeps one for each machine and dtype. The order of the input stays.
    """
    latest: dict[tuple[object, ...], Result] = {}
    for result in results:
        record = result.record
        key: tuple[object, ...] = (
            record.task, record.data.hash, result.label, record.read_as, record.budget_bytes,
        )  # fmt: skip
        if by_machine:
            key = (*key, record.machine, record.dtype)
        if key not in latest or _time(record) >= _time(latest[key].record):
            latest[key] = result
    kept = {id(result) for result in latest.values()}
    return [result for result in results if id(result) in kept]


def best_first(results: Sequence[Result]) -> list[Result]:
    """Sorted by F1, best first; records without F1 last."""

    def key(result: Result) -> tuple[float, str, str]:
        score = result.value("f1")
        return (-1.0 if score is None else score) * -1, result.label, result.name

    return sorted(results, key=key)


def groups(results: Sequence[Result]) -> list[Group]:
    """The newest records by task and data, sorted by number of rows, then length of the stream.

    A row without a bank gives the same result at every budget and is listed once.
    """
    parts: dict[tuple[str, str], list[Result]] = {}
    for result in _once_without_bank(newest(results, by_machine=True)):
        parts.setdefault((result.record.task, result.record.data.hash), []).append(result)
    grouped = []
    for (task, digest), members in sorted(parts.items()):
        done = best_first([m for m in members if not m.record.skipped])
        skipped = sorted((m for m in members if m.record.skipped), key=lambda m: m.label)
        name = members[0].record.data.name
        labels = unique_labels(done)
        grouped.append(Group(task, name, digest, tuple(done), tuple(labels), tuple(skipped)))

    def rank(group: Group) -> tuple[float, float, str]:
        longest = max((r.value("documents") or 0.0 for r in group.results), default=0.0)
        return -len(group.results), -longest, group.task

    return sorted(grouped, key=rank)


def _once_without_bank(results: Sequence[Result]) -> list[Result]:
    """The results; of a row that has no bank at any budget only the last."""
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
    """The row's budget, per document of the stream if the record says so."""
    each = result.record.config.get("budget_per_document")
    if isinstance(each, int):
        return f"≤ {each:,} B/doc"
    total = result.record.budget_bytes
    return "" if total is None else f"≤ {si_bytes(total)}"


def unique_labels(results: Sequence[Result]) -> list[str]:
    """Labels that tell the results apart.

    Rows name their budgets where these differ. Labels that are still equal get `read_as`, device,
    CPU, dtype or file name added, whichever differs first.
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


def si_bytes(size: float) -> str:
    """1536 → "1.54 kB": three digits, in powers of 1000 like the axes of the figures."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if abs(size) < 999.5 else f"{size:,.0f} {unit}"


def size_cell(size: float) -> str:
    """Bytes, exact below ten thousand."""
    return f"{size:,.0f} B" if size < 10_000 else si_bytes(size)


def cell(metric: Metric | None, digits: int = 1, interval: str = " ({} to {})") -> str:
    """A number with its interval, if it has one; a fraction in percent."""
    if metric is None:
        return MISSING
    scale = 100.0 if metric.unit == "fraction" else 1.0
    text = f"{metric.value * scale:,.{digits}f}"
    if metric.low is None or metric.high is None:
        return text
    ends = (f"{end * scale:,.{digits}f}" for end in (metric.low, metric.high))
    return text + interval.format(*ends)


def any_cell(metric: Metric | None) -> str:
    """A number of any unit: bytes in kB or MB, whole numbers without digits, else one digit.

    Numbers without a unit that are below 1 get two significant digits.
    """
    if metric is None:
        return MISSING
    if metric.unit == "bytes":
        return si_bytes(metric.value)
    if metric.unit not in ("percent", "fraction") and metric.value == round(metric.value):
        return f"{metric.value:,.0f}"
    if metric.unit == "" and 0 < abs(metric.value) < 1:
        return f"{metric.value:.2g}"
    return cell(metric)


def title_of(name: str) -> str:
    """A metric's name as words."""
    return TITLES.get(name, name.replace("_", " "))


def column_name(name: str, unit: str) -> str:
    """ "retention_area_f1", "percent" → "retention area f1 (%)"; no unit if the name has it."""
    title = re.sub(r" bytes$", "", title_of(name)) if unit == "bytes" else title_of(name)
    sign = {"percent": "%", "fraction": "%", "bytes": ""}.get(unit, unit)
    words = {"s": "seconds", "documents/s": "documents per second"}.get(sign, sign)
    said = not sign or {sign, words} & set(title.split()) or title.endswith(words)
    return title if said else f"{title} ({sign})"


def machine_name(machine: Machine) -> str:
    """CPU, cores and, if there is one, the accelerator."""
    plural = "" if machine.cores == 1 else "s"
    base = f"{machine.cores} core{plural} of {machine.cpu}"
    return base if machine.device == "cpu" else f"{machine.device} with {base}"


def _is_foreign(path: Path) -> bool:
    """Whether the file is valid JSON but no record. Invalid JSON may be a damaged record."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(content, dict) or "schema_version" not in content


def _time(record: Record) -> datetime:
    created = datetime.fromisoformat(record.created)
    return created if created.tzinfo else created.replace(tzinfo=UTC)
