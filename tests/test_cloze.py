"""Questions made from plain text: the rules, what they leave out, and data sets of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.cloze import (
    CLAUSE_WORDS,
    PIECE,
    Cloze,
    cloze_dataset,
    cloze_questions,
    corpus_dataset,
)
from latentbank.evaluate.data import held_out, load_sample


def made(text: str) -> dict[str, str]:
    """answer → question of a text."""
    return {cloze.answer: cloze.question for cloze in cloze_questions(text)}


@pytest.mark.parametrize(
    ("sentence", "answer", "question"),
    [
        (
            "The old lighthouse was finished in 1898 by two brothers.",
            "1898",
            "The old lighthouse was finished in what year by two brothers?",
        ),
        (
            "The keeper left the island on 3 March 1901 for good.",
            "3 March 1901",
            "The keeper left the island on what date for good?",
        ),
        (
            "The keeper left the island on March 3, 1901 for good.",
            "March 3, 1901",
            "The keeper left the island on what date for good?",
        ),
        (
            "About 1.5 million ships have passed the lighthouse since then.",
            "1.5 million",
            "About how many ships have passed the lighthouse since then?",
        ),
        (
            "The lamp burns with 40% less oil than before.",
            "40%",
            "The lamp burns with what percentage less oil than before?",
        ),
        (
            "Sailors of the coast call it “the lazy eye” to this day.",
            "the lazy eye",
            "Sailors of the coast call it “what” to this day?",
        ),
        (
            "The lamp was built in a workshop in Saint Malo last year.",
            "Saint Malo",
            "The lamp was built in a workshop in who or what last year?",
        ),
        (
            "The Bank of the West paid for the lamp and the stairs.",
            "Bank of the West",
            "The who or what paid for the lamp and the stairs?",
        ),
    ],
)
def test_a_sentence_asks_in_the_place_of_its_answer(
    sentence: str, answer: str, question: str
) -> None:
    assert made(sentence)[answer] == question


@pytest.mark.parametrize(
    "text",
    [
        "It was finished by two brothers in 1898.",  # of what?
        "Finished in 1898.",
        "Plain words without anything to ask about stand here.",
        "In 1898 they began, and in 1898 they were done.",  # the answer stands twice
        "Lighthouses burn oil every night of the year here.",  # a capital of its place
        "The keeper came back on a Monday in October as ever.",
        "Word " * 61 + "1898.",
        "",
    ],
)
def test_what_makes_no_question(text: str) -> None:
    assert made(text) == {}


def test_abbreviations_end_no_sentence() -> None:
    found = made("The plan by Dr. J. Smith et al. was accepted in 1911 here. Then came the war.")
    assert found["1911"] == "The plan by Dr. J. Smith et al. was accepted in what year here?"


def test_a_long_sentence_is_cut_to_the_clauses_about_the_answer() -> None:
    start = (
        "After many delays and a quarrel about the money for the stone and the men and the boats"
    )
    found = made(f"{start}, the lamp was at last lit by the mayor in 1898, and people cheered.")
    assert found["1898"] == "The lamp was at last lit by the mayor in what year?"
    assert max(len(q.split()) for q in found.values()) <= CLAUSE_WORDS[1]


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_any_text_gives_answers_that_stand_in_it_and_not_in_the_question(text: str) -> None:
    flat = " ".join(text.split())
    for cloze in cloze_questions(text):
        assert cloze.answer
        assert cloze.answer in flat
        assert cloze.answer.lower() not in cloze.question.lower().replace(cloze.kind, "")


def test_a_data_set_spreads_over_the_kinds_and_is_one_result_per_seed() -> None:
    documents = load_sample().documents[:40]
    data = cloze_dataset("sample", documents, per_document=3, seed=1)
    assert data.documents == tuple(documents)
    assert data == cloze_dataset("sample", documents, per_document=3, seed=1)
    other = cloze_dataset("sample", documents, per_document=3, seed=2)
    assert data.questions != other.questions
    for index, group in enumerate(data.questions_by_document()):
        found: list[Cloze] = list(cloze_questions(documents[index].text))
        kind = {cloze.question: cloze.kind for cloze in found}
        assert len(group) == min(3, len(found))
        asked = {kind[data.questions[q].text] for q in group}
        assert len(asked) == min(len(group), len({cloze.kind for cloze in found}))
    with pytest.raises(InputError, match="no sentence to make a question of"):
        cloze_dataset("dull", [Document("nothing to ask about")])
    with pytest.raises(InputError, match="per_document"):
        cloze_dataset("sample", documents, per_document=0)


def test_a_corpus_is_read_in_pieces(tmp_path: Path) -> None:
    sentence = "The lamp number {} was lit in {} by the keeper of the tower."
    long = " ".join(sentence.format("x" * 3, 1000 + i) for i in range(200))
    (tmp_path / "long.txt").write_text(long)
    (tmp_path / "short.md").write_text(sentence.format("y", 1999))
    data = corpus_dataset(tmp_path)
    assert data.name == tmp_path.name
    assert all(len(document.text) <= PIECE for document in data.documents)
    assert len(data.documents) > 10
    kept, late = held_out(data, 0.2)
    assert late is not None
    assert kept.documents + late.documents == data.documents
    assert len(kept.questions) + len(late.questions) == len(data.questions)
    for part in (kept, late):
        assert all(q.answers[0] in part.documents[q.document].text for q in part.questions)
    alone, none = held_out(data.take(1), 0.5)
    assert none is None
    assert alone == data.take(1)
