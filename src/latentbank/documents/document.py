"""`Document`, chunking, and readers for files, folders, stdin and Hugging Face datasets.

Knows rows of fields; nothing about file formats, models, tokenizers or banks. Readers are lazy:
a row is checked, and its error raised or reported, when it is reached.
"""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

from latentbank.documents.chunking import CountTokens, split_text
from latentbank.documents.rows import SUFFIXES, Found, Row, file_rows, list_files, stream_rows
from latentbank.errors import InputError

__all__ = [
    "JSON",
    "SUFFIXES",
    "CountTokens",
    "Document",
    "chunk",
    "content_id",
    "find_entries",
    "read_documents",
    "read_hf_dataset",
]

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]

MAX_ID_BYTES = 1024


def content_id(text: str) -> str:
    """The id of a text: 16 lower-case hex digits.

    It is the 8-byte BLAKE2b digest of the text in UTF-8, after line ends are made "\\n", the text
    is normalised to Unicode NFC, and white space around it is removed, in this order. So the same
    text from a file with another line end or another spelling of "é" has the same id. Raises
    `InputError` if the text holds a lone surrogate.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", text).strip()
    try:
        return blake2b(text.encode(), digest_size=8).hexdigest()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text is not valid Unicode: a lone surrogate at character {error.start}."
        ) from error


@dataclass(frozen=True, init=False)
class Document:
    """A text to remember, with where it came from.

    Attributes:
        text: not empty and not only white space.
        id: the caller's, or `content_id(text)`; at most 1024 bytes of UTF-8.
        time: when the text was written or seen; ISO 8601 sorts and filters well, any string is
            kept.
        source: where it came from, such as a file's name or an address.
        metadata: JSON values of the caller's choice.
    Raises `InputError` if a value is empty, of another type, or not JSON.
    """

    text: str
    id: str
    time: str | None
    source: str | None
    metadata: Mapping[str, JSON] = field(hash=False)

    def __init__(
        self,
        text: str,
        id: str | None = None,
        time: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
    ) -> None:
        if not isinstance(text, str):
            raise InputError(f"A document's text must be a string, got {type(text).__name__}.")
        if not text.strip():
            raise InputError("The document is empty: its text has no visible character.")
        digest = content_id(text)  # also refuses text that UTF-8 cannot hold
        values = {"id": digest if id is None else id, "time": time, "source": source}
        for name, value in values.items():
            if value is not None and not isinstance(value, str):
                raise InputError(
                    f"A document's {name} must be a string, got {type(value).__name__}."
                )
        if not 1 <= len(values["id"].encode(errors="replace")) <= MAX_ID_BYTES:  # type: ignore[union-attr]
            raise InputError(f"A document's id must have 1 to {MAX_ID_BYTES} bytes.")
        _check_json(metadata or {})
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "metadata", dict(metadata or {}))
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _check_json(metadata: Mapping[str, JSON]) -> None:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InputError("A document's metadata must be a mapping with string keys.")
    if metadata:
        try:
            json.dumps(dict(metadata), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"A document's metadata must be JSON values: {error}.") from error


def chunk(document: Document, count_tokens: CountTokens, chunk_tokens: int) -> list[Document]:
    """Split a document into chunks of at most `chunk_tokens` tokens, in order.

    `count_tokens` maps a batch of strings to their token counts. Boundaries, best first:
    paragraph, sentence or line, word, character. Chunks inherit time, source and metadata; ids are
    `f"{document.id}#{i}"`, i from 0. A document that fits keeps its own id. White space around a
    chunk is removed; joined, the chunks hold every character but some of the white space. Linear
    in the text's length. Raises `InputError` if `chunk_tokens` is under 1 or too small for a single
    character.
    """
    pieces = split_text(document.text, count_tokens, chunk_tokens)
    if len(pieces) == 1:
        return [document if pieces[0] == document.text else replace(document, text=pieces[0])]
    return [
        Document(piece, f"{document.id}#{index}", document.time, document.source, document.metadata)
        for index, piece in enumerate(pieces)
    ]


def find_entries(held: Sequence[str], ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """(entries of the documents `ids`, chunks included, in the order of `held`; ids not there)."""
    wanted = set(ids)
    chosen = [name for name in held if name in wanted or _document_id(name) in wanted]
    found = {*chosen, *(_document_id(name) for name in chosen)}
    return chosen, [name for name in dict.fromkeys(ids) if name not in found]


def _document_id(name: str) -> str:
    """ "a#3" → "a": the id of the document that a chunk belongs to."""
    stem, sign, number = name.rpartition("#")
    return stem if sign and number.isdigit() else name


def read_documents(
    paths: Sequence[str | Path], on_bad: Callable[[InputError], None] | None = None
) -> Iterator[Document]:
    """Read documents from files, folders and "-" (standard input), in the order given.

    - `.txt`, `.md`, or no suffix: the file is one document (split it with `chunk`).
    - `.jsonl`: one object per line: `text`, and optionally `id`, `time`, `source`, `metadata`.
    - `.csv`, `.parquet`: the same names as columns.
    - a folder: its readable files, recursive, sorted, without hidden ones.
    - `-`: a line that starts with "{" is a jsonl row, every other non-empty line a document.

    Other fields of a row become metadata. Without a `source`, a document's source is the path as
    given (None for standard input). Raises `InputError`, naming the file and line, if something
    is missing, unreadable, empty, binary, not UTF-8, malformed, or has no text; whether every
    path exists is checked before the first document is read. With `on_bad`, nothing is raised: it
    is called with each error when it is reached, and reading goes on behind the bad path, file,
    row or line (in csv and parquet, where the file itself is broken, behind the file).
    """
    if isinstance(paths, str | Path):
        raise InputError(f"read_documents expects a list of paths, got one: {str(paths)!r}.")
    plan = [None if str(path) == "-" else _files(Path(path)) for path in paths]
    missing = [files for files in plan if isinstance(files, InputError)]
    if missing and on_bad is None:
        raise missing[0]
    for files in plan:
        for found in _planned(files):
            if isinstance(found, Document):
                yield found
            elif on_bad is None:
                raise found
            else:
                on_bad(found)


def _files(path: Path) -> list[Path] | InputError:
    try:
        return list_files(path)
    except InputError as error:
        return error


def _planned(files: list[Path] | InputError | None) -> Iterator[Document | InputError]:
    """The documents of some files, or of standard input for None."""
    if isinstance(files, InputError):
        yield files
    elif files is None:
        for row in stream_rows(sys.stdin.buffer, "standard input"):
            yield _checked(row, None)
    else:
        for file in files:
            for row in file_rows(file):
                yield _checked(row, str(file))


def _checked(row: Found, source: str | None) -> Document | InputError:
    if isinstance(row, InputError):
        return row
    try:
        return _row_document(row, source)
    except InputError as error:
        return error


def read_hf_dataset(
    name_or_path: str, split: str = "train", text_column: str = "text"
) -> Iterator[Document]:
    """Read documents from a Hugging Face dataset, one per row.

    `name_or_path` is a folder that `save_to_disk` wrote, or anything that
    `datasets.load_dataset` takes (a name on the hub uses the network). Columns `id`, `time` and
    `source` are used as such, other columns become metadata. Raises `InputError` if the dataset,
    split or column does not exist, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError("Reading a dataset needs datasets: pip install datasets.") from error
    folder = Path(name_or_path)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        loaded = datasets.load_from_disk(name_or_path) if saved else None
        if loaded is None:
            loaded = datasets.load_dataset(name_or_path, split=split)
        elif isinstance(loaded, datasets.DatasetDict):
            loaded = loaded[split]
    except KeyError as error:
        raise InputError(f"The dataset {name_or_path} has no split {split!r}.") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"The dataset {name_or_path} (split {split}) cannot be read: {error}"
        ) from error
    if text_column not in loaded.column_names:
        columns = ", ".join(loaded.column_names)
        raise InputError(
            f"The dataset {name_or_path} has no column {text_column!r}; its columns are {columns}."
        )
    for number, fields in enumerate(loaded, start=1):
        yield _row_document(Row(f"{name_or_path}, row {number}", fields), None, text_column)


def _row_document(row: Row, source: str | None, text_column: str = "text") -> Document:
    """Make a document of a row's fields; errors name the row's place."""
    fields = {name: _plain(value) for name, value in row.fields.items() if value is not None}
    if text_column not in fields:
        names = ", ".join(sorted(row.fields)) or "none"
        raise InputError(f"{row.where}: the row has no {text_column}; its fields are: {names}.")
    text = fields.pop(text_column)
    known = {name: fields.pop(name, None) for name in ("id", "time", "source")}
    for name, value in known.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            known[name] = str(value)
    metadata = fields.pop("metadata", {})
    if not isinstance(metadata, Mapping):
        raise InputError(f"{row.where}: metadata must be an object, got {metadata!r:.80}.")
    known["source"] = source if known["source"] is None else known["source"]
    try:
        return Document(text, **known, metadata={**metadata, **fields})
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date too
