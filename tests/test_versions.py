"""Of several versions of a text the newest is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.adapter import build_method
from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.documents.document import Document
from latentbank.parts.retrieval import sketch
from latentbank.parts.retrieval.versions import content, newest
from tiny import DOCUMENTS, QUESTIONS, Backbones, fresh_bank

OLD = "In 2019 the harbour master of Oster Skerry was Mara Venn, who lived above the boathouse."
NEW = "In 2019 the harbour master of Oster Skerry was Tomas Lind, who lived above the boathouse."
ASKED = "Who was harbour master of Oster Skerry?"


def chosen(found: list[tuple[str, float]], texts: dict[str, str], top: int = 1) -> Any:
    order = list(texts)
    return newest(found, top, lambda name: content(texts[name]), order.index)


# ---- the rule


def test_the_newest_version_takes_the_place_and_score_of_the_best() -> None:
    texts = {"old": OLD, "other": "A harbour in Norway.", "new": NEW}
    assert chosen([("old", 5.0), ("new", 4.9), ("other", 4.8)], texts) == [("new", 5.0)]
    assert chosen([("new", 5.0), ("old", 4.9)], texts) == [("new", 5.0)]


def test_older_versions_are_left_out() -> None:
    texts = {"old": OLD, "new": NEW, "other": "A harbour in Norway."}
    found = [("old", 5.0), ("new", 4.9), ("other", 1.0)]
    assert chosen(found, texts, 3) == [("new", 5.0), ("other", 1.0)]


def test_another_text_is_no_version_however_near_its_score() -> None:
    texts = {"a": "The harbour master of Oster was Mara.", "b": "Oster has a church and a school."}
    assert chosen([("a", 5.0), ("b", 5.0)], texts, 2) == [("a", 5.0), ("b", 5.0)]


def test_a_version_that_scores_much_less_is_not_looked_at() -> None:
    def no_words(name: str) -> frozenset[str]:
        raise AssertionError(name)

    found = [("old", 5.0), ("new", 3.9)]
    assert newest(found, 1, no_words, {"old": 0, "new": 1}.get) == [("old", 5.0)]
    assert newest([], 1, no_words, len) == []


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.1, 9)), unique_by=lambda p: p[0]))
def test_nothing_is_invented_and_nothing_comes_twice(found: list[tuple[str, float]]) -> None:
    ranked = sorted(found, key=lambda pair: -pair[1])
    texts = {name: OLD if name < "d" else f"{name} stands alone" for name in "abcdef"}
    names = [name for name, _ in chosen(ranked, texts, 6)]
    assert len(set(names)) == len(names)
    assert set(names) <= {name for name, _ in found}
    assert sum(name < "d" for name in names) <= max(1, len(found))


# ---- the order of a bank


def test_the_order_is_that_of_writing_however_a_document_faded(tmp_path: Path) -> None:
    path = tmp_path / "a.bank"
    kind = BankFingerprint("rag", "", "", "")
    with MemoryBank.create(path, kind, budget_bytes=40_000) as bank:
        for i in range(40):
            bank.append(
                [Entry(f"{i:016x}", "text", bytes(2000))],
                fade=lambda e: Entry(e.id, "short", e.payload[:10]) if e.level == "text" else None,
            )
        levels = {e.id: e.level for e in bank.entries()}
        assert set(levels.values()) == {"text", "short"}, "or the test shows little"
        kept = [i for i in range(40) if f"{i:016x}" in levels]
        before = [bank.order(f"{i:016x}") for i in kept]
        bank.delete([f"{kept[3]:016x}"])
    with MemoryBank.open(path, kind, read_only=True) as bank:
        assert before == sorted(before)
        assert 10 < len(set(before)) == len(kept)
        gone = kept.pop(3)
        assert bank.order(f"{gone:016x}") == bank.order("unknown") == -1
        assert [bank.order(f"{i:016x}") for i in kept] == [*before[:3], *before[4:]]
        assert bank.age("unknown") == ("", -1)


# ---- methods


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("rag", {}),
        ("strata", {"entry": "verbatim"}),
        ("strata", {"entry": "pooled"}),
    ],
)
def test_the_document_written_last_is_read(
    backbones: Backbones, method: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketch, "COSINE_WEIGHT", 0.0)  # keys of an untrained selector are random
    made = build_method(method, backbones.fresh("llama"), config, preset="tiny", seed=0)
    made.prepare(DOCUMENTS)
    made.train(False)
    for first, last in ((OLD, NEW), (NEW, OLD)):
        with fresh_bank(made):
            made.write([Document(first), *DOCUMENTS])
            made.write([Document(last)])
            named = [name for name, _ in made.read([ASKED]).sources[0]]
            assert Document(last).id in named
            assert Document(first).id not in named
            assert made.read(QUESTIONS[:1]).sources[0]


def test_a_stated_time_counts_more_than_the_order_of_writing(backbones: Backbones) -> None:
    made = build_method("rag", backbones.shared("llama"), {}, preset="tiny", seed=0)
    old, new = Document(OLD, time="2019-01-01"), Document(NEW, time="2024-01-01")
    for documents in ([old, new], [new, old]):
        with fresh_bank(made):
            made.write(documents)
            assert made.read([ASKED]).sources[0][0][0] == new.id
