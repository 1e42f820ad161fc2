"""The commands on documents: what is read, left out, replaced, chosen and deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import Backbones
from tiny_cli import World, documents_in, make_world, refuse, run, succeed


@pytest.fixture(scope="module")
def chosen(backbones: Backbones) -> tuple[str, ...]:
    world: World = make_world(backbones.folder("llama"), backbones.root / "adapters")
    return ("--adapter", world.adapter("rag"), "--backbone", world.backbone)


@pytest.fixture
def bank(chosen: tuple[str, ...], tmp_path: Path) -> Path:
    """A csv bank of three dated documents and one without a date."""
    file = tmp_path / "rows.csv"
    file.write_text(
        "id;text;time;year\nmoon;The moon landing was seen on television.;1969-07-20;1969\n"
        "issue#12;The gate is green.;2024-05-01T23:30:00-05:00;2020\n"
        "issue;The gate is red.;1714608000;2020\nplain;The gate has no date.;;\n"
    )
    path = tmp_path / "a.bank"
    succeed("write", str(file), "--bank", str(path), *chosen)
    return path


def listed(bank: Path, *options: str) -> dict[str, dict[str, Any]]:
    rows = json.loads(succeed("inspect", str(bank), "-d", *options, "--json").stdout)["list"]
    return {row["id"]: row for row in rows}


def test_bad_rows_are_left_out_and_told_by_the_status(
    chosen: tuple[str, ...], tmp_path: Path
) -> None:
    file, fresh = tmp_path / "rows.jsonl", tmp_path / "a.bank"
    rows = [
        {"text": "One."},
        {"text": "half \ud83d"},
        {"text": None},
        {"text": "Two.", "time": "?"},
    ]
    file.write_text("\n".join(map(json.dumps, [*rows, {"text": "Last."}])))
    result = run("write", str(file), "--bank", str(fresh), "--json", *chosen)
    assert result.exit_code == 3, result.stderr
    found = json.loads(result.stdout)
    assert found["documents"] == 2 == documents_in(fresh)
    assert [said.split(":")[0] for said in found["skipped"]] == [
        f"{file}, line {n}" for n in (2, 3, 4)
    ]
    assert "line 2" in refuse("write", str(file), "--strict", "--bank", str(fresh))


def test_columns_dates_and_encodings(chosen: tuple[str, ...], tmp_path: Path) -> None:
    file, fresh = tmp_path / "daten.csv", tmp_path / "a.bank"
    file.write_bytes("Nr;Inhalt;Datum\n7;Der Bär schläft.;01/02/2024\n".encode("cp1252"))
    columns = ("--text-column", "Inhalt", "--id-column", "nr", "--time-column", "Datum")
    said = refuse("write", str(file), "--bank", str(fresh), *columns, *chosen)
    assert "dayfirst" in said and not fresh.exists()
    result = succeed("write", str(file), "--bank", str(fresh), *columns, "--dayfirst", *chosen)
    assert "read as Windows-1252" in result.stderr
    assert listed(fresh)["7"]["time"] == "2024-02-01"
    assert "no column 'Text' for" in refuse(
        "write", str(file), "--bank", str(fresh), "--text-column", "Inhalt", "--id-column", "Text"
    )


def test_an_edited_file_replaces_what_it_was(chosen: tuple[str, ...], tmp_path: Path) -> None:
    folder, fresh = tmp_path / "notes", tmp_path / "a.bank"
    folder.mkdir()
    (folder / "bus.md").write_text("The bus leaves at nine.")
    (folder / "pier.png").write_bytes(b"\x89PNG")
    result = succeed("write", str(folder), "--bank", str(fresh), *chosen)
    assert "pier.png: skipped, the suffix .png is not read" in result.stderr
    (folder / "bus.md").write_text("The bus leaves at ten.")
    kept = succeed("write", str(folder), "--bank", str(fresh), "--on-conflict", "keep", "--json")
    assert json.loads(kept.stdout)["kept"] == 1
    said = refuse("write", str(folder), "--bank", str(fresh), "--on-conflict", "error")
    assert "another version of the document" in said and "holds 1 entry" in said
    result = succeed("write", str(folder), "--bank", str(fresh))
    assert "1 document replaced, 0 kept" in result.stdout and documents_in(fresh) == 1


def test_an_empty_path_reads_nothing(
    chosen: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("not asked for")
    assert "A path is empty" in refuse("write", "", "--bank", "a.bank", *chosen)
    assert "does not exist" in refuse("write", ".", "gone.txt", "--bank", "a.bank", *chosen)
    assert not Path("a.bank").exists()


# ---- choosing and deleting


def test_documents_are_listed_by_conditions(bank: Path) -> None:
    assert set(listed(bank)) == {"moon", "issue#12", "issue", "plain"}
    assert set(listed(bank, "--where", "year=2020")) == {"issue#12", "issue"}
    assert set(listed(bank, "--where", "since 2024-05-02T01:00Z")) == {"issue#12"}
    assert "Expected a condition" in refuse("inspect", str(bank), "--where", "year")


def test_a_dry_run_says_what_would_go(bank: Path) -> None:
    before = bank.read_bytes()
    out = succeed("delete", "--bank", str(bank), "--where", "year=2020", "--dry-run").stdout
    assert out.splitlines()[0].startswith("Would delete 2 documents (2 entries)")
    assert set(out.splitlines()[1:]) == {"issue#12", "issue"}
    assert bank.read_bytes() == before


def test_only_documents_before_a_time_are_deleted(bank: Path) -> None:
    result = succeed("delete", "--bank", str(bank), "--before", "2000-01-01")
    assert "deleting 1 document" in result.stderr
    assert set(listed(bank)) == {"issue#12", "issue", "plain"}


def test_deleting_one_id_leaves_its_namesakes(bank: Path) -> None:
    succeed("delete", "issue", "--bank", str(bank))
    assert set(listed(bank)) == {"moon", "issue#12", "plain"}


def test_nothing_found_is_refused_in_both_ways(bank: Path) -> None:
    for what in (("nobody",), ("--where", "year=1999"), ("--source", "elsewhere.csv")):
        said = refuse("delete", *what, "--bank", str(bank))
        assert "holds no document" in said and "nothing was deleted" in said
        succeed("delete", *what, "--bank", str(bank), "--missing-ok")
    assert documents_in(bank) == 4


def test_a_bank_is_split_by_a_condition(bank: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    result = succeed("split", str(bank), "--out", str(parts), "--where", "year=2020")
    assert [line.partition(": ")[2] for line in result.stdout.splitlines()] == [
        "with year=2020", "without year=2020"
    ]  # fmt: skip
    assert set(listed(parts / "part-0001.bank")) == {"issue#12", "issue"}
    assert set(listed(parts / "part-0002.bank")) == {"moon", "plain"}
    nowhere = ("--out", str(tmp_path / "other"))
    assert "no document with" in refuse("split", str(bank), *nowhere, "--where", "year=1066")
    assert "not both" in refuse(
        "split", str(bank), *nowhere, "--where", "year=2020", "--by", "source"
    )
    assert not (tmp_path / "other").exists() and documents_in(bank) == 4


def test_a_source_is_found_however_it_is_spelled(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.parent)
    for spelled in ("rows.csv", "./rows.csv", f"{bank.parent}/", str(bank.parent / "rows.csv")):
        out = succeed("delete", "--bank", str(bank), "--source", spelled, "--dry-run").stdout
        assert "Would delete 4 documents" in out


# ---- asking


def test_a_question_is_answered_from_the_documents_that_are_meant(bank: Path) -> None:
    def read(*options: str) -> set[str]:
        row = json.loads(
            succeed(
                "ask", "What colour is the gate?", "--bank", str(bank), *options, "--json"
            ).stdout
        )
        return {document["id"] for document in row["documents"]}

    assert read("--as-of", "2024-05-02T01:00Z") == {"issue"}
    assert read("--since", "2024-05-02T01:00Z") == {"issue#12"}
    assert read("--where", "id=issue#12") == {"issue#12"}
    said = refuse("ask", "Which gate?", "--bank", str(bank), "--where", "year=1066")
    assert "holds no document with year=1066" in said


def test_an_answer_names_the_versions_that_it_supersedes(
    chosen: tuple[str, ...], tmp_path: Path
) -> None:
    file, fresh = tmp_path / "heads.jsonl", tmp_path / "a.bank"
    said = "The head of the harbour office is {}."
    rows = [
        {"id": "now", "text": said.format("Lena Brandt"), "time": "2025"},
        {"id": "old", "text": said.format("Otto Keller"), "time": "2019-03"},
        {"id": "tea", "text": "Café Zürich serves tea."},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    succeed("write", str(file), "--bank", str(fresh), *chosen)
    question = ("ask", "Who is the head of the harbour office?", "--bank", str(fresh))
    row = json.loads(succeed(*question, "--json").stdout)
    assert [document["id"] for document in row["documents"]] == ["now"]
    assert row["superseded"] == [{"id": "old", "time": "2019-03"}]
    assert "supersedes old, 2019-03\n" in succeed(*question).stdout
    row = json.loads(succeed("ask", "Who serves tea?", "--bank", str(fresh), "--json").stdout)
    assert row["superseded"] == []
