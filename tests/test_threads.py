"""Threads and forks: one model that several threads share, and a process forked after loading."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.documents.document import Document
from latentbank.documents.identity import split
from latentbank.model import MemoryModel, bank_fingerprint
from long_record import keep
from tiny import Backbones

THREADS = 8
SHORT = DecodingConfig(max_new_tokens=3)


def model_of(backbone: Backbone, bank: MemoryBank | None = None, name: str = "rag") -> MemoryModel:
    return MemoryModel(build_method(name, backbone, preset="tiny", seed=0), bank)


def document(number: int) -> Document:
    """A text that only the question of the same number finds."""
    return Document(f"Keeper{number} lights lamp{number * 7919 % 100_003}.", id=f"d{number}")


def question(number: int) -> str:
    return f"What does keeper{number} light?"


def in_threads(jobs: Sequence[Callable[[], None]]) -> None:
    """Runs the jobs side by side; the first error is raised here."""
    errors: queue.Queue[BaseException] = queue.Queue()

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.put(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not errors.empty():
        raise errors.get()


def write_and_ask(model: MemoryModel, each: int, batch: int) -> tuple[int, int]:
    """(documents lost, answers mixed up) after `THREADS` threads write and ask `each` times."""
    answers: dict[int, Any] = {}

    def job(first: int) -> Callable[[], None]:
        def run() -> None:
            numbers = range(first, THREADS * each, THREADS)
            for at in range(0, each, batch):
                part = list(numbers)[at : at + batch]
                model.write([document(n) for n in part])
                found = model.ask_many([question(n) for n in part], SHORT)
                answers.update(zip(part, found, strict=True))

        return run

    in_threads([job(first) for first in range(THREADS)])
    total = range(THREADS * each)
    lost = sum(f"d{n}" not in model.bank for n in total)
    with_name = {n: [id for id, _ in answers[n].documents] for n in total}
    mixed = sum(names != [f"d{n}"] for n, names in with_name.items())
    for n in total[:: max(1, len(total) // 100)]:  # the same question, nothing beside it
        mixed += model.ask(question(n), SHORT).text != answers[n].text
    return lost, mixed


@pytest.mark.parametrize("name", ["rag", "strata"])
def test_threads_lose_and_mix_nothing(backbones: Backbones, name: str) -> None:
    model = model_of(backbones.fresh("llama"), name=name)
    assert write_and_ask(model, each=12, batch=3) == (0, 0)


@pytest.mark.long
@pytest.mark.timeout(14_400)
def test_threads_lose_and_mix_nothing_long(backbones: Backbones) -> None:
    lost = mixed = 0
    for done in range(1, 21):
        one = write_and_ask(model_of(backbones.shared("llama")), each=1250, batch=25)
        lost, mixed = lost + one[0], mixed + one[1]
        keep("threads", runs=done, threads=THREADS, writes=10_000, questions=10_000, lost=lost,
             mixed=mixed)  # fmt: skip
    assert (lost, mixed) == (0, 0)


def test_two_models_on_one_backbone_do_not_read_each_other(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    models = [model_of(backbone, name="strata") for _ in range(2)]
    for i, model in enumerate(models):
        model.write([Document(f"Keeper lights lamp{i}.", id=f"own{i}")])
    alone = [model.ask("What does keeper light?", SHORT).text for model in models]
    found: list[list[Any]] = [[], []]

    def job(i: int) -> Callable[[], None]:
        def run() -> None:
            found[i] = [models[i].ask("What does keeper light?", SHORT) for _ in range(8)]

        return run

    in_threads([job(0), job(1)])
    for i in range(2):
        assert {(one.text, one.documents[0][0]) for one in found[i]} == {(alone[i], f"own{i}")}


@pytest.mark.parametrize("name", ["rag", "strata", "mac", "mbc"])
def test_one_id_written_by_many_threads_is_one_whole_document(
    backbones: Backbones, name: str
) -> None:
    """Each text is another version. The last one stays, with its own payload."""
    model = model_of(backbones.fresh("llama"), name=name)
    jobs = [
        lambda i=i: model.write([Document(f"Keeper is {i}.", id="keeper")]) for i in range(THREADS)
    ]
    in_threads([*jobs, *(lambda: model.delete(["keeper"]) for _ in range(THREADS))])
    model.write([Document("Keeper is last.", id="keeper")])
    assert [split(id)[0] for id in model.bank.ids()] == ["keeper"]
    assert model.method.unreadable == {}
    assert split(model.ask("Who is keeper?", SHORT).documents[0][0])[0] == "keeper"


@pytest.mark.parametrize("name", ["strata", "mac", "mbc"])
def test_a_document_that_leaves_in_the_middle_of_a_write_is_stored_whole(
    backbones: Backbones, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the bank when its write began, so nothing was encoded; then another deleted it."""
    model = model_of(backbones.fresh("llama"), name=name)
    model.write([document(1)])
    append = MemoryBank.append

    def deleted_before(self: MemoryBank, *rest: Any, **options: Any) -> Any:
        monkeypatch.setattr(MemoryBank, "append", append)
        self.delete(["d1"])
        return append(self, *rest, **options)

    monkeypatch.setattr(MemoryBank, "append", deleted_before)
    report = model.write([document(1), document(2)])
    assert report.stored == 2 and report.duplicates == 0
    assert sorted(model.bank.ids()) == ["d1", "d2"]
    again = MemoryModel(build_method(name, model.backbone, preset="tiny", seed=0), model.bank)
    assert again.method.unreadable == {}  # every payload can be decoded


def test_an_id_that_is_only_counted_again_is_named_when_it_is_absent(tmp_path: Path) -> None:
    from latentbank.bank import BankFingerprint

    with MemoryBank.create(tmp_path / "a.bank", BankFingerprint("m", "a", "b", "t")) as bank:
        bank.append([Entry("here", "text", b"x")])
        report = bank.append([Entry("new", "text", b"y")], again=["here", "gone", "gone"])
        assert (report.stored, report.duplicates, report.absent) == (1, 1, ("gone",))
        assert sorted(bank.ids()) == ["here", "new"] and bank.count("here") == 2


# ---- forks


def _in_fork(model: MemoryModel, results: Any) -> None:
    signal.alarm(60)  # a child that hangs dies, and the test fails
    before = model.ask(question(1), SHORT)
    model.write([document(2)])
    after = model.ask(question(2), SHORT)
    results.put([before.text, before.documents[0][0], after.documents[0][0]])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_process_forked_after_loading_answers_and_writes(
    backbones: Backbones, tmp_path: Path, place: str
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(600, 600) @ torch.randn(600, 600)  # OpenMP's threads are there now
        backbone = backbones.fresh("llama")
        method = build_method("rag", backbone, preset="tiny", seed=0)
        bank = None
        if place == "file":
            bank = MemoryBank.create(tmp_path / "a.bank", bank_fingerprint(method))
        with MemoryModel(method, bank) as model:
            model.write([document(1)])
            expected = model.ask(question(1), SHORT).text
            context = multiprocessing.get_context("fork")
            results = context.SimpleQueue()
            with backbone.exclusive():  # another thread may hold it at the time of a fork
                child = context.Process(target=_in_fork, args=(model, results))
                child.start()
            child.join(90)
            assert child.exitcode == 0
            assert results.get() == [expected, "d1", "d2"]
            found = model.ask(question(2), SHORT).documents
            assert [id for id, _ in found] == (["d2"] if place == "file" else [])
            model.write([document(3)])  # the parent's own connection is as it was
            assert model.bank.verify().ok and "d3" in model.bank
    finally:
        torch.set_num_threads(threads)
