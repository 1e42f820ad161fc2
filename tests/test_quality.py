"""The contest of candidates by quality, and answers that come as a stream."""

from __future__ import annotations

from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.answering import answer_batch, stream_answer
from latentbank.answering.asking import ANSWERS
from latentbank.backbone import generate
from latentbank.backbone.generate import DecodingConfig, PromptRun
from latentbank.documents.document import Document
from latentbank.errors import UnknownNameError
from latentbank.method import Method
from latentbank.model import MemoryModel
from latentbank.parts.calibration import Calibration
from latentbank.parts.retrieval.candidates import Candidate, QuestionGain
from tiny import DOCUMENTS, QUESTIONS, Backbones, fresh_bank

SHORT = DecodingConfig(max_new_tokens=4)


def made(backbones: Backbones, name: str = "strata", **config: Any) -> Method:
    values = {"candidates": 3, "least_match": 0.0, **config}
    method = build_method(name, backbones.fresh("llama"), values, preset="tiny", seed=0)
    method.prepare(DOCUMENTS)
    method.train(False)
    fresh_bank(method)
    method.write(DOCUMENTS)
    return method


def weigh(method: Method, *rows: list[tuple[int | None, float]]) -> None:
    """Gives each question the candidates (number of a document or None, weight)."""
    found = [
        [Candidate(None if at is None else DOCUMENTS[at].id, weight) for at, weight in row]
        for row in rows
    ]
    method.candidates = lambda questions: found[: len(questions)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_fast_answers_from_the_candidate_of_largest_score_alone(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method = made(backbones, name)
    sure = PromptRun.first_token_probabilities
    monkeypatch.setattr(
        PromptRun, "first_token_probabilities", lambda self: [1.0 for _ in sure(self)]
    )
    weigh(method, [(0, 0.4), (1, 0.9), (2, 0.5)], [(3, 0.8), (4, 0.2)], [(1, 0.1), (None, 0.3)])
    read: list[str] = []
    plain = method.read
    method.read = lambda questions, documents=None: (  # type: ignore[method-assign]
        read.extend(documents or ()) or plain(questions, documents)
    )
    found = answer_batch(method, QUESTIONS[:3], None, SHORT, quality="fast")
    assert [one.documents for one in found] == [
        ((DOCUMENTS[1].id, 1.0),),
        ((DOCUMENTS[3].id, 1.0),),
        (),
    ]
    assert sorted(read) == sorted(DOCUMENTS[i].id for i in (0, 1, 2, 3, 1)), "4 could not win"
    alone = answer_batch(method, QUESTIONS[:1], [DOCUMENTS[1].id], SHORT)[0]
    assert found[0].text == alone.text
    assert found[0].confidence == pytest.approx(0.9 * alone.confidence, rel=1e-4)
    assert [one.from_memory for one in found] == [True, True, False]


def test_fast_counts_how_sure_the_first_token_is(backbones: Backbones) -> None:
    """With one token both qualities choose the same: the first token is the whole answer."""
    method, one_token = made(backbones), DecodingConfig(max_new_tokens=1)
    found = {
        quality: answer_batch(method, QUESTIONS, None, one_token, quality=quality)
        for quality in ("fast", "best")
    }
    for fast, best in zip(found["fast"], found["best"], strict=True):
        assert (fast.text, fast.documents) == (best.text, best.documents)
        assert fast.confidence == pytest.approx(best.confidence, rel=1e-4)


def test_fast_counts_the_question_gain(backbones: Backbones) -> None:
    """A document of small weight wins where it makes the question much likelier."""
    method = made(backbones)
    weigh(method, [(0, 1.0), (1, 0.9)])
    gains = {}
    for at in (0, 1):
        method.question_gain = QuestionGain(0.0, 1e9)  # every factor is a half
        gains[at] = _gain(method, at)
    order = sorted(gains, key=lambda at: gains[at])
    assert gains[order[1]] > gains[order[0]]
    middle = (gains[0] + gains[1]) / 2
    method.question_gain = QuestionGain(middle, (gains[order[1]] - gains[order[0]]) / 40)
    for quality in ("fast", "best"):
        [found] = answer_batch(method, QUESTIONS[:1], None, SHORT, quality=quality)
        assert found.documents == ((DOCUMENTS[order[1]].id, 1.0),)


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_fast_runs_a_question_without_memory_only_where_another_candidate_may_win(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method = made(backbones, name)
    method.question_gain = QuestionGain(0.0, 1e9)  # every factor is a half
    sure = PromptRun.first_token_probabilities
    monkeypatch.setattr(
        PromptRun, "first_token_probabilities", lambda self: [0.5 for _ in sure(self)]
    )
    closed: list[int] = []
    plain = method.closed_book
    method.closed_book = lambda: closed.append(1) or plain()  # type: ignore[assignment,method-assign]
    for row, open_ in (
        ([(0, 0.8), (1, 0.4), (None, 0.4)], False),  # a score of 0.4
        ([(0, 0.8), (1, 0.41), (None, 0.2)], True),
        ([(0, 0.8)], False),
    ):
        weigh(method, row)
        closed.clear()
        [found] = answer_batch(method, QUESTIONS[:1], None, SHORT, quality="fast")
        [alone] = answer_batch(method, QUESTIONS[:1], [DOCUMENTS[0].id], SHORT)
        weight = 0.4 if open_ else 0.8
        assert bool(closed) == open_
        assert (found.text, found.documents) == (alone.text, alone.documents)
        assert found.confidence == pytest.approx(weight * alone.confidence, rel=1e-4)


def _gain(method: Method, at: int) -> float:
    """How many nats likelier a document makes the first question."""
    from latentbank.answering.contest import Reading

    closed = Reading(method, QUESTIONS[:1], method.closed_book(), SHORT)
    with closed.attached():
        closed.run()
    own = Reading(method, QUESTIONS[:1], method.read(QUESTIONS[:1], [DOCUMENTS[at].id]), SHORT)
    with own.attached():
        own.run()
    return own.likelihoods()[0] - closed.likelihoods()[0]


@pytest.mark.parametrize("quality", ["fast", "best"])
@pytest.mark.parametrize("name", ["strata", "rag", "none"])
def test_a_stream_is_the_answer_in_pieces(backbones: Backbones, name: str, quality: str) -> None:
    model = MemoryModel(build_method(name, backbones.fresh("llama"), preset="tiny", seed=0))
    model.write(DOCUMENTS)
    for question in QUESTIONS:
        whole = model.ask(question, quality=quality)
        stream = model.stream(question, quality=quality)
        assert stream.answer is None
        pieces = list(stream)
        assert stream.answer is not None and all(pieces)
        assert "".join(pieces) == stream.answer.text
        assert stream.answer.documents == whole.documents
        assert stream.answer.from_memory == whole.from_memory
        assert stream.answer.confidence == pytest.approx(whole.confidence, rel=1e-3)


def test_a_stream_shows_text_before_the_answer_is_whole(backbones: Backbones) -> None:
    model = MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny", seed=0))
    stream = model.stream(QUESTIONS[0])
    growing = iter(stream)
    first = next(growing)
    assert stream.answer is not None and stream.answer.text == first
    rest = list(growing)
    assert rest and stream.answer.text == first + "".join(rest)
    assert 0 < stream.answer.first_token_seconds < stream.answer.seconds


@pytest.mark.parametrize("open_", [False, True])
def test_best_shows_text_at_once_where_no_other_answer_can_win(
    backbones: Backbones, open_: bool
) -> None:
    method = made(backbones)
    method.question_gain = QuestionGain(0.0, 1e9)
    weigh(method, [(0, 0.8), (1, 0.9 if open_ else 0.0), (None, 0.0)])
    growing = list(stream_answer(method, QUESTIONS[0], ANSWERS))
    [whole] = answer_batch(method, QUESTIONS[:1], None, ANSWERS)
    assert (len(growing) == 1) == open_
    assert growing[-1].documents == whole.documents
    assert whole.text.startswith(growing[-1].text) and growing[-1].text
    assert growing[-1].confidence == pytest.approx(whole.confidence, rel=1e-3)
    assert 0 < growing[-1].first_token_seconds <= growing[-1].seconds


def test_a_probability_is_of_what_the_calibration_was_fitted_on(backbones: Backbones) -> None:
    model = MemoryModel(build_method("strata", backbones.fresh("llama"), preset="tiny", seed=0))
    model.write(DOCUMENTS)
    curves = (0.0, 1.0), (0.2, 0.8), (0.0,), (0.5,)
    for of in ("best", "fast"):
        model.method.calibration = Calibration(*curves, quality=of)
        for quality in ("best", "fast"):
            told = quality == of
            assert (model.ask(QUESTIONS[0], quality=quality).probability is not None) == told
            stream = model.stream(QUESTIONS[0], quality=quality)
            assert list(stream) and stream.answer is not None
            assert (stream.answer.probability is not None) == told
            judged = model.ask(QUESTIONS[0], quality=quality, abstain_at=0.05)
            assert judged.probability is not None


TEXTS = ("서울의 등대는 자정에 불을 켭니다.", "The cafe opens at nine or at ten.")


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_has_no_half_characters_and_ends_behind_a_word(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """One token is one byte here: a limit may fall inside of every character."""
    model = MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny", seed=0))
    [said] = model.backbone.encode([text], start=False)

    def steps(run: Any, logits: Any, config: DecodingConfig, quotable: Any) -> Any:
        tokens = [*said, model.backbone.end_id][: config.max_new_tokens]
        for count in range(1, len(tokens) + 1):
            yield [tokens[:count]], [0.0]

    monkeypatch.setattr(generate, "_greedy_steps", steps)
    for limit in range(12, len(said) + 2):
        config = DecodingConfig(max_new_tokens=limit, whole_words=True)
        pieces = list(model.stream("Who?", config))
        assert all("\ufffd" not in piece for piece in pieces)
        shown = "".join(pieces)
        assert text.startswith(shown)
        if text.isascii() or limit > len(said):
            assert text[len(shown) : len(shown) + 1] in ("", " ")
        if limit > len(said):
            assert shown == text


def test_an_unknown_quality_is_refused(backbones: Backbones) -> None:
    model = MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny", seed=0))
    model.write([Document("A note.")])
    with pytest.raises(UnknownNameError, match="fast"):
        model.ask("Who?", quality="fastest")
    with pytest.raises(UnknownNameError, match="best"):
        list(stream_answer(model.method, "Who?", ANSWERS, quality="bset"))
