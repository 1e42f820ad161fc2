"""Which document an entry of a bank belongs to, and which version of it.

Knows ids as strings and texts; nothing about banks, files or tokenizers.

A **document id** is the user's key, any text. An **entry id** names what a bank stores: a whole
document, or one chunk of it. Chunk 1 of `guide` is `guide#1`. So that a user's own id `guide#1`
cannot be mistaken for it, the `#` in front of a number at the end is doubled: that document is
stored as `guide##1`, and its chunk 0 as `guide##1#0`. Other ids are stored as they are.

| document id | whole document | chunk 3 |
|---|---|---|
| guide | guide | guide#3 |
| guide#1 | guide##1 | guide##1#3 |
| a#b | a#b | a#b#3 |
| a# | a# | a###3 |

No two (document id, chunk) share an entry id, and `split` gives both back. Entry ids in banks that
were written before ids were escaped stay readable: `guide#1` is a chunk there too, as it was.

A **version** of a document is told by a hash of its text, time and metadata (`Document.version`):
the same id with another hash is a new version, which replaces the old one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from latentbank.errors import InputError

__all__ = ["content_hash", "document_id", "entry_id", "find_entries", "group", "split"]

_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<signs>#+)(?P<number>0|[1-9][0-9]*)", re.DOTALL)


def content_hash(text: str) -> str:
    """The hash of a text: 16 lower-case hex digits.

    It is the 8-byte BLAKE2b digest of the text in UTF-8, after line ends are made "\\n", the text
    is normalised to Unicode NFC, and white space around it is removed, in this order. So the same
    text from a file with another line end or another spelling of "é" has the same hash. Raises
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


def entry_id(document: str, chunk: int | None = None) -> str:
    """The id under which a bank stores a document, or its chunk `chunk` (from 0)."""
    match = _NUMBERED.fullmatch(document)
    whole = document
    if match is not None:
        whole = f"{match['stem']}{2 * match['signs']}{match['number']}"
    if chunk is None:
        return whole
    if chunk < 0:
        raise InputError(f"A chunk's number must be at least 0, got {chunk}.")
    signs = len(whole) - len(whole.rstrip("#"))
    return f"{whole}{signs * '#'}#{chunk}"


def split(entry: str) -> tuple[str, int | None]:
    """(document id, chunk) of an entry id; the chunk of a whole document is None."""
    match = _NUMBERED.fullmatch(entry) if "#" in entry else None
    if match is None:
        return entry, None
    signs = len(match["signs"])
    if signs % 2 == 0:
        return f"{match['stem']}{signs // 2 * '#'}{match['number']}", None
    if signs > 1:  # the document's id ends in "#"
        return f"{match['stem']}{signs // 2 * '#'}", int(match["number"])
    owner = _NUMBERED.fullmatch(match["stem"])
    document = match["stem"]
    if owner is not None and len(owner["signs"]) % 2 == 0:
        document = f"{owner['stem']}{len(owner['signs']) // 2 * '#'}{owner['number']}"
    return document, int(match["number"])


def document_id(entry: str) -> str:
    """The id of the document that an entry holds or is a chunk of."""
    return split(entry)[0]


def group(entries: Iterable[str]) -> dict[str, list[str]]:
    """Entry ids by document, in the order met; the chunks of a document in their order."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for entry in entries:
        document, chunk = split(entry)
        groups.setdefault(document, []).append((-1 if chunk is None else chunk, entry))
    return {document: [entry for _, entry in sorted(parts)] for document, parts in groups.items()}


def find_entries(held: Sequence[str], ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """The entries of the documents `ids`, chunks included, and the ids that are not there.

    An id that is no document's names an entry: one chunk, or a document in a bank that was
    written before ids were escaped. Entries come in the order of `held`, each once.
    """
    wanted = dict.fromkeys(ids)
    owners = {entry: document_id(entry) for entry in held if "#" in entry}  # others are their own
    documents = {*owners.values(), *(entry for entry in held if entry not in owners)} & {*wanted}
    exact = {name for name in wanted if name not in documents}
    chosen = [entry for entry in held if owners.get(entry, entry) in wanted or entry in exact]
    entries = {*chosen, *(owners.get(entry, entry) for entry in chosen)}
    return chosen, [name for name in wanted if name not in entries]
