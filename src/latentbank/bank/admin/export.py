"""A bank as a folder of safetensors and JSON, and back. Equal banks give equal bytes.

Knows entries, facts, blobs and state; nothing about pages. Documents are sorted by id, and the
order of writing is kept as ranks. So a bank from which documents were deleted and one that never
saw them export the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.bank.admin.rows import Progress, Row, bank_rows, insert_rows
from latentbank.bank.bank import MemoryBank
from latentbank.bank.entry import Entry
from latentbank.bank.reader import BankReader
from latentbank.bank.reports import BankFingerprint, Settings
from latentbank.errors import InputError

__all__ = ["export_bank", "import_bank"]

TENSORS, TEXTS = "bank.safetensors", "bank.json"
EXPORT_VERSION = 1
_MAX_JSON_BYTES = 1 << 32
_UNUSED = ("surprise", "redundancy")  # columns of this version that nothing sets
_BLOB, _STATE = "blob.", "state."  # what the names of their tensors begin with


def export_bank(bank: BankReader, folder: str | Path, progress: Progress | None = None) -> Path:
    """Write `bank.safetensors` and `bank.json` into a folder, which is made if it is missing.

    Returns the folder. Raises `InputError` if the folder holds an export already or cannot be
    written, `BankError` if the bank is damaged.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    if any((folder / name).exists() for name in (TENSORS, TEXTS)):
        raise InputError(f"{folder} holds an export already; choose another folder.")
    rows = sorted(bank_rows(bank, progress), key=lambda row: row.entry.id)
    levels = sorted({row.entry.level for row in rows})
    table = np.array([row.fact for row in rows], np.int64).reshape(-1, 2)
    ranks = np.empty(len(rows), np.uint32)
    ranks[np.argsort(table[:, 0], kind="stable")] = np.arange(len(rows), dtype=np.uint32)
    tensors: dict[str, npt.NDArray[Any]] = {
        "order": ranks,
        "hits": table[:, 1].astype(np.uint16),
        **{name: np.zeros(len(rows), np.uint8) for name in _UNUSED},
        "depth": np.array([row.depth for row in rows], np.uint8),
        "count": np.array([row.count for row in rows], np.uint32),
        "level": np.array([levels.index(row.entry.level) for row in rows], np.uint8),
        "payload": _joined([row.entry.payload for row in rows]),
        "payload_bytes": np.array([len(row.entry.payload) for row in rows], np.uint32),
        "keys": _joined([row.entry.key for row in rows]),
        "key_bytes": np.array([len(row.entry.key) for row in rows], np.uint16),
    }
    for name in bank.blobs():
        tensors[_BLOB + name] = np.frombuffer(bank.get_blob(name) or b"", np.uint8)
    for name, data in bank.get_state().items():
        tensors[_STATE + name] = np.frombuffer(data, np.uint8)
    texts = {
        "version": EXPORT_VERSION,
        "fingerprint": asdict(bank.fingerprint),
        "settings": asdict(bank.settings),
        "meta": bank.meta(),
        "levels": levels,
        "documents": [_ledger(row.entry) for row in rows],
    }
    written = json.dumps(texts, ensure_ascii=True, sort_keys=True, indent=0, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, save(tensors))
    _write(folder / TEXTS, written.encode())
    return folder


def _joined(parts: list[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8)


def _ledger(entry: Entry) -> dict[str, Any]:
    values = {
        "id": entry.id,
        "time": entry.time,
        "source": entry.source,
        "metadata": dict(entry.metadata),
        "version": entry.version,
    }
    return {name: value for name, value in values.items() if value}


def _write(path: Path, data: bytes) -> None:
    """The whole file or none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def import_bank(
    folder: str | Path,
    path: str | Path,
    budget: int | str | None = None,
    progress: Progress | None = None,
) -> None:
    """Make a new bank at `path` from an export. With `budget` None it has the exported budget.

    Raises `InputError` if the export is missing or is none, `BankError` if `path` exists or the
    documents do not fit into the budget; then nothing is left behind.
    """
    texts, tensors = _read(Path(folder))
    try:
        settings = Settings(**texts["settings"])
        fingerprint = BankFingerprint(**{k: str(v) for k, v in texts["fingerprint"].items()})
        rows = list(_rows(texts, tensors))
        blobs, state = (_items(tensors, start) for start in (_BLOB, _STATE))
        meta = dict(texts["meta"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{folder} is not an export of a bank: {error!r:.200}.") from error
    limit = settings.budget_bytes if budget is None else budget
    made = MemoryBank.create(
        path,
        fingerprint,
        budget=limit,
        ledger=settings.ledger,
        policy=settings.policy,
        lossless=settings.lossless,
        meta=meta,
    )
    try:
        with made:
            made.put_blobs(blobs)
            made.put_state(state)
            insert_rows(made, rows, settings.span if budget is None else 0.0, progress)
    except BaseException:
        if str(path) != ":memory:":
            Path(path).unlink(missing_ok=True)
        raise


def _items(tensors: dict[str, npt.NDArray[Any]], start: str) -> dict[str, bytes]:
    """The bytes of the tensors whose names begin with `start`."""
    return {
        name.removeprefix(start): value.astype(np.uint8).tobytes()
        for name, value in tensors.items()
        if name.startswith(start)
    }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = (folder / TEXTS).stat().st_size
        if size > _MAX_JSON_BYTES:
            raise InputError(f"{folder / TEXTS} has {size} bytes; no export is that large.")
        texts = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
        tensors = load((folder / TENSORS).read_bytes())
    except OSError as error:
        name = error.filename or folder
        raise InputError(f"{name} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"{folder} is not an export of a bank: {error!s:.200}.") from error
    if not isinstance(texts, dict) or texts.get("version") != EXPORT_VERSION:
        raise InputError(f"{folder} is not an export of a bank that this latentbank reads.")
    return texts, tensors


def _rows(texts: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> Iterator[Row]:
    documents, levels = texts["documents"], texts["levels"]
    count = len(documents)
    names = ("order", "hits", *_UNUSED, "depth", "count", "level")
    columns = {name: tensors[name] for name in (*names, "payload_bytes", "key_bytes")}
    if any(column.shape != (count,) or column.dtype.kind != "u" for column in columns.values()):
        raise ValueError("its columns are not one number per document")
    ends = np.cumsum(columns["payload_bytes"].astype(np.int64))
    key_ends = np.cumsum(columns["key_bytes"].astype(np.int64))
    payload, keys = tensors["payload"].tobytes(), tensors["keys"].tobytes()
    if count and (ends[-1] != len(payload) or key_ends[-1] != len(keys)):
        raise ValueError("its lengths do not add up")
    listed = {name: column.tolist() for name, column in columns.items()}
    for at in np.argsort(columns["order"], kind="stable").tolist():
        ledger, end, key_end = documents[at], int(ends[at]), int(key_ends[at])
        entry = Entry(
            ledger["id"],
            levels[listed["level"][at]],
            payload[end - listed["payload_bytes"][at] : end],
            ledger.get("time"),
            ledger.get("source"),
            ledger.get("metadata") or {},
            keys[key_end - listed["key_bytes"][at] : key_end],
            ledger.get("version") or "",
        )
        yield Row(entry, listed["depth"][at], max(1, listed["count"][at]), (0, listed["hits"][at]))
