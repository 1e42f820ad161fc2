"""The figure and the table of first tokens, from a record."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from latentbank.bench.latency import latency_figure, latency_table
from latentbank.bench.readme_plots import write_plot
from latentbank.bench.record import Metric, Record
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


def test_the_figure_has_a_line_for_each_level_and_one_for_rag(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = latency_figure(timed())
    assert [row[0] for row in figure.table.rows] == ["verbatim, 240 B", "lm, 94 B", "rag"]
    text = write_plot(figure, tmp_path / "docs" / "latency.svg")
    assert text.startswith("![Time to the first token](docs/latency.svg)")
    words = "".join(ET.parse(tmp_path / "docs" / "latency.svg").getroot().itertext())
    assert "lm, 94 B" in words and "passage in the prompt" in words
