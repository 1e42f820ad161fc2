"""The reranker: what of a question stands where in a text, and that it counts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.parts.retrieval.lexical import LexicalIndex
from latentbank.parts.retrieval.rerank import passages
from latentbank.parts.retrieval.rerank.evidence import Asked, Evidence, evidence
from latentbank.parts.retrieval.rerank.passages import (
    CONTENT,
    NAME,
    NUMBER,
    YEAR,
    Passage,
    Passages,
    Stemmer,
)
from latentbank.parts.retrieval.rerank.reranker import FEATURES, Reranker, packaged_weights
from latentbank.parts.retrieval.retriever import RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import content
from tiny import DOCUMENTS, QUESTIONS

STEMMER = Stemmer()


def found(question: str, text: str, weight: float = 1.0) -> Evidence:
    """The evidence where every content word of the question weighs the same."""
    index = LexicalIndex(background=None)
    words = dict.fromkeys(index.weights(question), weight)
    return evidence(Asked.of(question, words, STEMMER), Passage.of_all([text], STEMMER)[0], 2.0)


# ---- texts


def test_stems_are_those_of_the_index() -> None:
    words = ["running", "Écoles".lower(), "houses", "a_b", "running", "☃"]
    assert STEMMER.stems(words) == ["run", "ecol", "hous", "a b", "run", "☃"]


def test_the_stemmer_forgets_when_it_knows_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "_REMEMBERED", 4)
    stemmer = Stemmer()
    for word in ("ships", "boats", "houses", "trees", "roads", "ships"):
        assert stemmer.stems([word, "runs"]) == [STEMMER.stems([word])[0], "run"]
        assert len(stemmer._known) <= 4


def test_a_passage_knows_its_sentences_names_and_numbers() -> None:
    [one] = Passage.of_all(["The ship left. Mara Venn came in 1907 with 3 dogs."], STEMMER)
    assert list(one.sentences) == [0] * 3 + [1] * 8
    assert one.stems[:3] == ("the", "ship", "left")
    kinds = dict(zip(one.stems, one.kinds, strict=True))
    assert kinds["the"] == 0 and kinds["ship"] == CONTENT
    assert not kinds["mara"] & NAME, "a sentence begins with it"
    assert kinds["venn"] == NAME | CONTENT
    assert kinds["1907"] == YEAR | NUMBER | CONTENT and kinds["3"] == NUMBER | CONTENT


def test_passages_are_read_once_and_forgotten_when_they_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def texts_of(ids: Sequence[str]) -> list[str]:
        asked.append(list(ids))
        return [f"text {id}" for id in ids]

    kept = Passages(texts_of)
    assert kept.get(["a", "b"])[1].stems == ("text", "b")
    kept.get(["b", "a"])
    kept.drop(["a", "unknown"])
    kept.get(["a", "b"])
    assert asked == [["a", "b"], ["a"]]
    monkeypatch.setattr(passages, "_KEPT", 2)
    assert len(kept.get(["a", "b", "c"])) == 3
    kept.get(["c", "b", "a"])
    assert asked[2:] == [["c"], ["a"]], "the one read longest ago is forgotten"


# ---- features


def test_what_is_held_in_the_text_a_sentence_and_a_window() -> None:
    far = "word " * passages_apart()
    one = found("Who repairs lamps of Oster?", f"Oster has {far}. Mara repairs lamps.", weight=2.0)
    assert (one.held, one.sentence, one.window) == (6.0, 4.0, 4.0)
    near = found("Who repairs lamps of Oster?", "On Oster Mara repairs lamps.", weight=2.0)
    assert (near.held, near.sentence, near.window) == (6.0, 6.0, 6.0)


def passages_apart() -> int:
    return 30  # words, more than a window has


def test_pairs_are_words_that_follow_each_other() -> None:
    one = found("When was the head of state born?", "The state of the head. A head of state.")
    assert one.pairs == 3  # the head, head of, of state
    assert one.content_pairs == 2.0  # head state
    assert found("When was the head of state born?", "state head").pairs == 0


def test_missing_names_and_relatives_of_missing_words() -> None:
    one = found("Did Otto Venn invade Oster?", "The invasion of Oster", weight=3.0)
    assert one.names_missing == 6.0
    assert one.alike == 3.0, "invad and invas"
    assert found("Did Otto Venn invade Oster?", "Otto Venn").names_missing == 1.0


@pytest.mark.parametrize(
    "question, text, value",
    [
        ("When was Oster built?", "Oster was built in 1907.", 1.0),
        ("When was Oster built?", "Oster was built. It burned in 1907.", 0.5),
        ("When was Oster built?", "Oster was built of 3000 stones.", 0.0),
        ("How many stones has Oster?", "Oster has 3000 stones.", 1.0),
        ("Who built Oster?", "Oster was built by Mara.", 1.0),
        ("Who built Oster?", "Oster was built by her.", 0.0),
        ("Oster?", "Oster was built by her.", 0.8),
    ],
)
def test_the_kind_of_word_that_is_asked_for(question: str, text: str, value: float) -> None:
    assert found(question, text).answer == value


def test_score_place_and_length() -> None:
    one = found("Oster?", "A B Oster D")
    assert (one.score, one.start, one.length) == (2.0, 2 / 50, math.log(5))
    assert found("Oster?", "").values() == [2.0, *[0.0] * 5, 0.0, 0.8, 0.0, 0.0, 0.0]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.text(max_size=120))
def test_every_question_and_text_has_finite_features(question: str, text: str) -> None:
    one = found(question, text)
    assert all(math.isfinite(value) for value in one.values())
    assert 0 <= one.sentence <= one.held + 1e-9 and 0 <= one.window <= one.held + 1e-9


# ---- order


def retriever(texts: dict[str, str], **config: int) -> Retriever:
    made = Retriever(
        RetrievalConfig(**config),
        lambda id: content(texts[id]),
        lambda id: 0,
        lambda ids: [texts.get(id, "") for id in ids],
    )
    made.add_texts(list(texts), list(texts.values()))
    return made


PHRASE = {
    "scattered": "The state paid. The head cook sang of art. The union of bakers met.",
    "phrase": "The head of state opened the art union and then went home with some other people.",
}


def test_words_that_stand_together_beat_words_that_do_not() -> None:
    question = "Who is the head of state in the art union?"
    assert retriever(PHRASE, rerank=0).rank([question], 1)[0][0][0] == "scattered"
    assert retriever(PHRASE).rank([question], 1)[0][0][0] == "phrase"


def test_scores_fall_and_the_first_is_one() -> None:
    (row,) = retriever(PHRASE).rank(["Who is the head of state?"], 2)
    assert row[0][1] == 1.0 and 0 < row[1][1] <= 1.0


def test_scores_are_roots_of_odds_by_the_weights() -> None:
    texts = {"a": "Oster Oster", "b": "Oster"}
    weights = {**dict.fromkeys(FEATURES, 0.0), "score": 0.5}
    made = Reranker(lambda ids: [texts[id] for id in ids], weights)
    found = made.rerank("Oster?", {"oster": 1.0}, [("b", 1.0), ("a", 3.0)])
    assert found == [("a", 1.0), ("b", pytest.approx(math.exp(-0.5)))]


def test_a_removed_text_is_not_remembered() -> None:
    texts = {"a": "The lamp of Oster", "b": "The lamp of Skerry and of another place"}
    made = retriever(texts)
    assert made.rank(["Where is the lamp of Oster?"], 2)[0][0][0] == "a"
    made.remove(["a"])
    texts["a"] = "The lamp of Skerry and of another place, where it is"
    texts["b"] = "The lamp of Oster"
    made.remove(["b"])
    made.add_texts(list(texts), list(texts.values()))
    assert made.rank(["Where is the lamp of Oster?"], 2)[0][0][0] == "b"


def test_a_text_that_is_gone_is_ranked_without_its_words() -> None:
    texts = {"a": "Oster has a lamp.", "b": "The lamp burns on Skerry all night."}
    made = retriever(texts)
    texts.pop("b")
    assert made.rank(["Where is the lamp?"], 2)[0][0][0] == "a"


@pytest.mark.parametrize("rerank", [0, 1, 2, 32])
def test_each_question_finds_its_document(rerank: int) -> None:
    made = retriever({d.id: d.text for d in DOCUMENTS}, rerank=rerank)
    for document, question in zip(DOCUMENTS, QUESTIONS, strict=True):
        assert made.rank([question], 3)[0][0][0] == document.id


def test_the_packaged_weights_say_what_they_are_of() -> None:
    import latentbank

    path = Path(latentbank.__file__).parent / "assets" / "rerank.json"
    told = json.loads(path.read_text("utf-8"))
    assert set(told["weights"]) == set(FEATURES)
    assert "train" in told["data"] and "test" not in told["data"]
    weights = packaged_weights()
    assert weights["names_missing"] < 0 < weights["sentence"]
