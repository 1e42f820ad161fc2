"""Every protocol takes every form of data, and every method of the registry in every protocol."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench_world import RAG, SHORT, Oracle, bench, dataset, oracle, records, rows, values
from latentbank.bench.plan import Row
from latentbank.bench.task import TASKS
from latentbank.cli.bench_data import load_stream
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.invented import invented_facts
from latentbank.evaluate.kb.data import synthetic_knowledge
from latentbank.evaluate.stream import by_time
from latentbank.method import METHODS
from tiny import Backbones

__all__ = ["oracle"]

COUNT = 10
OPTIONS: dict[str, dict[str, Any]] = {
    "abstain": {},
    "capacity": {"sizes": [5, 9]},
    "delete": {},
    "duplicates": {"copies": [1, 2]},
    "forgetting": {},
    "frontier-learning": {"held_out": 4, "answered": 2, "text_tokens": 300},
    "kb-qa": {"sizes": [4, 8], "asked": 4},
    "noise": {"levels": [0, 100]},
    "online-qa": {},
    "retention": {"first": 4, "every": 4},
    "scale": {"sizes": [5, 20], "asked": 2},
    "updates": {},
}


def options(task: str, folder: Path) -> dict[str, Any]:
    if task != "forgetting":
        return OPTIONS[task]
    quiz = folder / "quiz.jsonl"
    quiz.write_text('{"question": "who painted", "answer": ["Klee"]}\n')
    return {"closed_book": [str(quiz)]}


# ---- forms of data


def invented(folder: Path) -> QADataset:
    return invented_facts(COUNT)


def squad(folder: Path) -> QADataset:
    paragraphs = [
        {
            "context": row["document"],
            "qas": [
                {"id": f"{i}-{j}", "question": q["question"], "answers": [{"text": q["answer"]}]}
                for j, q in enumerate(row["questions"])
            ],
        }
        for i, row in enumerate(rows(COUNT))
    ]
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": [{"title": "Ports", "paragraphs": paragraphs}]}))
    return load_dataset(path)


def archivalqa(folder: Path) -> QADataset:
    path = folder / "archival.jsonl"
    with path.open("w") as file:
        for i, row in enumerate(rows(COUNT)):
            for q in row["questions"]:
                flat = {"para_id": f"{1_600_000 + i}_1", "para_text": row["document"], "label": 1}
                file.write(json.dumps({**flat, **q}) + "\n")
        file.write(json.dumps({**flat, **q, "para_id": "7_1", "para_text": "Too early."}) + "\n")
    return load_dataset(path, "test")


def streamingqa(folder: Path) -> QADataset:
    path = folder / "streaming.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["", "question", "answers", "text", "date"])
        for i, row in enumerate(rows(COUNT)):
            for q in row["questions"]:
                out.writerow([i, q["question"], f"{q['answer']}\\other", row["document"], "x"])
    return load_dataset(path)


def dated(folder: Path) -> QADataset:
    """Documents and times, the latest first; the questions are made."""
    path = folder / "dated.jsonl"
    with path.open("w") as file:
        for i, row in enumerate(rows(COUNT)):
            file.write(json.dumps({"document": row["document"], "time": f"20{30 - i}-01-02"}))
            file.write("\n")
    return load_stream(str(path), None, None, made=2, seed=0)


def knowledge(folder: Path) -> QADataset:
    return synthetic_knowledge(COUNT)


FORMS: dict[str, Callable[[Path], QADataset]] = {
    "squad": squad,
    "archivalqa": archivalqa,
    "streamingqa": streamingqa,
    "jsonl": lambda folder: dataset(folder, COUNT),
    "dated": dated,
    "invented": invented,
    "knowledge": knowledge,
}


def test_the_matrix_names_every_protocol() -> None:
    assert sorted(OPTIONS) == sorted(TASKS.names())


@pytest.mark.parametrize(
    ("task", "form"),
    [*((task, "jsonl") for task in OPTIONS if task not in ("capacity", "kb-qa")),
     ("capacity", "invented"), ("kb-qa", "knowledge"),
     *(("online-qa", form) for form in FORMS), ("updates", "dated"), ("abstain", "streamingqa")],
)  # fmt: skip
def test_protocols_and_forms_of_data_fit_together(
    task: str, form: str, backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    data = FORMS[form](tmp_path)
    assert len(data.documents) == COUNT
    one = bench(task, backbones, tmp_path, [RAG], options=options(task, tmp_path))
    (record,) = records(replace(one, data=data))
    assert not record.skipped
    assert values(record)["questions"] > 0 and record.data.hash == data.hash
    if form not in ("dated", "invented", "knowledge") and task in (
        "online-qa",
        "retention",
        "updates",
        "noise",
    ):
        assert values(record)["f1"] == 100, "the oracle knows what was written"


def test_a_dated_stream_is_written_in_the_order_of_time(tmp_path: Path) -> None:
    data = dated(tmp_path)
    assert [d.time for d in data.documents] == [f"20{21 + i}-01-02" for i in range(COUNT)]
    assert data.documents[0].text.startswith("Port 9 ")
    for question in data.questions:
        assert question.answers[0] in data.documents[question.document].text


def test_a_stream_without_all_dates_stays_as_it_is(tmp_path: Path) -> None:
    data = dataset(tmp_path, 2)
    assert by_time(data) is data
    for times in (("2024-01", "2024-02"), ("2025", None)):
        documents = tuple(replace(d, time=t) for d, t in zip(data.documents, times, strict=True))
        dates = replace(data, documents=documents)
        assert by_time(dates) is dates
    turned = replace(data, documents=tuple(
        replace(d, time=t) for d, t in zip(data.documents, ("2025", "2024-07"), strict=True)
    ))  # fmt: skip
    found = by_time(turned)
    assert found.documents == turned.documents[::-1]
    assert [q.document for q in found.questions] == [1 - q.document for q in turned.questions]


def test_documents_alone_need_made_questions(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"document": "Tea.", "time": "2024"}\n')
    with pytest.raises(InputError, match=r"no question to ask.*--make-questions"):
        load_stream(str(path), None, None, None, 0)
    with pytest.raises(InputError, match="question"):
        load_stream(str(path), None, None, 2, 0)


# ---- methods


def registry_rows() -> list[Row]:
    found = [
        Row(name, name, preset="tiny" if "tiny" in cls.presets else "")
        for name, cls in METHODS.items().items()
    ]
    return [*found, Row("pooled", "strata", overrides={"entry": "pooled"}, preset="tiny")]


@pytest.mark.parametrize("task", ["online-qa", "delete", "forgetting", "scale", "kb-qa"])
def test_every_method_runs_or_says_why_not(task: str, backbones: Backbones, tmp_path: Path) -> None:
    lines = registry_rows()
    assert {"cmt", "mac", "mbc", "rag", "strata", "full_context", "none"} <= {r.name for r in lines}
    settings = replace(SHORT, questions=3)
    one = bench(
        task, backbones, tmp_path, lines, settings=settings, options=options(task, tmp_path)
    )
    found = records(replace(one, data=knowledge(tmp_path)) if task == "kb-qa" else one)
    assert [record.config["name"] for record in found] == [row.name for row in lines]
    for row, record in zip(lines, found, strict=True):
        if task in ("forgetting", "frontier-learning") and row.name == "full_context":
            assert "questions have none" in record.skipped
        else:
            assert not record.skipped, f"{row.name}: {record.skipped}"
            assert values(record)["questions"] > 0
