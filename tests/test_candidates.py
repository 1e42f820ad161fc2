"""Documents read one by one, of whose answers the surest counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.answering import answer_batch as answer
from latentbank.backbone.generate import DecodingConfig, PromptRun
from latentbank.backbone.prompts import prompt_ids
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.method import Method
from latentbank.model import MemoryModel
from latentbank.parts.retrieval.candidates import Candidate, QuestionGain, weighed
from tiny import DOCUMENTS, QUESTIONS, Backbones, fresh_bank

SHORT = DecodingConfig(max_new_tokens=4)
MORE = [
    *DOCUMENTS,
    Document("The harbour of Bergen did not freeze in the winter of 1924."),
    Document("The first program ran on a machine, the first of its kind."),
    Document("When the comet returned, the bees of Oslo were told."),
]
STORED = [("strata", {}), ("strata", {"read": "text"}), ("rag", {})]


def made(backbones: Backbones, name: str, **config: Any) -> Method:
    method = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    method.prepare(DOCUMENTS)
    method.train(False)
    fresh_bank(method)
    method.write(MORE)
    return method


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(("name", "config"), STORED)
def test_the_surest_answer_counts(
    backbones: Backbones, name: str, config: dict[str, Any], equal: bool
) -> None:
    method = made(backbones, name, candidates=3, least_match=0.0, **config)
    rows = method.candidates(QUESTIONS)
    assert rows is not None and max(map(len, rows)) == 3
    if equal:  # the model alone decides
        rows = [[Candidate(document.id, 1.0) for document in DOCUMENTS] for _ in QUESTIONS]
        method.candidates = lambda questions: rows  # type: ignore[method-assign]
    found = answer(method, QUESTIONS, None, SHORT)
    others = 0
    for question, row, got in zip(QUESTIONS, rows, found, strict=True):
        alone = [
            (one.confidence * entrant.weight, entrant.document, one.text)
            for entrant in row
            for one in answer(method, [question], [entrant.document], SHORT)
        ]
        sure, best, text = max(alone, key=lambda one: one[0])  # the first of equals
        assert (got.text, got.documents) == (text, ((best, 1.0),))
        assert got.confidence == pytest.approx(sure, rel=1e-4)
        others += best != row[0].document
        assert got.seconds > 0 and got.first_token_seconds > 0
    assert others or not equal, "or the first document would have done"


@pytest.mark.parametrize(("name", "config"), STORED)
def test_one_candidate_is_what_read_chooses(
    backbones: Backbones, name: str, config: dict[str, Any]
) -> None:
    method = made(backbones, name, candidates=1, **config)
    assert method.candidates(QUESTIONS) is None


def test_pooled_states_are_chosen_once(backbones: Backbones) -> None:
    assert made(backbones, "strata", entry="pooled").candidates(QUESTIONS) is None


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_what_fits_nothing_is_answered_without_memory(backbones: Backbones, name: str) -> None:
    method = made(backbones, name, candidates=2, least_match=0.4)
    asked = [QUESTIONS[0], "Which zeppelin crossed the glacier?", "Xyzzy?"]
    found = answer(method, asked, None, SHORT)
    plain = answer(method, asked, None, SHORT, memory=False)
    assert found[0].documents and not found[1].documents and not found[2].documents
    assert [one.text for one in found[1:]] == [one.text for one in plain[1:]]
    assert found[1].confidence < plain[1].confidence


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_the_model_without_memory_competes(backbones: Backbones, name: str) -> None:
    method = made(backbones, name, candidates=2, least_match=0.0, closed_weight=0.5)
    rows = method.candidates(QUESTIONS)
    assert rows is not None and all(row[-1] == Candidate(None, 0.5) for row in rows)
    plain = answer(method, QUESTIONS, None, SHORT, memory=False)
    for weight in (1e-9, 1.0):  # of the documents, against that of the model alone
        less = [
            [*(Candidate(one.document, weight) for one in row[:-1]), Candidate(None, 1e-4)]
            for row in rows
        ]
        method.candidates = lambda questions, less=less: less  # type: ignore[method-assign]
        found = answer(method, QUESTIONS, None, SHORT)
        for one, alone in zip(found, plain, strict=True):
            assert bool(one.documents) == (weight == 1.0)
            if weight < 1:
                assert one.text == alone.text
                assert one.confidence == pytest.approx(1e-4 * alone.confidence, rel=1e-4)


def likelihood(method: Method, question: str, document: str | None) -> float:
    """Of the question's tokens in nats, with a document or without."""
    reading = method.closed_book() if document is None else method.read([question], [document])
    prompts = prompt_ids(method.backbone, [question], reading.passages)
    count = len(prompt_ids(method.backbone, [question])[0]) - 1
    with reading.attach(method.backbone):
        return PromptRun(method.backbone, prompts, scored=[count]).likelihoods()[0]


@pytest.mark.parametrize(("name", "config"), STORED)
def test_answers_count_by_how_likely_their_text_makes_the_question(
    backbones: Backbones, name: str, config: dict[str, Any]
) -> None:
    settings = {"candidates": 3, "least_match": 0.0, "closed_weight": 0.1, **config}
    method = made(backbones, name, gain_half=0.1, gain_scale=0.05, **settings)
    gain = QuestionGain(0.1, 0.05)
    rows = method.candidates(QUESTIONS)
    assert rows is not None
    rows = [[*(Candidate(one.document, 0.9) for one in row[:-1]), row[-1]] for row in rows]
    method.candidates = lambda questions: rows  # type: ignore[method-assign]
    found, chosen, gains = answer(method, QUESTIONS, None, SHORT), [], []
    for question, row, got in zip(QUESTIONS, rows, found, strict=True):
        plain = likelihood(method, question, None)
        alone = answer(method, [question], None, SHORT, memory=False)[0]
        scores = {"": 0.1 * alone.confidence}
        for document in (one.document for one in row[:-1]):
            gains.append(likelihood(method, question, document) - plain)
            one = answer(method, [question], [document], SHORT)[0]
            scores[document] = 0.9 * one.confidence * gain.weight(gains[-1])
        best = max(scores, key=lambda one: scores[one])
        chosen.append(got.documents[0][0] if got.documents else "")
        assert chosen[-1] == best
        assert got.confidence == pytest.approx(scores[best], rel=1e-3)
    assert max(gains) - min(gains) > 0.05, "the weights are alike"


@pytest.mark.parametrize(("name", "config"), STORED)
def test_what_candidates_have_in_common_runs_once(
    backbones: Backbones, name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated: list[int] = []
    repeat = PromptRun.repeat

    def noted(self: PromptRun, rows: Sequence[int]) -> PromptRun:
        repeated.append(len(rows))
        return repeat(self, rows)

    monkeypatch.setattr(PromptRun, "repeat", noted)
    method = made(backbones, name, candidates=2, least_match=0.0, gain_scale=5.0, **config)
    answer(method, QUESTIONS, None, SHORT)
    states = name == "strata" and not config
    assert repeated[:1] == ([len(QUESTIONS)] if states else []), "passages are in the prompt"


def test_gains_weigh_from_nothing_to_all() -> None:
    gain = QuestionGain.of(10.0, 5.0)
    assert gain is not None and QuestionGain.of(10.0, 0.0) is None
    found = [gain.weight(nats) for nats in (-1e9, 5.0, 10.0, 15.0, 1e9)]
    assert found == pytest.approx([0.0, 0.2689414, 0.5, 0.7310586, 1.0])
    for method in ("strata", "rag"):
        with pytest.raises(InputError, match="gain_scale must not be negative, got -1"):
            build_method(method, None, {"gain_scale": -1.0})  # type: ignore[arg-type]


def test_pooled_entries_do_not_compete_with_the_model_alone(backbones: Backbones) -> None:
    assert (
        made(backbones, "strata", entry="pooled", closed_weight=0.5).candidates(QUESTIONS) is None
    )


def test_only_the_document_of_the_answer_has_helped(backbones: Backbones) -> None:
    method = made(backbones, "strata", candidates=3)
    noted: list[str] = []
    bank = method.require_bank()
    bank.note_hits = lambda names: noted.extend(names)  # type: ignore[method-assign]
    found = MemoryModel(method, bank).ask_many(QUESTIONS, SHORT)
    assert sorted(noted) == sorted(one.documents[0][0] for one in found)


def test_weights_fall_with_the_score() -> None:
    ranking = [("a", 8.0), ("b", 4.0), ("c", -1.0)]
    fell = [Candidate("a", 0.5), Candidate("b", 0.2), Candidate("c", 0.0)]
    assert weighed(ranking, [0.5, 0.8, 1.0], 0.3) == fell
    assert weighed(ranking, [0.1, 0.2, 0.0], 0.3) == [Candidate(None, 0.2)]
    assert weighed([], [], 0.3) == [Candidate(None, 0.0)]
    beside = [Candidate("a", 0.5), Candidate(None, 0.25)]
    assert weighed(ranking[:1], [0.5], 0.3, 0.25) == beside
    assert weighed(ranking[:1], [0.1], 0.3, 0.25) == [Candidate(None, 0.1)]


@pytest.mark.parametrize(("name", "together"), [("strata", "read_documents"), ("rag", "passages")])
def test_documents_that_are_read_together_are_not_read_one_by_one(
    backbones: Backbones, name: str, together: str
) -> None:
    assert made(backbones, name, candidates=2, **{together: 2}).candidates(QUESTIONS) is None
    with pytest.raises(InputError, match="at least 1"):
        made(backbones, name, candidates=0)


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_the_closed_book_weighs_more_where_texts_are_gone(backbones: Backbones, name: str) -> None:
    settings = {"least_match": 0.0, "closed_weight": 0.1, "closed_gone": 0.6}
    method = made(backbones, name, candidates=2, **settings)
    bank = method.require_bank()

    def weights() -> list[float]:
        rows = method.candidates(QUESTIONS)
        assert rows is not None and all(row[-1].document is None for row in rows)
        return [row[-1].weight for row in rows]

    assert bank.gone_share == 0.0 and weights() == [0.1] * len(QUESTIONS)
    gone = [document.id for document in MORE[: len(MORE) // 3]]
    method.delete(gone)
    share = len(gone) / len(MORE)
    assert bank.gone_share == pytest.approx(share)
    assert weights() == pytest.approx([0.1 + 0.6 * share] * len(QUESTIONS))
    with pytest.raises(InputError, match="closed_gone"):
        build_method(name, backbones.fresh("llama"), {"closed_gone": 1.5}, preset="tiny")
