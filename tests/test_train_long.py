"""The long training: methods in turns at equal presentations; what travels to a GPU and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import record_training
import train_gpu
import train_long
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.training.log import read_log
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones

pytest.importorskip("accelerate")

DATA = QADataset(
    "tiny",
    DOCUMENTS,
    tuple(
        Question(f"q{i}", text, (said,), i)
        for i, (text, said) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_long, "load_dataset", lambda path, split: DATA)
    plan = {**train_long.PLAN, "documents_per_step": 2, "neighbours": 1, "warmup": 1}
    monkeypatch.setattr(train_long, "PLAN", plan)
    recipes = {
        "none": ({}, {"learning_rate": 1e-2}),
        "mac": ({}, {"learning_rate": 1e-2, "distractors": 2}),
    }
    monkeypatch.setattr(train_long, "RECIPES", recipes)


def line(backbones: Backbones, out: Path, *more: str) -> list[str]:
    return [
        "--squad", "squad", "--out", str(out), "--backbone", str(backbones.folder("llama")),
        "--preset", "tiny", "--dtype", "float32", "--documents-per-step", "2", "--round", "2",
        "--methods", "none,mac", *more,
    ]  # fmt: skip


@pytest.mark.usefixtures("small")
def test_methods_take_turns_and_a_stopped_job_goes_on(backbones: Backbones, tmp_path: Path) -> None:
    words = line(backbones, tmp_path / "runs", "--presentations", "10", "--validate-every", "5")
    options = train_long.arguments([*words, "--rounds", "1"])
    train_long.train(train_long.Job(options))
    job = train_long.Job(train_long.arguments(words))
    assert job.steps == 5
    assert [job.step_of(name) for name in ("none", "mac")] == [2, 2]
    train_long.train(job)
    assert [job.step_of(name) for name in ("none", "mac")] == [5, 5]
    logs = [read_log(tmp_path / "runs" / name) for name in ("none", "mac")]
    asked = [[row["presentations"] for row in log] for log in logs]
    assert asked[0] == asked[1] == [2, 4, 6, 8, 10]
    assert all(log[-1]["validation"]["f1"] >= 0 for log in logs)
    record = record_training.run_record(tmp_path / "runs" / "mac", "mac", 2)
    assert record.series["validation F1"].x == (10.0,)
    assert record.series["answer"].x == (4.0, 8.0, 10.0)
    assert record.metrics["presentations"].value == 10
    assert "<svg" in record_training.picture([record])
    assert str(tmp_path) not in record.command


def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe for nothing"):
        train_long.arguments(["--squad", "x", "--out", str(tmp_path), "--methods", "nothing"])


def test_parts_come_back_together(tmp_path: Path) -> None:
    whole = tmp_path / "model.gguf"
    whole.write_bytes(bytes(range(256)) * 40)
    parts = train_gpu.split_file(whole, tmp_path / "parts", 3000)
    assert len(parts) == 4
    assert all(part.stat().st_size <= 3000 for part in parts)
    (joined,) = train_gpu.join_parts(tmp_path / "parts", tmp_path / "there")
    assert joined.name == "model.gguf"
    assert joined.read_bytes() == whole.read_bytes()
    parts[1].unlink()
    with pytest.raises(InputError, match=r"part 1 of model.gguf is missing"):
        train_gpu.join_parts(tmp_path / "parts", tmp_path / "there")


def test_fewer_epochs_fit_where_a_step_costs_more() -> None:
    cheap = train_gpu.epochs_in(12, {"none": 1e10, "mac": 1e10}, 120, 0.0)
    assert train_gpu.epochs_in(12, {"none": 1e10, "mac": 2e10}, 120, 0.0) < cheap
    assert train_gpu.epochs_in(12, {"none": 1e10, "mac": 1e10}, 240, 0.0) == pytest.approx(
        2 * cheap
    )
    bound = train_gpu.epochs_in(12, {"none": 1e10, "mac": 1e10}, 120, 1.0)
    assert bound < cheap
    assert bound == train_gpu.epochs_in(12, {"none": 1e10, "mac": 1e10}, 240, 1.0)


@pytest.mark.usefixtures("small")
def test_the_gpu_job_trains_and_exports_on_a_cpu(backbones: Backbones, tmp_path: Path) -> None:
    runs, parts = tmp_path / "runs", tmp_path / "parts"
    words = [
        "train", str(tmp_path), "--out", str(runs), "--device", "cpu", "--dtype", "bfloat16",
        "--backbone", str(backbones.folder("llama")), "--preset", "tiny", "--epochs", "1e-4",
        "--documents-per-step", "2", "--methods", "none,mac",
    ]  # fmt: skip
    train_gpu.main(words)
    assert [read_log(runs / name)[-1]["presentations"] for name in ("none", "mac")] == [4, 4]
    train_gpu.main(["export", str(runs), "--out", str(parts), "--methods", "none,mac"])
    train_gpu.main(["join", str(parts), "--to", str(tmp_path / "back")])
    back = load_file(str(tmp_path / "back" / "mac.safetensors"))
    trained = load_file(str(runs / "mac" / "last" / "adapter.safetensors"))
    assert back.keys() == trained.keys()
    for name, value in trained.items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(back[name], expected)
    assert (tmp_path / "back" / "mac.json").exists()
