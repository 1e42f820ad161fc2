"""The README's tables and plots, from a folder of records."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from latentbank.bench.record import DataInfo, Metric, Series, write_record
from latentbank.errors import UnknownNameError
from make_tables import main
from tables.pictures import PICTURES, frontier, retention
from test_record import make

pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent


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


def test_plots_are_svg_files_that_load_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    for draw, title in ((frontier, "Accuracy for the bytes"), (retention, "F1 over documents")):
        picture, again = draw(tmp_path), draw(tmp_path)
        assert picture is not None and again is not None
        assert picture.markdown("docs/x.svg").startswith(f"![{title}")
        picture.write(tmp_path / "x.svg")
        content = (tmp_path / "x.svg").read_text(encoding="utf-8")
        again.write(tmp_path / "x.svg")
        assert (tmp_path / "x.svg").read_text(encoding="utf-8") == content
        root = ET.fromstring(content)
        assert root.tag.endswith("svg") and root.get("viewBox")
        assert "http" not in content.replace("http://www.w3.org/", "")
        assert "rag" in "".join(root.itertext())


def page(folder: Path, name: str, *places: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"<!-- results:{place} --><!-- /results:{place} -->" for place in places)
    path.write_text("# x\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_script_fills_every_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "results", retention=False)
    old = tmp_path / "docs" / "retention.svg"
    old.parent.mkdir()
    old.write_text("<svg/>")
    readme = page(tmp_path, "README.md", "squad-online", "plots", "bank")
    deep = page(tmp_path, "docs/guide/bench.md", "frontier-plot", "bench-online-qa")
    for _ in range(2):  # running it again changes nothing
        main(tmp_path)
        text = readme.read_text()
        assert "| rag | states | 40.0 [38.0, 42.0] |" in text
        assert "(docs/frontier.svg)" in text and "retention" not in text
        assert "<!-- results:bank --><!-- /results:bank -->" in text, "no records, no change"
        assert "(../frontier.svg)" in deep.read_text() and "| rag | 40.0 (38.0" in deep.read_text()
    assert not old.exists(), "no plot of records that are gone"
    said = capsys.readouterr().out
    assert f"{old} is not made: no record of the task retention has the curve f1." in said


def test_a_place_without_a_table_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "results")
    path = page(tmp_path, "README.md", "squad-onlin")
    with pytest.raises(UnknownNameError, match=r"'squad-onlin'.*squad-online"):
        main(tmp_path)
    assert "online |" not in path.read_text()


def test_the_first_folder_that_has_a_plot_gives_it(tmp_path: Path) -> None:
    fill(tmp_path, retention=False)
    for method in ("strata", "rag"):
        record = make(method, task="online-qa", data=DataInfo("whole", "1" * 32))
        write_record(record, tmp_path / "frontier" / f"{method}.json")
    picture = frontier(tmp_path)
    assert picture is not None and picture.about == "online-qa, whole"
    assert retention(tmp_path) is None


def test_the_committed_plots_are_those_of_the_records(tmp_path: Path) -> None:
    for name, draw in PICTURES.items():
        picture = draw(ROOT / "results")
        assert picture is not None
        picture.write(tmp_path / f"{name}.svg")
        new, kept = (
            [part.strip() for part in ET.parse(folder / f"{name}.svg").getroot().itertext()]
            for folder in (tmp_path, ROOT / "docs")
        )
        assert new == kept, name
