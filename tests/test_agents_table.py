"""Tables and plot of the records of agents and of evolve."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentbank.bench.record import DataInfo, Metric, Record, new_record
from latentbank.bench.report import plots
from tables.agents import agents_table, policies_drawing, policies_table
from tables.evolve import evolve_table


def record(metrics: dict[str, Metric], config: dict[str, object] | None = None) -> Record:
    return new_record(
        task="t",
        method="rap",
        command="python scripts/x.py",
        seed=0,
        data=DataInfo("d", ""),
        dtype="",
        metrics=metrics,
        config=config,
    )


@pytest.fixture
def agents() -> Record:
    rows = {"none": 10.0, "memory": 60.0, "flood": 50.0, "0.25 hits": 55.0, "flood 0.25 hits": 30.0}
    metrics: dict[str, Metric] = {}
    for name, value in rows.items():
        metrics[f"{name}: success"] = Metric(value, "percent", value - 5, value + 5)
        metrics[f"{name}: first trial"] = Metric(value - 1, "percent")
        if name != "none":
            metrics[f"{name}: episodes"] = Metric(1234.0, "episodes")
            metrics[f"{name}: bytes"] = Metric(56789.0, "bytes")
    return record(metrics)


def test_a_policy_is_shown_with_its_share_of_the_gain(agents: Record) -> None:
    lines = policies_table(agents).splitlines()
    assert "| plain | 0.25 | hits | 55.0 [50.0, 60.0] | 90 | 1,234 | 56,789 |" in lines
    assert "| flooded | 0.25 | hits | 30.0 [25.0, 35.0] | 50 | 1,234 | 56,789 |" in lines
    assert "| no passages | 10.0 [5.0, 15.0] | 9.0 | | |" in agents_table(agents)


def test_policies_are_drawn_where_there_are_some(agents: Record) -> None:
    drawn = plots.to_svg(policies_drawing(agents), "agents")
    assert "0.25 of the bytes, flooded" in drawn and "hits" in drawn
    assert policies_drawing(record({"none: success": Metric(1.0, "percent")})) is None


def test_what_was_found_is_shown_with_its_interval(tmp_path: Path) -> None:
    metrics = {"test_questions": Metric(900.0, "questions")}
    expressions = {}
    for at, name in enumerate(("default", "evolved", "random", "cem")):
        expressions[name] = f"age + {at}"
        for kind in ("train_score", "choice_score", "test_score", "test_old", "test_new"):
            metrics[f"{name}_{kind}"] = Metric(30.0 + at, "percent")
        if at:
            metrics[f"{name}_over_default_by_document"] = Metric(at, "percent points", -1.0, 3.0)
    made = evolve_table(record(metrics, {"expressions": expressions}))
    row = "| evolved | 31.0 | 31.0 | 31.0 | 31.0 | 31.0 | +1.0 [-1.0, +3.0] | `age + 1` |"
    assert row in made.splitlines() and "900 test questions" in made
