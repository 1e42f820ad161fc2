"""A small stream with facts, a runner of it on tiny models, and an oracle in place of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from latentbank.answering import Answer
from latentbank.backbone.generate import DecodingConfig
from latentbank.bench.plan import Bench, Row
from latentbank.bench.record import Record, read_record
from latentbank.bench.runner import Watcher, run_bench
from latentbank.bench.session import Settings
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.method import Method
from tiny import Backbones

PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether", "Niels Bohr")
RAG = Row("rag", "rag", preset="tiny")
MAC = Row("mac", "mac", preset="tiny")
MBC = Row("mbc", "mbc", preset="tiny")
NONE = Row("none", "none")
CEILING = Row("full_context", "full_context")
HISTOGRAM = Row("histogram", "mbc", overrides={"form": "histogram"}, preset="tiny")
SHORT = Settings(decoding=DecodingConfig(max_new_tokens=2))


def rows(count: int = 10) -> list[dict[str, Any]]:
    """Documents with a question for a name and one for a year each."""
    return [
        {
            "document": f"Port {i} was built by {PEOPLE[i % 5]} and opened in {1800 + 7 * i}.",
            "questions": [
                {"question": f"Who built port {i}?", "answer": PEOPLE[i % 5]},
                {"question": f"When did port {i} open?", "answer": str(1800 + 7 * i)},
            ],
        }
        for i in range(count)
    ]


def write_rows(path: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def dataset(folder: Path, count: int = 10) -> QADataset:
    return load_dataset(write_rows(folder / "ports.jsonl", rows(count)))


class Notes(Watcher):
    """Keeps what the user would see."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[str] = []

    def begin(self, label: str, number: int, total: int) -> None:
        self.begun.append(label)

    def note(self, text: str) -> None:
        self.notes.append(text)


def bench(
    task: str,
    backbones: Backbones,
    folder: Path,
    lines: Sequence[Row] = (RAG,),
    count: int = 10,
    **changes: Any,
) -> Bench:
    return Bench(
        task,
        tuple(lines),
        dataset(folder, count),
        folder / "out",
        str(backbones.folder("llama")),
        **{"settings": SHORT, "dtype": "float32", "command": "test", **changes},
    )


def records(found: Bench, watcher: Watcher | None = None) -> list[Record]:
    return [read_record(path) for path in run_bench(found, watcher)]


def values(record: Record) -> dict[str, float]:
    return {name: metric.value for name, metric in record.metrics.items()}


class Oracle:
    """Answers from whatever documents the bank holds now, sure of itself; else wrongly, in doubt.

    Of two documents about the same port the one stored last counts. Needs a method that keeps text.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.stop_after: int | None = None

    def __call__(
        self,
        method: Method,
        questions: Sequence[str],
        documents: Sequence[str] | None = None,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = "best",
    ) -> list[Answer]:
        if self.stop_after is not None and self.calls >= self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        entries = list(method.require_bank().entries())
        texts = method.texts.decode(entries) if entries else []  # type: ignore[attr-defined]
        held = list(zip((e.id for e in entries), texts, strict=True))
        return [self._one(question, held if memory else [], documents) for question in questions]

    def _one(
        self, question: str, held: list[tuple[str, str]], documents: Sequence[str] | None
    ) -> Answer:
        number = "".join(c for c in question if c.isdigit())
        for name, text in reversed(held):
            if text.startswith(f"Port {number} "):
                person, _, year = text.partition(" built by ")[2].partition(" and opened in ")
                said = person if question.startswith("Who") else year.rstrip(".")
                return Answer(said, ((name, 1.0),), 0.9, 0.01, 0.01)
        return Answer("no idea", (), 0.1, 0.01, 0.01)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    found = Oracle()
    monkeypatch.setattr("latentbank.answering.asking.answer_batch", found)
    return found
