"""The benches of the small language models, end to end in a tiny size, and their tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bench_language
import bench_titans
from latentbank.bench.record import DataInfo, Metric, new_record, read_record, write_record
from latentbank.errors import InputError
from latentbank.evaluate.data import load_sample
from latentbank.evaluate.long_context import Haystack
from latentbank.parts.memory_lm import ARCHITECTURES, MemoryLM
from tables.titans import language_table, memory_table, needle_table

ROOT = Path(__file__).parent.parent


def test_models_of_one_bench_have_about_the_same_size() -> None:
    names = [*ARCHITECTURES, "MAC/depth4", "MAC/no-convolution", "LMM/no-momentum"]
    sizes = [bench_titans.size_of(bench_titans.build(n, 128, 0, 110_000, 1)) for n in names]
    assert max(sizes) < 1.05 * min(sizes)
    with pytest.raises(InputError, match="no-momentum"):
        bench_titans.parse_name("MAC/wide")


def test_the_last_steps_may_read_longer_texts() -> None:
    hay = Haystack.of([d.text for d in load_sample().documents][:20], 128)
    draw = bench_titans.training_batches(hay, 48, 8, 0, long_from=5)
    assert [draw(step)[0].shape for step in (4, 5)] == [(8, 48), (2, 192)]
    assert torch.equal(draw(5)[0], draw(5)[0])


def test_a_needle_bench_runs_resumes_and_fills_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_titans.py"])
    arguments = [
        "--models", "MAC,window", "--steps", "2", "--batch", "2", "--length", "48",
        "--lengths", "48,96", "--needles", "4", "--runs", str(tmp_path / "runs"),
        "--checkpoints", str(tmp_path / "saved"), "--out", str(tmp_path / "needle.json"),
    ]  # fmt: skip
    assert bench_titans.main(arguments) == 0
    before = (tmp_path / "runs" / "MAC-0" / "last.safetensors").stat().st_mtime_ns
    first = read_record(tmp_path / "needle.json").metrics
    assert bench_titans.main(arguments) == 0
    second = read_record(tmp_path / "needle.json").metrics
    rates = {k for k, m in first.items() if m.unit == "percent"}
    assert len(rates) == 2 * (2 * 3 + 1) and all(first[k] == second[k] for k in rates)
    assert (tmp_path / "runs" / "MAC-0" / "last.safetensors").stat().st_mtime_ns >= before
    shown = needle_table(tmp_path / "needle.json")
    assert "| `MAC` | 1 |" in shown and "96 tokens" in shown
    told = subprocess.run(
        [sys.executable, "examples/titans_needle.py", str(tmp_path / "saved" / "MAC-0"),
         "--tokens", "200", "--plot", str(tmp_path / "surprise.svg")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "answered" in told and "REMEMBER" not in told.split("right")[0]
    assert (tmp_path / "surprise.svg").read_text().lstrip().startswith("<?xml")


def test_the_model_of_the_example_finds_its_needle() -> None:
    model = MemoryLM.from_pretrained(ROOT / "examples" / "titans-mac")
    hay = Haystack.of([d.text for d in load_sample().documents], model.config.vocab_size)
    assert bench_titans.needle_rate(model, hay, "number", 600, 8, 0) >= 0.9


def test_a_language_bench_runs_and_fills_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_language.py"])
    arguments = [
        "--models", "LMM", "--seeds", "0,1", "--steps", "2", "--batch", "2", "--length", "32",
        "--lengths", "32", "--rows", "2", "--vocabulary", "160",
        "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "language.json"),
    ]  # fmt: skip
    assert bench_language.main(arguments) == 0
    assert "| `LMM` | 2 |" in language_table(tmp_path / "language.json")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(InputError, match="no text"):
        bench_language.main([*arguments, "--train", str(empty)])


@torch.no_grad()
def test_perplexity_in_pieces_is_that_of_the_whole() -> None:
    model = bench_titans.build("LMM", 128, 0, 60_000, 1).train(False)
    ids = np.random.default_rng(0).integers(0, 128, 2 * 700)
    texts = torch.from_numpy(ids.reshape(2, 700))
    loss = model(texts, labels=texts).loss
    found = bench_language.perplexity(model, ids, 700, 2)
    assert found == pytest.approx(float(loss.exp()), rel=1e-4)


def test_a_model_that_knows_the_value_gets_all_needles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate counts whole values: a model that errs in the last token of one of four gets 75."""
    hay = Haystack.of([d.text for d in load_sample().documents][:20], 128)

    class Oracle:
        def read(self, ids: torch.Tensor, piece: int) -> torch.Tensor:
            return ids

        def __call__(self, asked: torch.Tensor, stream: torch.Tensor) -> object:
            rows = []
            for i, text in enumerate(stream.tolist()):
                at = text.index(0)
                logits = torch.zeros(3, 128)
                for t in range(3):
                    logits[t, text[at + 3 + t]] = 1.0
                if i == 0:
                    logits[2] = -logits[2]
                rows.append(logits)
            return type("Out", (), {"logits": torch.stack(rows)})

    rate = bench_titans.needle_rate(Oracle(), hay, "number", 60, 4, 0)  # type: ignore[arg-type]
    assert rate == 0.75


def test_the_memory_table_names_every_figure(tmp_path: Path) -> None:
    record = new_record(
        task="memory-speed", method="none", command="c", seed=0, data=DataInfo("d", ""),
        dtype="float32", metrics={"chunk 64": Metric(1234.5, "tokens/s")},
    )  # fmt: skip
    write_record(record, tmp_path / "speed.json")
    assert "| chunk 64 | 1,234 | tokens/s |" in memory_table(tmp_path)
