"""Which files there are to read, which format each has, and why others are left out.

Knows paths, suffixes and compression; nothing about what the files hold.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, cast

from latentbank.documents.readers.delimited import delimited_rows
from latentbank.documents.readers.formats.archive import archive_rows
from latentbank.documents.readers.formats.code import CODE_SUFFIXES, code_rows
from latentbank.documents.readers.formats.epub import epub_rows
from latentbank.documents.readers.formats.html import html_rows
from latentbank.documents.readers.formats.mail import mail_rows, mailbox_rows
from latentbank.documents.readers.formats.markdown import markdown_rows
from latentbank.documents.readers.formats.pdf import pdf_rows
from latentbank.documents.readers.formats.subtitles import subtitle_rows
from latentbank.documents.readers.formats.word import word_rows
from latentbank.documents.readers.json_rows import json_rows, jsonl_rows
from latentbank.documents.readers.parquet import parquet_rows
from latentbank.documents.readers.rdf import rdf_rows
from latentbank.documents.readers.rows import Found, Note, ReadOptions, named
from latentbank.documents.readers.text import text_rows
from latentbank.errors import InputError

__all__ = ["SUFFIXES", "file_rows", "list_files", "shown"]

Reader = Callable[[BinaryIO, str, ReadOptions], Iterator[Found]]

_ARCHIVE = ".zip"
_READERS: dict[str, Reader] = {
    ".csv": delimited_rows,
    ".docx": word_rows,
    ".eml": mail_rows,
    ".epub": epub_rows,
    ".htm": html_rows,
    ".html": html_rows,
    ".json": json_rows,
    ".jsonl": jsonl_rows,
    ".markdown": markdown_rows,
    ".mbox": mailbox_rows,
    ".md": markdown_rows,
    ".ndjson": jsonl_rows,
    ".nt": rdf_rows,
    ".parquet": parquet_rows,
    ".pdf": pdf_rows,
    ".rst": text_rows,
    ".srt": subtitle_rows,
    ".text": text_rows,
    ".tsv": delimited_rows,
    ".ttl": rdf_rows,
    ".txt": text_rows,
    ".vtt": subtitle_rows,
    ".xhtml": html_rows,
    **dict.fromkeys(CODE_SUFFIXES, code_rows),
}
SUFFIXES = (*_READERS, _ARCHIVE)
"""The suffixes that are read, each also with `.gz` behind it."""

_RANDOM = (".docx", ".epub", ".parquet", ".pdf", _ARCHIVE)  # not read from start to end

_BINARY_HEAD = 4096  # bytes of a file without suffix that are looked at


def shown(path: Path) -> str:
    """A path as text that UTF-8 can hold."""
    return os.fsencode(path).decode("utf-8", "replace")


def _format(path: PurePath) -> str:
    """The suffix that tells a path's format, without `.gz`; "" where it has none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_read(path: PurePath) -> bool:
    """Whether such files are read. Without suffix it is text."""
    return _format(path) in ("", *SUFFIXES)


def list_files(path: str | Path) -> tuple[list[Path], list[Note]]:
    """The file itself, or a folder's files, and notes on what the folder holds beside them.

    Folders are searched recursively, sorted, without hidden files and without following links to
    folders. Raises `InputError` if the path is empty, does not exist, has a suffix that is not
    read, or is a folder with nothing to read.
    """
    if not os.fspath(path):
        raise InputError("A path is empty; is a variable unset? The current folder is written '.'.")
    path = Path(path)
    name = shown(path)
    if not os.path.exists(path):
        if os.path.islink(path):
            raise InputError(f"{name} is a link to a file that is not there, or to itself.")
        raise InputError(f"{name} does not exist.")
    known = f"{', '.join(SUFFIXES)} (each also as .gz)"
    if not path.is_dir():
        if not _is_read(path):
            raise InputError(
                f"{name} has the suffix {path.suffix}; readable are {known}, files without suffix, "
                "folders and - (stdin)."
            )
        return [path], []
    with named(name):
        files, notes = _walk(path)
    if not files:
        raise InputError(f"The folder {name} holds no file to read; readable are {known}.")
    return files, notes


def _walk(root: Path) -> tuple[list[Path], list[Note]]:
    files: list[Path] = []
    notes: list[Note] = []

    def unreadable(error: OSError) -> None:
        if error.filename == os.fspath(root):
            raise error
        notes.append(_skipped(Path(error.filename), f"cannot be read: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        place = Path(folder)
        for name in [name for name in folders if name.startswith(".")]:
            notes.append(_skipped(place / name, "a hidden folder"))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            why = _why_not(place / name)
            if why:
                notes.append(_skipped(place / name, why))
            else:
                files.append(place / name)
    return sorted(files), sorted(notes, key=lambda note: note.path)


def _skipped(path: Path, why: str) -> Note:
    return Note("skipped", shown(path), f"skipped, {why}")


def _why_not(path: Path) -> str:
    """Why a folder's file is not read; "" if it is."""
    if path.name.startswith("."):
        return "a hidden file"
    if not _is_read(path):
        return f"the suffix {path.suffix} is not read"
    if not path.is_file():
        loop = path.is_symlink() and not os.path.exists(path)
        return "a link that leads nowhere" if loop else "not a regular file"
    if not path.suffix:
        try:
            with path.open("rb") as file:
                head = file.read(_BINARY_HEAD)
        except OSError:
            return ""  # the reader says why, with the file's other errors
        if not head.strip():
            return "an empty file"
        if b"\0" in head:
            return "a binary file without suffix"
    return ""


def file_rows(path: Path, options: ReadOptions) -> Iterator[Found]:
    """The rows of one file, by its suffix; where the file itself is broken, its rest is lost."""
    name = shown(path)
    try:
        with named(name), path.open("rb") as file:
            yield from _rows(file, path, name, options)
    except InputError as error:
        yield error


def _rows(file: BinaryIO, path: PurePath, name: str, options: ReadOptions) -> Iterator[Found]:
    try:
        data, suffix = _seekable(file, path), _format(path)
        if suffix == _ARCHIVE:
            yield from archive_rows(data, name, options, _is_read_inside, _rows)
        else:
            yield from _READERS.get(suffix, text_rows)(data, name, options)
    except (EOFError, zlib.error) as error:
        raise InputError(f"{name} is not a readable gzip file: {error}.") from error


def _is_read_inside(path: PurePath) -> bool:
    return _is_read(path) and _format(path) not in ("", _ARCHIVE)


def _seekable(file: BinaryIO, path: PurePath) -> BinaryIO:
    """The bytes to read, unpacked; a pipe is read whole, because readers look twice."""
    if path.suffix.lower() == ".gz":
        unpacked = gzip.GzipFile(fileobj=file)
        if _format(path) in _RANDOM:
            return io.BytesIO(unpacked.read())
        return cast(BinaryIO, unpacked)
    return file if file.seekable() else io.BytesIO(file.read())
