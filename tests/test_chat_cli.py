"""`latentbank chat`, and the styles and the silence of `latentbank ask`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentbank.parts.calibration import Calibration
from tiny_cli import (
    DOCUMENTS,
    QUESTIONS,
    World,
    make_world,
    refuse,
    run,
    succeed,
    write_jsonl,
)

SHORT = ("--max-new-tokens", "6")


@pytest.fixture(scope="module")
def world(backbones: Any) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def bank(world: World, tmp_path: Path) -> str:
    documents = write_jsonl(tmp_path / "documents.jsonl", DOCUMENTS)
    path = str(tmp_path / "a.bank")
    chosen = ("--method", "strata", "--backbone", world.backbone)
    succeed("write", str(documents), "--bank", path, *chosen)
    return path


def test_a_conversation_line_by_line(bank: str) -> None:
    lines = "Tell me about the harbour of Oslo.\n\n/new\nThanks!\n"
    rows = succeed("chat", bank, "--json", *SHORT, input=lines).stdout.splitlines()
    first, second = map(json.loads, rows)
    assert first["question"] == "Tell me about the harbour of Oslo." and first["from_memory"]
    told = first["documents"][0]
    assert (told["number"], told["id"], told["time"]) == (1, "oslo", "2024-01-01")
    assert "1924" in told["snippet"] and first["trimmed"] == 0
    assert not second["from_memory"] and second["documents"] == []


def test_sources_stand_below_an_answer(bank: str) -> None:
    said = succeed("chat", bank, *SHORT, input="Tell me about the program of Ada\n").stdout
    assert "[1] people.txt (ada): Ada Lovelace wrote the first program in 1843." in said
    said = succeed("chat", bank, *SHORT, "--no-memory", input="Tell me of Ada\n").stdout
    assert "[1]" not in said and "Not in memory" not in said


def test_history_is_kept_and_trimmed_with_a_notice(bank: str) -> None:
    lines = f"Who is Ada Lovelace?\n{'x' * 200}\n{'y' * 200}\nWhere is she?\n"
    result = succeed("chat", bank, "--json", *SHORT, input=lines)
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["understood"] == "Where is Ada Lovelace?" and last["trimmed"] > 0
    assert "no longer fit into the model's context" in result.stderr


def test_a_message_that_is_too_long_ends_nothing(bank: str) -> None:
    lines = f"{'x' * 700}\nTell me of bees\n"
    result = succeed("chat", bank, "--json", *SHORT, input=lines)
    bad, good = map(json.loads, result.stdout.splitlines())
    assert "does not fit" in bad["error"] and "does not fit" in result.stderr
    assert good["documents"][0]["id"] == "bees"


def test_ask_in_every_style(bank: str, tmp_path: Path) -> None:
    question = QUESTIONS[1]["question"]
    for style in ("sentence", "chat"):
        told = succeed("ask", question, "--bank", bank, "--style", style, *SHORT, "--json")
        row = json.loads(told.stdout)
        assert row["documents"][0]["id"] == "oslo" and row["documents"][0]["number"] == 1
        assert row["milliseconds"] > 0
        shown = succeed("ask", question, "--bank", bank, "--style", style, "--stream", *SHORT)
        assert shown.stdout.startswith(row["answer"].split("\n")[0][:20])
        assert "[1]" in shown.stdout
    asked = write_jsonl(tmp_path / "q.jsonl", [{"id": "7", **QUESTIONS[0]}])
    out = succeed("ask", "--file", str(asked), "--bank", bank, "--style", "chat", *SHORT).stdout
    assert json.loads(out)["id"] == "7"
    assert "Known: chat, sentence, short" in refuse("ask", "Who?", "--bank", bank, "--style", "x")
    assert "Known: chat, sentence, short" in refuse("chat", bank, "--style", "x")


def test_what_is_not_in_memory(world: World, tmp_path: Path) -> None:
    documents = write_jsonl(tmp_path / "documents.jsonl", DOCUMENTS)
    path, adapter = str(tmp_path / "b.bank"), Path(world.adapter("rag"))
    chosen = ("--adapter", str(adapter), "--backbone", world.backbone)
    succeed("write", str(documents), "--bank", path, *chosen)
    assert "has no calibration" in refuse("ask", "Who?", "--bank", path, "--abstain-at", "0.05")
    try:
        Calibration((0.0, 1.0), (0.0, 1.0), (0.05, 1.0), (1.1, 0.0)).save(adapter)
        question = QUESTIONS[0]["question"]
        row = json.loads(
            succeed("ask", question, "--bank", path, "--abstain-at", "0.05", "--json").stdout
        )
        assert row["answer"] is None and row["abstained"] and row["documents"] == []
        assert row["probability"] == pytest.approx(row["confidence"], abs=1e-3)
        said = succeed("ask", question, "--bank", path, "--abstain-at", "0.05").stdout
        assert said.startswith("Not in memory.\n")
        shown = succeed("ask", question, "--bank", path, "--abstain-at", "1").stdout
        assert "Not in memory" not in shown and "% of the time" in shown
        alone = succeed("ask", "Why is snow so cold?", "--bank", path).stdout
        assert alone.startswith("Not in memory. The model alone says: ")
        assert "between 0 and 1" in refuse("ask", "Who?", "--bank", path, "--abstain-at", "7")
        rows = succeed("chat", path, "--abstain-at", "0.05", "--json", input="Who wrote it?\n")
        assert json.loads(rows.stdout)["abstained"]
    finally:
        (adapter / "calibration.json").unlink(missing_ok=True)


def test_a_date_that_cannot_be_read_is_refused(bank: str) -> None:
    for command in (("ask", "Who?", "--bank", bank), ("chat", bank)):
        assert "Expected a time" in refuse(*command, "--as-of", "yesterdayish")
    assert run("chat", bank, "--as-of", "2023", input="").exit_code == 2  # no document so old
