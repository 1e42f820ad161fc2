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
from latentbank.parts.retrieval.retriever import RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import ShortTexts, content, newest
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


# ---- short texts and many versions


def retriever(texts: dict[str, str], ages: dict[str, Any]) -> Retriever:
    return Retriever(
        RetrievalConfig(),
        lambda id: content(texts[id]),
        ages.__getitem__,
        lambda ids: [texts[id] for id in ids],
    )


def asked(texts: dict[str, str], ages: dict[str, Any], question: str, top: int = 1) -> list[Any]:
    """What a retriever over texts finds, newest versions only."""
    found = retriever(texts, ages)
    found.add_texts(list(texts), list(texts.values()))
    return [id for id, _ in found.rank([question], top)[0]]


LENA = "The head of the harbour office is Lena Brandt."
OTTO = "The head of the harbour office is Otto Keller."


@pytest.mark.parametrize("order", [("lena", "otto"), ("otto", "lena")])
def test_the_newest_of_short_texts_is_read(order: tuple[str, str]) -> None:
    said = {"lena": LENA, "otto": OTTO}
    texts = {name: said[name] for name in order}
    years = {"lena": "2025", "otto": "2019"}
    assert asked(texts, years, "Who is the head of the harbour office?", 4) == ["lena"]


def test_the_length_of_a_version_does_not_count() -> None:
    texts = {
        "a": "The code of the east gate is 4711.",
        "b": "The code of the east gate is 0815 and then the star and the hash.",
        "c": "The code of the west gate is 1234.",
    }
    for newest_one in ("a", "b"):
        ages = {"a": 1, "b": 1, "c": 9, newest_one: 2}
        found = asked(texts, ages, "What is the code of the east gate?", 3)
        assert found[0] == newest_one
        assert "c" in found, "another gate is no version"


@pytest.mark.parametrize("count", [3, 9, 200])
@pytest.mark.parametrize("newest_at", [0, 0.5, 1])
def test_the_number_of_versions_does_not_count(count: int, newest_at: float) -> None:
    texts = {f"v{i}": f"The price of the ferry to Oster is {i + 10} crowns." for i in range(count)}
    latest = f"v{round(newest_at * (count - 1))}"
    ages = {name: (name == latest, i) for i, name in enumerate(texts)}
    assert asked(texts, ages, "What is the price of the ferry to Oster?", 4) == [latest]


def test_a_long_text_with_the_words_of_the_question_is_no_version_of_a_short_one() -> None:
    diary = "In spring Anna paints. Bees dance. " * 20 + "Some say that Anna lives in the tower. "
    texts = {"fact": "Anna lives in Lisbon.", "diary": diary + "The canteen closes at four. " * 20}
    ages = {"fact": 1, "diary": 2}
    assert asked(texts, ages, "Where does Anna live?") == ["fact"]
    texts["new"], ages["new"] = "Anna lives in Oslo.", 3
    assert asked(texts, ages, "Where does Anna live?") == ["new"]


def test_one_fact_of_several_persons_is_no_version() -> None:
    texts = {
        "anna": "Anna Lind lives in Lisbon.", "ben": "Ben Roth lives in Lisbon.",
        "later": "Anna Lind lives in Porto.",
    }  # fmt: skip
    ages = {"anna": 1, "ben": 9, "later": 2}
    found = asked(texts, ages, "Where does Anna Lind live?", 3)
    assert found[0] == "later" and "anna" not in found
    assert asked(texts, ages, "Where does Ben Roth live?") == ["ben"]


def test_versions_may_drift() -> None:
    words = [
        "the",
        "ferry",
        "to",
        "Oster",
        "leaves",
        "pier",
        "one",
        "at",
        "six",
        "on",
        "every",
        "day",
        "but",
        "Sunday",
    ]
    texts = {}
    for i in range(8):
        texts[f"v{i}"] = " ".join(words)
        words[7 + i % 7] = f"new{i}"
    ages = {name: i for i, name in enumerate(texts)}
    assert asked(texts, ages, "Where does the ferry to Oster leave?") == ["v7"]


def test_superseded_versions_are_named() -> None:
    texts, ages = {"lena": LENA, "otto": OTTO}, {"lena": "2025", "otto": "2019"}
    made = retriever(texts, ages)
    made.add_texts(list(texts), list(texts.values()))
    (one,) = made.resolve("Who is the head?", [("otto", 2.0), ("lena", 2.0)], 1)
    assert (one.id, one.superseded) == ("lena", ("otto",))


def test_a_ranking_tells_what_it_passed_over() -> None:
    texts = {f"v{i}": f"The price of the ferry to Oster is {i + 10} crowns." for i in (1, 3, 2)}
    texts["tea"] = "The price of tea is unknown."
    made = retriever(texts, {id: id for id in texts})
    made.add_texts(list(texts), list(texts.values()))
    question = "What is the price of the ferry to Oster?"
    found = [id for id, _ in made.rank([question, "Tea?"], 4)[0]]
    assert found[0] == "v3" and made.superseded(question, "v3") == ("v2", "v1")
    assert made.superseded("Tea?", "tea") == () == made.superseded(question, "tea")
    made.rank(["Tea?"], 4)
    assert made.superseded(question, "v3") == ()


def test_the_words_of_a_short_text_are_read_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    class Words:
        def findall(self, text: str) -> list[str]:
            read.append(text)
            return text.split()

    monkeypatch.setattr("latentbank.parts.retrieval.versions.WORD", Words())
    short = ShortTexts()
    short.add(["a", "b", "long", "edge"], ["One two", "Three", "x " * 65, "x " * 64])
    assert read == []
    assert len(short("a")) == 2 and len(short("a")) == 2 and read == ["one two"]
    assert len(short("long")) == 0 and len(short("edge")) == 64
    short.add(["a"], ["One two three"])
    assert len(short("a")) == 3
    short.remove(["a", "b", "nobody"])
    assert len(short("a")) == len(short("b")) == 0


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
    made = build_method("rag", backbones.fresh("llama"), {}, preset="tiny", seed=0)
    old, new = Document(OLD, time="2019-01-01"), Document(NEW, time="2024-01-01")
    for documents in ([old, new], [new, old]):
        with fresh_bank(made):
            made.write(documents)
            assert made.read([ASKED]).sources[0][0][0] == new.id
