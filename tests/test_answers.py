"""How an answer ends, and whether it says that nothing in memory fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.answering.asking import ANSWERS
from latentbank.backbone import generate
from latentbank.backbone.generate import DecodingConfig
from latentbank.cli.answers import snippet_of
from latentbank.documents.document import Document
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, QUESTIONS, Backbones
from tiny_cli import DOCUMENTS as ROWS
from tiny_cli import World, make_world, succeed, write_jsonl

TEXTS = (
    "서울의 등대는 자정에 불을 켭니다. 등대지기는 김민수입니다.",
    "दिल्ली का पुस्तकालय सुबह नौ बजे खुलता है। वहाँ किताबें मिलती हैं।",
    "The 🧑‍🚀 café opens at nine.",
)


@pytest.fixture(scope="session")
def world(backbones: Backbones) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


def stopped(model: MemoryModel, text: str, monkeypatch: pytest.MonkeyPatch, **decoding: Any) -> str:
    """The answer of a model that would say `text` and is stopped at `max_new_tokens`."""
    [said] = model.backbone.encode([text], start=False)
    config = DecodingConfig(**decoding)
    said = [*said, model.backbone.end_id][: config.max_new_tokens]
    monkeypatch.setattr(generate, "_greedy", lambda *_: ([said], [0.0]))
    return model.ask("Who?", config, memory=False).text


@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_never_ends_in_half_a_character(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """One token is one byte here, so that a limit may fall inside of every character."""
    model = MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny"))
    size = len(text.encode())
    for limit in range(1, size + 1):
        plain = stopped(model, text, monkeypatch, max_new_tokens=limit)
        assert "\ufffd" not in plain and text.startswith(plain)
        whole = stopped(model, text, monkeypatch, max_new_tokens=limit, whole_words=True)
        assert "\ufffd" not in whole and text.startswith(whole) and len(whole) <= len(plain)
        if " " in whole:  # behind a word, not inside of one
            assert text[len(whole) : len(whole) + 1] in ("", " "), (limit, whole)
    finished = stopped(model, text, monkeypatch, max_new_tokens=size + 1, whole_words=True)
    assert finished == text


def test_answers_have_48_tokens_where_nothing_else_is_asked_for(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny"))
    seen: list[DecodingConfig] = []
    greedy = generate._greedy

    def noted(run: Any, logits: Any, config: DecodingConfig, quotable: Any) -> Any:
        seen.append(config)
        return greedy(run, logits, config, quotable)

    monkeypatch.setattr(generate, "_greedy", noted)
    model.ask("Who?", memory=False)
    assert seen == [ANSWERS] and (ANSWERS.max_new_tokens, ANSWERS.whole_words) == (48, True)
    model.ask("Who?", DecodingConfig(), memory=False)
    assert seen[1].max_new_tokens == 16


# ---- not in memory


@pytest.mark.parametrize("name", ["rag", "strata"])
def test_an_answer_says_whether_it_was_read(backbones: Backbones, name: str) -> None:
    model = MemoryModel(build_method(name, backbones.fresh("llama"), preset="tiny"))
    foreign = "Does Zebedee juggle quinces?"
    assert not model.ask(QUESTIONS[0]).from_memory  # the bank is empty
    model.write(DOCUMENTS)
    assert model.ask(QUESTIONS[0]).from_memory
    assert not model.ask(foreign).from_memory
    assert not model.ask(QUESTIONS[0], memory=False).from_memory


def test_methods_that_name_no_sources_read_what_the_bank_holds(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    histogram = build_method("mbc", backbone, {"form": "histogram"}, preset="tiny")
    for method, reads in ((histogram, True), (build_method("none", backbone), False)):
        model = MemoryModel(method)
        assert not model.ask("Who?").from_memory
        model.write([Document("Ada wrote it.")])
        assert model.ask("Who?").from_memory == reads


def test_the_command_line_says_not_in_memory(world: World, tmp_path: Path) -> None:
    bank, rows = str(tmp_path / "a.bank"), write_jsonl(tmp_path / "rows.jsonl", ROWS)
    place = ["--adapter", world.adapter("strata"), "--backbone", world.backbone]
    succeed("write", str(rows), "--bank", bank, *place)
    foreign = "Does Zebedee juggle quinces?"
    assert succeed("ask", foreign, "--bank", bank).stdout.startswith("Not in memory. The model")
    assert not json.loads(succeed("ask", foreign, "--bank", bank, "--json").stdout)["from_memory"]
    known = "When did the harbour of Oslo freeze?"
    shown = " ".join(succeed("ask", known, "--bank", bank).stdout.split())
    assert "Not in memory" not in shown
    assert "> The harbour of Oslo froze in the winter of 1924." in shown and "2024-01-01" in shown
    row = json.loads(succeed("ask", known, "--bank", bank, "--json").stdout)
    assert row["from_memory"] and row["documents"][0]["snippet"].startswith("The harbour of Oslo")
    plain = succeed("ask", known, "--bank", bank, "--no-memory").stdout
    assert "Not in memory" not in plain and "no memory" in plain
    assert not list(tmp_path.glob("*-wal")) and not list(tmp_path.glob("*-shm"))


def test_a_snippet_shows_where_the_answer_stands() -> None:
    text = f"{'It rains on the pier. ' * 8}The keeper is Ada.\nShe lives there."
    assert snippet_of(text, "Ada") == "The keeper is Ada. She lives there."
    assert snippet_of(text, "Zebedee").startswith("It rains on the pier.")
    assert len(snippet_of(text, "")) <= 160
    assert snippet_of("", "Ada") == ""


def test_questions_about_neighbours_in_the_bank_are_asked_one_after_another(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order of the questions, a small cache reads each document about once."""
    names = [f"Person{number} {word}" for number, word in enumerate("abcdefgh")]
    options = {"retrieval": {"candidates": 1}}
    method = build_method("strata", backbones.fresh("llama"), options, preset="tiny")
    model = MemoryModel(method)
    model.write([Document(f"{name} keeps the lamp of house {name}.") for name in names])
    questions = [f"What does {names[number % 8]} keep, in row {number}?" for number in range(48)]
    model.ask(questions[0])
    method.reader.hot.limit_bytes = 2 * method.reader.hot.bytes + 1000
    method.reader.hot.clear()
    read: list[str] = []
    before = method.reader._read

    def counted(states: dict[str, Any]) -> Any:
        read.extend(states)
        return before(states)

    monkeypatch.setattr(method.reader, "_read", counted)
    answers = model.ask_many(questions)
    assert len(set(read)) == 8 and len(read) <= 12
    for question, answer in zip(questions[:8], answers, strict=False):
        assert answer.documents == model.ask(question).documents
