"""The protocol of learning and forgetting, its data, and the losses that it measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_world import bench, records, values
from latentbank.bench.losses import answer_losses, text_losses
from latentbank.bench.plan import Row
from latentbank.bench.session import Session, Settings
from latentbank.bench.tasks.frontier_learning import FrontierConfig, FrontierLearning
from latentbank.cli.evaluate import load_data
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.facts.wordings import held_out_text, is_paraphrase, with_other_words
from latentbank.evaluate.invented import invented_facts
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

STREAM = QADataset(
    "notes",
    tuple(DOCUMENTS),
    tuple(Question(f"q{i}", q, (a,), i) for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS))),  # noqa: B905
)
SMALL: dict[str, Any] = {"held_out": 5, "answered": 2, "text_tokens": 300}


def people(folder: Path, count: int = 2) -> Path:
    """Files of the layout of "The Reversal Curse"."""
    for name, each in (("train", 30), ("test", 10)):
        rows = [
            {
                "prompt": f"Wording {i} of {name} about deed {person},",
                "completion": f" Person Number{person}" + (" lives on." if name == "train" else ""),
            }
            for person in range(count)
            for i in range(each)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"d2p_prompts_{name}.jsonl").write_text(text)
    return folder


def session(backbones: Backbones, folder: Path, method: str, **config: Any) -> Session:
    from latentbank.adapter import build_method

    built = build_method(method, backbones.fresh("llama"), config, preset="tiny")
    folder.mkdir(exist_ok=True)
    made = Session(built, Settings(), folder)
    made.fresh_bank(len(DOCUMENTS))
    return made


# ---- data


def test_people_are_asked_for_in_their_own_and_in_other_words(tmp_path: Path) -> None:
    data = load_data(str(people(tmp_path)), None, None)
    assert [d.text for d in data.documents[:2]] == [
        f"Wording {i} of train about deed 0, Person Number0 lives on." for i in (1, 2)
    ]
    own = [q for q in data.questions if not is_paraphrase(q)]
    other = [q for q in data.questions if is_paraphrase(q)]
    assert len(own) == len(other) == len(data.documents) == 4
    assert own[0].text == "Wording 1 of train about deed 0" and own[0].answers == (
        "Person Number0",
    )
    assert other[0].text == "Wording 0 of test about deed 0" and other[0].document == 0
    (tmp_path / "d2p_prompts_test.jsonl").write_text('{"prompt": 3, "completion": "x"}\n')
    with pytest.raises(InputError, match="line 1: expected a prompt and a completion"):
        load_data(str(tmp_path), None, None)


def test_invented_places_are_asked_for_in_other_words() -> None:
    plain = invented_facts(6)
    data = with_other_words(plain)
    assert data.documents == plain.documents and len(data.questions) == 12
    for own, other in zip(data.questions[::2], data.questions[1::2], strict=True):
        assert is_paraphrase(other) and own.answers == other.answers and own.text != other.text
        place = data.documents[own.document].text.split(" of ")[1].split(" ")[0]
        assert place in own.text and place in other.text
    assert with_other_words(STREAM) == STREAM


def test_text_is_the_beginning_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one\n\ntwo\n")
    assert held_out_text(str(tmp_path / "text")) == "one\ntwo"
    assert len(held_out_text("")) > 10_000
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        held_out_text(str(tmp_path / "empty"))


# ---- losses


def test_losses_are_those_of_the_model(backbones: Backbones, tmp_path: Path) -> None:
    one = session(backbones, tmp_path, "none", lora={"rank": 0})
    backbone = one.method.backbone
    found = answer_losses(one, STREAM, batch=2)
    text = "Some other text of a few words. " * 20
    windows = text_losses(one, text, 400)
    for i, question in enumerate(STREAM.questions[:3]):
        prompt = backbone.encode([f"Question: {question.text}\nAnswer:"])[0]
        answer = [*backbone.encode([f" {ANSWERS[i]}"], start=False)[0], backbone.end_id]
        ids = torch.tensor([prompt + answer])
        logits = backbone.model(ids).logits[0, len(prompt) - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        assert found[i] == pytest.approx(float(loss), rel=1e-3)
    ids = torch.tensor([[backbone.start_id, *backbone.encode([text], start=False)[0][:256]]])
    loss = backbone.model(ids, labels=ids).loss
    assert len(windows) == 2 and windows[0] == pytest.approx(float(loss), rel=1e-3)
    one.close()


@pytest.mark.parametrize("method", ["rag", "strata", "none"])
def test_a_frozen_backbone_loses_exactly_nothing_when_no_document_fits(
    method: str, backbones: Backbones, tmp_path: Path
) -> None:
    one = session(backbones, tmp_path, method)
    held_out = QADataset("others", (), tuple(
        Question(f"h{i}", text, ("yes",), 0)
        for i, text in enumerate(("Xyzzy plugh frobnicates?", "Quux gribble zorkmid?"))
    ))  # fmt: skip
    before = answer_losses(one, held_out), text_losses(one, "Xyzzy plugh. " * 9, 90)
    one.write(DOCUMENTS)
    after = answer_losses(one, held_out), text_losses(one, "Xyzzy plugh. " * 9, 90)
    assert before == after, "bit by bit"
    if method != "none":
        assert answer_losses(one, STREAM) != answer_losses(
            session(backbones, tmp_path / "b", method), STREAM
        ), "documents that fit are read"
    one.close()


# ---- the protocol


def test_learning_is_measured_against_forgetting(backbones: Backbones, tmp_path: Path) -> None:
    rows = [
        Row("none", "none", preset="tiny"),
        Row("slow", "finetune", overrides={"rate": 1e-4, "layer": 0}, preset="tiny"),
        Row("fast", "finetune", overrides={"rate": 2e-2, "layer": 0, "steps": 6}, preset="tiny"),
        Row("sparse", "sparse_memory", preset="tiny"),
    ]
    made = bench("frontier-learning", backbones, tmp_path, rows, options=SMALL)
    none, slow, fast, sparse = (values(record) for record in records(made))
    for name in ("gain_stream", "rise", "rise_text", "forgotten_f1"):
        assert none[name] == 0
    assert fast["gain_stream"] > slow["gain_stream"] and abs(fast["rise"]) > abs(slow["rise"])
    assert sparse["changed_rows"] > 0 and sparse["rise"] != 0
    for found in (slow, fast):
        assert found["gain_stream"] == pytest.approx(
            found["loss_stream_before"] - found["loss_stream"], rel=1e-6
        )
        assert found["rise"] == pytest.approx(
            found["loss_held_out_sample"] - found["loss_held_out_sample_before"], rel=1e-5
        )


def test_held_out_questions_need_not_be_answered(backbones: Backbones, tmp_path: Path) -> None:
    options = {**SMALL, "answered": 0, "text_tokens": 0}
    row = Row("none", "none", preset="tiny")
    [record] = records(bench("frontier-learning", backbones, tmp_path, [row], options=options))
    found = values(record)
    assert found["rise"] == 0 and "forgotten_f1" not in found and "perplexity" not in found
    assert "f1_stream" in found


def test_held_out_questions_are_not_about_the_stream(tmp_path: Path) -> None:
    data = load_data("sample", None, 30)
    task = FrontierLearning(data, Settings(), FrontierConfig(held_out=10_000))
    asked = {q.text for q in task.parts["held_out_sample"].questions}
    assert asked and not asked & {q.text for q in data.questions}
    quiz = tmp_path / "a quiz.jsonl"
    quiz.write_text('{"question": "who painted", "answer": ["Klee"]}\n')
    task = FrontierLearning(data, Settings(), FrontierConfig(closed_book=(str(quiz),)))
    assert set(task.parts) == {"stream", "held_out_a_quiz"}
    for options, words in (({"held_out": 0}, "held_out must"), ({"answered": -1}, "answered must")):
        with pytest.raises(InputError, match=words):
            FrontierConfig(**options)


def test_a_bank_is_bound_to_the_session(backbones: Backbones, tmp_path: Path) -> None:
    one = session(backbones, tmp_path, "finetune")
    one.write(DOCUMENTS)
    assert one.kept == len(DOCUMENTS)
    fresh_bank(one.method)
    assert not one.method.changed  # type: ignore[attr-defined]
    one.close()
