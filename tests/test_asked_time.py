"""Questions about now, as of a date, before one; the newest of several documents wins."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from latentbank.documents.document import Document
from latentbank.model import MemoryModel
from latentbank.parts.retrieval.asked_time import asked_time, newest_first
from latentbank.parts.retrieval.versions import superseded_by
from test_chat import adapted
from tiny import Backbones
from tiny_cli import succeed


@pytest.mark.parametrize(
    ("question", "rest", "date", "strict"),
    [
        ("Who led the office as of May 2023?", "Who led the office?", "2023-05", False),
        ("As of 2023-05-01, who led it?", "who led it?", "2023-05-01", False),
        ("Who led it before 3 June 2021?", "Who led it?", "2021-06-03", True),
        ("Who led it prior to June 3, 2021?", "Who led it?", "2021-06-03", True),
        ("Who led it until 2020?", "Who led it?", "2020", True),
    ],
)
def test_a_date_in_a_question(question: str, rest: str, date: str, strict: bool) -> None:
    asked = asked_time(question)
    assert asked is not None and str(asked.date) == date
    assert (asked.rest, asked.strict, asked.newest) == (rest, strict, False)


@pytest.mark.parametrize(
    "question", ["Who came before him?", "As of now?", "Who led it before 31 February 2021?", "Now"]
)
def test_a_question_without_a_date_that_can_be_read(question: str) -> None:
    asked = asked_time(question)
    assert asked is None or asked.newest


def test_the_newest_of_equals_comes_first() -> None:
    ages = {"a": ("2021", 0), "b": ("2023", 1), "c": ("", 2), "d": ("2022", 3)}
    ranking = [("a", 1.0), ("b", 0.9), ("c", 0.9), ("d", 0.3)]
    found = newest_first(ranking, [1.0, 1.0, 1.0, 1.0], ages.__getitem__)
    assert found == ([("b", 1.0), ("c", 0.9), ("d", 0.3)], ("a",))
    assert newest_first(ranking, [1.0, 0.5, 1.0, 1.0], ages.__getitem__) == (ranking, ())
    assert newest_first([], [], ages.__getitem__) == ([], ())


PRICES = [
    Document("A Kestrel costs 480 euros after the fair of Brno.", id="old", time="2021-03-01"),
    Document("In Graz they set what a Kestrel costs: 500.", id="mid", time="2022-06-01"),
    Document("What a Kestrel costs was raised, 530 from here on.", id="new", time="2023-09-15"),
    Document("The canteen closes at four.", id="canteen", time="2020-01-01"),
]


def first(model: MemoryModel, question: str) -> str:
    ranking = model.method.retriever.rank([question], 2)[0]  # type: ignore[attr-defined]
    return ranking[0][0]


def test_questions_about_a_time_find_the_document_of_that_time(backbones: Backbones) -> None:
    with adapted(backbones) as model:
        model.write(PRICES)
        for question, id in (
            ("What does a Kestrel cost now?", "new"),
            ("What are the latest costs of a Kestrel?", "new"),
            ("What are the costs of a Kestrel as of 2022?", "mid"),
            ("What are the costs of a Kestrel before June 2022?", "old"),
            ("What are the costs of a Kestrel as of 2021-12-31?", "old"),
        ):
            assert first(model, question) == id, question
        answer = model.ask("What are the latest costs of a Kestrel?")
        if answer.documents[0][0] == "new":
            assert set(answer.superseded) == {"mid", "old"}
        # a year that is not about the documents' times
        assert first(model, "When does the canteen close before 1066?") == "canteen"


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_version_of_each_month_is_found(backbones: Backbones, shuffled: bool) -> None:
    names = [f"{a}{b}" for a in ("Ann", "Bob", "Cid") for b in ("ton", "ley", "ford", "man")]
    months = [date(2022, 1, 15) + timedelta(days=30 * i) for i in range(12)]
    documents = [
        Document(f"The head of the office is {name}.", id=name, time=str(month))
        for name, month in zip(names, months, strict=True)
    ]
    with adapted(backbones) as model:
        model.write(documents[::-1] if shuffled else documents)
        for name, month in zip(names, months, strict=True):
            assert first(model, f"Who is the head of the office as of {month}?") == name
        for earlier, month in zip(names, months[1:], strict=False):
            assert first(model, f"Who was the head of the office before {month}?") == earlier
        assert first(model, "Who is the head of the office now?") == names[-1]
        assert first(model, "Who is the head of the office?") == names[-1]


def test_without_times_nothing_changes(backbones: Backbones) -> None:
    with adapted(backbones) as model:
        model.write([Document(one.text, id=one.id) for one in PRICES])
        retriever = model.method.retriever  # type: ignore[attr-defined]
        question = "What are the latest costs of a Kestrel before 2022?"
        assert retriever.rank([question], 3) == [retriever._rank_texts(question, 8)[:3]]


def test_older_versions_are_told_without_a_question() -> None:
    long = "The survey of the river found trout, perch and pike near the old mill of Holm. " * 6
    texts = {
        "lena": "The head of the office is Lena Brandt.",
        "otto": "The head of the office is Otto Keller.",
        "other": "The head of the factory is Otto Keller.",
        "price1": "The price of the Kestrel valve is 480 euros.",
        "price2": "The price of the Kestrel valve is 530 euros.",
        "wrote": "Ada Lovelace wrote the first program in 1843.",
        "letter": "Ada Lovelace wrote the first letter in 1835.",
        "mill1": long + "Twelve birds and a fox were seen in the reeds there.",
        "mill2": long + "Thirteen birds and no fox were seen in the reeds there.",
        "chunk#0": "The rules of the club are these.",
        "chunk#1": "The rules of the club are those.",
        "empty": "…",
    }
    order = list(texts)
    found = superseded_by(texts, order.index, lambda id: id.partition("#")[0])
    assert found == {"lena": "otto", "price1": "price2", "mill1": "mill2"}
    assert superseded_by(texts, lambda id: -order.index(id))["otto"] == "lena"
    assert superseded_by({}, order.index) == {}


def test_inspect_marks_what_is_superseded(backbones: Backbones, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    options = {"backbone": str(backbones.folder("llama"))}
    with MemoryModel.from_pretrained("rag", bank=bank, **options) as model:
        for year, name in ((2021, "Lena Brandt"), (2023, "Otto Keller"), (2022, "Ann Poe")):
            text = f"The head of the office is {name}."
            model.write([Document(text, id=name.split()[0], time=str(year))])
        model.write([Document("Bees dance.", id="bees")])
    rows = json.loads(succeed("inspect", str(bank), "--documents", "--json").stdout)["list"]
    assert {row["id"]: row["state"] for row in rows} == {
        "Lena": "superseded by Otto",
        "Otto": "active",
        "Ann": "superseded by Otto",
        "bees": "active",
    }
    assert "superseded by Otto" in succeed("inspect", str(bank), "--documents").stdout
