"""Readers of a bank that others change: what is deleted is not answered from, what is new is found.

The others are models in the same process, with files of their own, and another process.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.bank import Entry, Follower, MemoryBank
from latentbank.capabilities import Incremental
from latentbank.documents.document import Document
from latentbank.documents.identity import split
from latentbank.errors import DamageWarning
from latentbank.model import MemoryModel, bank_fingerprint
from latentbank.parts.retrieval.retriever import Retriever
from long_record import keep
from memory_folder import memory_path  # noqa: F401
from tiny import Backbones

SHORT = DecodingConfig(max_new_tokens=2)
METHODS = ("rag", "strata", "mac", "mbc", "cmt")


def document(name: str, version: int = 0) -> Document:
    return Document(f"Keeper {name} lights lamp {version}.", id=name)


def question(name: str) -> str:
    return f"What does keeper {name} light?"


class Desk:
    """A bank's file, and models that open it for reading or writing."""

    def __init__(self, backbone: Backbone, path: Path, name: str = "rag", **config: Any) -> None:
        self.backbone, self.path, self.name, self.config = backbone, path, name, config
        method = self.method()
        MemoryBank.create(path, bank_fingerprint(method)).close()

    def method(self) -> Any:
        return build_method(self.name, self.backbone, self.config, preset="tiny", seed=0)

    def open(self, read_only: bool = False) -> MemoryModel:
        return MemoryModel(self.method(), MemoryBank.open(self.path, read_only=read_only))


def named(model: MemoryModel, name: str) -> list[str]:
    """The documents that an answer names."""
    return [split(id)[0] for id, _ in model.ask(question(name), SHORT).documents]


@pytest.mark.parametrize("name", METHODS)
def test_readers_follow_a_writer(
    backbones: Backbones,
    tmp_path: Path,
    name: str,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", name)
    with desk.open() as writer, desk.open(read_only=True) as reader, desk.open() as other:
        writer.write([document("ada"), document("ben")])
        for model in (reader, other):
            assert set(named(model, "ada")) & {"ada", "ben"}
        before = [model.ask(question("ada"), SHORT).text for model in (writer, reader, other)]
        assert len(set(before)) == 1
        writer.delete(["ada"])
        for model in (reader, other):
            assert "ada" not in named(model, "ada")
        writer.delete(["ben"])
        for model in (reader, other):
            assert named(model, "ben") == []
        other.write([document("cem")])  # the writer's turn to follow
        assert set(named(writer, "cem")) == set(named(reader, "cem")) == {"cem"}


@pytest.mark.parametrize("name", ["rag", "strata"])
def test_a_new_version_replaces_the_text_in_every_reader(
    backbones: Backbones,
    tmp_path: Path,
    name: str,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", name)
    with desk.open() as writer, desk.open(read_only=True) as reader:
        writer.write([document("ada", 1)])
        first = reader.ask(question("ada"), SHORT)
        writer.write([document("ada", 2)])
        second = reader.ask(question("ada"), SHORT)
        assert [split(id)[0] for id, _ in second.documents] == ["ada"]
        assert second.text == writer.ask(question("ada"), SHORT).text != first.text


def test_a_reader_reads_only_what_changed(
    backbones: Backbones,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank")
    with desk.open() as writer:
        writer.write([document(f"n{i}") for i in range(300)])
        with desk.open(read_only=True) as reader:
            taken: list[tuple[int, int]] = []
            take = type(reader.method).take

            def counted(self: Any, gone: Any, entries: Any) -> None:
                taken.append((len(gone), len(entries)))
                take(self, gone, entries)

            monkeypatch.setattr(type(reader.method), "take", counted)
            monkeypatch.setattr(Retriever, "clear", lambda self: pytest.fail("bound anew"))
            writer.write([document("new")])
            named(reader, "new")
            writer.delete(["n7", "n8"])
            taken.clear()
            named(reader, "n7")
            named(reader, "n7")
            assert taken == [(2, 0)]


def test_a_method_that_cannot_follow_is_bound_anew(
    backbones: Backbones,
    tmp_path: Path,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", "mbc", form="histogram")
    with desk.open() as writer, desk.open(read_only=True) as reader:
        before = reader.method.telemetry()["codebook_dead"]
        writer.write([document("ada"), document("ben")])
        reader.ask(question("ada"), SHORT)
        after = reader.method.telemetry()["codebook_dead"]
        assert after == writer.method.telemetry()["codebook_dead"] < before


def interleave(desk: Desk, steps: int, seed: int) -> int:
    """Random writes, rewrites and deletions by two writers; answers by all. Returns stale ones."""
    draw, stale, held = random.Random(seed), 0, {}
    with desk.open() as one, desk.open() as two, desk.open(read_only=True) as three:
        for step in range(steps):
            name, writer = f"k{draw.randrange(12)}", draw.choice((one, two))
            if draw.random() < 0.5:
                writer.delete([name])
                held.pop(name, None)
            else:
                writer.write([document(name, step)])
                held[name] = step
            asked = draw.choice([name, f"k{draw.randrange(12)}"])
            for model in draw.sample((one, two, three), 2):
                stale += named(model, asked) != ([asked] if asked in held else [])
        assert sorted(split(id)[0] for id in three.bank.ids()) == sorted(held)
    return stale


def test_no_reader_is_ever_stale(backbones: Backbones, tmp_path: Path) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", retrieval={"least_match": 0.6})
    assert interleave(desk, 60, seed=0) == 0


@pytest.mark.long
def test_no_reader_is_ever_stale_long(
    backbones: Backbones,
    tmp_path: Path,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", retrieval={"least_match": 0.6})
    stale = interleave(desk, 1000, seed=1)
    keep("readers", interleavings=1000, stale=stale)
    assert stale == 0


# ---- another process


def _other_process(make: Callable[[], MemoryModel], orders: Any, done: Any) -> None:
    signal.alarm(120)
    with make() as model:
        while (order := orders.get()) is not None:
            kind, name, version = order
            if kind == "delete":
                model.delete([name])
            else:
                model.write([document(name, version)])
            done.put(kind)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_another_process_deletes_is_not_answered_from(
    backbones: Backbones,
    tmp_path: Path,
) -> None:
    desk = Desk(
        backbones.fresh("llama"), tmp_path / "a.bank", "strata", retrieval={"least_match": 0.6}
    )
    context = multiprocessing.get_context("fork")
    orders, done = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=_other_process, args=(desk.open, orders, done))
    process.start()
    try:
        with desk.open(read_only=True) as reader:
            for step in range(10):
                name = f"k{step % 3}"
                for kind, expected in (("write", [name]), ("delete", [])):
                    orders.put((kind, name, step))
                    assert done.get() == kind
                    assert named(reader, name) == expected, (step, kind)
    finally:
        orders.put(None)
        process.join(60)
    assert process.exitcode == 0


# ---- one bad entry


@pytest.mark.parametrize("name", METHODS)
def test_one_bad_entry_is_left_out_and_named_once(
    backbones: Backbones,
    tmp_path: Path,
    name: str,
) -> None:
    desk = Desk(backbones.fresh("llama"), tmp_path / "a.bank", name)
    with desk.open() as writer:
        writer.write([document("ada")])
        level = next(iter(writer.bank.entries())).level
    with MemoryBank.open(desk.path) as bank:
        bank.append([Entry("bad", level, b"\x77no text")])
    with pytest.warns(DamageWarning, match="'bad' of .* cannot be read") as caught:
        model = desk.open()
        assert named(model, "ada") == ["ada"]
        model.write([document("ben")])
        assert named(model, "ben")[0] in ("ada", "ben")
        assert "bad" not in named(model, "bad")
    assert len([one for one in caught if one.category is DamageWarning]) == 1
    assert isinstance(model.method, Incremental) and list(model.method.unreadable) == ["bad"]
    assert model.delete(["bad"]).deleted == ("bad",)
    assert model.method.unreadable == {}
    model.close()


# ---- the follower


def test_a_follower_tells_own_changes_from_those_of_others(tmp_path: Path) -> None:
    from latentbank.bank import BankFingerprint

    path = tmp_path / "a.bank"
    with MemoryBank.create(path, BankFingerprint("m", "a", "b", "t")) as bank:
        follower = Follower(bank)
        assert follower.changes() is None
        bank.append([Entry("a", "text", b"x"), Entry("b", "text", b"y")])
        own = follower.changes()
        assert own is not None and not own.by_others
        assert [entry.id for entry in own.entries] == ["a", "b"] and own.gone == ()
        with MemoryBank.open(path) as other:
            other.delete(["a"])
            other.append([Entry("c", "text", b"z"), Entry("b", "text", b"again")])
        seen = follower.changes()
        assert seen is not None and seen.by_others
        assert seen.gone == ("a",) and [entry.id for entry in seen.entries] == ["c"]
        assert follower.changes() is None
