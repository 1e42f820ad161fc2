"""The plot and the tables of first tokens, from records."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from latentbank.bench.record import Metric, Record, write_record
from tables.latency import answers_table, latency_table
from tables.pictures import latency
from test_record import make


def timed() -> Record:
    metrics = {}
    for level, size, cold in (("verbatim", 240.4, 400.0), ("lm", 94.0, 12345.6)):
        metrics[f"{level}: hot"] = Metric(110.0, "ms")
        metrics[f"{level}: cold"] = Metric(cold, "ms")
        metrics[f"{level}: rag"] = Metric(300.0, "ms")
        metrics[f"{level}: bytes"] = Metric(size, "bytes/document")
        metrics[f"{level}: rag over hot"] = Metric(2.727, "ratio")
        metrics[f"{level}: rag over cold"] = Metric(300 / cold, "ratio")
    return make("strata", task="latency", command="measure", metrics=metrics)


def test_the_table_has_a_line_for_each_level() -> None:
    lines = latency_table(timed()).splitlines()
    assert lines[2] == "| `verbatim` | 240 | 110 | 400 | 300 | 2.7 | 0.75 |"
    assert lines[3] == "| `lm` | 94 | 110 | 12,346 | 300 | 2.7 | 0.024 |"
    assert lines[-1].startswith("*`measure`, code ")


def test_the_plot_has_a_line_for_each_level_and_one_for_the_prompt(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert latency(tmp_path) is None
    write_record(timed(), tmp_path / "speed" / "latency.json")
    picture = latency(tmp_path)
    assert picture is not None
    text = picture.markdown("latency.svg")
    assert text.startswith("![Time to the first token](latency.svg)")
    picture.write(tmp_path / "latency.svg")
    words = " ".join(ET.parse(tmp_path / "latency.svg").getroot().itertext())
    for wanted in ("verbatim, 240 B", "lm, 94 B", "passage in the prompt, 300 ms", "12 s"):
        assert wanted in words


def test_whole_answers_have_a_column_for_each_machine() -> None:
    records = []
    for cores, times in ((2, (381.2, 1353.7)), (1, (400.0, 1975.9))):
        metrics = {
            "answer, strata": Metric(times[0], "ms"),
            "answer, rag over strata": Metric(2.0, "ratio"),
            "answer, rag": Metric(times[1], "ms"),
        }
        one = make("strata", task="latency", command=f"measure {cores}", metrics=metrics)
        records.append(replace(one, machine=replace(one.machine, cores=cores)))
    lines = answers_table(records).splitlines()
    assert lines[0] == "| | 1-core ms | 2-core ms |"
    assert lines[2:4] == ["| strata | 400 | 381 |", "| rag | 1,976 | 1,354 |"]
    assert [line.startswith("*`measure ") for line in lines[5:]] == [True, True]
