"""Scoring a method on a dataset: the bytes that a bank takes, whatever it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from latentbank.adapter import build_method
from latentbank.bench.scoring import measure, predictions
from latentbank.evaluate.data import QADataset, Question
from latentbank.model import new_bank
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones

DATA = QADataset(
    "tiny",
    DOCUMENTS,
    tuple(
        Question(f"q{i}", q, (a,), i)
        for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ),
)


@pytest.mark.parametrize(
    ("name", "config", "stores"),
    [("none", {}, False), ("rag", {}, True), ("mbc", {"form": "histogram"}, True)],
)
def test_a_bank_without_entries_may_still_have_bytes(
    backbones: Backbones, tmp_path: Path, name: str, config: dict[str, Any], stores: bool
) -> None:
    method = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    method.train(False)
    path = tmp_path / "a.bank"
    with new_bank(path, method, {"adapter": name, "backbone": "llama"}) as bank:
        assert bank.get_meta("overrides") == {}
        score = measure(method, bank, DATA, MagicMock(), name)
        assert score.value("bank_bytes") == (bank.footprint().total if stores else 0)
    assert score.value("questions") == score.value("documents") == len(DOCUMENTS)
    rows = predictions(score.data, score.evaluation)
    assert [row["gold"] for row in rows] == [d.id for d in DOCUMENTS]
    assert ("write_documents_per_second" in score.metrics) == stores
