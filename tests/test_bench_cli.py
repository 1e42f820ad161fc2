"""`latentbank bench` on the command line: rows, records, tables, and one sentence for bad input."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from latentbank.bench.plan import Row
from latentbank.cli.bench_rows import parse_rows
from latentbank.errors import InputError, UnknownNameError
from tiny_cli import World, make_world, refuse, run, sentence, start, succeed, write_jsonl

MODEL = "smollm2-135m"


@pytest.fixture(scope="session")
def world(backbones: Any) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def common(world: World, tmp_path: Path) -> tuple[str, ...]:
    return (
        "--data", str(world.data(tmp_path)), "--backbone", world.backbone,
        "--out", str(tmp_path / "out"), "--max-new-tokens", "2", "--dtype", "float32",
    )  # fmt: skip


# ---- rows


def test_packaged_adapters_find_their_methods() -> None:
    names = "none,none+LoRA,rag,rag+LoRA,full_context,full_context+LoRA,mac,mbc,strata"
    found = {row.name: row.adapter for row in parse_rows([names], MODEL, None)}
    assert found == {
        "none": "", "none+LoRA": f"none-{MODEL}",
        "rag": "", "rag+LoRA": f"rag-{MODEL}",
        "full_context": "", "full_context+LoRA": f"rag-{MODEL}",
        "mac": f"mac-{MODEL}", "mbc": f"mbc-{MODEL}", "strata": f"strata-{MODEL}",
    }  # fmt: skip


def test_a_row_can_be_defined() -> None:
    text = f"none,pooled=strata,entry=pooled,segments=16,rag,two=rag:rag-{MODEL},bare=mbc:"
    found = parse_rows([text], MODEL, None)
    assert [row.name for row in found] == ["none", "pooled", "rag", "two", "bare"]
    assert found[1] == Row(
        "pooled", "strata", f"strata-{MODEL}", {"entry": "pooled", "segments": 16}
    )
    assert found[3].adapter == f"rag-{MODEL}"
    assert found[4].adapter == ""
    assert parse_rows(["x=rag,lora.rank=4", f"mac-{MODEL}"], MODEL, None) == [
        Row("x", "rag", "", {"lora": {"rank": 4, "alpha": 32, "dropout": 0.0,
                                      "targets": "attention", "layer": 0}}),
        Row(f"mac-{MODEL}", "mac", f"mac-{MODEL}"),
    ]  # fmt: skip


def test_another_model_has_no_packaged_adapter() -> None:
    (row,) = parse_rows(["t=mac,preset=tiny"], "/models/other", None)
    assert row == Row("t", "mac", "", {}, "tiny")
    with pytest.raises(InputError, match=r"rag\+LoRA needs an adapter of rag for other"):
        parse_rows(["rag+LoRA"], "/models/other", None)


def test_adapters_are_given_by_row_or_method(world: World) -> None:
    mac = world.adapter("mac")
    found = parse_rows(["mac,x=mac"], world.backbone, [f"mac={mac}"])
    assert [row.adapter for row in found] == [mac, mac]


@pytest.mark.parametrize(
    ("methods", "adapters", "kind", "words"),
    [
        (["mcb"], None, UnknownNameError, "Unknown method or adapter 'mcb'.*mbc"),
        (["x=mcb"], None, UnknownNameError, "Unknown method 'mcb'.*Known: .*strata"),
        (["x=rag:nowhere"], None, UnknownNameError, "Unknown adapter 'nowhere'"),
        (["x=rag,pasages=2"], None, UnknownNameError, "Unknown method"),
        (["x=rag,passages=two"], None, InputError, "together is a whole number"),
        (["x=mac,preset=huge"], None, UnknownNameError, "preset"),
        (["rag,,mac"], None, InputError, "empty name"),
        (["rag,rag"], None, InputError, "'rag' twice"),
        (["rag"], ["mac=x"], UnknownNameError, "Unknown row of --adapter 'mac'"),
        (["rag"], ["rag"], InputError, "NAME=ADAPTER"),
        (["rag"], ["rag=nowhere"], UnknownNameError, "Unknown adapter"),
    ],
)
def test_bad_rows(
    methods: list[str], adapters: list[str] | None, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        parse_rows(methods, "/models/other" if "preset" in methods[0] else MODEL, adapters)


# ---- the command


def test_a_task_is_a_command(world: World, common: tuple[str, ...], tmp_path: Path) -> None:
    chosen = ("--methods", "none,rag,mac", "--adapter", f"mac={world.adapter('mac')}", *common)
    shown = succeed("bench", "online-qa", *chosen, "--budget", "2000,float")
    assert "online-qa on qa" in shown.stdout and "6 records in" in shown.stdout
    assert "bytes/document" in shown.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name for name in names if name.endswith(".json")] == [
        f"online-qa--{row}--{budget}.json"
        for row in ("mac", "none", "rag")
        for budget in ("2000", "float")
    ]
    again = json.loads(
        succeed("bench", "run", "online-qa", *chosen, "--budget", "2000,float", "--json").stdout
    )
    assert len(again["records"]) == 6
    first = again["records"][0]
    assert (first["name"], first["budget_per_document"], first["skipped"]) == ("none", 2000, None)
    assert first["metrics"]["questions"] == 4


def test_gold_is_a_record_of_its_own(common: tuple[str, ...], tmp_path: Path) -> None:
    succeed("bench", "online-qa", "--methods", "rag", *common)
    succeed("bench", "online-qa", "--methods", "rag", *common, "--gold")
    names = {path.stem for path in (tmp_path / "out").glob("*.json")}
    assert names == {"online-qa--rag--float", "online-qa--rag--float--gold"}


def test_skipped_rows_are_shown(common: tuple[str, ...], tmp_path: Path) -> None:
    quiz = write_jsonl(tmp_path / "quiz.jsonl", [{"question": "who", "answer": "x"}])
    shown = succeed(
        "bench", "forgetting", "--methods", "none,full_context", *common, "--closed-book", str(quiz)
    )
    assert "skipped" in shown.stdout
    found = json.loads((tmp_path / "out" / "forgetting--full-context--float.json").read_text())
    assert "closed-book questions have none" in found["skipped"]


def test_help_names_the_tasks() -> None:
    assert "online-qa" in succeed("bench", "run", "--help").stdout
    assert "compare" in succeed("bench", "--help").stdout


BAD = {
    "unknown task": (("bench", "online", "--methods", "rag"), "Known: abstain, capacity"),
    "unknown method": (("bench", "online-qa", "--methods", "rga"), "Did you mean 'rag'"),
    "unknown budget": (
        ("bench", "online-qa", "--methods", "rag", "--budget", "much"),
        "Known: 1024, 128",
    ),
    "budget too small": (
        ("bench", "online-qa", "--methods", "rag", "--budget", "8"),
        "the least bank of rag takes 9,877 bytes, 2,470 per document",
    ),
    "unknown option": (
        ("bench", "retention", "--methods", "rag", "-o", "frist=2"),
        "Known: every, first",
    ),
    "option of the wrong type": (
        ("bench", "retention", "--methods", "rag", "-o", "first=two"),
        "first is a whole number",
    ),
    "no options": (("bench", "updates", "--methods", "rag", "-o", "a=1"), "has no options"),
    "another task's option": (
        ("bench", "noise", "--methods", "rag", "--closed-book", "x"),
        "closed_book",
    ),
    "stream too short": (("bench", "retention", "--methods", "rag"), "-o first="),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, common: tuple[str, ...], tmp_path: Path) -> None:
    arguments, words = BAD[case]
    said = refuse(*arguments, *common)
    assert words in said
    assert not list(tmp_path.glob("out/*.json"))


BAD_DATA = {
    "empty": (b"", "is empty"),
    "cut": (b'{"document": "A", "question": "?", "answer": "x"}\n{"doc', "line 2: malformed"),
    "no answers": (b'{"document": "A", "question": "?"}\n', "line 1: answers missing"),
    "no text": (b'{"question": "?", "answer": "x"}\n', "line 1: document missing"),
    "no question": (b'{"document": "A", "time": "2024"}\n', "has no question to ask"),
    "latin": ("{“}".encode("utf-16"), "line 1: not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named_with_line_and_reason(
    case: str, world: World, common: tuple[str, ...], tmp_path: Path
) -> None:
    content, words = BAD_DATA[case]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    said = refuse("bench", "online-qa", "--methods", "rag", *common, "--data", str(path))
    assert words in said and "bad" in said


def test_a_bad_closed_book_file(common: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"question": "who"}\n')
    chosen = ("bench", "forgetting", "--methods", "rag", *common)
    assert "line 1: answers missing" in refuse(*chosen, "--closed-book", str(path))
    assert "does not exist" in refuse(*chosen, "--closed-book", str(tmp_path / "none"))


def test_no_task_shows_the_help() -> None:
    assert run("bench").exit_code in (0, 2)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_answered(
    world: World, common: tuple[str, ...], tmp_path: Path
) -> None:
    slow = (
        "import time; import latentbank.answering as e; real = e.answer_batch\n"
        "def answer(*a, **k):\n    time.sleep(1); return real(*a, **k)\n"
        "e.answer_batch = answer"
    )
    arguments = ("bench", "online-qa", "--methods", "none", *common, "--batch", "1")
    process = start(*arguments, before=slow)
    partial = tmp_path / "out" / "partial" / "online-qa--none--float.jsonl"
    deadline = time.monotonic() + 120
    while not (partial.exists() and len(partial.read_text().splitlines()) > 1):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    said = sentence(process.returncode, stderr, 130)
    assert "The same command goes on from here" in said
    assert not list((tmp_path / "out").glob("*.json"))
    succeed(*arguments)
    found = json.loads((tmp_path / "out" / "online-qa--none--float.json").read_text())
    assert found["config"]["answers_from_an_interrupted_run"] >= 1
