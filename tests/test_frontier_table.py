"""The table of the frontier: rows by budgets, and the difference of two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentbank.bench.record import Metric, write_record
from latentbank.errors import InputError
from tables.frontier import frontier_table, shares_table
from test_record import make


def put(
    folder: Path, name: str, budget: int | None, scores: list[float], size: float = 37_318.0
) -> None:
    """A record of the row `name` at a budget whose questions q0, q1, … have these F1."""
    mean = 100 * sum(scores) / len(scores)
    metrics = {
        "f1": Metric(mean, "percent", mean - 2, mean + 2),
        "documents": Metric(1674.0, "documents"),
        "questions": Metric(float(len(scores)), "questions"),
        "bytes_per_document": Metric(size, "bytes"),
    }
    rows = [{"id": f"q{i}", "f1": f1, "exact_match": 0.0} for i, f1 in enumerate(scores)]
    record = make(
        config={"name": name, "budget_per_document": budget}, metrics=metrics,
        budget_bytes=None if budget is None else 10 * budget,
    )  # fmt: skip
    write_record(record, folder / f"{name}-{budget}.json", rows)


def test_rows_by_budgets_with_the_difference(tmp_path: Path) -> None:
    put(tmp_path, "ours", 256, [0.5] * 8)
    put(tmp_path, "ours", 16, [0.25] * 8)
    put(tmp_path, "other", 256, [0.375] * 8)
    put(tmp_path, "third", None, [1.0] * 8)
    put(tmp_path, "other", 1024, [0.5] * 8)
    lines = frontier_table(tmp_path, "ours", "other").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:-2]]
    assert cells[0] == ["F1", "16 B", "256 B", "1,024 B", "no limit"]
    assert cells[2] == ["third", "–", "–", "–", "100.0 [98, 102] at 37.3 kB"]
    assert {row[0] for row in cells[3:5]} == {"ours", "other"}
    assert next(row for row in cells if row[0] == "ours")[1:3] == ["25.0 [23, 27]", "50.0 [48, 52]"]
    last = cells[-1]
    assert last[0] == "*ours − other*" and last[2].startswith("+12.5 (p = ")
    assert last[1] == last[3] == last[4] == "–"
    assert "1,674 documents, 8 questions, seed 1" in lines[-1]


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    put(tmp_path, "ours", 16, [0.5, 0.5])
    with pytest.raises(InputError, match="no record of 'other'"):
        frontier_table(tmp_path, "ours", "other")
    put(tmp_path, "other", 16, [0.5])
    with pytest.raises(InputError, match="different questions"):
        frontier_table(tmp_path, "ours", "other")


def test_shares_of_the_bytes_of_another_row(tmp_path: Path) -> None:
    put(tmp_path, "ours", 49, [0.5] * 4, 37.3)
    put(tmp_path, "ours", 16, [0.25] * 4, 7.46)
    put(tmp_path, "large", 1024, [1.0] * 4, 374.0)  # more than a hundredth
    put(tmp_path, "nothing", None, [0.1] * 4, 0.0)
    put(tmp_path, "mac", None, [0.25] * 4)
    lines = shares_table(tmp_path, "mac").splitlines()
    assert "share of `mac`'s 37.3 kB" in lines[0] and "times `mac`'s 25.0" in lines[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    assert cells == [
        ["ours", "16 B", "7.5", "0.02 %", "25.0", "1"],
        ["ours", "49 B", "37.3", "0.1 %", "50.0", "2"],
    ]
    with pytest.raises(InputError, match="no record of 'cmt'"):
        shares_table(tmp_path, "cmt")
