"""The tables of the docs: rows of records, and their places in the pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latentbank.bench.record import Metric, write_record
from latentbank.errors import InputError
from tables.markdown import fill, markers, table
from tables.results import results_table
from test_record import make


def test_results_table_shows_the_newest_best_first(tmp_path: Path) -> None:
    old = replace(make("strata", 30.0), created="2025-01-01T00:00:00+00:00")
    new = replace(make("strata", 40.0), created="2025-01-02T00:00:00+00:00")
    write_record(new, tmp_path / "a.json", predictions=[{"id": "1"}])
    write_record(old, tmp_path / "b.json")
    write_record(make("none", metrics={"f1": Metric(0.086, "fraction")}), tmp_path / "c.json")
    write_record(make("strata", 50.0, read_as="te|xt"), tmp_path / "d.json")
    lines = results_table(tmp_path).splitlines()
    assert lines[0] == (
        "| method | read as | F1 | EM | contains | bank bytes | bytes/document | ms/question "
        "| record |"
    )
    assert lines[2].startswith("| strata | te\\|xt | 50.0 [48.0, 52.0] | 12.8 |")
    assert lines[3] == (
        "| strata | states | 40.0 [38.0, 42.0] | 12.8 | \u2013 | 1,234,567 | \u2013 | \u2013 "
        "| `a.json` |"
    )
    assert lines[4].startswith("| none | states | 8.6 |")
    assert len(lines) == 5


def test_config_name_separates_runs_of_one_method(tmp_path: Path) -> None:
    write_record(make(f1=1.0, config={"name": "mbc, no reset"}), tmp_path / "a.json")
    write_record(make(f1=2.0), tmp_path / "b.json")
    table = results_table(tmp_path)
    assert "| mbc, no reset |" in table
    assert "| mbc |" in table


def test_results_table_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result record"):
        results_table(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        results_table(tmp_path / "missing")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"no result record .*x\.json is something else"):
        results_table(tmp_path)
    write_record(make(), tmp_path / "a.json")
    assert "x.json" not in results_table(tmp_path)
    (tmp_path / "y.json").write_text('{"schema_version": 2, "task"')
    with pytest.raises(InputError, match=r"y\.json is not JSON"):
        results_table(tmp_path)


def test_a_skipped_run_is_a_row_with_its_reason(tmp_path: Path) -> None:
    write_record(make(), tmp_path / "a.json")
    write_record(make("camels", metrics={}, skipped="no gradients | here"), tmp_path / "b.json")
    last = results_table(tmp_path).splitlines()[-1]
    assert last.startswith("| camels | states | skipped: no gradients \\| here | \u2013 |")


def test_cells_are_escaped_and_empty_ones_are_short() -> None:
    assert table(("", "n"), [("a|b", "1"), ("two\nlines", "")]).split("\n") == [
        "| | n |", "| --- | ---: |", "| a\\|b | 1 |", "| two lines | |",
    ]  # fmt: skip


def test_a_page_is_filled_only_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        "Über\n<!-- results:a -->\nold\n<!-- /results:a -->\nmid\n"
        "<!-- results:b --><!-- /results:b -->\n"
        "<!-- results:c -->\nkept\n<!-- /results:c -->\nend\n",
        encoding="utf-8",
    )
    texts = {"a": "| x |\n", "b": "\\1 new"}
    for _ in range(2):  # running it again changes nothing
        fill(path, texts.get)
        assert path.read_text(encoding="utf-8") == (
            "Über\n<!-- results:a -->\n| x |\n<!-- /results:a -->\nmid\n"
            "<!-- results:b -->\n\\1 new\n<!-- /results:b -->\n"
            "<!-- results:c -->\nkept\n<!-- /results:c -->\nend\n"
        )
    assert markers(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content",
    [
        "<!-- results:a --> open",
        "<!-- /results:a --> <!-- results:a -->",
        "<!-- results:a --><!-- /results:a -->" * 2,
        "<!-- results:a --><!-- results:b --><!-- /results:a --><!-- /results:b -->",
    ],
)
def test_a_page_with_broken_markers_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(content)
    with pytest.raises(InputError, match=r"results:NAME.*once"):
        fill(path, lambda name: "x")
    assert path.read_text() == content
    with pytest.raises(InputError, match="cannot be read"):
        fill(tmp_path / "missing.md", lambda name: "x")
