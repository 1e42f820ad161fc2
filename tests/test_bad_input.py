"""Every bad input ends in one clear sentence, the right exit status, and a whole bank or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import latentbank.bank.store.file
from latentbank.bank import MemoryBank
from latentbank.cli.failures import explain
from latentbank.errors import BankError
from memory_folder import memory_path  # noqa: F401
from tiny_cli import (
    DOCUMENTS,
    World,
    documents_in,
    make_world,
    refuse,
    run,
    sentence,
    start,
    succeed,
    write_jsonl,
)

GOOD = '{"text": "A good row."}\n'


@pytest.fixture(scope="session")
def world(backbones: Any) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def chosen(world: World) -> tuple[str, ...]:
    return ("--adapter", world.adapter("rag"), "--backbone", world.backbone)


@pytest.fixture
def bank(world: World, tmp_path: Path) -> Path:
    """A bank of strata with the documents."""
    found = tmp_path / "good.bank"
    source = write_jsonl(tmp_path / "documents.jsonl", DOCUMENTS)
    chosen = ("--adapter", world.adapter("strata"), "--backbone", world.backbone)
    succeed("write", str(source), "--bank", str(found), *chosen)
    return found


# ---- documents

BAD_FILES = {
    "empty.txt": (b"", "empty"),
    "blank.txt": (b" \n\t\n", "empty"),
    "binary.txt": (b"text\x00\x01\x02more", "binary"),
    "damaged.txt": ("Café à la ".encode() + b"\xe9", "UTF-8"),
    "utf16.txt": ("Some text".encode("utf-16")[:-1], "UTF-16"),
    "row.jsonl": (b'{"text": "cut', "line 1"),
    "no_text.jsonl": (b'{"story": "x"}\n', "no text"),
    "empty_row.jsonl": (b'{"text": ""}\n', "empty"),
    "picture.png": (b"\x89PNG", ".png"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_makes_no_bank_and_leaves_a_bank_as_it_is(
    name: str, chosen: tuple[str, ...], bank: Path, tmp_path: Path
) -> None:
    content, words = BAD_FILES[name]
    file, fresh = tmp_path / name, tmp_path / "fresh.bank"
    file.write_bytes(content)
    said = refuse("write", str(file), "--bank", str(fresh), *chosen)
    assert name in said and words in said
    assert not fresh.exists()
    before = bank.read_bytes()
    refuse("write", str(file), "--bank", str(bank))
    assert bank.read_bytes() == before


def test_a_missing_file(chosen: tuple[str, ...], tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.bank"
    good = write_jsonl(tmp_path / "good.jsonl", DOCUMENTS)
    said = refuse("write", str(good), str(tmp_path / "no.txt"), "--bank", str(fresh), *chosen)
    assert "no.txt does not exist" in said
    assert not fresh.exists()


def test_an_unreadable_file(
    chosen: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fresh = tmp_path / "locked.txt", tmp_path / "fresh.bank"
    file.write_text("secret")
    file.chmod(0)
    if os.access(file, os.R_OK):  # root reads everything, so the refusal has to be made
        opened = Path.open

        def locked(self: Path, *args: Any, **options: Any) -> Any:
            if self == file:
                raise PermissionError(13, "Permission denied", str(self))
            return opened(self, *args, **options)

        monkeypatch.setattr(Path, "open", locked)
    said = refuse("write", str(file), "--bank", str(fresh), *chosen)
    assert "locked.txt" in said and "Permission denied" in said
    assert not fresh.exists()


def test_writing_stops_at_the_first_bad_row_and_keeps_those_before(
    chosen: tuple[str, ...], tmp_path: Path
) -> None:
    fresh, file = tmp_path / "fresh.bank", tmp_path / "rows.jsonl"
    file.write_text(GOOD + '{"text": "Another."}\n{"text": 3}\n{"text": "Never read."}\n')
    said = refuse("write", str(file), "--strict", "--bank", str(fresh), *chosen)
    assert "rows.jsonl, line 3" in said and "2 documents of this run were stored" in said
    assert documents_in(fresh) == 2


def test_skip_bad_goes_on_and_lists_what_it_skipped(
    chosen: tuple[str, ...], tmp_path: Path
) -> None:
    fresh, folder = tmp_path / "fresh.bank", tmp_path / "notes"
    folder.mkdir()
    (folder / "a.jsonl").write_text(GOOD + '{"text"\n' + '{"text": "Behind it."}\n')
    (folder / "b.txt").write_bytes(b"\x00\x01")
    (folder / "c.csv").write_text("text,id\nfrom csv,c1\n,c2\nlast,c3\n")
    arguments = ("write", str(folder), "-", "none.txt", "--bank", str(fresh), *chosen)
    result = run(*arguments, "--skip-bad", "--json", input="a line\n{}\nanother line\n")
    assert result.exit_code == 3, result.stderr
    skipped = json.loads(result.stdout)["skipped"]
    places = ("a.jsonl, line 2", "b.txt", "c.csv, line 3", "standard input, line 2", "none.txt")
    assert len(skipped) == len(places)
    for place, said in zip(places, skipped, strict=True):
        assert place in said
    assert documents_in(fresh) == 6


@pytest.mark.slow
def test_a_single_line_of_5_mb_becomes_chunks(chosen: tuple[str, ...], tmp_path: Path) -> None:
    fresh, file = tmp_path / "fresh.bank", tmp_path / "long.txt"
    file.write_text(" ".join(f"word{i}" for i in range(500_000)))
    assert file.stat().st_size > 5_000_000
    succeed("write", str(file), "--bank", str(fresh), *chosen, "--option", "chunk_tokens=16384")
    assert documents_in(fresh) > 300


# ---- questions


def test_a_question_longer_than_the_context_window(bank: Path, tmp_path: Path) -> None:
    long = "Why? " * 500
    for said in (
        refuse("ask", long, "--bank", str(bank)),
        refuse("ask", long, "--bank", str(bank), "--no-memory"),
    ):
        assert "2500 tokens" in said and "512" in said
    file = write_jsonl(tmp_path / "q.jsonl", [{"question": "Who?"}, {"question": long}])
    assert "q.jsonl, line 2" in refuse("ask", "--file", str(file), "--bank", str(bank))
    assert "empty" in refuse("ask", " ", "--bank", str(bank))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"question": "Who?"}\n{"query": "x"}\n', "line 2"),
        (b'{"question": 5}\n', "line 1"),
        (b'{"question": "Who?"\n', "not a JSON row"),
        (b'{"question": "\xff"}\n', "UTF-8"),
        (b"\n", "empty"),
    ],
)
def test_a_malformed_file_of_questions(
    bank: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_bytes(content)
    said = refuse("ask", "--file", str(file), "--bank", str(bank))
    assert "questions.jsonl" in said and words in said
    assert "no.jsonl" in refuse("ask", "--file", str(tmp_path / "no.jsonl"), "--bank", str(bank))


# ---- names, banks and adapters that do not fit


def test_unknown_method_and_model_list_the_known(world: World, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.bank"
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    arguments = ("write", source, "--bank", str(fresh))
    said = refuse(*arguments, "--method", "stratta", "--backbone", world.backbone)
    assert "Did you mean 'strata'?" in said
    assert all(f" {name}" in said for name in ("full_context", "mac", "mbc", "none", "rag"))
    said = refuse(*arguments, "--method", "rag", "--backbone", "smollm")
    assert "smollm2-135m" in said
    said = refuse("train", "--method", "nope", "--data", str(world.data(tmp_path)), "--out", "x")
    assert "strata" in said
    assert not fresh.exists()


def test_a_bank_of_another_adapter_is_refused_with_both_names(
    world: World, bank: Path, tmp_path: Path
) -> None:
    source = str(write_jsonl(tmp_path / "d.jsonl", [{"text": "New."}]))
    said = refuse("write", source, "--bank", str(bank), "--adapter", world.adapter("mac"))
    assert "'strata'" in said and "'mac'" in said
    said = refuse("ask", "Who?", "--bank", str(bank), "--adapter", world.adapter("mac"))
    assert "'strata'" in said and "'mac'" in said
    said = refuse("write", source, "--bank", str(bank), "--method", "rag")
    assert "'strata'" in said and "'rag'" in said
    assert documents_in(bank) == len(DOCUMENTS)


def test_a_bank_of_another_model_is_refused_with_both_names(
    backbones: Any, bank: Path, tmp_path: Path
) -> None:
    source = str(write_jsonl(tmp_path / "d.jsonl", [{"text": "New."}]))
    other = str(backbones.folder("qwen3"))
    said = refuse("write", source, "--bank", str(bank), "--backbone", other)
    assert "llama:" in said and "qwen3:" in said
    fresh = tmp_path / "rag.bank"
    succeed(
        "write", source, "--bank", str(fresh), "--method", "rag",
        "--backbone", str(backbones.folder("llama")),
    )  # fmt: skip
    said = refuse("write", source, "--bank", str(fresh), "--backbone", other)
    assert "llama:" in said and "qwen3:" in said
    assert documents_in(fresh) == 1


def damaged(world: World, tmp_path: Path, file: str, keep: float) -> str:
    """A copy of an adapter with one file cut."""
    copy = tmp_path / f"damaged-{file}-{keep}"
    shutil.copytree(world.adapter("strata"), copy)
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: int(len(data) * keep)])
    return str(copy)


@pytest.mark.parametrize("file", ["adapter.safetensors", "config.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_corrupt_adapter(world: World, tmp_path: Path, file: str, keep: float) -> None:
    fresh = tmp_path / "fresh.bank"
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    adapter = damaged(world, tmp_path, file, keep)
    chosen = ("--adapter", adapter, "--backbone", world.backbone)
    said = refuse("write", source, "--bank", str(fresh), *chosen)
    assert file in said and "damaged" in said
    assert not fresh.exists()


def test_a_config_of_another_kind(world: World, tmp_path: Path) -> None:
    copy = Path(damaged(world, tmp_path, "config.json", 1.0))
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    for content in ('{"method": "strata", "config": [], "backbone": "x"}', "[1]", '"x"'):
        (copy / "config.json").write_text(content)
        arguments = ("--adapter", str(copy), "--backbone", world.backbone)
        refuse("write", source, "--bank", str(tmp_path / "fresh.bank"), *arguments)
    assert not (tmp_path / "fresh.bank").exists()


def test_what_is_no_bank(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a bank")
    for command in (("inspect", str(text)), ("ask", "Who?", "--bank", str(text))):
        assert "notes.txt" in refuse(*command)
    assert "no bank" in refuse("ask", "Who?", "--bank", str(tmp_path / "none.bank"))
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    assert "folder" in refuse("write", source, "--bank", str(tmp_path / "no" / "a.bank"))


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there(chosen: tuple[str, ...], tmp_path: Path, device: str) -> None:
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    fresh = tmp_path / "fresh.bank"
    assert device in refuse("write", source, "--bank", str(fresh), *chosen, "--device", device)
    assert not list(tmp_path.glob("fresh.bank*"))


@pytest.mark.parametrize("budget", ["10", "1KiB", "4107"])
def test_a_budget_below_an_empty_bank_leaves_no_file(
    chosen: tuple[str, ...], tmp_path: Path, budget: str
) -> None:
    source = str(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS))
    fresh = tmp_path / "fresh.bank"
    run("write", source, "--bank", str(fresh), *chosen, "--budget", budget)
    left = {path.name for path in tmp_path.glob("fresh.bank*")}
    assert left in (set(), {"fresh.bank"})
    if budget == "10":
        assert not left


# ---- the disk and the keyboard


def random_rows(path: Path, number: int) -> Path:
    return write_jsonl(path, [{"text": os.urandom(250).hex()} for _ in range(number)])


def test_a_full_disk_keeps_whole_batches(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure = latentbank.bank.store.file._configure
    limit = bank.stat().st_size // 1024 + 100  # a file system with 100 KiB left

    def small(connection: Any) -> None:
        configure(connection)
        connection.execute(f"PRAGMA max_page_count={limit}")

    monkeypatch.setattr(latentbank.bank.store.file, "_configure", small)
    source = str(random_rows(tmp_path / "many.jsonl", 600))
    said = refuse("write", source, "--bank", str(bank))
    monkeypatch.undo()
    assert "disk full" in said
    held = documents_in(bank)
    assert held > len(DOCUMENTS) and (held - len(DOCUMENTS)) % 32 == 0
    assert f"holds {held} entries" in said


def test_a_file_size_limit_of_the_system(world: World, bank: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    source = str(random_rows(tmp_path / "many.jsonl", 600))
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))"
    process = start("write", source, "--bank", str(bank), before=before)
    _, stderr = process.communicate(timeout=280)
    said = sentence(process.returncode, stderr)
    assert str(bank) in said
    assert documents_in(bank) >= len(DOCUMENTS)


def wait_for(bank: Path, documents: int, process: subprocess.Popen[str]) -> None:
    """Until the bank holds so many documents."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if bank.exists():
            try:
                with MemoryBank.open(bank, read_only=True) as found:
                    if len(found) >= documents:
                        return
            except BankError:
                pass
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the bank was not written in time: {process.communicate()[1]}")


def test_ctrl_c_in_the_middle_of_a_stream(chosen: tuple[str, ...], tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.bank"
    process = start("write", "-", "--bank", str(fresh), "--batch", "8", *chosen)
    assert process.stdin is not None
    process.stdin.write("".join(f"Document number {i}.\n" for i in range(43)))
    process.stdin.flush()
    wait_for(fresh, 40, process)
    process.send_signal(signal.SIGINT)
    code, stderr = process.wait(timeout=60), ""
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stdin.close()
    said = sentence(code, stderr, 130)
    held = documents_in(fresh)
    assert 40 <= held <= 43
    assert f"holds {held} entries" in said and "interrupted" in said
    shown = json.loads(succeed("inspect", str(fresh), "--json").stdout)
    assert shown["documents"] == held


def test_ctrl_c_while_a_batch_is_written_finishes_it(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentbank.method import METHODS

    method = METHODS.get("strata")
    original = method.write

    def interrupted(self: Any, documents: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        return original(self, documents)

    monkeypatch.setattr(method, "write", interrupted)
    source = str(random_rows(tmp_path / "many.jsonl", 100))
    said = refuse("write", source, "--bank", str(bank), "--batch", "10", status=130)
    assert "10 documents of this run were stored" in said
    assert documents_in(bank) == len(DOCUMENTS) + 10


def test_a_reader_that_goes_away(bank: Path) -> None:
    process = start("inspect", str(bank), "--documents", "--json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    assert (process.wait(timeout=60), stderr) == (141, "")


def test_errors_of_the_system_become_sentences() -> None:
    full = explain(OSError(28, "No space left on device", "x.bank"))
    assert full.status == 2 and "no space left" in full.sentence
    assert explain(KeyboardInterrupt()).status == 130
    assert explain(PermissionError(13, "Permission denied", "f")).sentence == "f: Permission denied"
    bug = explain(ValueError("some\nthing"))
    assert bug.status == 1 and "\n" not in bug.sentence


def test_json_errors_are_on_stdout_too(tmp_path: Path) -> None:
    result = run("inspect", str(tmp_path / "none.bank"), "--json")
    said = sentence(result.exit_code, result.stderr)
    assert json.loads(result.stdout) == {"error": said}
