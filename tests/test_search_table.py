"""The tables of what was tried, from records."""

from __future__ import annotations

from latentbank.bench.record import Metric
from tables.search import forms_table, sweep_table, training_table
from test_record import make


def test_a_line_for_each_form_with_its_bytes() -> None:
    metrics = {
        "all states: F1": Metric(62.06, "percent", 55.2, 68.9),
        "all states: bytes": Metric(255312.0, "bytes/document"),
        "48 pooled: F1": Metric(31.2, "percent", 25.0, 37.0),
        "48 pooled: bytes": Metric(55296.4, "bytes/document"),
    }
    record = make("strata", task="states", command="measure", metrics=metrics)
    lines = forms_table(record).splitlines()
    assert lines[2:4] == [
        "| all states | 255,312 | 62.1 [55, 69] |",
        "| 48 pooled | 55,296 | 31.2 [25, 37] |",
    ]
    assert "`measure`, code " in lines[-1] and record.data.name in lines[-1]


def test_a_line_for_each_way_to_train_and_a_column_for_each_form() -> None:
    metrics = {
        f"{variant}: F1, {form}": Metric(value, "percent", value - 1, value + 1)
        for variant, values in {"as it is": (60.0, 30.0), "distilled": (61.0, 33.0)}.items()
        for form, value in zip(("all states", "48 pooled"), values, strict=True)
    }
    lines = training_table(make("strata", task="search", metrics=metrics)).splitlines()
    assert lines[0] == "| F1 | all states | 48 pooled |"
    assert lines[2:4] == [
        "| as it is | 60.0 [59, 61] | 30.0 [29, 31] |",
        "| distilled | 61.0 [60, 62] | 33.0 [32, 34] |",
    ]


def test_a_line_for_each_top_k_and_a_column_for_each_weight() -> None:
    metrics = {}
    for top_k, low, high in ((0, 10.0, 12.0), (4, 20.0, 22.0)):
        for weight, value in (("0", low), ("0.5", high)):
            metrics[f"F1, top-k {top_k}, α {weight}"] = Metric(value, "percent", value, value)
            metrics[f"EM, top-k {top_k}, α {weight}"] = Metric(1.0, "percent", 1.0, 1.0)
    lines = sweep_table(make("cmt", task="cmt-sweep", metrics=metrics)).splitlines()
    assert lines[0] == "| F1 | α 0 | α 0.5 |"
    assert lines[2:4] == [
        "| top-k 0 | 10.0 [10, 10] | 12.0 [12, 12] |",
        "| top-k 4 | 20.0 [20, 20] | 22.0 [22, 22] |",
    ]
