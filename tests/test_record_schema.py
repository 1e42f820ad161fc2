"""The record's format: its documentation, its versions, curves, skipped runs and questions."""

import hashlib
import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from latentbank.bench import record as records
from latentbank.bench.record import Metric, Series, hash_questions, read_record, write_record
from latentbank.errors import InputError
from test_record import make

ROOT = Path(__file__).resolve().parent.parent
CURVE = Series((0, 100), (40.0, 31.5), "documents written", "documents", "f1", "percent")


def documented() -> dict[str, list[tuple[str, str, str]]]:
    """Class name → (field, type, default) rows of docs/records.md."""
    text = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line[:1] == "|"]
        if rows:
            cells = [[cell.strip().strip("`").replace("\\|", "|") for cell in r] for r in rows[2:]]
            found[part.split("\n")[0]] = [(row[0], row[1], row[2]) for row in cells]
            assert all(row[3] for row in cells), "every field has a meaning"
    return found


def default(item: Field[Any]) -> str:
    """The default as it stands in JSON, or as Python writes None."""
    if item.default_factory is not MISSING:
        return json.dumps(item.default_factory())
    if item.default is MISSING:
        return ""
    return "None" if item.default is None else json.dumps(item.default)


@pytest.mark.parametrize("name", ["Record", "Metric", "Series", "DataInfo", "Machine"])
def test_the_documentation_lists_every_field(name: str) -> None:
    cls = getattr(records, name)
    expected = [(item.name, str(item.type), default(item)) for item in fields(cls)]
    assert documented()[name] == expected


def test_the_documented_hash_of_the_questions() -> None:
    ids = ["q1", 'a "quoted" \u00fc']
    text = "".join(json.dumps(name) + "\n" for name in ids).encode()
    assert hash_questions(ids) == hashlib.blake2b(text, digest_size=16).hexdigest()
    assert hash_questions(ids) != hash_questions(ids[::-1])
    assert hash_questions(["ab"]) != hash_questions(["a", "b"])


def test_round_trip_with_every_field(tmp_path: Path) -> None:
    banded = Series((1, 2), (3, 4), "x", "", "y", "ms", low=(2, 3), high=(4, 5))
    record = make(
        series={"f1": CURVE, "time": banded},
        budget_bytes=4096,
        skipped="needs a ledger",
        questions=["q1", "q2"],
    )
    assert read_record(write_record(record, tmp_path / "a.json")) == record
    assert record.series["f1"].x == (0.0, 100.0)
    assert record.questions_hash == hash_questions(["q1", "q2"])


def test_version_1_stays_readable(tmp_path: Path) -> None:
    path = write_record(make(), tmp_path / "a.json")
    content = json.loads(path.read_text())
    for name in ("series", "budget_bytes", "skipped", "questions_hash"):
        del content[name]
    path.write_text(json.dumps({**content, "schema_version": 1}))
    record = read_record(path)
    assert (record.schema_version, record.series, record.budget_bytes) == (1, {}, None)
    assert (record.skipped, record.questions_hash) == ("", "")
    assert record.metrics["f1"].value == 21.9


def test_the_records_of_this_repository_are_readable() -> None:
    paths = [p for p in (ROOT / "results").rglob("*.json") if p.name != "comparisons.json"]
    assert paths
    for path in paths:
        assert read_record(path).task


def test_predictions_name_the_questions(tmp_path: Path) -> None:
    rows = [{"id": "q1", "f1": 1.0}, {"id": "q2", "f1": 0.0}]
    path = write_record(make(), tmp_path / "a.json", predictions=rows)
    assert read_record(path).questions_hash == hash_questions(["q1", "q2"])
    assert records.read_predictions(path) == rows
    with pytest.raises(InputError, match="of other questions"):
        write_record(make(questions=["q2", "q1"]), path, predictions=rows)


def test_a_skipped_run_needs_no_metrics_but_a_reason(tmp_path: Path) -> None:
    record = make(metrics={}, skipped="a histogram cannot delete a document")
    assert read_record(write_record(record, tmp_path / "a.json")).skipped == record.skipped
    with pytest.raises(InputError, match="why it was skipped"):
        write_record(make(metrics={}), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": ()}, "at least one"),
        ({"y": (1.0,)}, "as many y as x.*got 1 and 2"),
        ({"low": (1.0, 2.0)}, "both low and high"),
        ({"low": (1.0,), "high": (1.0,)}, "as many low"),
    ],
)
def test_a_series_has_equal_lengths(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Series(**{**{f.name: getattr(CURVE, f.name) for f in fields(CURVE)}, **changes})


def test_a_series_must_be_finite_to_be_written(tmp_path: Path) -> None:
    curve = Series((0, 1), (1, float("nan")), "x", "", "y", "")
    with pytest.raises(InputError, match=r"'f1'.*not finite"):
        write_record(make(series={"f1": curve}), tmp_path / "a.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("series", {"f1": {"x": [1], "y": [], "x_name": "", "x_unit": "", "y_name": ""}}),
        ("series", {"f1": {**CURVE.__dict__, "y": [1]}}),
        ("series", {"f1": {**CURVE.__dict__, "y": ["a", "b"]}}),
        ("series", []),
        ("skipped", None),
        ("budget_bytes", "4 KiB"),
        ("questions_hash", 3),
    ],
)
def test_damaged_fields_are_refused(tmp_path: Path, field: str, value: object) -> None:
    path = write_record(make(metrics={"f1": Metric(1, "percent")}), tmp_path / "a.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError, match=r"a\.json is not a latentbank result record"):
        read_record(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": "1"}\n{oops\n', "line 2, is not JSON"),
        ('\n["1"]\n', "line 2, is not a prediction"),
        ('{"answer": "x"}\n', "has no id"),
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = write_record(make(), tmp_path / "a.json")
    records.predictions_path(path).write_text(text)
    with pytest.raises(InputError, match=reason):
        records.read_predictions(path)


def test_missing_predictions(tmp_path: Path) -> None:
    path = write_record(make(), tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.predictions\.jsonl is missing"):
        records.read_predictions(path)
