"""What the demo suggests at its end: a question that its bank can still answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from latentbank.answering import Answer
from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.cli.demo_steps import Reader, Tour
from latentbank.documents.document import Document
from latentbank.evaluate.data import QADataset, Question

DATA = QADataset(
    "d",
    tuple(Document(f"{name} is here.", id=name) for name in ("Ada", "Ben", "Cem")),
    tuple(
        Question(name, f"Where is {name}?", ("here",), at)
        for at, name in enumerate(("Ada", "Ben", "Cem"))
    ),
)


def suggested(held: list[str], answered: dict[str, str]) -> str | None:
    """What is suggested where the bank holds some entries; name → its answer, read from it."""
    with MemoryBank.create(":memory:", BankFingerprint("m", "a", "b", "t")) as bank:
        bank.append([Entry(id, "verbatim", b"x") for id in held])
        memory: Any = SimpleNamespace(bank=bank)
        tour = Tour(lambda _: None, memory, DATA, DATA.questions)
        tour.answered = [
            (one, Answer(answered[one.id], ((one.id, 1.0),), 1.0, 0.0, 0.0))
            for one in DATA.questions
            if one.id in answered
        ]
        return tour.suggestion()


def test_a_question_that_was_answered_right_from_what_is_held() -> None:
    right = {"Ada": "here", "Ben": "there", "Cem": "here"}
    assert suggested(["Ada", "Ben", "Cem"], right) == "Where is Ada?"
    assert suggested(["Ben", "Cem"], right) == "Where is Cem?", "Ada was forgotten"


def test_else_any_question_about_what_is_held() -> None:
    assert suggested(["Ben#0", "Ben#1"], {"Ben": "there"}) == "Where is Ben?"
    assert suggested([], {"Ada": "here"}) is None


def test_an_answer_that_no_document_gave_is_called_the_models_own() -> None:
    said: list[str] = []
    own = Answer("Oslo", (), 0.0, 0.0, 0.0)
    memory: Any = SimpleNamespace(ask=lambda question, decoding, memory: own)
    tour = Tour(said.append, memory, DATA, DATA.questions[:1])
    tour.ask([Reader("memory", memory), Reader("closed book", memory, closed=True)])
    lines = [line for line in said if "Oslo" in line]
    assert ["not in memory" in line for line in lines] == [True, False]
    assert "✓" in said[0], "the mark is explained"
