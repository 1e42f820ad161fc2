"""What a write does with a document whose id the bank holds already.

An id is the user's key. The same version of a document is counted again; another version replaces
the old one, is left out, or is refused. Knows documents, entry ids and a bank; nothing about
methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.documents.identity import entry_id, split
from latentbank.errors import InputError, unknown

__all__ = ["ON_CONFLICT", "Part", "Upsert"]

ON_CONFLICT = ("replace", "keep", "error")


@dataclass
class Part:
    """Entries that are written together.

    Attributes:
        entries: documents and chunks, each with the id of its entry.
        old: entries of older versions, which go first.
        replaced, kept: how many documents replace an older version, or were left out for it.
    """

    entries: list[Document] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    replaced: int = 0
    kept: int = 0
    versions: dict[str, str] = field(default_factory=dict)  # of the documents with ids of their own


class Upsert:
    """Tells which documents are new to a bank, and which are other versions of what it holds.

    It knows which documents are in chunks from one pass over the ids of the bank, made when it is
    first needed and after another process has written.
    """

    def __init__(self, bank: MemoryBank) -> None:
        self._bank = bank
        self._chunks: dict[str, list[str]] = {}
        self._seen: int | None = None

    def parts(
        self,
        documents: Iterable[Document],
        pieces: Callable[[Document], Iterable[Document]],
        size: int,
        on_conflict: str = "replace",
    ) -> Iterator[Part]:
        """The entries of documents in parts of `size`; `pieces` cuts a document into entries.

        Each part must be written before the next one is asked for. So a document that comes twice
        meets its own first version. Raises `InputError` for another version of a document where
        `on_conflict` is "error"; what came before it is written.
        """
        if on_conflict not in ON_CONFLICT:
            raise unknown("way to treat conflicts", on_conflict, ON_CONFLICT)
        part = Part()
        for document in documents:
            if part.versions.get(document.id, document.version) != document.version:
                yield part
                part = Part()
            old = self.other_version(document)
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
            part.old += old
            part.replaced += bool(old)
            if document.version:
                part.versions[document.id] = document.version
            for entry in pieces(document):
                if document.version and entry.id != document.id:
                    self._note(document.id, entry.id)
                part.entries.append(entry)
                if len(part.entries) >= size:
                    yield part
                    part = Part()
        if part.entries or part.kept:
            yield part

    def other_version(self, document: Document) -> list[str]:
        """The entries of another version of a document; none if the bank holds this one or none.

        An entry of an older bank tells no version. It counts as another one.
        """
        if not document.version or self._bank.settings.ledger == "none":
            return []
        held = self._held(document.id)
        entry = self._bank.get(held[0]) if held else None
        return held if entry is not None and entry.version != document.version else []

    def _held(self, id: str) -> list[str]:
        whole = entry_id(id)
        if whole in self._bank:
            return [whole]
        if self._seen is None or self._seen != self._bank.session.version:
            self._scan()
        return [entry for entry in self._chunks.get(id, ()) if entry in self._bank]

    def _scan(self) -> None:
        self._chunks = {}
        for entry in self._bank.ids():
            document, chunk = split(entry) if "#" in entry else (entry, None)
            if chunk is not None:
                self._note(document, entry)
        self._seen = self._bank.session.version

    def _note(self, document: str, entry: str) -> None:
        known = self._chunks.setdefault(document, [])
        if entry not in known[-1:]:
            known.append(entry)
