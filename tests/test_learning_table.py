"""The table and the plot of learning and forgetting."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentbank.bench.record import Metric, write_record
from latentbank.errors import InputError
from tables.learning import family, learning_table
from tables.pictures import learning
from test_record import make


def put(folder: Path, name: str, seed: int, gain: float, rise: float) -> None:
    metrics = {
        "gain_stream": Metric(gain, "nats/token"), "rise": Metric(rise, "nats/token"),
        "f1_stream": Metric(10 * gain, "percent"), "documents": Metric(8.0, "documents"),
        "bank_bytes": Metric(12_000.0, "bytes"),
    }  # fmt: skip
    record = make(task="frontier-learning", config={"name": name}, metrics=metrics, seed=seed)
    write_record(record, folder / f"seed{seed}" / f"{name}.json")


def test_seeds_are_one_row(tmp_path: Path) -> None:
    put(tmp_path, "lora 0.001", 0, 0.5, 0.1)
    put(tmp_path, "lora 0.001", 1, 0.7, 0.3)
    put(tmp_path, "none", 0, 0.0, 0.0)
    lines = learning_table(tmp_path).splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:2] == ["lora 0.001", "2"] and cells[-1] == "12"
    assert cells[2:4] == ["+0.60 [+0.50, +0.70]", "+0.20 [+0.10, +0.30]"]
    assert lines[3].startswith("| none | 1 | +0.00 | +0.00 |")
    assert "other words" not in lines[0]  # no record has it
    lines = learning_table(tmp_path, "f1", "streams").splitlines()
    assert lines[0].startswith("| row | streams |") and "| F1 after |" in lines[0]
    assert "| 6.0 [5.0, 7.0] |" in lines[2]
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="other"):
        learning_table(tmp_path / "other")


def test_a_dial_is_one_line_of_the_plot(tmp_path: Path) -> None:
    assert family("sparse tf 100") == "sparse tf" and family("none") == "none"
    assert family("sparse 100000 t 500") == "sparse t 500" and family("lora 0.001") == "lora"
    assert learning(tmp_path) is None
    for at, name in enumerate(("lora 0.001", "lora 0.01", "none")):
        put(tmp_path / "learning", name, 0, 0.5 * at, 0.1 * at)
    picture = learning(tmp_path)
    assert picture is not None
    picture.write(tmp_path / "learning.svg")
    text = (tmp_path / "learning.svg").read_text()
    assert "held-out" in text and "lora" in text and "none" in text
