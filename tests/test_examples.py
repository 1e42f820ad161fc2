"""The examples run as they are, on a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tiny import Backbones

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_company_table_is_answered_with_sources(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "company_kb.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    example = runpy.run_path(str(path))
    price, director, place, budget, changed = example["main"]()
    assert (price, director, changed) == ("4718 euros", "Mara Holt", "4990 euros")
    assert "Brno" in place and "not in the knowledge base" in budget
    out = capsys.readouterr().out
    assert "The price of Kestrel valve is 4718 euros  [price list]" in out
    assert "11 of 12 facts are left" in out


def test_own_model_and_notes(
    backbones: Backbones,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("Mara repairs the lighthouse.\n\nThe canteen closes at four.\n")
    question = "When does the canteen close?"
    arguments = ["own_model.py", str(backbones.folder("llama")), str(notes), question]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(EXAMPLES / "own_model.py"))["main"]()
    said = capsys.readouterr().out
    assert question in said and "from (100%): The canteen closes at four." in said


def test_own_files_are_answered_with_their_places(capsys: pytest.CaptureFixture[str]) -> None:
    answers = runpy.run_path(str(EXAMPLES / "own_files.py"))["main"]()
    expected = ("clock", "Janek", "seven", "Ilse Marek")
    assert all(word in said for word, said in zip(expected, answers, strict=True)), answers
    said = capsys.readouterr().out
    assert "from handbook.md, Handbook, Keys" in said or "Handbook › Keys" in said
    assert "from mails.mbox, Boiler" in said and "from talk.srt" in said


def test_every_language_finds_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "languages.py"))
    example["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == [line[-2:] for line in lines] == list(example["TEXTS"])


def test_a_conversation_names_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    answers = runpy.run_path(str(EXAMPLES / "chat.py"))["main"]()
    assert answers[1].question == "Where does Mara Holt live in winter?"
    assert answers[1].text == "In winter she lives in Ostrava and teaches chess. [1]"
    assert "Otto Keller" in answers[2].text and answers[2].citations[0].source == "lamp.txt"
    assert [one.id for one in answers[3].citations] == ["people", "canteen"]
    assert "[1] lamp.txt: The brass lamp" in capsys.readouterr().out
