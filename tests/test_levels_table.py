"""The tables of docs/methods/strata.md: one for each record of scripts/measure_exactness.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentbank.bench.record import Metric, Record, write_record
from latentbank.errors import InputError
from tables.levels import levels_table
from test_record import make


def exactness(levels: dict[str, float], kinds: dict[str, int]) -> Record:
    metrics = {"texts": Metric(float(sum(kinds.values())), "texts")}
    for kind, count in kinds.items():
        metrics[f"texts, {kind}"] = Metric(float(count), "texts")
        metrics[f"UTF-8, {kind}"] = Metric(1234.4, "bytes/text")
        metrics |= {f"{name}, {kind}": Metric(size, "bytes/text") for name, size in levels.items()}
    for name in levels:
        metrics[f"{name}: lost"] = Metric(0.0, "texts")
        for what in ("encoding", "decoding, 1 threads", "decoding, 2 threads"):
            metrics[f"{name}: {what}"] = Metric(0.0251, "milliseconds/text")
    return make("all", task="exactness", command="measure", metrics=metrics)


def test_a_table_for_each_record_the_largest_first(tmp_path: Path) -> None:
    write_record(exactness({"lm": 94.4}, {"code": 3}), tmp_path / "few.json")
    write_record(
        exactness({"verbatim": 240.0, "packed": 155}, {"code": 30}), tmp_path / "many.json"
    )
    many, few = levels_table(tmp_path).split("| bytes of a text |")[1:]
    assert "texts | UTF-8 | `verbatim` | `packed` |" in many
    assert "| code | 30 | 1,234 | 240 | 155 |" in many
    assert "| code | 3 | 1,234 | 94 |" in few
    assert "| ms to code | | | 0.025 |" in few
    assert "| texts lost | | | 0 | 0 |" in many
    assert "*`measure`, revision" in few
    assert levels_table(tmp_path / "none") == ""
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json"):
        levels_table(tmp_path)
