"""`bench compare` on records with known differences, and the sentences that it refuses with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentbank.bench.record import (
    DataInfo,
    predictions_path,
    read_predictions,
    read_record,
    write_record,
)
from latentbank.bench.report.compare import compare_records
from latentbank.evaluate.metrics import paired_bootstrap
from test_record import make
from tiny_cli import refuse, succeed


def rows(scores: list[float], first: int = 0) -> list[dict[str, Any]]:
    """Predictions of questions q0, q1, … with these F1; EM where F1 is 1."""
    return [
        {"id": f"q{i}", "f1": score, "exact_match": float(score == 1)}
        for i, score in enumerate(scores, first)
    ]


def write(path: Path, scores: list[float], first: int = 0, **changes: Any) -> str:
    record = make(**{"config": {"name": path.stem}, **changes})
    return str(write_record(record, path, rows(scores, first)))


@pytest.fixture
def clear(tmp_path: Path) -> tuple[str, str]:
    """`strong` beats `weak` on 200 questions by F1, and by almost nothing in EM."""
    random = np.random.default_rng(0)
    base = random.uniform(0, 0.8, 200)
    strong = (base + 0.1).tolist()
    strong[0] = 1.0
    return write(tmp_path / "strong.json", strong), write(tmp_path / "weak.json", base.tolist())


def test_the_numbers_are_those_of_the_paired_bootstrap(clear: tuple[str, str]) -> None:
    found = compare_records(*clear)
    assert (found.a, found.b, found.task, found.questions) == (
        "strong", "weak", "squad-online", 200,
    )  # fmt: skip
    f1, em = found.differences
    scores = []
    for path in clear:
        answers = sorted(read_predictions(path), key=lambda row: row["id"])
        scores.append([100 * row["f1"] for row in answers])
    expected = paired_bootstrap(*scores)
    assert (f1.difference, f1.low, f1.high, f1.p_value) == (
        expected.difference, expected.low, expected.high, expected.p_value,
    )  # fmt: skip
    assert f1.clear and not em.clear
    assert f1.a - f1.b == pytest.approx(f1.difference)
    assert em.difference == pytest.approx(0.5)
    assert found.notes == ()


def test_one_sentence_says_whether_it_is_more_than_noise(clear: tuple[str, str]) -> None:
    text = succeed("bench", "compare", *clear).stdout.strip()
    assert text.startswith("strong minus weak over 200 questions: F1 +10.")
    assert "points (95 % interval +" in text
    assert ", p = 0.0002), larger than its noise; EM +0.5 points (95 % interval 0.0 to +1.5" in text
    assert text.endswith("within its noise.")
    assert "\n" not in text
    back = succeed("bench", "compare", *clear[::-1]).stdout
    assert "weak minus strong over 200 questions: F1 \u221210." in back


def test_json(clear: tuple[str, str]) -> None:
    found = json.loads(succeed("bench", "compare", *clear, "--json").stdout)
    assert found["sentence"] == compare_records(*clear).sentence()
    assert [d["metric"] for d in found["differences"]] == ["f1", "exact_match"]
    assert [d["clear"] for d in found["differences"]] == [True, False]
    assert found["questions"] == 200 and found["notes"] == []


def test_the_order_of_the_questions_does_not_matter(tmp_path: Path, clear: tuple[str, str]) -> None:
    path = tmp_path / "turned.json"
    lines = [json.loads(line) for line in predictions_path(clear[0]).open()]
    write_record(make(config={"name": "strong"}), path, lines[::-1])
    assert compare_records(path, clear[1]) == compare_records(*clear)


def test_a_question_of_several_phases_counts_once(tmp_path: Path) -> None:
    twice = [{**row, "phase": p} for p in ("before", "after") for row in rows([0.25, 0.75])]
    twice[2]["f1"] = 0.75
    a = write_record(make(config={"name": "a"}), tmp_path / "a.json", twice)
    b = write(tmp_path / "b.json", [0.0, 0.0])
    found = compare_records(a, b)
    assert found.questions == 2
    assert found.differences[0].a == pytest.approx(100 * (0.5 + 0.75) / 2)


def test_what_else_differs_is_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [0.5, 1.0], dtype="bfloat16", budget_bytes=4096)
    b = write(tmp_path / "b.json", [0.5, 1.0], seed=2)
    assert compare_records(a, b).notes == (
        "dtype: bfloat16 against float32",
        "seed: 1 against 2",
        "budget in bytes: 4096 against None",
    )
    text = succeed("bench", "compare", a, b).stdout
    assert "F1 0.0 points (95 % interval 0.0 to 0.0, p = 1.00), within its noise" in text
    assert "The runs also differ in dtype: bfloat16 against float32; seed" in text


def test_two_runs_of_one_method_go_by_their_files(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [1.0], config={})
    b = write(tmp_path / "b.json", [0.0], config={})
    assert compare_records(a, b).sentence().startswith(f"{a} minus {b} over 1 question: ")


def test_other_questions_are_refused_unless_common_is_asked_for(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.json", [1.0] * 10), write(tmp_path / "b.json", [0.0] * 8, first=4)
    assert refuse("bench", "compare", a, b) == (
        f"{a} and {b} were asked different questions: 10 and 8, 6 in common; --common compares on "
        "those."
    )
    found = json.loads(succeed("bench", "compare", a, b, "--common", "--json").stdout)
    assert found["questions"] == 6
    c = write(tmp_path / "c.json", [0.0], first=99)
    assert refuse("bench", "compare", a, c, "--common").endswith("10 and 1, 0 in common.")


def test_other_data_task_or_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [1.0])
    other = write(tmp_path / "b.json", [1.0], data=DataInfo("trivia", "f" * 32))
    assert refuse("bench", "compare", a, other) == (
        f"{a} and {other} are of different data: squad (00000000) and trivia (ffffffff)."
    )
    noise = write(tmp_path / "c.json", [1.0], task="noise")
    assert "are of different tasks, squad-online and noise" in refuse("bench", "compare", a, noise)
    skipped = make(metrics={}, skipped="a histogram cannot delete.")
    path = str(write_record(skipped, tmp_path / "d.json"))
    assert refuse("bench", "compare", a, path) == (
        f"{path} has no answers to compare; it was skipped: a histogram cannot delete."
    )


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.json", [1.0]), write(tmp_path / "b.json", [1.0])
    predictions_path(b).unlink()
    assert refuse("bench", "compare", a, b) == (
        f"{b} has no predictions beside it: b.predictions.jsonl is missing."
    )
    predictions_path(b).write_text('{"id": "q0", "f1": 1.0}\n')
    assert refuse("bench", "compare", a, b) == (
        f"The predictions of {b} have no exact_match between 0 and 1 for question 'q0'."
    )
    predictions_path(b).write_text('{"id": "q0", "f1": 70}\n')
    assert "have no f1 between 0 and 1" in refuse("bench", "compare", a, b)
    predictions_path(b).write_text("{oops\n")
    assert "b.predictions.jsonl, line 1, is not JSON" in refuse("bench", "compare", a, b)
    Path(b).write_text("{}")
    assert "is not a latentbank result record" in refuse("bench", "compare", a, b)
    assert "cannot be read" in refuse("bench", "compare", a, str(tmp_path / "nowhere.json"))


def test_version_1_records_compare(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.json", [1.0, 0.5]), write(tmp_path / "b.json", [0.5, 0.5])
    old = replace(read_record(a), schema_version=1, questions_hash="")
    Path(a).write_text(json.dumps({**json.loads(Path(a).read_text()), "schema_version": 1}))
    assert read_record(a).task == old.task
    assert compare_records(a, b).differences[0].difference == pytest.approx(25)
