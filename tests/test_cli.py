"""The commands on a tiny random model: each one's answer, its JSON, and what it leaves on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from latentbank.bank import MemoryBank
from latentbank.cli import app
from latentbank.cli.common import format_bytes, merge, parse_pairs, parse_size
from latentbank.documents.document import find_entries
from latentbank.documents.identity import document_id
from latentbank.errors import InputError, UnknownNameError
from latentbank.evaluate.data import load_sample
from memory_folder import memory_path, new_folder  # noqa: F401
from tiny_cli import (
    DOCUMENTS,
    QUESTIONS,
    START,
    World,
    documents_in,
    environment,
    make_world,
    refuse,
    run,
    sentence,
    succeed,
    write_jsonl,
)


@pytest.fixture(scope="session")
def world(backbones: Any) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "documents.jsonl", DOCUMENTS)


def write_bank(world: World, bank: Path, source: Path, method: str = "strata") -> dict[str, Any]:
    arguments = ("--adapter", world.adapter(method), "--backbone", world.backbone, "--json")
    result: dict[str, Any] = json.loads(
        succeed("write", str(source), "--bank", str(bank), *arguments).stdout
    )
    return result


def inspected(bank: Path, *options: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(succeed("inspect", str(bank), *options, "--json").stdout)
    return result


# ---- the command line itself


HEAVY = {"torch", "transformers", "peft", "numpy", "scipy", "sympy", "safetensors", "tokenizers"}


def imported(code: str, *arguments: str) -> set[str]:
    """The modules that a python process has when it ends."""
    dump = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    words = [sys.executable, "-c", dump + code, *arguments]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.splitlines()[-1].split())


def test_help_and_the_package_itself_import_no_heavy_library() -> None:
    for arguments in (["--help"], ["ask", "--help"]):
        assert not imported(START, *arguments) & HEAVY
    assert not imported("import latentbank") & (HEAVY | {"typer", "rich", "sqlite3"})


def test_python_can_run_the_package_as_a_module() -> None:
    command = [sys.executable, "-m", "latentbank", "--version"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("latentbank ")


WATCHED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os._exit(7 if os.environ.get("OMP_WAIT_POLICY") == "passive" else 9)
sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("command", ["chat {bank}", "bench", "train --method strata"])
def test_threads_that_wait_sleep(
    world: World, documents: Path, tmp_path: Path, command: str
) -> None:
    """The libraries of threads look at the environment when torch is imported."""
    write_bank(world, tmp_path / "a.bank", documents)
    words = command.format(bank=tmp_path / "a.bank").split()
    words += {"bench": ["online-qa", "-m", "none"]}.get(command, [])
    words += [] if "chat" in command else ["--data", "sample", "--out", str(tmp_path / "out")]
    surroundings = environment()
    surroundings.pop("OMP_WAIT_POLICY", None)
    started = [sys.executable, "-c", WATCHED + START, *words]
    done = subprocess.run(started, env=surroundings, capture_output=True, text=True, input="Who?\n")
    assert done.returncode == 7, (done.returncode, done.stderr[-500:])


def test_a_cold_ask_imports_neither_transformers_nor_other_methods(
    world: World, documents: Path, tmp_path: Path
) -> None:
    write_bank(world, tmp_path / "a.bank", documents)
    asked = imported(START, "ask", "Who?", "--bank", str(tmp_path / "a.bank"))
    assert "torch" in asked and "latentbank.methods.strata" in asked
    slow = {"transformers", "peft", "scipy", "sympy", "pandas", "torch._dynamo"}
    assert asked & slow == set()
    ours = {name for name in asked if name.startswith("latentbank.methods.")}
    assert not ours & {f"latentbank.methods.{name}" for name in ("mac", "mbc", "cmt", "rag")}


def test_help_names_every_command() -> None:
    text = succeed("--help").stdout
    for command in app.registered_commands:
        assert f" {command.name} " in text
        assert "--json" in succeed(str(command.name), "--help").stdout


def test_a_process_ends_with_one_sentence_and_status_2() -> None:
    command = [sys.executable, "-c", START, "inspect", "nowhere.bank", "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    said = sentence(done.returncode, done.stderr)
    assert "nowhere.bank" in said
    assert json.loads(done.stdout) == {"error": said}


def test_usage_errors_are_one_sentence_too() -> None:
    assert "--bank" in refuse("ask", "Who?")
    assert "frobnicate" in refuse("frobnicate")
    assert "--nothing" in refuse("inspect", "--nothing")


# ---- write, ask, inspect, verify, delete


@pytest.mark.parametrize("method", ["strata", "mac", "mbc", "rag"])
def test_a_bank_goes_through_all_commands(
    world: World, documents: Path, tmp_path: Path, method: str
) -> None:
    bank = tmp_path / "a.bank"
    written = write_bank(world, bank, documents, method)
    assert written["documents"] == written["documents_in_bank"] == len(DOCUMENTS)
    assert written["bank_bytes"] == bank.stat().st_size

    shown = inspected(bank, "--documents")
    assert shown["method"] == method
    assert shown["documents"] == len(DOCUMENTS)
    assert sum(v for k, v in shown["bytes"].items() if k != "total") == shown["bytes"]["total"]
    assert {row["id"] for row in shown["list"]} == {row["id"] for row in DOCUMENTS}
    assert {row["source"] for row in shown["list"]} == {"people.txt", str(documents)}

    answer = json.loads(succeed("ask", "Who wrote it?", "--bank", str(bank), "--json").stdout)
    assert answer["question"] == "Who wrote it?"
    assert 0 < answer["confidence"] <= 1

    deleted = json.loads(succeed("delete", "ada", "--bank", str(bank), "--json").stdout)
    receipt = deleted["receipt"]
    assert receipt["deleted"] and receipt["before"] != receipt["after"] and receipt["remains"] == ""
    assert deleted["deleted"] == 1
    assert documents_in(bank) == len(DOCUMENTS) - 1
    assert "ada" not in {row["id"] for row in inspected(bank, "--documents")["list"]}


def test_a_new_bank_has_the_ledger_and_the_policy_that_were_asked_for(
    world: World, documents: Path, tmp_path: Path
) -> None:
    bank, text = tmp_path / "a.bank", ["--ledger", "ids", "--policy", "age=1,hits=2"]
    named = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    succeed("write", str(documents), "--bank", str(bank), *named, *text, "--budget", "1MiB")
    shown = inspected(bank, "--documents")
    assert (shown["ledger"], shown["policy"]) == ("ids", "age=1,hits=2")
    assert {row["source"] for row in shown["list"]} == {None}


def test_writing_again_counts_duplicates(world: World, documents: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents)
    again = json.loads(succeed("write", str(documents), "--bank", str(bank), "--json").stdout)
    assert again["duplicates"] == again["documents_in_bank"] == len(DOCUMENTS)
    assert "4 duplicates" in succeed("write", str(documents), "--bank", str(bank)).stdout


def test_a_batch_of_any_size_is_one_transaction(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentbank.method import METHODS

    sizes: list[int] = []
    method = METHODS.get("rag")
    original = method.write

    def counted(self: Any, documents: Any) -> Any:
        sizes.append(len(documents))
        return original(self, documents)

    monkeypatch.setattr(method, "write", counted)
    source = str(write_jsonl(tmp_path / "d.jsonl", [{"text": f"Number {i}."} for i in range(90)]))
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    for batch, expected in (("80", [80, 10]), ("50", [50, 40])):
        sizes.clear()
        succeed("write", source, "--bank", str(tmp_path / batch), *chosen, "--batch", batch)
        assert sizes == expected


def test_standard_input_is_a_stream_of_rows_and_texts(world: World, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    lines = 'The first line is a document.\n\n{"text": "The second is a row.", "id": "two"}\n'
    succeed("write", "-", "--bank", str(bank), *chosen, input=lines)
    rows = inspected(bank, "--documents")["list"]
    assert len(rows) == 2
    assert "two" in {row["id"] for row in rows}


def test_options_are_kept_in_the_bank_and_cannot_change(
    world: World, documents: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "a.bank"
    chosen = ("--adapter", world.adapter("strata"), "--backbone", world.backbone)
    succeed("write", str(documents), "--bank", str(bank), *chosen, "--option", "entry=pooled")
    shown = inspected(bank)
    assert shown["overrides"] == {"entry": "pooled"}
    assert list(shown["levels"]) == ["pooled4"]
    said = refuse("write", str(documents), "--bank", str(bank), "--option", "entry=verbatim")
    assert "entry='pooled'" in said
    for option in ("entry=pooled", "lora.rank=4"):  # what the bank has anyway
        succeed("write", str(documents), "--bank", str(bank), "--option", option)
    said = refuse("write", str(documents), "--bank", str(bank), "--option", "lora.rank=8")
    assert "'rank': 4" in said
    assert documents_in(bank) == len(DOCUMENTS)


def test_the_budget_is_kept(world: World, documents: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    succeed("write", str(documents), "--bank", str(bank), *chosen, "--budget", "32KiB")
    assert inspected(bank)["budget_bytes"] == 32 * 1024
    many = write_jsonl(
        tmp_path / "many.jsonl", [{"text": os.urandom(400).hex()} for _ in range(100)]
    )
    told = json.loads(succeed("write", str(many), "--bank", str(bank), "--json").stdout)
    assert told["forgotten"] > 0  # the oldest made room
    assert bank.stat().st_size <= 32 * 1024
    assert documents_in(bank) == len(DOCUMENTS) + told["entries"] - told["forgotten"]


def test_a_file_of_questions_gives_one_row_each_in_order(
    world: World, documents: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents)
    asked = write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)
    out = succeed("ask", "--file", str(asked), "--bank", str(bank)).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["question"] for row in rows] == [row["question"] for row in QUESTIONS]
    assert [row["documents"][0]["id"] for row in rows] == [row["id"] for row in DOCUMENTS]
    ada = {"id": "ada", "source": "people.txt", "time": None, "weight": 1.0}
    assert rows[0]["documents"] == [{**ada, "snippet": DOCUMENTS[0]["text"]}]
    alone = succeed("ask", QUESTIONS[2]["question"], "--bank", str(bank), "--json").stdout
    assert json.loads(alone)["answer"] == rows[2]["answer"]


def test_without_memory_no_document_is_read(world: World, documents: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents)
    question = QUESTIONS[0]["question"]
    plain = succeed("ask", question, "--bank", str(bank), "--no-memory", "--json").stdout
    assert json.loads(plain)["documents"] == []
    beams = succeed(
        "ask", question, "--bank", str(bank), "--beams", "2", "--max-new-tokens", "4"
    ).stdout
    assert "people.txt (ada)" in beams and " ms" in beams


def test_the_prompt_asks_until_an_empty_line(world: World, documents: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents, "rag")
    result = succeed("ask", "--bank", str(bank), input="Who wrote it?\nHow many kinds of tea?\n\n")
    assert result.stdout.count("confidence") == 2
    assert succeed("ask", "--bank", str(bank), input="").stdout.count("confidence") == 0


def test_verify_lists_damage_with_status_1(world: World, documents: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents)
    data = bytearray(bank.read_bytes())
    found = json.loads(succeed("inspect", str(bank), "--documents", "--json").stdout)["list"]
    at = data.index(b"ada") if b"ada" in data else len(data) - sum(r["bytes"] for r in found)
    data[at] ^= 0xFF
    bank.write_bytes(data)
    result = run("verify", str(bank), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["damage"]
    assert run("verify", str(documents)).exit_code == 1  # no bank at all
    assert refuse("verify", str(tmp_path / "none.bank"))


def test_delete_refuses_ids_that_are_not_there(
    world: World, documents: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "a.bank"
    write_bank(world, bank, documents, "rag")
    assert "nobody" in refuse("delete", "ada", "nobody", "--bank", str(bank))
    assert documents_in(bank) == len(DOCUMENTS)
    out = succeed("delete", "ada", "nobody", "--bank", str(bank), "--missing-ok", "--json").stdout
    assert json.loads(out)["missing"] == ["nobody"]


def test_the_id_of_a_long_document_means_all_of_its_chunks() -> None:
    held = ["a#0", "b", "a#1", "a#b", "c#2"]
    assert find_entries(held, ["a", "d"]) == (["a#0", "a#1"], ["d"])
    assert find_entries(held, ["c#2", "a#b"]) == (["a#b", "c#2"], [])


# ---- eval, models, train, demo


def test_eval_scores_and_writes_a_record(world: World, tmp_path: Path) -> None:
    from latentbank.bench.record import predictions_path, read_record

    data, out, bank = world.data(tmp_path), tmp_path / "record.json", tmp_path / "kept.bank"
    chosen = ("--adapter", world.adapter("strata"), "--backbone", world.backbone)
    arguments = ("eval", *chosen, "--data", str(data), "--gold", "--out", str(out))
    result = json.loads(succeed(*arguments, "--bank", str(bank), "--json").stdout)
    assert result["metrics"]["gold_selected"]["value"] == 100
    assert result["metrics"]["bank_bytes"]["value"] == bank.stat().st_size
    record = read_record(out)
    assert record.method == "strata" and record.metrics["questions"].value == len(QUESTIONS)
    rows = predictions_path(out).read_text().splitlines()
    assert [json.loads(row)["question"] for row in rows] == [q["question"] for q in QUESTIONS]
    assert "exists already" in refuse(*arguments, "--bank", str(bank))
    assert documents_in(bank) == len(DOCUMENTS)
    table = succeed("eval", *chosen, "--data", str(data), "--documents", "2", "--questions", "1")
    assert "1 questions about 2 documents" in table.stdout


def test_models_lists_methods_and_presets() -> None:
    found = json.loads(succeed("models", "--json").stdout)
    methods = {row["name"]: row for row in found["methods"]}
    assert {"strata", "mac", "mbc", "rag", "none"} <= set(methods)
    assert "tiny" in methods["mac"]["presets"] and methods["mac"]["description"]
    assert [row["name"] for row in found["backbones"]] == ["smollm2-135m"]
    assert "Methods" in succeed("models").stdout


def train_arguments(world: World, data: Path, out: Path, method: str = "strata") -> list[str]:
    return [
        "train", "--method", method, "--preset", "tiny", "--backbone", world.backbone,
        "--data", str(data), "--val-data", str(data), "--out", str(out), "--steps", "4",
        "--documents-per-step", "2", "--trainer", "validate_every=2", "--config", "lora.rank=2",
    ]  # fmt: skip


def test_training_exports_an_adapter_with_a_card(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = train_arguments(world, world.data(tmp_path), out)
    result = json.loads(succeed(*arguments, "--json").stdout)
    assert set(result["metrics"]) >= {"exact_match", "f1"}
    config = json.loads((out / "adapter" / "config.json").read_text())
    assert config["config"]["lora"]["rank"] == 2 and config["config"]["lora"]["layer"] == 1
    card = (out / "adapter" / "README.md").read_text()
    for words in ("qa", "seed: 0", "F1", "from_pretrained", "licence"):
        assert words in card
    bank, source = tmp_path / "a.bank", write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    chosen = ("--adapter", str(out / "adapter"), "--backbone", world.backbone)
    succeed("write", str(source), "--bank", str(bank), *chosen)
    succeed("ask", "Who?", "--bank", str(bank))
    other = train_arguments(world, world.data(tmp_path), tmp_path / "second")
    started = succeed(*other, "--init-from", str(out / "adapter"))
    assert "tensors of" in started.stderr


def test_training_from_plain_text_makes_its_own_questions(world: World, tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "run"
    notes.mkdir()
    for i in range(12):
        text = f"The lamp number {i} of the tower was lit by Ada Finn in {1900 + i}."
        (notes / f"{i:02}.txt").write_text(text)
    arguments = train_arguments(world, notes, out)
    for option in ("--data", "--val-data"):
        at = arguments.index(option)
        del arguments[at : at + 2]
    said = succeed(*arguments, "--from-text", str(notes))
    assert "questions made from 11 pieces" in said.stderr
    config = json.loads((out / "adapter" / "config.json").read_text())
    assert config["training"]["validation_data"] == "notes:held-out"
    assert "--data or --from-text" in refuse(*arguments)
    both = [*arguments, "--from-text", str(notes), "--data", str(world.data(tmp_path))]
    assert "--data or --from-text" in refuse(*both)
    assert "no splits" in refuse(*arguments, "--from-text", str(notes), "--split", "train")
    (tmp_path / "dull.txt").write_text("nothing to ask about here")
    assert "no sentence" in refuse(*arguments, "--from-text", str(tmp_path / "dull.txt"))


def test_ctrl_c_in_training_saves_and_the_same_command_resumes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentbank.training import Trainer

    out = tmp_path / "run"
    arguments = train_arguments(world, world.data(tmp_path), out, "none")
    original = Trainer._one_step

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
        return original(self, batch)

    monkeypatch.setattr(Trainer, "_one_step", interrupted)
    said = refuse(*arguments, status=130)
    assert "step 2 of 4" in said and "resume" in said
    monkeypatch.undo()
    result = succeed(*arguments)
    assert "at step 2 of 4" in result.stderr
    assert (out / "adapter" / "adapter.safetensors").exists()
    assert "another run" in refuse(*arguments, "--seed", "5")


def test_training_refuses_unknown_settings(world: World, tmp_path: Path) -> None:
    arguments = train_arguments(world, world.data(tmp_path), tmp_path / "run")
    assert "lora.alpha" in refuse(*arguments, "--config", "lora.rnk=2")
    assert "whole number" in refuse(*arguments, "--config", "segments=many")
    assert "tiny" in refuse(*arguments, "--preset", "huge")
    assert "validate_every" in refuse(*arguments, "--trainer", "validate=1")
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.fixture(scope="session")
def long_world(backbones: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model with room for a whole paragraph in the prompt."""
    from tiny import save_backbone

    root = tmp_path_factory.mktemp("long")
    save_backbone("llama", root / "long")
    config = json.loads((root / "long" / "config.json").read_text())
    (root / "long" / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": 4096})
    )
    return make_world(root / "long", root / "adapters")


DEMO = ("demo", "--questions", "5")
PARAGRAPHS = 333


@pytest.fixture(scope="module")
def demo(
    long_world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The bank of one demo, and what it said as JSON."""
    with new_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = json.loads(succeed(*demo_of(long_world), "--json").stdout)
        kept = shutil.copy(folder / "demo.bank", tmp_path_factory.mktemp("demo"))
    return Path(kept), said


def demo_of(world: World) -> tuple[str, ...]:
    return (*DEMO, "--backbone", world.backbone, "--adapters", str(world.adapters))


def test_the_demo_writes_asks_squeezes_and_deletes(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    bank, result = demo
    assert result["written"]["documents"] == PARAGRAPHS
    readers = {"memory", "rag", "closed book"}
    for row in result["answers"]["answers"]:
        assert readers < row.keys() and row["closed book"]["documents"] == []
    assert len(result["answers"]["answers"]) == 5
    assert result["answers"]["right"].keys() == readers
    squeezed, deleted = result["squeezed"], result["deleted"]
    assert squeezed["bytes"] <= squeezed["bytes_before"] // 4
    assert len(squeezed["answers"]) == 5 and sum(squeezed["levels"].values()) > 0
    assert deleted["found_in_file_before"] and not deleted["found_in_file_after"]
    assert deleted["id"] in deleted["before"]["documents"]
    assert deleted["id"] not in deleted["after"]["documents"]
    held = documents_in(bank)
    assert held == sum(squeezed["levels"].values()) - 1
    data = load_sample()
    about = {one.text: data.documents[one.document].id for one in data.questions}
    with MemoryBank.open(bank, read_only=True) as opened:
        kept = {document_id(id) for id in opened.ids()}
    assert about[result["suggested"]] in kept, "the demo ends with a question that it can answer"
    succeed("ask", result["suggested"], "--bank", shutil.copy(bank, tmp_path / "own.bank"))


def test_the_demo_prints_as_it_goes_and_clears_only_its_own_bank(
    demo: tuple[Path, dict[str, Any]],
    long_world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo[0], "demo.bank")  # this run overwrites the bank of the first
    text = succeed(*demo_of(long_world)).stdout
    for words in ("1. Write", "2. Ask", "3. Squeeze", "4. Delete", "closed book", "they are gone"):
        assert words in text
    assert text.strip().endswith("--bank demo.bank") and "latentbank write FOLDER" in text
    (tmp_path / "demo.bank").write_text("my own notes")
    assert "not made by the demo" in refuse(*demo_of(long_world))
    assert (tmp_path / "demo.bank").read_text() == "my own notes"


def test_the_demo_says_which_adapter_is_missing(
    long_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ("demo", "--backbone", long_world.backbone)
    assert "no adapter" in refuse(*chosen, "--adapters", str(tmp_path))
    assert not (tmp_path / "demo.bank").exists()


def test_compare_prints_rows_as_they_finish_and_goes_on_where_it_stopped(
    long_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ("compare", "--questions", "2", "--documents", "3", "--backbone", long_world.backbone)
    own = ("--adapters", str(long_world.adapters), "--methods", "none,none+LoRA,strata")
    first = succeed(*chosen, *own)
    rows = [line.split()[0] for line in first.stdout.splitlines() if line.strip()]
    assert rows == ["method", "none", "none+LoRA", "strata", "3"]
    assert "row 2 of 3, about 1 min left" in first.stderr
    again = json.loads(succeed(*chosen, *own, "--json").stdout)
    assert [row["name"] for row in again["rows"]] == ["none", "none+LoRA", "strata"]
    assert all("f1" in row["metrics"] for row in again["rows"])


def test_compare_takes_every_method_that_can_answer(long_world: World) -> None:
    from latentbank.cli.compare import _all_rows, _own

    name = Path(long_world.backbone).name
    rows = _all_rows(name, _own(str(long_world.adapters), name))
    assert {"none", "none+LoRA", "rag", "rag+LoRA", "mac", "mbc", "strata"} <= set(rows)
    assert "mac" not in _all_rows(name, {})


# ---- parsing


def test_sizes() -> None:
    assert parse_size("8MiB") == parse_size("8M") == 8 * 2**20
    assert parse_size("1.5 kB") == 1500 and parse_size("10") == 10
    assert format_bytes(1536) == "1.5 KiB" and format_bytes(12) == "12 B"
    for wrong in ("", "8Q", "MiB", "-1", "0", "1e9GiB"):
        with pytest.raises(InputError):
            parse_size(wrong)


def test_pairs_become_groups() -> None:
    found = parse_pairs(["lora.rank=8", "lora.targets=kv", "entry=pooled", "segments=[4, 2]"])
    assert found == {
        "lora": {"rank": 8, "targets": "kv"}, "entry": "pooled", "segments": [4, 2],
    }  # fmt: skip
    for wrong in (["rank"], ["=1"], ["a..b=1"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]):
        with pytest.raises(InputError):
            parse_pairs(wrong)


def test_merging_checks_names_and_types() -> None:
    base = {"lora": {"rank": 16, "dropout": 0.0}, "on": False, "sizes": (1, 2)}
    merged = merge(base, {"lora": {"rank": 8}, "sizes": [3]})
    assert merged == {"lora": {"rank": 8, "dropout": 0.0}, "on": False, "sizes": [3]}
    assert merge(base, {"lora": {"dropout": 1}})["lora"]["dropout"] == 1
    assert merge(base, {"sizes": "12, 20"})["sizes"] == [12, 20]
    assert merge({"files": ()}, {"files": "a.json,b c.txt"})["files"] == ["a.json", "b c.txt"]
    with pytest.raises(UnknownNameError, match=r"lora\.rank"):
        merge(base, {"lora": {"rnk": 8}})
    for wrong in ({"lora": 3}, {"on": 1}, {"lora": {"rank": "8"}}, {"lora": {"rank": True}}):
        with pytest.raises(InputError):
            merge(base, wrong)
