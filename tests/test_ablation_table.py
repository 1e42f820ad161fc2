"""The table of an ablation: means over seeds, and differences on the same questions."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentbank.bench.record import Metric, write_record
from latentbank.errors import InputError
from tables.ablation import ablation_table
from test_record import make


def put(folder: Path, name: str, scores: list[float]) -> None:
    """A record of the row `name` whose questions q0, q1, … have these F1."""
    metrics = {
        "f1": Metric(100 * sum(scores) / len(scores), "percent"),
        "documents": Metric(7.0, "documents"),
    }
    rows = [
        {"id": f"q{i}", "f1": score, "exact_match": float(score == 1)}
        for i, score in enumerate(scores)
    ]
    record = make(config={"name": name}, metrics=metrics)
    write_record(record, folder / f"{name.replace(' ', '-')}.json", rows)


def test_variants_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    put(tmp_path, "whole seed 0", [0.5, 0.5, 1.0, 0.0])
    put(tmp_path, "whole seed 1", [0.5, 0.5, 0.5, 0.5])
    put(tmp_path, "less seed 0", [0.25, 0.25, 0.75, 0.0])
    put(tmp_path, "less seed 1", [0.25, 0.25, 0.25, 0.25])
    put(tmp_path, "other seed 1", [0.75, 0.75, 0.75, 0.75])
    put(tmp_path, "elsewhere seed 5", [0.1, 0.1, 0.1, 0.1])
    lines = ablation_table(tmp_path, "whole").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    assert [row[0] for row in cells] == ["whole", "other", "less", "elsewhere"]
    assert [row[1] for row in cells] == ["2", "1", "2", "1"]
    assert [row[2] for row in cells] == ["50.0", "75.0", "28.1", "10.0"]
    assert cells[0][3:] == ["", ""] == cells[3][3:]
    assert cells[1][3].startswith("+25.0 [+25.0, +25.0]")
    assert cells[2][3].startswith("-21.9 [")
    assert float(cells[2][4]) < 0.05
    assert "7 documents, 4 questions" in lines[-1]


def test_an_ablation_needs_the_whole_and_the_same_questions(tmp_path: Path) -> None:
    put(tmp_path, "less seed 0", [0.25, 0.5])
    with pytest.raises(InputError, match="no record of 'whole'"):
        ablation_table(tmp_path, "whole")
    put(tmp_path, "whole seed 0", [0.25, 0.5, 1.0])
    with pytest.raises(InputError, match="same questions"):
        ablation_table(tmp_path, "whole")
