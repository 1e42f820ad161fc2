"""A folder and a bank kept alike: files that changed replace their documents, removed ones go.

Knows files by path, size and time of change, and a bank by what its ledger says. All state is in
the bank: for each file that was taken in whole, 8 bytes that stand for its path and its stamp. So a
process that is killed goes on where it was: a file without its 8 bytes is read again and compared
with what the bank holds of it.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from latentbank.bank import MemoryBank, Receipt
from latentbank.bank.reader import BankReader
from latentbank.documents.document import Document
from latentbank.documents.identity import document_id
from latentbank.documents.readers import Note, ReadOptions, read_documents
from latentbank.documents.readers.folder import list_files, shown
from latentbank.errors import BudgetError, InputError
from latentbank.method import WriteReport
from latentbank.model import MemoryModel

__all__ = ["Change", "FolderSync", "Look", "WatchedFolder"]

_META = "watched"
_SAVE_SECONDS = 2.0  # between two notes of what was taken in
_HALF = 4  # bytes for a path, and for its stamp

Held = dict[str, dict[str, list[str]]]  # file → document → versions of its entries
Stamp = tuple[int, int]  # bytes, and time of change in nanoseconds


@dataclass(frozen=True)
class Look:
    """A look at a folder.

    Attributes:
        stamps: size and time of change of each file that is read, by path.
        changed: files that are new or changed since they were taken in.
        gone: files that were taken in and are there no longer.
        notes: what the folder holds beside them.
    """

    stamps: Mapping[str, Stamp]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    notes: tuple[Note, ...] = ()


@dataclass
class Change:
    """What became of one file.

    Attributes:
        file: its path, as source in the bank.
        written: entries that were stored.
        replaced: documents that replace an older version.
        receipt: of what was deleted; None where nothing was.
        bad: sentences about what could not be read; then nothing of the file was deleted.
    """

    file: str
    written: int = 0
    replaced: int = 0
    receipt: Receipt | None = None
    bad: list[str] = field(default_factory=list)

    @property
    def removed(self) -> int:
        """Entries that were deleted, older versions aside."""
        return 0 if self.receipt is None else len(self.receipt.deleted)


class WatchedFolder:
    """A folder as a bank knows it; needs no model.

    Raises `InputError` if it is no folder, or the bank keeps no sources, or knows the folder by
    another path.
    """

    def __init__(self, bank: BankReader, folder: str | Path, allow_empty: bool = False) -> None:
        self.folder = Path(os.path.normpath(folder))
        self.bank, self._allow_empty = bank, allow_empty
        self.name = shown(self.folder)
        self.place = shown(Path(os.path.abspath(self.folder)))
        if not self.folder.is_dir():
            raise InputError(f"{self.name} is not a folder that can be watched.")
        if bank.settings.ledger != "full":
            raise InputError(
                f"The bank {bank.name} keeps no sources (ledger {bank.settings.ledger!r}), so it "
                "cannot tell which documents a file has; watch with a bank that has a full ledger."
            )
        for place, known in self._all().items():
            if (place == self.place) != (known["name"] == self.name):
                raise InputError(
                    f"The bank {bank.name} knows the folder {place} as {known['name']!r}, and this "
                    f"is {self.name!r} at {self.place}; watch it by the path that the bank knows, "
                    "or give an absolute path for another folder."
                )
        saved = base64.b64decode(self._all().get(self.place, {}).get("files", ""))
        parts = [saved[at : at + 2 * _HALF] for at in range(0, len(saved), 2 * _HALF)]
        self._taken = {part[:_HALF]: part[_HALF:] for part in parts}  # path → stamp

    def _all(self) -> dict[str, dict[str, str]]:
        return dict(self.bank.get_meta(_META) or {})

    def look(self) -> Look:
        """Which files changed, and which are gone.

        Raises `InputError` if the folder cannot be read, or is empty where it was not: it may be a
        drive that is not there now, and its documents are not deleted for that.
        """
        files, notes = self._files()
        stamps = {}
        for file in files:
            try:
                found = file.stat()
            except OSError:
                continue  # removed meanwhile
            stamps[shown(file)] = (found.st_size, found.st_mtime_ns)
        changed = tuple(
            file for file, stamp in stamps.items() if self._taken.get(_path(file)) != _stamp(stamp)
        )
        paths = {_path(file) for file in stamps}
        lost = self._taken.keys() - paths
        gone = [file for file in held_files(self.bank, self.name) if _path(file) in lost]
        return Look(stamps, changed, tuple(gone), tuple(notes))

    def _files(self) -> tuple[list[Path], list[Note]]:
        try:
            return list_files(self.folder)
        except InputError as error:
            if not self.folder.is_dir() or (self._taken and not self._allow_empty):
                raise InputError(
                    f"{self.name} holds no file to read now, and held {len(self._taken):,} before; "
                    "nothing was deleted. If their documents are meant to go, add --allow-empty."
                ) from error
            return [], []


class FolderSync(WatchedFolder):
    """Brings a bank up to date with a folder, file by file; each file is durable before the next.

    Args:
        model: a model with the bank, open for writing.
        on_batch: called between the parts of a long write; may raise to end it.
    """

    def __init__(
        self,
        model: MemoryModel,
        folder: str | Path,
        options: ReadOptions | None = None,
        on_note: Callable[[Note], None] | None = None,
        on_batch: Callable[[], None] | None = None,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(model.bank, folder, allow_empty)
        self.model, self._options, self._on_note = model, options, on_note
        self._on_batch = on_batch or (lambda: None)
        self._writable: MemoryBank = model.bank
        self._saved = time.monotonic()
        self._failed: dict[str, Stamp] = {}  # files with something bad, as they were then

    def sync(self, look: Look) -> Iterator[Change]:
        """Takes in what changed and deletes what is gone; yields what became of each file."""
        try:
            yield from self._sync(look)
        finally:
            self._save()

    def _sync(self, look: Look) -> Iterator[Change]:
        gone = list(look.gone)
        changed = [file for file in look.changed if self._failed.get(file) != look.stamps[file]]
        if not gone and not changed:
            self._forget(look)
            return
        held = held_files(self.bank, self.name)
        shared = False  # whether something was deleted that another file may hold, too
        for file in gone:
            ids = list(held.get(file, {}))
            yield Change(file, receipt=self.model.delete(ids))
            shared = shared or any(not _is_own(id, file) for id in ids)
        for file in changed:
            change = self._take(file, held)
            shared = shared or bool(change.removed)
            self._note(file, look.stamps[file], good=not change.bad)
            yield change
        self._forget(look)
        if shared:
            for file in look.stamps:
                own = [_is_own(id, file) for id in held.get(file, {})]
                if file not in changed and not (own and all(own)):
                    self._taken.pop(_path(file), None)  # read again: it may hold what was deleted
            again = self.look()
            if again.changed:
                yield from self._sync(again)

    def _forget(self, look: Look) -> None:
        paths = {_path(file) for file in look.stamps}
        self._taken = {path: stamp for path, stamp in self._taken.items() if path in paths}

    def _take(self, file: str, held: Held) -> Change:
        """Writes what is new in a file, then deletes what is not in it any more."""
        change = Change(file)
        on_bad: Callable[[InputError], None] = lambda error: change.bad.append(str(error))  # noqa: E731
        known = held.get(file, {})
        seen: set[str] = set()

        def fresh() -> Iterator[Document]:
            for document in read_documents([file], on_bad, self._options, self._on_note):
                seen.add(document.id)
                if not self._holds(document, known):
                    yield document

        def on_batch(report: WriteReport, _: int) -> None:
            change.written += report.stored
            change.replaced += report.replaced
            self._on_batch()

        try:
            self.model.write(fresh(), on_batch=on_batch)
        except (InputError, BudgetError) as error:
            change.bad.append(f"{file}: {error}")
        left = [id for id in known if id not in seen]
        if left and not change.bad:
            change.receipt = self.model.delete(left)
        return change

    def _holds(self, document: Document, known: Mapping[str, list[str]]) -> bool:
        """Whether the bank has this version of a document, with all of its chunks."""
        if not document.version:  # its id is the hash of its text
            entries = [document.id, f"{document.id}#0"]
            return any(id in self.bank for id in entries) and (
                document.id not in known or len(known[document.id]) == self._count(document)
            )
        versions = [version.partition("+")[0] for version in known.get(document.id, [])]
        return set(versions) == {document.version} and len(versions) == self._count(document)

    def _count(self, document: Document) -> int:
        return len(self.model.pieces(document))

    def _note(self, file: str, stamp: Stamp, good: bool) -> None:
        if good:
            self._failed.pop(file, None)
            self._taken[_path(file)] = _stamp(stamp)
        else:
            self._failed[file] = stamp
            self._taken.pop(_path(file), None)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Notes in the bank which files were taken in, unless it says so already."""
        self._saved = time.monotonic()
        files = b"".join(path + stamp for path, stamp in sorted(self._taken.items()))
        known = {"name": self.name, "files": base64.b64encode(files).decode()}
        if self._all().get(self.place) == known:
            return
        try:
            self._writable.put_meta(_META, {**self._all(), self.place: known})
        except BudgetError:
            return  # a full bank: the files are compared again when the process starts again


def held_files(bank: BankReader, folder: str) -> Held:
    """What a bank holds of the files below a folder, from its ledger."""
    held: Held = {}
    prefix = "" if folder == "." else folder.rstrip("/") + "/"
    for page in bank.pages():
        sources = page.columns.get("source") or []
        versions = page.columns.get("version") or [""] * page.count
        for entry, source, version in zip(page.document_ids, sources, versions, strict=False):
            if source and source.startswith(prefix):
                documents = held.setdefault(_outer(source), {})
                documents.setdefault(document_id(entry), []).append(str(version or ""))
    return held


def _outer(source: str) -> str:
    """The file that a source is or, within a zip file, lies in."""
    before, sign, _ = source.partition(".zip/")
    return before + ".zip" if sign else source


def _is_own(id: str, file: str) -> bool:
    """Whether an id names its file, so that no other file has a document of that id."""
    return id == file or id.startswith((file + ":", file + "/"))


def _path(file: str) -> bytes:
    return blake2b(file.encode(), digest_size=_HALF).digest()


def _stamp(stamp: Stamp) -> bytes:
    return blake2b(repr(stamp).encode(), digest_size=_HALF).digest()
