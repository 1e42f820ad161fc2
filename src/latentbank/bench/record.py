"""The record of one benchmark run, a JSON file: what was run, on what, with which numbers.

Knows JSON and the machine that it runs on; knows no method, model or dataset. docs/records.md
describes the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentbank.bench.machine import Machine, code_revision, this_machine, versions
from latentbank.errors import InputError

__all__ = [
    "PREDICTIONS_SUFFIX", "READABLE", "SCHEMA_VERSION", "DataInfo", "Machine", "Metric", "Record",
    "Series", "code_revision", "hash_questions", "new_record", "predictions_path",
    "read_predictions", "read_record", "this_machine", "versions", "write_atomically",
    "write_record",
]  # fmt: skip

SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Version 1 had no series, budget_bytes, skipped and questions_hash; read_record fills them in."""

PREDICTIONS_SUFFIX = ".predictions.jsonl"
_TEXTS = (
    "task", "method", "command", "dtype", "created", "code_revision", "skipped",
    "questions_hash", "read_as",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A number with its unit ("percent", "bytes", "ms", …) and, if known, its 95 % interval."""

    value: float
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve: y over x, with names and units. `low` and `high` are the 95 % interval of y.

    Raises InputError if there is no point or the lengths differ.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    x_name: str
    x_unit: str
    y_name: str
    y_unit: str
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y", "low", "high"):
            values = getattr(self, name)
            if values is None:
                continue
            object.__setattr__(self, name, tuple(float(value) for value in values))
            if len(values) != len(self.x) or not values:
                raise InputError(
                    f"A series has as many {name} as x, at least one; got {len(values)} and "
                    f"{len(self.x)}."
                )
        if (self.low is None) != (self.high is None):
            raise InputError("A series has both low and high, or neither.")


@dataclass(frozen=True)
class DataInfo:
    """The data of a run: `QADataset.name` and `QADataset.hash`."""

    name: str
    hash: str


@dataclass(frozen=True)
class Record:
    """One run. Two records are comparable if task, data and (for times) machine agree.

    `method`: registered name. `config`: its configuration and everything else that was chosen.
    `command`: the line that repeats the run. `read_as`: how the memory spoke to the backbone
    ("states", "text", …). `created`: UTC time in ISO 8601. `series`: curves by name.
    `budget_bytes`: limit of the bank's files, None for none. `skipped`: why the method cannot do
    the task; then there may be no metrics. `questions_hash`: see `hash_questions`.
    """

    task: str
    method: str
    command: str
    seed: int
    data: DataInfo
    dtype: str
    metrics: Mapping[str, Metric]
    machine: Machine
    code_revision: str
    versions: Mapping[str, str]
    created: str
    config: Mapping[str, Any] = field(default_factory=dict)
    read_as: str = ""
    series: Mapping[str, Series] = field(default_factory=dict)
    budget_bytes: int | None = None
    skipped: str = ""
    questions_hash: str = ""
    schema_version: int = SCHEMA_VERSION


def new_record(
    *,
    task: str,
    method: str,
    command: str,
    seed: int,
    data: DataInfo,
    dtype: str,
    metrics: Mapping[str, Metric],
    config: Mapping[str, Any] | None = None,
    read_as: str = "",
    device: str = "cpu",
    series: Mapping[str, Series] | None = None,
    budget_bytes: int | None = None,
    skipped: str = "",
    questions: Iterable[str] | None = None,
) -> Record:
    """A record of a run that ended now, on this machine, with its versions and code revision.

    `questions`: the ids of the questions in the order asked; the record keeps their hash.
    """
    return Record(
        task=task,
        method=method,
        command=command,
        seed=seed,
        data=data,
        dtype=dtype,
        metrics=dict(metrics),
        machine=this_machine(device),
        code_revision=code_revision(),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=dict(config or {}),
        read_as=read_as,
        series=dict(series or {}),
        budget_bytes=budget_bytes,
        skipped=skipped,
        questions_hash="" if questions is None else hash_questions(questions),
    )


def hash_questions(ids: Iterable[str]) -> str:
    """32 hexadecimal digits over the ids of questions in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ids:
        digest.update(json.dumps(name).encode() + b"\n")
    return digest.hexdigest()


def write_record(
    record: Record,
    path: str | Path,
    predictions: Iterable[Mapping[str, Any]] | None = None,
) -> Path:
    """Writes the record to `path` (.json) and its predictions to `predictions_path(path)`.

    The predictions' `id`s give the record its `questions_hash` if it has none. Each file is
    replaced as a whole or not at all, the predictions first. Returns `path`. Raises InputError for
    another suffix, a number that is not finite, a value that JSON cannot hold, predictions of
    questions that are not the record's, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise InputError(f"A record's name must end in .json, got {path.name!r}.")
    _check(record)
    found = None if predictions is None else [dict(row) for row in predictions]
    if found is not None:
        record = _with_questions(record, found, path)
    try:
        text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        rows = None
        if found is not None:
            rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    except (TypeError, ValueError) as error:
        raise InputError(f"The record {path} cannot be written as JSON: {error}.") from error
    if rows is not None:
        write_atomically(predictions_path(path), rows)
    write_atomically(path, text)
    return path


def read_record(path: str | Path) -> Record:
    """Reads a record. Raises InputError if the file is missing, not JSON or no record."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or "schema_version" not in content:
        raise InputError(f"{path} is not a latentbank result record: schema_version is missing.")
    if content["schema_version"] not in READABLE:
        version, known = content["schema_version"], " or ".join(map(str, READABLE))
        raise InputError(f"{path} has schema version {version!r}, expected {known}.")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{path} is not a latentbank result record: {reason}.") from error


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """The prediction rows beside the record at `path`. Each has an `id`.

    Raises InputError if the file is missing, or a line is not a JSON object with an id.
    """
    source, rows = predictions_path(path), []
    try:
        lines = source.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError as error:
        raise InputError(
            f"{path} has no predictions beside it: {source.name} is missing."
        ) from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source}, line {number}, is not JSON: {error}.") from error
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise InputError(f"{source}, line {number}, is not a prediction: it has no id.")
        rows.append(row)
    return rows


def predictions_path(path: str | Path) -> Path:
    """NAME.predictions.jsonl beside the record NAME.json."""
    return Path(path).with_suffix(PREDICTIONS_SUFFIX)


def write_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 text through a temporary file beside `path`; makes the folder if needed.

    Raises InputError if the file system refuses; an older file at `path` is then untouched.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(
            handle, "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _check(record: Record) -> None:
    """Raises InputError for a record without content or with a number that is not finite."""
    if not (record.metrics or record.series or record.skipped):
        raise InputError("A record without metrics and series must say why it was skipped.")
    for name, metric in record.metrics.items():
        numbers = (metric.value, metric.low, metric.high)
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise InputError(f"Metric {name!r} of the record is not a finite number: {numbers}.")
    for name, curve in record.series.items():
        for values in (curve.x, curve.y, curve.low or (), curve.high or ()):
            if not all(map(math.isfinite, values)):
                raise InputError(f"Series {name!r} of the record has a number that is not finite.")


def _with_questions(record: Record, rows: list[dict[str, Any]], path: Path) -> Record:
    """The record with the hash of the questions in the prediction rows."""
    ids = [row.get("id") for row in rows]
    if not rows or not all(isinstance(name, str) for name in ids):
        return record
    digest = hash_questions(str(name) for name in ids)
    if record.questions_hash not in ("", digest):
        raise InputError(f"The predictions of {path} are of other questions than the record's.")
    return replace(record, questions_hash=digest)


def _from_json(content: Mapping[str, Any]) -> Record:
    known = {item.name: item for item in fields(Record)}
    strangers = sorted(set(content) - set(known))
    if strangers:
        raise ValueError(f"unknown fields {', '.join(strangers)}")
    values = dict(content)
    values["data"] = DataInfo(**content["data"])
    values["machine"] = Machine(**content["machine"])
    values["metrics"] = {name: Metric(**value) for name, value in content["metrics"].items()}
    values["series"] = {name: Series(**value) for name, value in values.get("series", {}).items()}
    for name, metric in values["metrics"].items():
        if isinstance(metric.value, bool) or not isinstance(metric.value, int | float):
            raise ValueError(f"metric {name!r} has the value {metric.value!r}")
    for name in _TEXTS:
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"field {name!r} must be a text")
    if not isinstance(values.get("budget_bytes"), int | None):
        raise ValueError("field 'budget_bytes' must be a whole number or null")
    datetime.fromisoformat(values["created"])
    return Record(**values)
