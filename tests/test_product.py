"""The whole product against a dictionary: written, rewritten, deleted, merged, split, reopened.

A machine of random steps holds a bank and what the bank should hold. After each step both agree,
for the writer and for a reader of its own.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from latentbank.adapter import build_method
from latentbank.bank import MemoryBank
from latentbank.bank.admin.join import merge_banks
from latentbank.bank.admin.split import split_bank
from latentbank.documents.conditions import conditions_of
from latentbank.documents.document import Document
from latentbank.documents.identity import document_id, group
from latentbank.documents.time import parse_time
from latentbank.method import Method
from latentbank.model import MemoryModel, bank_fingerprint
from long_record import keep
from tiny import Backbones

IDS = ("guide", "guide#1", "guide#2", "a/b.txt", "issue#12", "Straße", "x y", "7")
TIMES = (None, "1969-07-20", "2019", "2024-05-01T23:30:00-05:00", "2024-05-02T01:00:00+09:00")
SOURCES = (None, "notes/", "mail", "notes/a.txt")
WORDS = ("harbour", "lamp", "ferry", "comet", "tea", "bees", "clover", "Oslo")

documents = st.builds(
    lambda id, words, long, time, source: Document(
        " ".join(words) + (". The keeper writes it down. " * 9 if long else "."),
        id=id, time=time, source=source,
    ),
    st.sampled_from(IDS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(TIMES),
    st.sampled_from(SOURCES),
)  # fmt: skip


@dataclass(frozen=True)
class Held:
    """What the bank should hold of a document."""

    text: str
    time: str | None
    source: str | None

    @classmethod
    def of(cls, document: Document) -> Held:
        return cls(document.text, document.time, document.source)


class Product(RuleBasedStateMachine):
    """One bank file, a writer, and the dictionary that says what should be there."""

    backbones: Backbones

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.path = self.folder / "product.bank"
        self.held: dict[str, Held] = {}
        self.number = 0
        fingerprint = bank_fingerprint(self.method())
        self.model = MemoryModel(self.method(), MemoryBank.create(self.path, fingerprint))

    def method(self) -> Method:
        backbone = self.backbones.shared("llama")
        return build_method("rag", backbone, {"chunk_tokens": 64})

    def teardown(self) -> None:
        self.model.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- steps

    @rule(given=st.lists(documents, min_size=1, max_size=4))
    def write(self, given: list[Document]) -> None:
        self.model.write(given)
        self.put(given)

    def put(self, given: list[Document]) -> None:
        """What a write leaves: a version is text and time; the same one again changes nothing."""
        for document in given:
            new, old = Held.of(document), self.held.get(document.id)
            if old is None or (old.text, old.time) != (new.text, new.time):
                self.held[document.id] = new

    @rule(given=st.lists(documents, min_size=1, max_size=3))
    def write_and_keep(self, given: list[Document]) -> None:
        self.model.write(given, on_conflict="keep")
        for document in given:
            self.held.setdefault(document.id, Held.of(document))

    @rule(ids=st.lists(st.sampled_from((*IDS, "unknown")), min_size=1, max_size=3))
    def delete(self, ids: list[str]) -> None:
        ids = [id for id in ids if id in self.held or "#" not in id]  # else it names a chunk
        receipt = self.model.delete(ids)
        gone = {document_id(entry) for entry in receipt.deleted}
        assert gone == set(ids) & self.held.keys()
        for id in gone:
            del self.held[id]

    @rule(source=st.sampled_from(("mail", "notes/a.txt")))
    def delete_a_source(self, source: str) -> None:
        chosen = self.model.bank.select(conditions_of(source=source))
        wanted = {id for id, one in self.held.items() if one.source == source}
        assert {document_id(entry) for entry in chosen} == wanted
        if chosen:
            self.model.method.delete(chosen)
        for id in wanted:
            del self.held[id]

    @rule(before=st.sampled_from(("1970", "2020", "2024-05-02T03:00:00Z")))
    def delete_before(self, before: str) -> None:
        chosen = self.model.bank.select(conditions_of(before=before))
        cut = parse_time(before)
        wanted = {
            id for id, one in self.held.items()
            if one.time is not None and parse_time(one.time).end <= cut.start
        }  # fmt: skip
        assert {document_id(entry) for entry in chosen} == wanted
        if chosen:
            self.model.method.delete(chosen)
        for id in wanted:
            del self.held[id]

    @rule()
    def reopen(self) -> None:
        self.model.close()
        method = self.method()
        self.model = MemoryModel(method, MemoryBank.open(self.path, bank_fingerprint(method)))

    @rule(budget=st.sampled_from((None, 1 << 20, 4 << 20)))
    def rebudget(self, budget: int | None) -> None:
        self.model.bank.rebudget(budget)

    @rule(given=st.lists(documents, min_size=1, max_size=3, unique_by=lambda d: d.id))
    def merge(self, given: list[Document]) -> None:
        self.number += 1
        other, joined = (self.folder / f"{self.number}-{end}.bank" for end in ("other", "joined"))
        method = self.method()
        with MemoryModel(method, MemoryBank.create(other, bank_fingerprint(method))) as model:
            model.write(given)
            merge_banks([self.model.bank, model.bank], joined)
        self.model.close()
        shutil.move(joined, self.path)
        other.unlink()
        method = self.method()
        self.model = MemoryModel(method, MemoryBank.open(self.path, bank_fingerprint(method)))
        self.put(given)

    @precondition(lambda self: self.held)
    @rule()
    def split(self) -> None:
        self.number += 1
        parts = split_bank(self.model.bank, self.folder / f"{self.number}-parts", "source")
        found: dict[str, str] = {}
        for name in parts:
            with MemoryBank.open(self.folder / f"{self.number}-parts" / name) as part:
                ids = {document_id(entry.id) for entry in part.entries()}
                assert not ids & found.keys(), "a document went into two parts"
                found |= dict.fromkeys(ids, name)
        assert found.keys() == self.held.keys()

    @rule(given=st.lists(documents, min_size=4, max_size=8, unique_by=lambda d: d.id))
    def write_from_threads(self, given: list[Document]) -> None:
        failed: list[BaseException] = []

        def write(part: list[Document]) -> None:
            try:
                self.model.write(part)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(given[i::2],)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        self.put(given)

    # ---- what holds after each step

    @invariant()
    def the_writer_holds_what_it_should(self) -> None:
        self.check(self.model)

    @invariant()
    def a_reader_sees_the_same(self) -> None:
        method = self.method()
        opened = MemoryBank.open(self.path, bank_fingerprint(method), read_only=True)
        with MemoryModel(method, opened) as reader:
            self.check(reader)

    def check(self, model: MemoryModel) -> None:
        method: Any = model.method
        entries = {entry.id: entry for entry in model.bank.entries()}
        documents = group(entries)
        assert documents.keys() == self.held.keys()
        for id, parts in documents.items():
            wanted = self.held[id]
            texts = method.texts.decode([entries[part] for part in parts])
            words = " ".join(texts).split()
            assert words == wanted.text.split(), "the text of a document, chunk by chunk"
            for part in parts:
                assert entries[part].source == wanted.source
                assert (entries[part].time is None) == (wanted.time is None)
        for word in WORDS:
            ranked = method.retriever.rank([word], 20)[0]
            assert {entry for entry, _ in ranked} <= entries.keys(), "what is gone is not found"
            naming = [id for id, one in self.held.items() if word in one.text.split()]
            assert bool(ranked) >= bool(naming), "what is there is found"


def run(backbones: Backbones, examples: int, steps: int) -> int:
    """Returns how many steps were taken."""
    taken = 0

    def count(self: Product) -> None:
        nonlocal taken
        taken += 1

    machine = type("Machine", (Product,), {"backbones": backbones, "count": invariant()(count)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    return taken


def test_the_product_agrees_with_a_dictionary(backbones: Backbones) -> None:
    run(backbones, examples=12, steps=20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_product_agrees_with_a_dictionary_over_20_000_steps(backbones: Backbones) -> None:
    steps = run(backbones, examples=500, steps=50)
    assert steps >= 20_000
    keep("product", steps=steps, failures=0)
