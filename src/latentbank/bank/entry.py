"""`Entry`, the value that a bank stores for one document, and the 8 bytes that stand for its id.

Knows what an entry may hold and how large it may be; nothing about pages or files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from latentbank.documents.document import Document
from latentbank.errors import InputError

__all__ = ["ID_BYTES", "JSON", "Entry", "check_entry", "compact_json", "id_key", "is_hex_id"]

JSON = Any  # a JSON value read back from a ledger; `document.JSON` is what may be written

ID_BYTES = 8
MAX_PAYLOAD_BYTES = 64 * 2**20
MAX_KEY_BYTES = 32 * 1024
MAX_LEDGER_BYTES = 64 * 1024  # of one entry's id, time, source and metadata


@dataclass(frozen=True)
class Entry:
    """One document (or chunk) as a bank keeps it.

    Attributes:
        id: the document's id. 16 lower-case hex digits take 8 bytes. Any other id takes 8 bytes
            and its text in the ledger.
        level: what the payload is, such as "verbatim" or "codes". A page holds one level only.
        payload: the codes or the compressed text.
        time, source, metadata: kept in the ledger, if the bank has a full one.
        key: the quantised retrieval key; may be empty. Its bytes are counted apart from the
            payload. Entries with keys of one length share pages.
        version: `Document.version`; "" where it is not known or the id is the text's hash. Kept in
            the ledger, unless the bank keeps no ids.
    """

    id: str
    level: str
    payload: bytes
    time: str | None = None
    source: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict, hash=False)
    key: bytes = b""
    version: str = ""

    @classmethod
    def of(cls, document: Document, level: str, payload: bytes, key: bytes = b"") -> Entry:
        """The entry of a document, with all that its ledger keeps."""
        return cls(
            document.id,
            level,
            payload,
            document.time,
            document.source,
            document.metadata,
            key,
            document.version,
        )


def is_hex_id(id: str) -> bool:
    """Whether the id is exactly 16 lower-case hex digits."""
    return len(id) == 2 * ID_BYTES and not id.strip("0123456789abcdef")


def id_key(id: str) -> bytes:
    """The 8 bytes that stand for an id: its hex value, or BLAKE2b of its UTF-8."""
    if is_hex_id(id):
        return bytes.fromhex(id)
    return blake2b(id.encode(errors="replace"), digest_size=ID_BYTES).digest()


def check_entry(entry: Entry) -> None:
    """Raise `InputError` if an entry cannot be stored: empty id, wrong type, too large."""
    if not isinstance(entry.id, str) or not entry.id:
        raise InputError("An entry's id must be a non-empty string.")
    if not isinstance(entry.level, str) or not 1 <= len(entry.level) <= 64:
        raise InputError(f"Entry {entry.id}: its level must be a name of 1 to 64 characters.")
    if len(entry.payload) > MAX_PAYLOAD_BYTES or len(entry.key) > MAX_KEY_BYTES:
        raise InputError(
            f"Entry {entry.id}: the payload may have {MAX_PAYLOAD_BYTES} bytes and the key "
            f"{MAX_KEY_BYTES}, got {len(entry.payload)} and {len(entry.key)}."
        )
    if is_hex_id(entry.id) and not (entry.time or entry.source or entry.metadata):
        return
    try:
        ledger = [entry.id, entry.time, entry.source, dict(entry.metadata), entry.version]
        size = len(compact_json(ledger).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Entry {entry.id}: its ledger is not JSON text: {error}.") from error
    if size > MAX_LEDGER_BYTES:
        raise InputError(
            f"Entry {entry.id[:80]}: id, time, source and metadata may take {MAX_LEDGER_BYTES} "
            f"bytes, got {size}."
        )


def compact_json(value: JSON) -> str:
    """JSON without spaces; raises `ValueError` or `TypeError` if the value is not JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
