"""The report page: self-contained, complete, readable without seeing it; and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from latentbank.bench.machine import Machine
from latentbank.bench.record import DataInfo, Metric, Series, write_record
from latentbank.bench.report import page as pages
from test_record import make
from tiny_cli import environment, refuse, succeed

pytest.importorskip("matplotlib")

VOID = {"meta", "br", "img", "hr", "link", "input"}
ROWS = (("none", 5.0, 0), ("mbc", 9.1, 228), ("strata <48>", 35.5, 14_000), ("rag", 41.2, 318))


class Reader(HTMLParser):
    """Checks that every element is closed; collects ids, references, headings and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [str(found["id"])] if "id" in found else []
        self.links += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        for value in found.values():
            self.links += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()
        self.words += " " if tag in ("td", "th", "p", "h2", "h3") else ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words += data

    def with_tag(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.tags
            if name == tag and all(found.get(k) == v for k, v in wanted.items())
        ]


def metrics(f1: float, each: float) -> dict[str, Metric]:
    found = {
        "f1": Metric(f1, "percent", f1 - 2, f1 + 2),
        "exact_match": Metric(f1 / 2, "percent"),
        "bank_bytes": Metric(each * 100, "bytes"),
        "bytes_per_document": Metric(each, "bytes"),
        "milliseconds": Metric(100 + f1, "ms"),
        "first_token_milliseconds": Metric(50 + f1, "ms"),
        "documents": Metric(100, "documents"),
        "questions": Metric(50, "questions"),
    }
    if each:
        found |= {"footprint_codes": Metric(each * 80, "bytes")}
        found |= {"footprint_ledger": Metric(each * 20, "bytes")}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, a skipped run, a ceiling, a foreign file."""
    out = tmp_path_factory.mktemp("results")
    for name, f1, each in ROWS:
        method = name.split()[0]
        config = {"name": name}
        command = f"latentbank bench online-qa --rows '{name}'"
        record = make(method, metrics=metrics(f1, each), config=config, command=command)
        write_record(record, out / "online" / f"{method}.json")
        y = tuple(f1 - i for i in range(3))
        curve = Series((0, 50, 100), y, "documents written", "documents", "f1", "percent")
        banded = replace(curve, low=tuple(v - 1 for v in y), high=tuple(v + 1 for v in y))
        record = make(
            method, task="retention", metrics={"f1": Metric(f1, "percent")}, config=config,
            series={"f1": banded, "bank_bytes": replace(curve, y_name="bank_bytes")},
        )  # fmt: skip
        write_record(record, out / "retention" / f"{method}.json")
    gold = make("strata", metrics=metrics(48.0, 310), config={"name": "strata (gold)", "gold": 1})
    write_record(gold, out / "online" / "gold.json")
    skipped = make("camels", metrics={}, skipped="needs gradients & 24 GB")
    write_record(skipped, out / "online" / "camels.json")
    (out / "comparisons.json").write_text("{}")
    return out


@pytest.fixture(scope="module")
def html(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    found = pages.write_page(folder, out)
    assert (found.records, found.skipped, found.foreign) == (10, 1, ("comparisons.json",))
    assert found.figures == 5  # frontier, footprint, time; F1 and bank size
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


def test_the_page_loads_nothing(html: str, read: Reader) -> None:
    assert read.with_tag("script") == read.with_tag("link") == read.with_tag("img") == []
    assert all(link.startswith("#") for link in read.links)
    names = html.replace("http://www.w3.org/", "")  # of XML; nothing is loaded from there
    assert "@import" not in html and "http://" not in names and "https://" not in html


def test_ids_are_unique_and_links_lead_somewhere(read: Reader) -> None:
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links} <= set(read.ids)
    labelled = [found["aria-labelledby"] for _, found in read.tags if "aria-labelledby" in found]
    assert labelled and set(labelled) <= set(read.ids)


def test_each_figure_has_words_numbers_command_and_records(html: str, read: Reader) -> None:
    for part in re.findall(r"<figure.*?</figure>", html, flags=re.DOTALL):
        inside = Reader(part)
        assert len(inside.with_tag("svg")) == 1
        (plot,) = inside.with_tag("div", role="img")
        assert "in the table below" in str(plot["aria-label"])
        assert "The numbers" in inside.words and "How to repeat it" in inside.words
        assert re.search(r"(online|retention)/\w+\.json", inside.words)
        assert "latentbank bench" in inside.words
        assert inside.with_tag("table") and inside.with_tag("th", scope="row")
    assert len(read.with_tag("figure")) == 5


def test_tables_scroll_in_their_own_container(html: str) -> None:
    for match in re.finditer("<table>", html):
        before = html[: match.start()].rstrip()
        assert re.search(r'<div class="scroll[^>]*role="region"[^>]*tabindex="0">$', before)
    assert "overflow-x: auto" in html and 'name="viewport"' in html


def test_the_page_follows_the_readers_light_or_dark(html: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in html
    style = html[: html.index("</style>")]
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    assert used and used <= set(re.findall(r"--([\w-]+):", style))
    assert re.search(r"\.plot {[^}]*background: #fff", style), "plots are drawn for white"


def test_text_in_the_plots_is_text_and_names_every_row(html: str) -> None:
    frontier = html[html.index('id="squad-online-frontier"') :]
    drawn = frontier[: frontier.index("</svg>")]
    for name, _, _ in ROWS:
        assert name.replace("<", "&lt;").replace(">", "&gt;") in drawn
    assert "sans-serif" in drawn, "where DejaVu Sans is not installed"


def test_skipped_rows_stand_with_their_reason(read: Reader, html: str) -> None:
    assert "needs gradients & 24 GB." in read.words
    assert "online/camels.json" in read.words
    assert "needs gradients &amp; 24 GB" in html


def test_the_table_and_the_ceiling(read: Reader) -> None:
    words = " ".join(read.words.split())
    assert "41.2 (39.2 to 43.2) 20.6 31.8 kB 318 B 141.2" in words
    assert "Left out, because they are no result records: comparisons.json" in words
    assert "on the frontier" in words and "ceiling" in words
    assert "100 documents · 50 questions · float32 · seed 1" in words


def test_numbers_that_no_figure_shows_have_a_table(tmp_path: Path) -> None:
    found = {
        **metrics(30.0, 300),
        "retention_area_f1": Metric(0.295, "fraction", 0.25, 0.33),
        "documents_kept": Metric(1234, "documents"),
        "peak_memory_bytes": Metric(4.27e8, "bytes"),
        "codebook_residual": Metric(0.0512, ""),
        "seconds": Metric(61.25, "s"),
    }
    write_record(make("rag", metrics=found), tmp_path / "results" / "a.json")
    write_record(make("mac", metrics=metrics(9.0, 300)), tmp_path / "results" / "b.json")
    pages.write_page(tmp_path / "results", tmp_path / "r.html")
    words = " ".join(Reader((tmp_path / "r.html").read_text(encoding="utf-8")).words.split())
    head = "row retention area f1 (%) documents kept peak memory codebook residual seconds "
    assert f"What else was measured {head}" in words
    assert "rag 29.5 (25.0 to 33.0) 1,234 427 MB 0.051 61.2 mac \u2013 \u2013" in words


def test_the_ceiling_is_not_on_the_frontier(folder: Path) -> None:
    from latentbank.bench.report import plots
    from latentbank.bench.report.figures import frontier_figure, method_order
    from latentbank.bench.report.results import groups, load_results

    results = load_results(folder, nested=True).results
    group = next(g for g in groups(results) if g.task == "squad-online")
    figure = frontier_figure(group, plots.colours(method_order(results)))
    assert figure is not None
    assert {row[0]: row[3] for row in figure.table.rows} == {
        "strata (gold)": "ceiling", "rag": "on the frontier", "strata <48>": "",
        "mbc": "on the frontier", "none": "on the frontier",
    }  # fmt: skip


def test_names_in_a_plot_do_not_cover_one_another() -> None:
    from latentbank.bench.report import plots

    points = [plots.Point(f"row {i}", "m", 100.0 + i, 40.0 + i / 2) for i in range(6)]
    levels = [plots.Point(f"level {i}", "m", 0.0, 10.0) for i in range(4)]
    figure = plots.frontier([*points, *levels], plots.colours(["m"]), "bytes", "F1")
    boxes = []
    for text in figure.axes[0].texts:
        if text.get_text():
            box = text.get_window_extent()
            assert not any(box.overlaps(other) for other in boxes), text.get_text()
            boxes.append(box)
    assert len(boxes) == 10


def test_the_same_records_give_the_same_page(folder: Path, html: str, tmp_path: Path) -> None:
    pages.write_page(folder, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_other_data_and_machines_stay_apart(tmp_path: Path) -> None:
    results = tmp_path / "results"
    gpu = Machine("AMD EPYC", 16, 2**37, "NVIDIA H200")
    write_record(make("rag", metrics=metrics(30.0, 300)), results / "a.json")
    there = replace(make("rag", metrics=metrics(30.5, 300)), machine=gpu)
    write_record(there, results / "b.json")
    other = DataInfo("trivia", "f" * 32)
    write_record(make("rag", metrics=metrics(9.0, 300), data=other), results / "c.json")
    pages.write_page(results, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    sections = re.findall(r"<section.*?</section>", html, flags=re.DOTALL)
    assert ["trivia" in part for part in sections] == [False, True]
    words = " ".join(Reader(html).words.split())
    assert "These rows were measured on 2 machines" in words
    assert "Time for a question, NVIDIA H200 with 16 cores of AMD EPYC" in words
    assert "rag, NVIDIA H200" in words


def test_odd_records_make_a_page(tmp_path: Path) -> None:
    """Only skipped runs; rows without a bank alone; one point; a name that is markup."""
    results = tmp_path / "results"
    write_record(make("a", metrics={}, skipped="why"), results / "skipped.json")
    odd = {"f1": Metric(0.0, "percent", 0.0, 0.0), "bytes_per_document": Metric(0, "bytes")}
    for name in ("$x$", "<b>&'\"</b>"):
        one = Series((5,), (0.0,), "x", "", "y_z", "")
        many = Series(tuple(range(1, 900)), tuple(range(1, 900)), "n", "n", "time", "ms")
        config = {"name": name}
        record = make("m", task="t", metrics=odd, series={"s": one, "u": many}, config=config)
        write_record(record, results / f"{len(name)}.json")
    pages.write_page(results, tmp_path / "r.html")
    read = Reader((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "<b>&'\"</b>" in read.words and "$x$" in read.words
    assert "The table has a part of the points" in read.words


# ---- the command


def test_the_command_writes_the_page_and_names_what_it_left_out(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "page.html"
    result = succeed("bench", "report", str(folder), "--out", str(out))
    assert out.is_file()
    assert f"{out}: 5 figures from 10 records, 1 of them skipped" in result.stdout
    assert f"{folder / 'comparisons.json'} is not a result record and is left out" in result.stderr
    found = json.loads(succeed("bench", "report", str(folder), "--out", str(out), "--json").stdout)
    assert found["figures"] == 5 and found["left_out"] == ["comparisons.json"]
    assert found["bytes"] == out.stat().st_size


def test_bad_folders_and_names_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = str(tmp_path / "r.html")
    assert refuse("bench", "report", str(empty), "--out", out) == (
        f"{empty} holds no result record (*.json)."
    )
    assert refuse("bench", "report", str(tmp_path / "nowhere"), "--out", out) == (
        f"{tmp_path / 'nowhere'} is not a folder with result records."
    )
    (empty / "cut.json").write_text('{"schema_version": 2, "ta')
    assert f"{empty / 'cut.json'} is not JSON" in refuse(
        "bench", "report", str(empty), "--out", out
    )
    assert refuse("bench", "report", str(empty), "--out", "r.pdf") == (
        "The report's name must end in .html, got 'r.pdf'."
    )
    assert not Path(out).exists()


def test_both_commands_are_light(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from latentbank.cli import app; "
        f"app(['bench', 'report', {str(folder)!r}, '--out', {str(tmp_path / 'r.html')!r}], "
        "standalone_mode=False); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("compare", "report"):
        assert "--json" in succeed("bench", command, "--help").stdout


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "NEEDED", ("matplotlib", "no_such_library"))
    sentence = refuse("bench", "report", str(tmp_path), "--out", str(tmp_path / "r.html"))
    assert sentence == "The report needs no_such_library; run: pip install 'latentbank[bench]'"
