"""A tiny random model, untrained adapters and the command line, for the tests of the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner, Result

import latentbank

DOCUMENTS = [
    {"id": "ada", "text": "Ada Lovelace wrote the first program in 1843.", "source": "people.txt"},
    {
        "id": "oslo",
        "text": "The harbour of Oslo froze in the winter of 1924.",
        "time": "2024-01-01",
    },
    {"id": "tea", "text": "Café Zürich serves 17 kinds of tea."},
    {"id": "bees", "text": "Bees dance to tell the hive where the clover is."},
]
QUESTIONS = [
    {"question": "Who wrote the first program?", "answer": "Ada Lovelace"},
    {"question": "When did the harbour of Oslo freeze?", "answer": "1924"},
    {"question": "How many kinds of tea are served?", "answer": "17"},
    {"question": "What do bees tell the hive?", "answer": "where the clover is"},
]
METHODS = ("strata", "mac", "mbc", "none", "rag")
START = "from latentbank.cli import main; main()"


@dataclass(frozen=True)
class World:
    """Folders of a model and of adapters named METHOD-MODEL."""

    backbone: str
    adapters: Path

    def adapter(self, method: str) -> str:
        return str(self.adapters / f"{method}-{Path(self.backbone).name}")

    def data(self, folder: Path) -> Path:
        """A jsonl of question-answer rows, in the form that `train` and `eval` take."""
        rows = [
            {"text": d["text"], "question": q["question"], "answer": q["answer"]}
            for d, q in zip(DOCUMENTS, QUESTIONS, strict=True)
        ]
        return write_jsonl(folder / "qa.jsonl", rows)


def make_world(backbone: Path, adapters: Path) -> World:
    """One untrained adapter of each method for the model in the folder `backbone`, saved once."""
    if adapters.exists():
        return World(str(backbone), adapters)
    from latentbank.adapter import build_method, save_adapter
    from latentbank.backbone.model import load_backbone

    for method in METHODS:
        loaded = load_backbone(str(backbone), dtype="float32")
        save_adapter(
            adapters / f"{method}-{backbone.name}", build_method(method, loaded, preset="tiny")
        )
    return World(str(backbone), adapters)


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """The environment of a process that runs the command line of this checkout."""
    source = str(Path(latentbank.__file__).parents[1])
    path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(*arguments: str, input: str | None = None) -> Result:
    """The command line in this process; nothing but SystemExit may come out of it."""
    from latentbank.cli import app

    result = CliRunner().invoke(app, list(arguments), input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def succeed(*arguments: str, input: str | None = None) -> Result:
    """As `run`; the exit status must be 0."""
    result = run(*arguments, input=input)
    assert result.exit_code == 0, result.stderr
    return result


def refuse(*arguments: str, input: str | None = None, status: int = 2) -> str:
    """As `run`; returns the one sentence that the command fails with."""
    result = run(*arguments, input=input)
    return sentence(result.exit_code, result.stderr, status)


def sentence(code: int, stderr: str, status: int = 2) -> str:
    """The error's sentence; there must be exactly one, the right status and no traceback."""
    assert code == status, f"exit status {code}: {stderr}"
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr and "internal error" not in stderr, stderr
    return lines[0].removeprefix("error: ")


def documents_in(bank: Path) -> int:
    """The number of documents of a bank without damage."""
    report = json.loads(succeed("verify", str(bank), "--json").stdout)
    assert report["ok"], report
    return int(report["documents"])


def start(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    """The command line in a process of its own; `before` is Python that runs first."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{START}", *arguments],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
