"""The folder of a word index beside its bank: segments in files, and a list of those that count.

One process writes at a time. What is listed is whole; files that the list does not name are
removed. Nothing here has to survive a loss of power: an index that is not whole is built anew.
Knows segments and pages' hashes; knows no texts.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.bank.words.files import DamagedFile, read_arrays, write_arrays
from latentbank.bank.words.lists import Lists
from latentbank.bank.words.segment import SIGN_BYTES, Segment

__all__ = ["SUFFIX", "IndexFolder", "State", "index_bytes", "index_folder", "remove_index"]

SUFFIX = ".words"  # of the folder's name, behind the bank's
_LIST, _LOCK = "list", "lock"
_VERSION = 2
_LATER = frozenset({"postings", "names", "shorts", "times", "signs"})
_PLAIN = ("numbers", "digests", "lengths", "name_ends", "short_ends", "orders", "time_ends")


def index_folder(bank: str | Path) -> Path:
    """Where the index of a bank lies, if it has one."""
    return Path(f"{bank}{SUFFIX}")


def index_bytes(bank: str | Path) -> int:
    """Bytes of the index beside a bank; 0 without one."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in index_folder(bank).iterdir())
    return 0


def remove_index(bank: str | Path) -> None:
    """Removes the index beside a bank, if there is one. Raises `OSError` if it cannot."""
    folder = index_folder(bank)
    if folder.is_dir() and not folder.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


@dataclass
class State:
    """What the list names.

    Attributes:
        segments: in the order of writing.
        marks: number of each page of the bank → its hash, as it was when it was read last.
        apart: documents without words: the number of each → its digest; see `Row`.
        owed: numbers of documents that were deleted and have not left the files yet.
        kind: how texts became words.
    """

    segments: list[Segment] = field(default_factory=list)
    marks: dict[int, bytes] = field(default_factory=dict)
    apart: dict[int, int] = field(default_factory=dict)
    owed: set[int] = field(default_factory=set)
    kind: str = ""


class IndexFolder:
    """Reads and writes the folder of one bank's index."""

    def __init__(self, bank: str | Path, kind: str) -> None:
        """`kind` names how texts become words; "": that of the index that is there."""
        self.path, self._kind = index_folder(bank), kind
        self._seen: tuple[int, int, int] | None = None  # the list as it was read or written last

    @property
    def exists(self) -> bool:
        """Whether there is a list."""
        return (self.path / _LIST).exists()

    def changed(self) -> bool:
        """Whether another process has written or removed the list since."""
        return self._look() != self._seen

    def _look(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            found = os.stat(self.path / _LIST)
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Whether this process alone may write within the block. Makes the folder."""
        self.path.mkdir(exist_ok=True)
        with (self.path / _LOCK).open("ab") as file:
            yield _locked(file)

    # ------------------------------------------------------------------------------ reading

    def load(self, known: Sequence[Segment] = ()) -> State:
        """What the list names; segments that are `known` from the same files are not read again.

        Raises `DamagedFile` if the list or a file of it is damaged, or of another version.
        """
        for _ in range(8):
            seen = self._look()
            if seen is None:
                self._seen = None
                return State()
            try:
                state = self._load({segment.file: segment for segment in known if segment.file})
            except FileNotFoundError as error:  # another process has written a newer list
                if self._look() == seen:
                    raise DamagedFile(f"{Path(error.filename or '').name} is missing") from error
                continue
            except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
                raise DamagedFile(f"its list cannot be read ({error!r})") from error
            self._seen = seen
            return state
        raise DamagedFile("other processes write it without pause")

    def _load(self, known: Mapping[str, Segment]) -> State:
        values, arrays = read_arrays(self.path / _LIST)
        if values.get("version") != _VERSION or self._kind not in ("", values.get("kind")):
            raise DamagedFile("it is of another version")
        segments = []
        for at, (name, rows) in enumerate(values["segments"]):
            segment = known.get(name) or self._read(name)
            live = np.unpackbits(arrays[f"live{at}"], count=rows).astype(bool)
            if len(segment) != rows or len(live) != rows:
                raise DamagedFile(f"{name} has another number of documents")
            segments.append(_with_live(segment, live))
        hashes = arrays["hashes"].tobytes()
        pages = arrays["pages"].tolist()
        marks = {seq: hashes[16 * at : 16 * at + 16] for at, seq in enumerate(pages)}
        apart = dict(zip(arrays["apart"].tolist(), arrays["apart_digests"].tolist(), strict=True))
        return State(segments, marks, apart, set(arrays["owed"].tolist()), str(values["kind"]))

    def _read(self, name: str) -> Segment:
        if Path(name).name != name:
            raise DamagedFile("its list names a file elsewhere")
        values, arrays = read_arrays(self.path / name, _LATER)
        lists = Lists(
            arrays["terms"], arrays["starts"], arrays["bounds"], float(values["mean"]),
            arrays["postings"],
        )  # fmt: skip
        plain = {name: arrays[name] for name in _PLAIN}
        rows = len(plain["numbers"])
        whole = all(len(column) == rows for column in plain.values())
        if (
            not whole
            or len(arrays["signs"]) != rows * SIGN_BYTES
            or len(lists.starts) != len(lists.terms) + 1
            or len(lists.bounds) != len(lists.terms)
        ):
            raise DamagedFile(f"{name} has columns of different lengths")
        return Segment(
            **plain, names=arrays["names"], shorts=arrays["shorts"], times=arrays["times"],
            signs=arrays["signs"], lists=lists, live=np.ones(rows, bool), file=name,
        )  # fmt: skip

    # ------------------------------------------------------------------------------ writing

    def save(self, state: State, limit: int) -> bool:
        """Write what is not in files yet, then the list; then remove all other files.

        Call within `lock`. Returns False, and writes no list, if that would take more than `limit`
        bytes. Raises `OSError` if the disk refuses.
        """
        for at, segment in enumerate(state.segments):
            if not segment.file:
                name = f"{uuid.uuid4().hex[:16]}.seg"
                self._write(name, segment)
                state.segments[at] = _with_live(self._read(name), segment.live)
        values: dict[str, Any] = {
            "version": _VERSION,
            "kind": self._kind or state.kind,
            "segments": [[segment.file, len(segment)] for segment in state.segments],
        }
        arrays: dict[str, Any] = {
            f"live{at}": np.packbits(segment.live) for at, segment in enumerate(state.segments)
        }
        arrays |= {
            "pages": np.array(list(state.marks), np.uint32),
            "hashes": np.frombuffer(b"".join(state.marks.values()), np.uint8),
            "apart": np.array(list(state.apart), np.uint64),
            "apart_digests": np.array(list(state.apart.values()), np.uint64),
            "owed": np.array(sorted(state.owed), np.uint64),
        }
        size = sum(map(len, arrays.values())) + sum(
            (self.path / segment.file).stat().st_size for segment in state.segments
        )
        if size > limit:
            return False
        write_arrays(self.path / _LIST, values, arrays)
        self._seen = self._look()
        self._sweep({segment.file for segment in state.segments})
        return True

    def _write(self, name: str, segment: Segment) -> None:
        lists = segment.lists
        arrays = {name: getattr(segment, name) for name in _PLAIN}
        arrays |= {"terms": lists.terms, "starts": lists.starts, "bounds": lists.bounds}
        columns = {name: getattr(segment, name) for name in sorted(_LATER - {"postings"})}
        for later, column in {**columns, "postings": lists.postings}.items():
            arrays[later] = np.asarray(column[0 : len(column)])
        write_arrays(self.path / name, {"mean": lists.mean}, arrays)

    def _sweep(self, kept: set[str]) -> None:
        for file in self.path.iterdir():
            if file.name not in kept | {_LIST, _LOCK}:
                with suppress(OSError):
                    file.unlink()

    def clear(self) -> None:
        """Removes every file of the index but the lock. Raises `OSError` if the disk refuses."""
        for file in sorted(self.path.iterdir(), key=lambda file: file.name != _LIST):
            if file.name != _LOCK:
                file.unlink(missing_ok=True)
        self._seen = None


def _with_live(segment: Segment, live: Any) -> Segment:
    segment.live = live
    segment.count()
    return segment


def _locked(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # not every system has it; two writers may then undo each other's work
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
