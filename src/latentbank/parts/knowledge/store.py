"""Triples of a bank in memory: their texts, and their features, encoded once.

Knows entries, their payloads and an encoder of triples; knows no model's layers and no method.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from latentbank.bank import Entry
from latentbank.codec.packaged import packaged_dictionary
from latentbank.codec.text import ZstdTextCodec
from latentbank.documents.document import Document
from latentbank.documents.facts import ENTITY, PROPERTY, as_triple
from latentbank.errors import BankError
from latentbank.parts.knowledge.features import Fact, Features, TripleEncoder
from latentbank.parts.knowledge.stored import KeyBooks, decode_keys, encode_keys

__all__ = ["TRIPLE", "FactStore", "fact_of"]

TRIPLE = "triple"
"""The level of an entry that holds a triple as text."""


def fact_of(document: Document) -> Fact:
    """The triple of a document; a document that holds none is its own value."""
    return as_triple(document.text, document.metadata) or ("", "", document.text)


class FactStore:
    """Id → triple, and the features of those that were encoded, in the order of `encoded`."""

    def __init__(
        self, encoder: TripleEncoder, kept: str = "text", books: KeyBooks | None = None
    ) -> None:
        self.encoder, self._kept, self._books = encoder, kept, books
        self._codec = ZstdTextCodec(packaged_dictionary())
        self.clear()

    def clear(self) -> None:
        """Forgets all triples."""
        self.facts: dict[str, Fact] = {}
        self._keys: dict[str, bytes] = {}
        self.encoded: list[str] = []
        self._features: Features | None = None

    def entries(self, documents: Sequence[Document]) -> list[Entry]:
        """The entries of documents; `kept` says what of a key's features is beside the text."""
        facts = [fact_of(document) for document in documents]
        keys: Sequence[bytes] = [b""] * len(facts)
        if self._kept != "text" and facts:
            keys = encode_keys(self._kept, self.encoder.keys(facts), self._books)
        return [self._entry(*parts) for parts in zip(documents, facts, keys, strict=True)]

    def _entry(self, document: Document, fact: Fact, key: bytes) -> Entry:
        """The entry of a document; its payload holds the triple, so its metadata need not."""
        text = json.dumps(fact, ensure_ascii=False, separators=(",", ":"))
        entry = Entry.of(document, TRIPLE, self._codec.encode(text), key)
        own = {k: v for k, v in document.metadata.items() if k not in (ENTITY, PROPERTY)}
        return replace(entry, metadata=own) if fact[0] else entry

    def put(self, id: str, fact: Fact, key: bytes) -> None:
        """Takes a triple that was stored; one of the same id is replaced."""
        if self.facts.get(id) != fact:
            self.forget([id])
            self.facts[id], self._keys[id] = fact, key

    def remember(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Takes the triples of entries; returns id → reason for those that are damaged."""
        unreadable = {}
        for entry in entries:
            try:
                self.facts[entry.id] = self._decoded(entry.payload)
                self._keys[entry.id] = entry.key
            except BankError as error:
                unreadable[entry.id] = str(error)
        return unreadable

    def _decoded(self, payload: bytes) -> Fact:
        try:
            entity, property, value = json.loads(self._codec.decode(payload))
            return str(entity), str(property), str(value)
        except ValueError as error:
            raise BankError(f"A stored triple is damaged: {error}.") from None

    def forget(self, ids: Sequence[str]) -> None:
        """Forgets triples with their features; unknown ids are ignored."""
        for id in ids:
            self.facts.pop(id, None)
            self._keys.pop(id, None)
        gone = set(ids)
        kept = [i for i, id in enumerate(self.encoded) if id not in gone]
        if self._features is not None and len(kept) < len(self.encoded):
            self._features = self._features.rows(kept)
            self.encoded = [self.encoded[i] for i in kept]

    @torch.no_grad()
    def features(self) -> Features | None:
        """The features of all triples in the order of `encoded`; None where there is none.

        Only triples that are new since the last call are encoded.
        """
        known = set(self.encoded)
        for stored in (False, True):
            new = [i for i in self.facts if i not in known and bool(self._keys[i]) == stored]
            if new:
                keys = self._decoded_keys(new) if stored else None
                made = self.encoder.encode([self.facts[id] for id in new], keys)
                parts = [made] if self._features is None else [self._features, made]
                self._features = Features.joined(parts)
                self.encoded += new
        return self._features if self.encoded else None

    def _decoded_keys(self, ids: Sequence[str]) -> Tensor | None:
        stored, width = [self._keys[id] for id in ids], self.encoder.sentences.width
        return decode_keys(self._kept, stored, width, self._books)
