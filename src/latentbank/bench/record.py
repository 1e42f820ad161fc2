"""The record of one benchmark run: what was run, on what, with which numbers, as one JSON file.

Knows JSON, the versions of the software and the machine; no method, no model and no dataset.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from latentbank.errors import InputError

SCHEMA_VERSION = 1
PREDICTIONS_SUFFIX = ".predictions.jsonl"
_PACKAGES = ("torch", "transformers", "latentbank")


@dataclass(frozen=True)
class Metric:
    """One number with its unit (such as "percent", "bytes", "ms") and, if known, its 95 % CI."""

    value: float
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve: y over x, point by point, with names and units; `low`, `high`: 95 % CI of y."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    x_name: str
    x_unit: str
    y_name: str
    y_unit: str
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DataInfo:
    """The data of a run: `QADataset.name` and `QADataset.hash`."""

    name: str
    hash: str


@dataclass(frozen=True)
class Machine:
    """Where a run took place. `device` is "cpu" or the accelerator's name."""

    cpu: str
    cores: int
    memory_bytes: int
    device: str


@dataclass(frozen=True)
class Record:
    """One run; two records are comparable if task, data and (for speed) machine agree.

    `method` is the registered name, `config` its configuration and everything else that was
    chosen, `command` the line that repeats the run, `read_as` how the memory spoke to the backbone
    (such as "states" or "text"), `created` the UTC time in ISO 8601. `series` are the curves,
    `budget_bytes` the limit of the bank's file or None, `skipped` why nothing was measured.
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
) -> Record:
    """Return a record of a run that just ended here, with versions, machine, revision and time."""
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
    )


def write_record(
    record: Record,
    path: str | Path,
    predictions: Iterable[Mapping[str, Any]] | None = None,
) -> Path:
    """Write `path` (ending in .json) and, if given, the predictions beside it, one row a line.

    The predictions lie in `predictions_path(path)` and are written first. Each file is replaced as
    a whole or not at all. Returns the record's path. Raises InputError for another suffix, a
    number that is not finite, a value that JSON cannot hold, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise InputError(f"A record's name must end in .json, got {path.name!r}.")
    for name, metric in record.metrics.items():
        numbers = (metric.value, metric.low, metric.high)
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise InputError(f"Metric {name!r} of the record is not a finite number: {numbers}.")
    for name, curve in record.series.items():
        if not all(
            map(math.isfinite, (*curve.x, *curve.y, *(curve.low or ()), *(curve.high or ())))
        ):
            raise InputError(f"Series {name!r} of the record holds a number that is not finite.")
    try:
        text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        rows = None
        if predictions is not None:
            lines = [json.dumps(dict(row), ensure_ascii=False) for row in predictions]
            rows = "".join(line + "\n" for line in lines)
    except (TypeError, ValueError) as error:
        raise InputError(f"The record {path} cannot be written as JSON: {error}.") from error
    if rows is not None:
        write_atomically(predictions_path(path), rows)
    write_atomically(path, text)
    return path


def read_record(path: str | Path) -> Record:
    """Read a record. Raises InputError if the file is missing, not JSON, or not such a record."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or "schema_version" not in content:
        raise InputError(f"{path} is not a latentbank result record: schema_version is missing.")
    if content["schema_version"] != SCHEMA_VERSION:
        found = content["schema_version"]
        raise InputError(f"{path} has schema version {found!r}, expected {SCHEMA_VERSION}.")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a latentbank result record: {error}.") from error


def predictions_path(path: str | Path) -> Path:
    """Return where the predictions of the record at `path` lie: NAME.predictions.jsonl."""
    return Path(path).with_suffix(PREDICTIONS_SUFFIX)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text to `path` through a temporary file beside it; make its folder if needed.

    Raises InputError if the file system refuses; then an older file at `path` is untouched.
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


def this_machine(device: str = "cpu") -> Machine:
    """Return the CPU's model, the usable cores, the memory in bytes, and the given device."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0  # unknown
    return Machine(_cpu_model(), cores, memory, device)


def versions() -> dict[str, str]:
    """Return the versions of python, torch, transformers and latentbank, importing none of them."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def code_revision() -> str:
    """Return `git describe --always --dirty` of this package's checkout, else "unknown"."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, timeout=10, check=True)
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip() or "unknown"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine() or "unknown"


def _from_json(content: Mapping[str, Any]) -> Record:
    known = {item.name: item for item in fields(Record)}
    strangers = sorted(set(content) - set(known))
    if strangers:
        raise ValueError(f"unknown fields {', '.join(strangers)}")
    values = dict(content)
    values["data"] = DataInfo(**content["data"])
    values["machine"] = Machine(**content["machine"])
    values["metrics"] = {name: Metric(**value) for name, value in content["metrics"].items()}
    values["series"] = {
        name: _series_from_json(value) for name, value in content.get("series", {}).items()
    }
    for name, metric in values["metrics"].items():
        if isinstance(metric.value, bool) or not isinstance(metric.value, int | float):
            raise ValueError(f"metric {name!r} has the value {metric.value!r}")
    for name in ("task", "method", "command", "dtype", "created", "code_revision"):
        if not isinstance(values.get(name), str):
            raise ValueError(f"field {name!r} must be a text")
    datetime.fromisoformat(values["created"])
    return Record(**values)


def _series_from_json(value: Mapping[str, Any]) -> Series:
    values: dict[str, Any] = dict(value)
    for name in ("x", "y", "low", "high"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    return Series(**values)
