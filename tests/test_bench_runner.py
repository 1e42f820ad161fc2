"""The runner of the bench: records, resuming, one seed one result, and what is in its way."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench_world import (
    MAC,
    MBC,
    NONE,
    RAG,
    SHORT,
    Notes,
    Oracle,
    bench,
    oracle,
    records,
    values,
    write_rows,
)
from latentbank.answering import Answer
from latentbank.bench.machine import PEAK
from latentbank.bench.partial import PartialAnswers
from latentbank.bench.plan import Bench, Row
from latentbank.bench.record import Record, predictions_path, read_record
from latentbank.bench.runner import run_bench
from latentbank.bench.scoring import TIME_UNITS
from latentbank.errors import AdapterError, InputError, UnknownNameError
from latentbank.evaluate.data import load_dataset
from tiny import Backbones

__all__ = ["oracle"]

TASKS = {
    "online-qa": {},
    "retention": {"first": 4, "every": 4},
    "noise": {"levels": [0, 100]},
    "duplicates": {"copies": [1, 2]},
    "updates": {},
    "delete": {},
    "abstain": {},
}


def stable(record: Record) -> str:
    """Every metric and curve as JSON, without what differs from run to run."""
    metrics = {
        name: asdict(metric)
        for name, metric in record.metrics.items()
        if metric.unit not in TIME_UNITS and name != PEAK
    }
    return json.dumps([metrics, {name: asdict(s) for name, s in record.series.items()}])


def stable_rows(path: Path) -> str:
    return predictions_path(path).read_text()


def other(found: Bench, folder: Path) -> Bench:
    return replace(found, out=folder)


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_gives_one_result_to_the_byte(
    task: str, backbones: Backbones, tmp_path: Path
) -> None:
    one = bench(task, backbones, tmp_path, [MBC], options=TASKS[task], budgets=(4000,))
    two = other(one, tmp_path / "two")
    for a, b in zip(run_bench(one), run_bench(two), strict=True):
        assert stable(read_record(a)) == stable(read_record(b))
        assert stable_rows(a) == stable_rows(b)
        assert a.name == b.name


def test_the_seed_draws_the_questions(backbones: Backbones, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        settings = replace(SHORT, questions=5, seed=seed)
        one = bench("online-qa", backbones, tmp_path, [NONE], settings=settings)
        (path,) = run_bench(other(one, tmp_path / f"out{seed}"))
        found.append([json.loads(line)["id"] for line in stable_rows(path).splitlines()])
    assert len(found[0]) == len(found[1]) == 5
    assert found[0] != found[1]


def test_the_record_says_what_was_run(backbones: Backbones, tmp_path: Path) -> None:
    (record,) = records(bench("online-qa", backbones, tmp_path, [MAC], budgets=(3000,)))
    assert (record.task, record.method, record.seed, record.command) == (
        "online-qa", "mac", 0, "test",
    )  # fmt: skip
    assert record.budget_bytes == 30_000
    assert record.config["name"] == "mac"
    assert record.config["untrained"] is True
    assert record.config["settings"]["decoding"]["max_new_tokens"] == 2
    assert record.config["method"]["latents"] == 3
    assert 0 <= values(record)["overhead"] < 100


def test_what_is_done_is_left_alone_unless_again(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    one = bench("online-qa", backbones, tmp_path)
    (path,) = run_bench(one)
    made, calls = path.read_bytes(), oracle.calls
    notes = Notes()
    run_bench(one, notes)
    assert path.read_bytes() == made
    assert oracle.calls == calls
    assert notes.notes == ["1 of 1 records are there already."]
    run_bench(replace(one, again=True))
    assert oracle.calls == 2 * calls
    assert not (tmp_path / "out" / "partial").exists()


def test_a_row_that_was_added_is_run_alone(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    one = bench("online-qa", backbones, tmp_path)
    run_bench(one)
    notes = Notes()
    run_bench(replace(one, rows=(RAG, Row("rag two", "rag"))), notes)
    assert notes.begun == ["rag two"]


def test_other_settings_are_never_mixed(backbones: Backbones, tmp_path: Path) -> None:
    one = bench("online-qa", backbones, tmp_path, [NONE])
    (path,) = run_bench(one)
    made = path.read_bytes()
    changed = replace(one, settings=replace(SHORT, seed=7))
    with pytest.raises(InputError, match=r"other settings \(seed was 0, is 7\).*--again"):
        run_bench(changed)
    assert path.read_bytes() == made
    (again,) = records(replace(changed, again=True))
    assert again.seed == 7


def test_a_killed_run_goes_on_where_it_was(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    settings = replace(SHORT, batch=4)
    options = {"first": 4, "every": 4}
    one = bench("retention", backbones, tmp_path, settings=settings, options=options)
    (whole,) = records(other(one, tmp_path / "whole"))
    needed = oracle.calls
    assert needed == 6
    oracle.calls, oracle.stop_after = 0, 4
    with pytest.raises(KeyboardInterrupt):
        run_bench(one)
    assert not list(one.out.glob("*.json")), "no record of half a run"
    (partial,) = (one.out / "partial").iterdir()
    with partial.open("a") as file:
        file.write('{"phase": "after 8", "batch": 1, "answers": [{"te')  # cut off by the kill
    oracle.calls, oracle.stop_after = 0, None
    (resumed,) = records(one)
    assert oracle.calls == needed - 4
    assert stable(resumed) == stable(whole)
    assert resumed.config["answers_from_an_interrupted_run"] == 16
    assert not (one.out / "partial").exists()


def test_partial_answers_of_other_settings_count_for_nothing(tmp_path: Path) -> None:
    answer = Answer("é\ud800", (("a", 1.0),), 0.5, 0.25, 0.125)
    path = tmp_path / "partial" / "run.jsonl"
    PartialAnswers(path, "one").put("p", 0, [answer])
    kept = PartialAnswers(path, "one")
    assert kept.get("p", 0, 1) == [answer]
    assert kept.get("p", 0, 2) is None and kept.get("q", 0, 1) is None
    assert PartialAnswers(path, "two").get("p", 0, 1) is None
    path.write_bytes(b"\xff\xfe")
    assert PartialAnswers(path, "one").get("p", 0, 1) is None


def test_an_interrupted_update_of_old_records_is_continued(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    one = bench("online-qa", backbones, tmp_path, settings=replace(SHORT, batch=5))
    (path,) = run_bench(one)
    made = path.read_bytes()
    oracle.calls, oracle.stop_after = 0, 2
    with pytest.raises(KeyboardInterrupt):
        run_bench(replace(one, again=True))
    assert path.read_bytes() == made, "the old record stays until the new one is whole"
    oracle.calls, oracle.stop_after = 0, None
    run_bench(replace(one, again=True))
    assert oracle.calls == 2


def test_a_document_too_long_to_read_skips_the_row(backbones: Backbones, tmp_path: Path) -> None:
    long = [{"document": "word " * 200, "question": "who", "answer": "x"}]
    data = load_dataset(write_rows(tmp_path / "long.jsonl", long))
    whole = replace(RAG, name="whole", overrides={"chunk_tokens": 5_000})
    one = replace(bench("online-qa", backbones, tmp_path, [RAG, whole, NONE]), data=data)
    short, rag, none = records(replace(one, chunk_tokens=5_000, settings=replace(SHORT, gold=True)))
    assert "its entries hold 512 tokens and --chunk-tokens is 5000" in short.skipped
    assert "exceeds the 512 positions" in rag.skipped
    assert not none.skipped
    notes = Notes()
    (cut, _, _) = records(replace(one, chunk_tokens=200, out=tmp_path / "cut"), notes)
    assert not cut.skipped
    assert values(cut)["documents"] > 1
    assert any("Long documents were cut" in note for note in notes.notes)


# ---- what is in the way


def test_foreign_json_is_named_and_left_alone(backbones: Backbones, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparisons.json").write_text('{"pairs": 3}')
    (out / "broken.json").write_text("{")
    notes = Notes()
    run_bench(bench("online-qa", backbones, tmp_path, [NONE]), notes)
    said = " ".join(notes.notes)
    assert "comparisons.json is not a latentbank result record" in said
    assert "broken.json is not JSON" in said
    assert (out / "comparisons.json").read_text() == '{"pairs": 3}'


@pytest.mark.parametrize("again", [False, True])
def test_foreign_json_in_a_records_place_is_refused(
    backbones: Backbones, tmp_path: Path, again: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "online-qa--none--float.json").write_text("[]")
    with pytest.raises(InputError, match="in the way of a record; move it away"):
        run_bench(bench("online-qa", backbones, tmp_path, [NONE], again=again))
    assert (out / "online-qa--none--float.json").read_text() == "[]"


def test_a_file_is_no_results_folder(backbones: Backbones, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        run_bench(bench("online-qa", backbones, tmp_path, [NONE]))


def test_rows_that_share_a_file_are_refused(backbones: Backbones, tmp_path: Path) -> None:
    lines = [Row("a+b", "none"), Row("a-b", "none")]
    with pytest.raises(InputError, match="'a\\+b' and 'a-b' would share"):
        run_bench(bench("online-qa", backbones, tmp_path, lines))


def test_unknown_names_and_options(backbones: Backbones, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown bench task"):
        run_bench(bench("online", backbones, tmp_path))
    with pytest.raises(UnknownNameError, match="Known: every, first"):
        run_bench(bench("retention", backbones, tmp_path, options={"fist": 3}))
    with pytest.raises(InputError, match="wrong type"):
        run_bench(bench("noise", backbones, tmp_path, options={"levels": ["a"]}))


def test_a_damaged_adapter_is_named(backbones: Backbones, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(AdapterError, match="cannot be read"):
        run_bench(bench("online-qa", backbones, tmp_path, [Row("x", "mac", str(folder))]))
