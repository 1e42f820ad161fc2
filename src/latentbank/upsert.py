"""What a write does with a document whose id the bank holds already.

An id is the user's key. The same version of a document is counted again; another version replaces
the old one, is left out, or is refused. Knows documents, entry ids and a bank; nothing about
methods.

A new version is written before the old one is deleted, under entry ids that the old one does not
use: `k` and `k#0` in turn, or chunks with other numbers. A process that is killed in between leaves
both, and the next write of the document deletes the old one. `Entry.version` says where the numbers
of a version start, if not at the usual place: "1a2b3c4d+7".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from latentbank.bank import MemoryBank
from latentbank.documents.document import Document, renamed
from latentbank.documents.identity import entry_id, split
from latentbank.errors import InputError, unknown

__all__ = ["ON_CONFLICT", "Part", "Upsert"]

ON_CONFLICT = ("replace", "keep", "error")


@dataclass
class Part:
    """Entries that are written together, and what is deleted after that.

    Attributes:
        entries: documents and chunks, each with the id of its entry.
        old: entries of older versions of documents that are complete with this part.
        replaced, kept: how many documents replace an older version, or were left out for it.
    """

    entries: list[Document] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    replaced: int = 0
    kept: int = 0
    versions: dict[str, str] = field(default_factory=dict)  # of the documents with ids of their own


class Upsert:
    """Tells which documents are new to a bank, and which are other versions of what it holds.

    It knows which documents are in chunks from one pass over the ledgers of the bank, made when it
    is first needed and after another process has written.
    """

    def __init__(self, bank: MemoryBank) -> None:
        self._bank = bank
        self._chunks: dict[str, dict[str, str]] = {}  # document → its chunks' entries → version
        self._seen: int | None = None

    def parts(
        self,
        documents: Iterable[Document],
        pieces: Callable[[Document], Iterable[Document]],
        size: int,
        on_conflict: str = "replace",
    ) -> Iterator[Part]:
        """The entries of documents in parts of `size`; `pieces` cuts a document into entries.

        Each part must be written, and its old entries deleted, before the next one is asked for. So
        a document that comes twice meets its own first version. Raises `InputError` for another
        version of a document where `on_conflict` is "error"; what came before it is written.
        """
        if on_conflict not in ON_CONFLICT:
            raise unknown("way to treat conflicts", on_conflict, ON_CONFLICT)
        part = Part()
        for document in documents:
            if part.versions.get(document.id, document.version) != document.version:
                yield part
                part = Part()
            held = self._held(document)
            old = [id for id, version in held.items() if _hash(version) != document.version]
            if old and on_conflict == "error":
                if part.entries:
                    yield part
                raise InputError(
                    f"The bank {self._bank.name} holds another version of the document "
                    f"{document.id!r}; it was not replaced (on_conflict 'error')."
                )
            if old and on_conflict == "keep":
                part.kept += 1
                continue
            if document.version:
                part.versions[document.id] = document.version
            entries = self._named(document, list(pieces(document)), held)
            for at, entry in enumerate(entries, start=1):
                part.entries.append(entry)
                if at == len(entries):
                    part.old += old
                    part.replaced += bool(old)
                if len(part.entries) >= size:
                    yield part
                    part = Part()
                    if document.version and at < len(entries):  # its last ones are yet to come
                        part.versions[document.id] = document.version
        if part.entries or part.kept:
            yield part

    def _held(self, document: Document) -> dict[str, str]:
        """The entries that the bank has of a document with an id of its own, and their versions.

        An entry of an older bank tells no version. It counts as another one.
        """
        if not document.version or self._bank.settings.ledger == "none":
            return {}
        held: dict[str, str] = {}
        whole = self._bank.get(entry_id(document.id))  # also hears of other processes
        if whole is not None:
            held[whole.id] = whole.version
        if self._seen is None or self._seen != self._bank.session.version:
            self._scan()
        for id, version in self._chunks.get(document.id, {}).items():
            if id in self._bank:
                held[id] = version
        return held

    def _named(
        self, document: Document, pieces: list[Document], held: dict[str, str]
    ) -> list[Document]:
        """The pieces under entry ids that no other version uses; the usual ones where they can."""
        first = _first_number(document, len(pieces), held)
        if first is not None:
            version = f"{document.version}+{first}"
            pieces = [
                renamed(piece, entry_id(document.id, first + at), version)
                for at, piece in enumerate(pieces)
            ]
        if first is not None or len(pieces) > 1:
            known = self._chunks.setdefault(document.id, {})
            known.update((piece.id, piece.version) for piece in pieces)
        return pieces

    def _scan(self) -> None:
        self._chunks = {}
        for page in self._bank.pages():
            versions = page.columns.get("version") or [None] * page.count
            for entry, version in zip(page.document_ids, versions, strict=True):
                document, chunk = split(entry) if "#" in entry else (entry, None)
                if chunk is not None:
                    self._chunks.setdefault(document, {})[entry] = str(version or "")
        self._seen = self._bank.session.version


def _first_number(document: Document, count: int, held: dict[str, str]) -> int | None:
    """The number of the first of `count` chunks; None for the usual entry ids.

    A version that the bank has in part goes on under its own numbers.
    """
    others: set[int | None] = set()
    for entry, version in held.items():
        digest, plus, first = version.partition("+")
        if digest != document.version:
            others.add(split(entry)[1])
        elif plus:
            return int(first)
        elif (split(entry)[1] is None) == (count == 1):
            return None
    numbers = [number for number in others if number is not None]
    if count == 1 and None not in others:
        return None
    if all(number >= count for number in numbers):
        return None if count > 1 else 0
    return max(numbers) + 1


def _hash(version: str) -> str:
    return version.partition("+")[0]
