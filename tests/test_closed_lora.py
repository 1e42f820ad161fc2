"""Low-rank weights that answer where nothing is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentbank.adapter import build_method, load_adapter, save_adapter
from latentbank.answering import answer_batch as answer
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.transports import Conditioning
from latentbank.method import Method
from latentbank.parts.answer_loss import split_answer_loss
from latentbank.parts.batch import Batch
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

SHORT = DecodingConfig(max_new_tokens=4)
CLOSED = {"rank": 4, "layer": 1}
BATCH = Batch(DOCUMENTS, QUESTIONS, ANSWERS, (0, 1, 2, 3, 4))
ASKED = [QUESTIONS[0], "Which zeppelin crossed the glacier?"]


def made(backbones: Backbones, name: str, **config: Any) -> Method:
    """A method whose two sets of low-rank weights both change what the model says."""
    values = {"closed_lora": CLOSED, "least_match": 0.4, **config}
    method = build_method(name, backbones.fresh("llama"), values, preset="tiny", seed=0)
    method.prepare(DOCUMENTS)
    method.train(False)
    torch.manual_seed(1)
    for parameter in method.trainable().values():
        if not parameter.any():  # low-rank weights start as no change
            parameter.data.normal_(0, 0.5)
    return method


def closed_answers(method: Method, asked: list[str]) -> list[str]:
    return [one.text for one in answer(method, asked, None, SHORT, memory=False)]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(
    ("name", "config"), [("strata", {}), ("strata", {"entry": "pooled"}), ("rag", {})]
)
def test_what_fits_nothing_is_answered_by_the_closed_weights(
    backbones: Backbones, name: str, config: dict[str, Any], candidates: int
) -> None:
    method = made(backbones, name, candidates=candidates, **config)
    with Conditioning((method.lora,)).attach(method.backbone):  # type: ignore[arg-type]
        other = method.backbone.logits(method.backbone.session(1).feed(*_one(method)))
    with method.closed_book().attach(method.backbone):
        closed = method.backbone.logits(method.backbone.session(1).feed(*_one(method)))
    assert not torch.allclose(other, closed)
    with fresh_bank(method):
        plain = closed_answers(method, ASKED)
        assert [one.text for one in answer(method, ASKED, None, SHORT)] == plain, "an empty bank"
        method.write(DOCUMENTS)
        found = answer(method, ASKED, None, SHORT)
    if not config:  # the keys of states are random here
        assert found[0].documents[0][0] == DOCUMENTS[0].id
    assert not found[1].documents and found[1].text == plain[1]


def split_loss(method: Any, batch: Batch, memory: Any, hidden: Any) -> torch.Tensor:
    backbone, reading = method.backbone, method.reading()
    return split_answer_loss(backbone, batch, memory, hidden, reading, method.closed_book())


def _one(method: Method) -> tuple[torch.Tensor, torch.Tensor]:
    return method.backbone.pad([[1, 5, 9]])


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_each_question_trains_the_weights_that_answer_it(backbones: Backbones, name: str) -> None:
    for share, trained in ((0.0, "lora."), (1.0, "closed_lora.")):
        method = made(backbones, name, closed_share=share, **_plain(name))
        method.loss(BATCH).total.backward()
        grads = {k: p.grad for k, p in method.trainable().items() if "lora." in k}
        moved = {k for k, grad in grads.items() if grad is not None and bool(grad.any())}
        assert moved and all(k.startswith(trained) for k in moved)


def _plain(name: str) -> dict[str, Any]:
    return {"selector_weight": 0.0} if name == "strata" else {}


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_the_loss_of_a_share_is_the_mean_over_questions(backbones: Backbones, name: str) -> None:
    method = made(backbones, name)
    ids, mask = method.backbone.pad([[1, 5, 9, 7], [1, 7], [1, 8, 4], [1, 3], [1, 2]])
    memory = method.backbone.fill(method.backbone.states(ids, mask, 0), mask, 0)
    hidden = np.array([True, False, False, True, False])
    with torch.no_grad():
        both = split_loss(method, BATCH, memory, hidden).item()
        parts = []
        for closed in (False, True):
            rows = np.flatnonzero(hidden == closed)
            part = Batch(
                DOCUMENTS,
                tuple(QUESTIONS[i] for i in rows),
                tuple(ANSWERS[i] for i in rows),
                tuple(BATCH.owner[i] for i in rows),
            )
            loss = split_loss(method, part, memory, np.full(len(rows), closed))
            other = split_loss(method, part, memory, np.full(len(rows), not closed))
            assert loss.item() != pytest.approx(other.item(), rel=1e-5)
            parts.append(loss.item() * len(rows))
    assert both == pytest.approx(sum(parts) / len(hidden), rel=1e-4)


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_an_adapter_keeps_both(backbones: Backbones, name: str, tmp_path: Path) -> None:
    method = made(backbones, name)
    save_adapter(tmp_path / "a", method)
    loaded = load_adapter(tmp_path / "a", method.backbone)
    assert loaded.state().keys() == method.state().keys()
    assert any(k.startswith("closed_lora.") for k in loaded.state())
    without = load_adapter(tmp_path / "a", method.backbone, {"closed_lora": {"rank": 0}})
    assert without.closed_lora is None and without.lora is not None
