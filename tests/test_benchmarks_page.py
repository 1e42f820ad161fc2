"""The tables of the protocols, from whatever records are there, and their places in docs/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentbank.bench.record import Metric, Record, Series, write_record
from latentbank.bench.task import TASKS
from latentbank.learning import Learning
from latentbank.method import METHODS
from make_tables import PLOTS, main, places
from tables.benchmarks import COLUMNS, NO_RECORDS, benchmark_tables
from tables.contest import contest_table, ratio_table
from tables.knowledge import cost_table, keys_table, prune_table
from tables.markdown import markers
from test_record import make

pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent


def percent(**values: float) -> dict[str, Metric]:
    return {name: Metric(value, "percent") for name, value in values.items()}


def curve(x_name: str, y_name: str, x: tuple[float, ...], y: tuple[float, ...]) -> Series:
    return Series(x, y, x_name, "documents", y_name, "percent")


def of(task: str, method: str, metrics: dict[str, Metric], **changes: object) -> Record:
    size = {"bytes_per_document": Metric(64.5, "bytes"), "documents_kept": Metric(9, "documents")}
    return make(method, task=task, metrics={**metrics, **size}, **changes)


def fill(folder: Path) -> Path:
    """One or two synthetic records of every protocol."""
    over = "documents written"
    made = [
        of("online-qa", "rag", percent(f1=40.0, exact_match=30.0)),
        of("online-qa", "mbc", percent(f1=9.0), config={"budget_per_document": 64, "name": "mbc"}),
        make("mac", task="online-qa", metrics={}, skipped="a budget of 8 bytes is too small",
             config={"budget_per_document": 8}),
        of("retention", "rag", percent(f1=37.0, retention_area_f1=38.5),
           series={"f1": curve(over, "f1", (200, 400), (40.0, 37.0))}),
        of("retention", "mbc", percent(f1=8.0),
           series={"f1": curve(over, "f1", (200, 300), (9.0, 8.0))}),
        of("noise", "rag", percent(f1=33.0),
           series={"f1": curve("unrelated documents", "f1", (0, 100), (40.0, 33.0))}),
        of("duplicates", "rag", percent(f1=40.0, bank_growth=0.0),
           series={"f1": curve("copies", "f1", (1, 4), (40.0, 40.0))}),
        of("capacity", "rag", {"bits_per_100_bytes": Metric(12.5, "bits")}),
        of("updates", "rag", percent(f1=20.0, old_exact_match=11.5)),
        of("delete", "rag", percent(f1=40.0, f1_deleted=3.25, f1_closed_book=3.0)),
        of("forgetting", "mbc", percent(f1=4.0, forgetting_f1_NQ_open=0.75),
           config={"untrained": True}),
        of("frontier-learning", "rag", {"gain_stream": Metric(1.25, "nats/token")}),
        of("abstain", "rag", {**percent(exact_match=30.0),
                              "risk_coverage_area": Metric(0.42, "fraction")}),
        of("scale", "mac", percent(f1=1.0), config={"resampled_above": 100, "stopped": "too big"},
           series={"bytes_per_document": curve("documents", "b", (100, 1000), (27000.0, 26900.0))}),
        of("kb-qa", "rag", percent(exact_match=60.0),
           series={"exact_match": curve("triples", "exact_match", (10, 100), (75.5, 60.0)),
                   "exact_number": curve("triples", "exact_number", (100,), (41.0,))}),
    ]  # fmt: skip
    for i, record in enumerate(made):
        write_record(record, folder / f"{record.task}--{i}.json")
    return folder


def test_each_protocol_has_its_table(tmp_path: Path) -> None:
    found = benchmark_tables(fill(tmp_path))
    assert sorted(found) == sorted(TASKS.names()) == sorted(COLUMNS)
    assert NO_RECORDS not in found.values()
    assert "| rag | 40.0 | 30.0 | 64 B | 9 |" in found["online-qa"]
    assert "- mac at 8 B/doc: a budget of 8 bytes is too small." in found["online-qa"]
    head = "| row | F1 at documents written = 200 | 300 | 400 | area under F1 |"
    assert head in found["retention"]
    assert "| rag | 40.0 | – | 37.0 | 38.5 |" in found["retention"]
    assert "| mbc | 9.0 | 8.0 | – | – |" in found["retention"]
    assert "| rag | 40.0 | 33.0 |" in found["noise"]
    assert "old answer, EM" in found["updates"] and "| 11.5 |" in found["updates"]
    assert "| 3.2 | 3.0 |" in found["delete"]
    assert "forgotten, NQ_open" in found["forgetting"]
    assert "mbc (untrained)" in found["forgetting"] and "| 0.8 |" in found["forgetting"]
    assert "gain, nats" in found["frontier-learning"] and "| 1.2 |" in found["frontier-learning"]
    assert "| 42.0 |" in found["abstain"]
    assert "| mac | 100 | 27 kB |" in found["scale"]
    assert "| mac | 1,000 (resampled) | 26.9 kB |" in found["scale"]
    assert "stopped: too big" in found["scale"]
    assert "| row | triples | EM | numbers |" in found["kb-qa"]
    assert "| rag | 10 | 75.5 | – |" in found["kb-qa"]
    assert "| rag | 100 | 60.0 | 41.0 |" in found["kb-qa"]
    assert "bits in 100 bytes" in found["capacity"] and "| 12.5 |" in found["capacity"]


@pytest.mark.parametrize("task", sorted(COLUMNS))
def test_every_table_is_rectangular(task: str, tmp_path: Path) -> None:
    lines = benchmark_tables(fill(tmp_path))[task].splitlines()
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert len(widths) == 1


def test_without_records_every_table_says_so(tmp_path: Path) -> None:
    assert set(benchmark_tables(tmp_path / "nowhere").values()) == {NO_RECORDS}


def test_the_tables_of_knowledge_bases(tmp_path: Path) -> None:
    lines = {"triples": curve("triples", "ms", (100, 1000), (50.0, 60.0)),
             "prompt": curve("triples", "ms", (100,), (900.0,))}  # fmt: skip
    cost = make("rag", task="kb-cost", series=lines, metrics={
        "milliseconds_without_triples": Metric(49.0, "ms"),
        "milliseconds_per_1000_triples": Metric(11.0, "ms"),
        "variance_explained_by_a_line": Metric(0.991, "fraction"),
        "peak_memory_bytes": Metric(2**31, "bytes"), "triples": Metric(1000, "triples"),
        "prompt_triples": Metric(100, "triples"), "prompt_over_1000_triples": Metric(15.0, "times"),
    })  # fmt: skip
    text = cost_table(cost)
    assert "| 100 | 50 | 900 | – |" in text and "| 1,000 | 60 | – | – |" in text
    assert "99.1 %" in text and "2.00 GiB" in text and "15.0 times" in text
    kept = percent(exact_match_text=70.0, first_source_right_text=95.0) | {
        "bytes_text": Metric(40.4, "bytes"), "file_bytes_text": Metric(61.0, "bytes"),
    }  # fmt: skip
    assert "| `text` | 40 | 61 | 70.0 | 95.0 |" in keys_table(make("rag", metrics=kept))
    pruned = percent(exact_match_top_100=70.0, first_source_right_top_100=95.0,
                     answers_changed_top_100=1.5)  # fmt: skip
    assert "| top 100 | 70.0 | 95.0 | 1.5 |" in prune_table(make("rag", metrics=pruned))


def test_answers_beside_llama() -> None:
    kept, prompt = "llama.cpp, prefix kept", "llama.cpp, passage in the prompt"
    metrics = {
        f"{system}: {part}": Metric(value, "ms")
        for system, value in (("strata best, cached", 100.0), (kept, 200.0), (prompt, 1500.0))
        for part in ("first token", "whole answer")
    }
    metrics |= {
        f"strata best, cached over {kept}: first token": Metric(0.5, "ratio"),
        f"strata best, cold over {prompt}: whole answer": Metric(0.25, "ratio"),
        "cold process, first token": Metric(1.5, "s"),
        "file of questions, speed-up": Metric(6.25, "ratio"),
    }
    record = make("strata", metrics=metrics)
    text = contest_table(record)
    assert "| strata best, cached | 100 | 100 | 0.50 | 1 | 1 | 1 |" in text
    assert "cold process, first token 1.50 s; file of questions, speed-up 6.25." in text
    text = ratio_table(record)
    assert "| cached ÷ the passage's prefix kept | – | – | 0.50 | – |" in text
    assert "| cold ÷ the passage in the prompt | – | – | – | 0.25 |" in text


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_table_has_a_place_in_the_pages() -> None:
    found = {name for path in pages() for name in markers(path)}
    # A ceiling for benchmarks without a page of its own, and methods without an adapter.
    untold = {"method-full_context", "method-kblam", "method-recall", "method-titans"}
    # Methods that learn in the weights have a table of their own, of learning and forgetting.
    untold |= {
        f"method-{name}" for name in METHODS.names() if issubclass(METHODS.get(name), Learning)
    }
    assert {*places()} - {*PLOTS} - untold <= found <= {*places()}
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n## What they show\n" in text and "\n## What they do not show\n" in text


def test_one_command_fills_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    fill(results / "bench-full")
    write_record(make("rag"), results / "squad-online" / "rag.json")
    for source in pages():
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    docs = tmp_path / "docs"
    for _ in range(2):
        main(tmp_path)
        text = (docs / "tables.md").read_text(encoding="utf-8")
        assert NO_RECORDS not in text and "| rag | 40.0 | 30.0 | 64 B | 9 |" in text
        text = (docs / "benchmarks.md").read_text(encoding="utf-8")
        assert "](frontier.svg)" in text and "](retention.svg)" in text
        assert "| rag |" in (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "| rag |" in (docs / "methods" / "rag.md").read_text(encoding="utf-8")
        assert (docs / "retention.svg").exists()
    assert "latency.svg is not made" in capsys.readouterr().out
