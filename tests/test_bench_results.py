"""Folders of records: what is read, left out or refused, and what may stand side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentbank.bench.machine import Machine
from latentbank.bench.record import DataInfo, Metric, Record, write_record
from latentbank.bench.report.results import (
    Result,
    groups,
    load_results,
    newest,
    si_bytes,
    unique_labels,
)
from latentbank.errors import InputError
from test_record import make

GPU = Machine("AMD EPYC", 16, 2**37, "NVIDIA H200")


def result(record: Record, name: str = "a.json") -> Result:
    return Result(Path(name), name, record)


def test_foreign_json_is_named_and_left_out(tmp_path: Path) -> None:
    write_record(make(), tmp_path / "a.json", [{"id": "q"}])
    write_record(make("rag"), tmp_path / "deep" / "b.json")
    (tmp_path / "comparisons.json").write_text('{"pairs": {}}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "notes.txt").write_text("no json")
    found = load_results(tmp_path)
    assert [r.name for r in found.results] == ["a.json"]
    assert found.foreign == ("comparisons.json", "list.json")
    nested = load_results(tmp_path, nested=True)
    assert [r.name for r in nested.results] == ["a.json", "deep/b.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema_version": 2, "task": "x"', r"a\.json is not JSON"),
        ('{"schema_version": 3}', r"a\.json has schema version 3, expected 1 or 2"),
        ('{"schema_version": 2}', r"a\.json is not a latentbank result record"),
        ("{}", r"holds no result record \(\*\.json\); a\.json is something else"),
    ],
)
def test_damaged_records_and_folders_without_any_are_refused(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        load_results(tmp_path)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no result record \(\*\.json\)\.$"):
        load_results(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        load_results(tmp_path / "nowhere")


def test_only_the_newest_of_a_kind_counts() -> None:
    old = replace(make(), created="2025-01-01T00:00:00+00:00")
    new = replace(make(), created="2025-01-02T00:00:00")  # without a zone: UTC
    small = replace(new, budget_bytes=4096)
    there = replace(new, machine=GPU)
    members = [result(r) for r in (new, old, small, there)]
    assert newest(members) == [members[2], members[3]]  # the later of equal times
    assert newest(members, by_machine=True) == [members[0], members[2], members[3]]


def test_only_one_task_on_one_dataset_is_a_group() -> None:
    other = DataInfo("squad", "1" * 32)
    records = [
        make("a", 10.0), make("b", 20.0), make("c", 5.0, data=other), make("d", task="noise"),
        make("e", metrics={}, skipped="cannot delete"), make("a", 11.0, dtype="bfloat16"),
    ]  # fmt: skip
    found = groups([result(r) for r in records])
    assert [(g.task, g.data_hash[0]) for g in found] == [
        ("squad-online", "0"), ("noise", "0"), ("squad-online", "1"),
    ]  # fmt: skip
    assert found[0].labels == ("b", "a, bfloat16", "a, float32")
    assert [r.label for r in found[0].skipped] == ["e"]
    assert len(found[0].machines) == 1


def test_labels_say_what_differs() -> None:
    records = [
        make("a"), make("a", budget_bytes=266_400), make("b", read_as="gold"), make("b"),
        replace(make("c"), machine=GPU), make("c"), make("d"),
    ]  # fmt: skip
    assert unique_labels([result(r) for r in records]) == [
        "a", "a, ≤ 266 kB", "b, gold", "b, states", "c, NVIDIA H200", "c, cpu", "d",
    ]  # fmt: skip
    twins = [result(make("a"), "x.json"), result(make("a"), "y.json")]
    assert unique_labels(twins) == ["a, x.json", "a, y.json"]
    limited = [make("a", budget_bytes=1000), make("b", budget_bytes=2000), make("none")]
    assert unique_labels([result(r) for r in limited]) == ["a, ≤ 1 kB", "b, ≤ 2 kB", "none"]
    assert unique_labels([result(r) for r in limited[:1]]) == ["a"]


def test_a_limit_is_named_for_each_document_where_the_record_tells() -> None:
    twins = [make("a"), make("a", budget_bytes=20_480, config={"budget_per_document": 1024})]
    assert unique_labels([result(r) for r in twins]) == ["a", "a, ≤ 1,024 B/doc"]


def test_a_row_without_a_bank_comes_once() -> None:
    def at(method: str, bank: int, budget: int | None) -> Record:
        metrics = {"f1": Metric(1.0, "percent"), "bank_bytes": Metric(bank, "bytes")}
        return make(method, metrics=metrics, budget_bytes=budget)

    made = [at("none", 0, 64), at("none", 0, None), at("rag", 0, 64), at("rag", 900, None)]
    (found,) = groups([result(r) for r in made])
    assert found.labels == ("none", "rag, ≤ 64 B", "rag")
    assert [r.record.budget_bytes for r in found.results] == [None, 64, None]


def test_fractions_count_in_percent() -> None:
    record: Any = make()
    assert result(record).value("f1") == 21.9
    assert result(record).value("nothing") is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (93, "93 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"),
        (999_600, "1 MB"), (46_460_000, "46.5 MB"), (2.5e12, "2,500 GB"),
    ],
)  # fmt: skip
def test_bytes_for_people(size: float, text: str) -> None:
    assert si_bytes(size) == text
