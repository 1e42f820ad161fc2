"""Documents encoded once for a whole bench: the same bits, and speeds as if encoded each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_world import MAC, MBC, NONE, RAG, SHORT, Oracle, bench, dataset, oracle
from latentbank.adapter import build_method
from latentbank.backbone.encoder import BackboneEncoder
from latentbank.bank import Entry
from latentbank.bench.encodings import SharedEncodings
from latentbank.bench.plan import Row, build_row
from latentbank.bench.record import read_record
from latentbank.bench.runner import run_bench
from latentbank.bench.session import Session
from latentbank.codec.predicted.predictions import TokenPredictions
from latentbank.codec.token_text import TokenTextCodec
from test_bench_runner import stable, stable_rows
from tiny import Backbones

__all__ = ["oracle"]

POOLED = Row("pooled", "strata", overrides={"entry": "pooled"}, preset="tiny")
TEXTS = ["a port of some length", "short", "a third one, the longest of them all"]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the backbone really encoded."""
    found: list[int] = []
    real = BackboneEncoder._compute

    def count(self: BackboneEncoder, texts: Any) -> Any:
        found.append(len(texts))
        return real(self, texts)

    monkeypatch.setattr(BackboneEncoder, "_compute", count)
    return found


def test_a_batch_is_read_back_bit_for_bit(
    backbones: Backbones, tmp_path: Path, computed: list[int]
) -> None:
    method = build_row(MAC, backbones.shared("llama"))
    own = method.encoder
    plain, mask = method.features(TEXTS)
    shared = SharedEncodings(tmp_path)
    for _ in range(2):
        with shared.lent_to(method):
            states, found = method.features(TEXTS)
        assert method.encoder is own
        assert torch.equal(states, plain) and torch.equal(found, mask)
        assert states.dtype == plain.dtype and found.dtype == mask.dtype
    assert computed == [3, 3], "without it, and once with it"
    with shared.lent_to(method):
        method.features(TEXTS[::-1])
    assert computed == [3, 3, 3], "another batch is computed"


def test_a_full_folder_takes_no_more(
    backbones: Backbones, tmp_path: Path, computed: list[int]
) -> None:
    method = build_row(MAC, backbones.shared("llama"))
    shared = SharedEncodings(tmp_path, limit_bytes=10)
    with shared.lent_to(method):
        method.features(TEXTS)
        method.features(TEXTS)
    assert computed == [3, 3] and not list(tmp_path.iterdir()) and shared.bytes == 0


def test_texts_by_predictions_are_coded_once(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    encode = TokenPredictions.encode
    monkeypatch.setattr(
        TokenPredictions, "encode", lambda self, rows: asked.append(len(rows)) or encode(self, rows)
    )
    shared, found = SharedEncodings(tmp_path), []
    for name in ("rag", "strata"):
        overrides = {"entry": "lm"}
        method = build_method(name, backbones.fresh("llama"), overrides, preset="tiny")
        with shared.lent_to(method):
            found.append(method.texts.encode(TEXTS, "lm"))
            assert method.texts.decode([Entry("a", "lm", found[0][1])]) == [TEXTS[1]]
        assert type(method.texts.predictor) is TokenTextCodec, "given back"
        assert method.texts.encode(TEXTS[:1], "lm") == found[0][:1]  # remembered
        method.texts.encode(["A text that nobody coded before."], "lm")
    assert found[0] == found[1]
    assert asked == [1, 1, 1, 1, 1], "three together, and one by each method's own"
    assert shared.saved_seconds > 0


def test_results_are_the_same_to_the_byte_with_and_without(
    backbones: Backbones, tmp_path: Path, computed: list[int]
) -> None:
    lines, options = [NONE, MAC, MBC, POOLED], {"copies": [1, 2]}
    one = bench(
        "duplicates", backbones, tmp_path, lines, budgets=(3500, None), count=6, options=options
    )
    with_it = run_bench(one)
    shared, computed[:] = sum(computed), []
    without = run_bench(replace(one, out=tmp_path / "two", share=False))
    assert shared < sum(computed)
    for a, b in zip(with_it, without, strict=True):
        assert stable(read_record(a)) == stable(read_record(b))
        assert stable_rows(a) == stable_rows(b)


def test_the_speed_of_writing_counts_the_encoding(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = BackboneEncoder._compute

    def slow(self: BackboneEncoder, texts: Any) -> Any:
        time.sleep(0.5)
        return real(self, texts)

    monkeypatch.setattr(BackboneEncoder, "_compute", slow)
    data, shared = dataset(tmp_path), SharedEncodings(tmp_path)
    method = build_row(MAC, backbones.shared("llama"))
    seconds = []
    for _ in range(2):
        hooks = Session(method, SHORT, tmp_path, encodings=shared)
        hooks.fresh_bank(None)
        seconds.append(hooks.write(data.documents).seconds)
        shared_seconds = hooks.encoding_seconds_shared
        hooks.close()
    assert shared_seconds >= 0.4
    assert all(0.5 <= value < 2 for value in seconds)


def test_questions_are_asked_once_where_nothing_is_read(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    options = {"first": 4, "every": 2}
    run_bench(bench("retention", backbones, tmp_path, [NONE], options=options))
    assert oracle.calls == 1
    run_bench(bench("retention", backbones, tmp_path, [RAG], options=options))
    assert oracle.calls == 1 + 4
