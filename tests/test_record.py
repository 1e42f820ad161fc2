"""Result records: round trip, provenance, refusals."""

import json
import os
import re
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from latentbank.bench import machine
from latentbank.bench import record as records
from latentbank.bench.record import DataInfo, Metric, Record, new_record, read_record, write_record
from latentbank.errors import InputError


def make(method: str = "mbc", f1: float = 21.9, **changes: Any) -> Record:
    """A record of a run on invented data."""
    values: dict[str, Any] = {
        "task": "squad-online",
        "method": method,
        "command": f"latentbank bench squad-online --method {method}",
        "seed": 1,
        "data": DataInfo("squad", "0" * 32),
        "dtype": "float32",
        "metrics": {
            "f1": Metric(f1, "percent", f1 - 2, f1 + 2),
            "exact_match": Metric(12.8, "percent"),
            "bank_bytes": Metric(1_234_567, "bytes"),
        },
        "config": {"codewords": 512},
        "read_as": "states",
    }
    return new_record(**{**values, **changes})


def test_round_trip(tmp_path: Path) -> None:
    record = make()
    path = write_record(record, tmp_path / "new" / "run.json")
    assert read_record(path) == record
    content = json.loads(path.read_text())
    assert content["schema_version"] == 2
    assert content["metrics"]["f1"] == {"value": 21.9, "unit": "percent", "low": 19.9, "high": 23.9}
    assert [item.name for item in path.parent.iterdir()] == ["run.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_provenance_is_filled_in() -> None:
    record = make(device="cuda: test")
    assert set(record.versions) == {"python", "torch", "transformers", "latentbank"}
    assert re.match(r"3\.\d+\.\d+", record.versions["python"])
    assert record.machine.cores >= 1
    assert record.machine.memory_bytes > 2**28
    assert record.machine.cpu
    assert record.machine.device == "cuda: test"
    age = datetime.now(UTC) - datetime.fromisoformat(record.created)
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_code_revision_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.code_revision() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert records.code_revision() == "unknown"


def test_code_revision_tells_changed_code_from_changed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x.org"]
        return subprocess.run(
            [*command, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    code, result = tmp_path / "src/machine.py", tmp_path / "results/a.json"
    for path in (code, result):
        path.parent.mkdir()
        path.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(machine, "__file__", str(code))
    commit = git("describe", "--always")
    assert records.code_revision() == commit
    result.write_text("2")
    (tmp_path / "src/notes").write_text("not tracked")
    assert records.code_revision() == commit
    code.write_text("2")
    assert records.code_revision() == f"{commit}-dirty"


def test_predictions_lie_beside_the_record(tmp_path: Path) -> None:
    path = tmp_path / "run.v2.json"
    rows = [{"id": "1", "answer": "Zürich"}, {"id": "2", "answer": "\ud800"}]
    write_record(make(), path, predictions=iter(rows))
    beside = tmp_path / "run.v2.predictions.jsonl"
    assert records.predictions_path(path) == beside
    assert [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()] == rows


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": {"f1": Metric(float("nan"), "percent")}}, "'f1'.*not a finite number"),
        ({"metrics": {"f1": Metric(1.0, "percent", high=float("inf"))}}, "not a finite"),
        ({"config": {"path": Path("x")}}, "cannot be written as JSON"),
        ({"config": {"rate": float("nan")}}, "cannot be written as JSON"),
    ],
)
def test_bad_records_leave_the_old_file(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_record(make(), tmp_path / "run.json")
    before = path.read_bytes()
    with pytest.raises(InputError, match=reason):
        write_record(make(**changes), path, predictions=[{"id": "1"}])
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["run.json"]


def test_failed_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(make(), tmp_path / "run.json")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_record(make(f1=1.0), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["run.json"]


def test_names_and_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.json"):
        write_record(make(), tmp_path / "run.txt")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_record(make(), tmp_path / "file" / "run.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{oops", "is not JSON"),
        ("[]", "schema_version is missing"),
        ('{"answer": 42}', "schema_version is missing"),
        ('{"schema_version": 9}', "schema version 9, expected 1 or 2"),
        ('{"schema_version": 1}', "not a latentbank result record"),
    ],
)
def test_foreign_json_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics", {"f1": 3}),
        ("metrics", {"f1": {"value": "high", "unit": "percent"}}),
        ("created", "yesterday"),
        ("machine", {"cpu": "x"}),
        ("colour", "red"),
        ("method", 3),
    ],
)
def test_damaged_records_are_refused(tmp_path: Path, field: str, value: object) -> None:
    path = write_record(make(), tmp_path / "run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError, match="not a latentbank result record"):
        read_record(path)


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path / "run.json")
