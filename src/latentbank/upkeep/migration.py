"""A bank of texts for another model, made from the bank alone: `migrate_bank`.

Knows entries, their texts and two models; nothing about files of documents. The texts are decoded
from the old bank and written for the new model. The old file is only read.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from latentbank.backbone.model import load_backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.bank.admin.rows import bank_rows
from latentbank.bank.ladder import VERBATIM
from latentbank.bank.words.folder import index_folder, remove_index
from latentbank.codec.packaged import packaged_dictionary
from latentbank.codec.text import ZstdTextCodec
from latentbank.documents.document import Document, chunk, renamed
from latentbank.documents.facts import Triple
from latentbank.documents.identity import entry_id, split
from latentbank.errors import BankError, InputError
from latentbank.method import WriteReport
from latentbank.model import MemoryModel
from latentbank.parts.knowledge.store import TRIPLE
from latentbank.parts.text_levels import TEXTS, WHOLE, TextLevels

__all__ = ["BEFORE", "MigrationReport", "migrate_bank"]

BEFORE, _WORKING = ".before", ".migrating"  # behind the name of a bank's file
_TAILS = ("-wal", "-shm", "-journal")
_BATCH = 64

Progress = Callable[[int, int], None]


@dataclass
class MigrationReport:
    """What a migration moved, and what it could not keep.

    Attributes:
        bank: the new file. `before`: where the old one is; the same path as ever with an own `out`.
        read: entries of the old bank.
        moved: entries whose texts were written.
        shortened: ids of entries that had faded: only the sentences that were left moved.
        without_text: ids of entries that hold states or codes of the old model, and no text.
        unreadable: id → sentence of each damaged entry.
        cut: ids of documents that the new model needs cut into other chunks.
        state: names of what the old method carried beside its entries; it stays behind.
        options: changes to the method's config that the old bank was written with; not taken over.
        written: the report of the write.
    """

    bank: str
    before: str
    read: int = 0
    moved: int = 0
    shortened: list[str] = field(default_factory=list)
    without_text: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    written: WriteReport = field(default_factory=lambda: WriteReport(0, 0, 0.0))

    @property
    def kept_all(self) -> bool:
        """Whether every entry has its whole text in the new bank."""
        lost = self.shortened or self.without_text or self.unreadable or self.written.forgotten
        return not lost


def migrate_bank(
    path: str | Path,
    open_new: Callable[[Path, str, Any], MemoryModel],
    out: str | Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> MigrationReport:
    """Writes the texts of a bank into a new one.

    `open_new(file, method, settings)` makes the new bank with its model; `method` and `settings`
    are those of the old bank. With `out`, the old file stays where it is. Without, the new one
    takes its place when it is whole, and the old one is kept as NAME.before.

    Raises:
        BankError: the target exists, the old bank is damaged, or was written meanwhile.
        InputError: the old bank holds no text at all, or keeps no ids.
    """
    path = Path(path)
    target = path.with_name(path.name + _WORKING) if out is None else Path(out)
    before = path if out is not None else path.with_name(path.name + BEFORE)
    if out is None:
        if before.exists():
            raise BankError(
                f"{before} exists already; move it away, or name a new file with --out."
            )
        _remove(target)  # of a migration that was killed
    elif target.exists():
        raise BankError(f"{target} exists already; name another file for the new bank.")
    report = MigrationReport(str(path if out is None else target), str(before))
    with (
        MemoryBank.open(path, read_only=True) as old,
        tempfile.TemporaryFile("w+", encoding="utf-8") as texts,
    ):
        if old.settings.ledger == "none":
            raise InputError(
                f"The bank {path} keeps no ids (ledger 'none'), so its documents cannot be told "
                "apart in a new bank."
            )
        hash = old.root_hash()
        _decode(old, texts, report, device)
        if not report.moved:
            raise InputError(_no_text(old, report))
        try:
            with open_new(target, old.fingerprint.method, old.settings) as model:
                _write(model, texts, report, progress)
            with MemoryBank.open(path, read_only=True) as now:
                if now.root_hash() != hash:
                    raise BankError(f"The bank {path} was written meanwhile; migrate it again.")
        except BaseException:
            _remove(target)
            raise
    if out is None:
        _exchange(path, target, before)
    return report


def _no_text(old: MemoryBank, report: MigrationReport) -> str:
    if not report.read:
        return f"The bank {old.name} is empty; make a new one for the other model."
    if report.unreadable:
        id, why = next(iter(report.unreadable.items()))
        return f"No text of the bank {old.name} can be read: {id!r}: {why}"
    return (
        f"The bank {old.name} holds no texts: its entries ({report.read:,}) are codes or states of "
        f"{old.fingerprint.backbone!r} by method {old.fingerprint.method!r}. Write the documents "
        "anew for the other model."
    )


# ---- out of the old bank


def _decode(old: MemoryBank, texts: IO[str], report: MigrationReport, device: str) -> None:
    """Writes each entry's text and ledger as a line of JSON, in the order of writing."""
    order = sorted(
        (row.fact[0], row.entry.id, row.count) for row in bank_rows(old)
    )  # payloads are read again, a few at a time
    report.read = len(order)
    report.state = sorted(old.get_state())
    report.options = dict(old.get_meta("overrides") or {})
    decoder = _Decoder(old, device)
    ids = (id for _, id, _ in order)
    while part := list(islice(ids, _BATCH)):
        for id in part:
            entry = old.get(id)
            if entry is None:
                continue
            try:
                found = decoder.text(entry)
            except BankError as error:
                report.unreadable[id] = str(error)
                continue
            if found is None:
                report.without_text.append(id)
                continue
            text, metadata = found
            if entry.level in TEXTS and entry.level not in WHOLE:
                report.shortened.append(id)
            row = [id, text, entry.time, entry.source, metadata, entry.version]
            texts.write(json.dumps(row, ensure_ascii=True) + "\n")
            report.moved += 1
    texts.seek(0)


class _Decoder:
    """Texts of entries. The old model is loaded only for levels that its tokens are needed for."""

    def __init__(self, bank: MemoryBank, device: str) -> None:
        self._bank, self._device = bank, device
        self._zstd = ZstdTextCodec(packaged_dictionary())
        self._levels: TextLevels | None = None

    def text(self, entry: Entry) -> tuple[str, dict[str, Any]] | None:
        """Text and metadata of an entry; None where it holds no text. Raises BankError."""
        metadata = dict(entry.metadata)
        if entry.level == TRIPLE:
            try:
                parts = json.loads(self._zstd.decode(entry.payload))
                entity, property, value = map(str, parts)
            except (ValueError, TypeError) as error:
                raise BankError("its triple is damaged.") from error
            if not entity:
                return value, metadata
            triple = Triple(entity, property, value, metadata=metadata)
            return triple.text, dict(triple.metadata)
        if entry.level in (VERBATIM, "text"):
            return self._zstd.decode(entry.payload), metadata
        if entry.level in TEXTS:
            return self._with_backbone().decode([entry])[0], metadata
        return None

    def _with_backbone(self) -> TextLevels:
        if self._levels is None:
            spec = self._bank.get_meta("backbone")
            if not isinstance(spec, str):
                raise BankError(f"the bank '{self._bank.name}' does not name its model")
            self._levels = TextLevels(
                load_backbone(spec, "auto", self._device, quick=True), lm=True
            )
        return self._levels


# ---- into the new one


def _write(
    model: MemoryModel, texts: IO[str], report: MigrationReport, progress: Progress | None
) -> None:
    waiting: list[Document] = []
    done = 0
    for id, group in groupby(map(json.loads, texts), lambda row: split(row[0])[0]):
        rows = list(group)
        waiting += _pieces(model, id, rows, report)
        done += len(rows)
        while len(waiting) >= model.method.write_batch:
            part, waiting = (
                waiting[: model.method.write_batch],
                waiting[model.method.write_batch :],
            )
            report.written = report.written + model.write_pieces(part)
            if progress is not None:
                progress(done, report.moved)
    if waiting:
        report.written = report.written + model.write_pieces(waiting)
    if progress is not None:
        progress(report.moved, report.moved)


def _pieces(
    model: MemoryModel, id: str, rows: Sequence[Sequence[Any]], report: MigrationReport
) -> Iterator[Document]:
    """The entries of one document, under their old ids where each still fits into one chunk.

    A document in chunks is written without its version: another model cuts it elsewhere, so a file
    that is written again replaces it as a whole.
    """
    documents = [Document(text, id, time, source, said) for _, text, time, source, said, _ in rows]
    limit, count = model.method.chunk_tokens, model.backbone.count_tokens
    cut = [chunk(one, count, limit) for one in documents]
    chunked = len(rows) > 1 or split(rows[0][0])[1] is not None
    if all(len(parts) == 1 for parts in cut):
        for row, parts in zip(rows, cut, strict=True):
            yield renamed(parts[0], row[0], "" if chunked else row[5])
        return
    report.cut.append(id)
    for number, piece in enumerate(part for parts in cut for part in parts):
        yield renamed(piece, entry_id(id, number), "")


# ---- files


def _remove(bank: Path) -> None:
    for tail in ("", *_TAILS):
        bank.with_name(bank.name + tail).unlink(missing_ok=True)
    remove_index(bank)


def _exchange(path: Path, new: Path, before: Path) -> None:
    """Puts the new bank in the old one's place and keeps that one; an index is built anew."""
    with MemoryBank.open(path):
        pass  # empties the log of the old file into it
    os.replace(path, before)
    remove_index(path)
    for tail in _TAILS:
        path.with_name(path.name + tail).unlink(missing_ok=True)
    os.replace(new, path)
    if index_folder(new).is_dir():
        os.replace(index_folder(new), index_folder(path))
