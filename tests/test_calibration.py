"""Calibrated confidence, and answers that are not given."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.adapter import build_method, load_adapter, save_adapter
from latentbank.answering.asking import QUALITY
from latentbank.errors import AdapterError, InputError
from latentbank.evaluate.calibration import (
    expected_calibration_error,
    fit_calibration,
    isotonic,
)
from latentbank.model import MemoryModel
from latentbank.parts.calibration import Calibration, read_calibration
from tiny import DOCUMENTS, QUESTIONS, Backbones

PLAIN = Calibration((0.2, 0.8), (0.1, 0.7), (0.01, 0.05, 1.0), (0.9, 0.5, 0.0), quality=QUALITY)


def test_the_curve_is_linear_between_its_knots() -> None:
    assert [PLAIN.of(x) for x in (0.0, 0.2, 0.5, 0.8, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.4, 0.7, 0.7]
    )
    assert [PLAIN.threshold(rate) for rate in (0.01, 0.04, 0.05, 1.0)] == [0.9, 0.9, 0.5, 0.0]
    for rate, said in ((0.001, "from 0.01 on"), (-1.0, "between 0 and 1"), (2.0, "between 0 and")):
        with pytest.raises(InputError, match=said):
            PLAIN.threshold(rate)


def test_a_rate_counts_with_its_standard_error() -> None:
    few = replace(PLAIN, unanswerable=100)  # 0.01 ± 0.00995, 0.05 ± 0.0218
    assert [few.threshold(rate) for rate in (0.02, 0.05, 0.072, 1.0)] == [0.9, 0.9, 0.5, 0.0]
    with pytest.raises(InputError, match=r"from 0\.02 on"):
        few.threshold(0.01)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300))
def test_the_fitted_curve_never_falls_and_keeps_the_mean(rows: list[tuple[float, bool]]) -> None:
    x, y = isotonic([a for a, _ in rows], [float(b) for _, b in rows])
    assert all(a < b for a, b in itertools.pairwise(x)) and len(x) <= 64
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(y))
    assert min(y) >= 0 and max(y) <= 1


def test_a_fit_makes_probabilities_true_and_keeps_its_rate() -> None:
    draw = np.random.default_rng(0)
    sure = draw.random(4000)
    right = draw.random(4000) < sure**3  # far too sure
    known = draw.random(4000) < 0.5
    made = fit_calibration(sure[:2000].tolist(), right[:2000].tolist(), known[:2000].tolist())
    rest = slice(2000, None)
    told = [made.of(one) for one in sure[rest]]
    assert expected_calibration_error(sure[rest], right[rest]) > 0.2
    assert expected_calibration_error(told, right[rest]) < 0.05
    unknown = sure[:2000][~known[:2000]]
    assert 0.03 < (unknown >= made.threshold(0.05)).mean() < 0.05
    assert (sure[rest][~known[rest]] >= made.threshold(0.05)).mean() <= 0.05
    assert made.threshold(1.0) == 0.0


def test_it_is_kept_beside_the_adapter(backbones: Backbones, tmp_path: Path) -> None:
    method = build_method("strata", backbones.fresh("llama"), preset="tiny")
    save_adapter(tmp_path, method)
    assert load_adapter(tmp_path, method.backbone).calibration is None
    PLAIN.save(tmp_path)
    assert load_adapter(tmp_path, method.backbone).calibration == PLAIN
    good = json.loads((tmp_path / "calibration.json").read_text())
    for change in ({"format": 99}, {"confidence": [1]}, {"rates": "x"}, {"thresholds": None}):
        (tmp_path / "calibration.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(AdapterError):
            read_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(AdapterError, match="damaged"):
        read_calibration(tmp_path)


def made(backbones: Backbones, calibration: Calibration | None) -> MemoryModel:
    method = build_method("strata", backbones.fresh("llama"), {}, preset="tiny", seed=0)
    method.train(False)  # type: ignore[attr-defined]
    method.calibration = calibration
    model = MemoryModel(method)
    model.write(DOCUMENTS)
    return model


def test_what_is_not_sure_enough_is_not_said(backbones: Backbones) -> None:
    with made(backbones, PLAIN) as model:
        plain = model.ask(QUESTIONS[1])
        assert plain.text and plain.probability == PLAIN.of(plain.confidence)
        assert not plain.abstained
        low, high = plain.confidence / 2, plain.confidence * 1.01
        model.method.calibration = replace(PLAIN, thresholds=(high, low, 0.0))
        assert model.ask(QUESTIONS[1], abstain_at=0.05).text == plain.text
        none = model.ask(QUESTIONS[1], abstain_at=0.01)
        assert none.abstained and none.text == "" and none.documents == ()
        assert not none.from_memory and none.confidence == plain.confidence
        for style in ("short", "sentence", "chat"):
            said = model.chat(QUESTIONS[1], style=style, abstain_at=0.01)
            assert said.abstained and said.text == "Not in memory." and said.citations == ()
            assert not model.chat(QUESTIONS[1], style=style, abstain_at=0.05).abstained


def test_without_a_calibration_nobody_knows_where_to_abstain(backbones: Backbones) -> None:
    with made(backbones, None) as model:
        assert model.ask(QUESTIONS[0]).probability is None
        for ask in (model.ask, model.chat):
            with pytest.raises(InputError, match="has no calibration"):
                ask(QUESTIONS[0], abstain_at=0.05)
