"""The README's tables and plots, from a folder of records."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from latentbank.bench.readme_plots import write_plots
from latentbank.bench.record import DataInfo, Metric, Series, write_record
from test_record import make

pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent
README = (
    "# x\n<!-- results:squad-online --><!-- /results:squad-online -->\n"
    "<!-- results:plots --><!-- /results:plots -->\n"
)


def fill(results: Path, retention: bool = True) -> None:
    for method, f1 in (("mbc", 9.0), ("rag", 40.0)):
        write_record(make(method, f1), results / "squad-online" / f"{method}.json")
        full = results / "bench-full"
        write_record(make(method, f1, task="online-qa"), full / "a" / f"{method}.json")
        if retention:
            curve = Series((0, 10), (f1, f1 - 1), "documents written", "documents", "f1", "percent")
            record = make(
                method,
                task="retention",
                metrics={"f1": Metric(f1, "percent")},
                series={"f1": curve},
            )
            write_record(record, full / f"retention-{method}.json")


def test_plots_are_files_of_their_own_with_both_modes(tmp_path: Path) -> None:
    fill(tmp_path / "results")
    text, missing = write_plots(tmp_path / "results", tmp_path / "docs")
    assert missing == []
    assert "![Accuracy for the bytes](docs/frontier.svg)" in text
    assert "![F1 over documents written](docs/retention.svg)" in text
    for name in ("frontier", "retention"):
        content = (tmp_path / "docs" / f"{name}.svg").read_text(encoding="utf-8")
        root = ET.fromstring(content)
        assert root.tag.endswith("svg") and float(str(root.get("width"))) == 860
        assert "prefers-color-scheme: dark" in content
        assert "http" not in content.replace("http://www.w3.org/", "")
        assert "rag" in "".join(root.itertext())


def test_a_plot_without_records_is_named_and_no_old_one_stays(tmp_path: Path) -> None:
    fill(tmp_path / "results", retention=False)
    old = tmp_path / "docs" / "retention.svg"
    old.parent.mkdir()
    old.write_text("<svg/>")
    text, missing = write_plots(tmp_path / "results", tmp_path / "docs")
    assert "retention" not in text and not old.exists()
    assert missing == [f"{old} is not made: no record of the task retention has the curve f1."]


def test_the_script_fills_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "results", retention=False)
    (tmp_path / "README.md").write_text(README)
    bank = tmp_path / "docs" / "bank.md"
    bank.parent.mkdir(exist_ok=True)
    bank.write_text("<!-- results:bank -->\n<!-- /results:bank -->\n")
    levels = "<!-- results:levels -->\n<!-- /results:levels -->\n"
    (bank.parent / "strata.md").write_text(levels)
    page = ROOT / "docs" / "tables.md"
    (tmp_path / "docs" / "tables.md").write_text(page.read_text(encoding="utf-8"))
    script = runpy.run_path(str(ROOT / "scripts/make_tables.py"))
    for _ in range(2):  # running it again changes nothing
        script["main"](tmp_path)
        text = (tmp_path / "README.md").read_text()
        assert "| rag | states | 40.0 [38.0, 42.0] |" in text
        assert "(docs/frontier.svg)" in text
    assert "retention.svg is not made" in capsys.readouterr().out


def test_the_first_folder_that_has_a_plot_gives_it(tmp_path: Path) -> None:
    results = tmp_path / "results"
    fill(results, retention=False)
    for method in ("strata", "rag"):
        record = make(method, task="online-qa", data=DataInfo("whole", "1" * 32))
        write_record(record, results / "frontier" / f"{method}.json")
    text, _ = write_plots(results, tmp_path / "docs")
    assert "online-qa, whole." in text


def test_the_readme_has_a_place_for_its_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start, end = "<!-- results:squad-online -->", "<!-- /results:squad-online -->"
    assert text.count(start) == text.count(end) == 1
