"""Loading question-answer data: every format, the papers' splits, and what a bad file says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latentbank.errors import InputError, UnknownNameError
from latentbank.evaluate import data
from latentbank.evaluate.data import QADataset, load_dataset, load_sample


def squad(*paragraphs: tuple[str, int], prefix: str = "id") -> dict[str, Any]:
    """SQuAD json, one article per paragraph (context, number of questions)."""
    articles, number = [], 0
    for context, count in paragraphs:
        questions = []
        for _ in range(count):
            answers = [{"text": f"a{number}", "answer_start": 0}]
            questions.append(
                {"id": f"{prefix}{number}", "question": f"Q{number}?", "answers": answers}
            )
            number += 1
        articles.append(
            {"title": f"T {context}", "paragraphs": [{"context": context, "qas": questions}]}
        )
    return {"version": "1.1", "data": articles}


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQuAD folder of 10 + 4 questions, with the papers' cuts scaled down to it."""
    cuts = {"qa_lt": (0, 3), "qa_lt_val": (3, 4), "train": (4, 8), "val": (8, 10)}
    monkeypatch.setattr(data, "SQUAD_TRAIN_SPLITS", cuts)
    monkeypatch.setattr(data, "SQUAD_ONLINE_DOCUMENTS", 2)
    root = tmp_path / "squad"
    root.mkdir()
    # Context A comes back at the end: unique contexts in order of first appearance.
    train = squad(("A", 2), ("B", 3), ("C", 3), ("A", 2), prefix="t")
    write_json(root / "train-v1.1.json", train)
    write_json(root / "dev-v1.1.json", squad(("X", 1), ("Y", 1), ("Z", 1), ("X", 1), prefix="d"))
    return root


def summary(dataset: QADataset) -> tuple[list[str], list[tuple[str, int]]]:
    texts = [document.text for document in dataset.documents]
    return texts, [(question.id, question.document) for question in dataset.questions]


@pytest.mark.parametrize(
    ("split", "texts", "questions"),
    [
        ("qa_lt", ["A", "B"], [("t0", 0), ("t1", 0), ("t2", 1)]),
        ("qa_lt_val", ["B"], [("t3", 0)]),
        ("train", ["B", "C"], [("t4", 0), ("t5", 1), ("t6", 1), ("t7", 1)]),
        ("val", ["A"], [("t8", 0), ("t9", 0)]),
        ("test", ["X", "Y", "Z"], [("d0", 0), ("d1", 1), ("d2", 2), ("d3", 0)]),
        ("test-online", ["X", "Y"], [("d0", 0), ("d1", 1), ("d3", 0)]),
    ],
)
def test_paper_splits(
    folder: Path, split: str, texts: list[str], questions: list[tuple[str, int]]
) -> None:
    dataset = load_dataset(folder, split)
    assert dataset.name == f"squad:{split}"
    assert summary(dataset) == (texts, questions)


def test_squad_file_keeps_titles_and_answers(tmp_path: Path) -> None:
    content = squad(("A", 1))
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [{"text": "x"}, {"text": "y z"}]
    dataset = load_dataset(write_json(tmp_path / "dev.json", content))
    assert dataset.name == "dev"
    assert dataset.documents[0].source == "T A"
    assert dataset.questions[0] == data.Question("id0", "Q0?", ("x", "y z"), 0)


def test_squad2_unanswerable_question(tmp_path: Path) -> None:
    content = squad(("A", 2))
    content["data"][0]["paragraphs"][0]["qas"][1].update(is_impossible=True, answers=[])
    dataset = load_dataset(write_json(tmp_path / "dev.json", content))
    assert [question.answers for question in dataset.questions] == [("a0",), ("",)]


def test_paper_csv(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    long = "word " * 40_000  # longer than the csv module takes by default
    path.write_text(
        ',question,answers,text\n0,"Who, then?",Ann\\Bob,"A ""quoted""\ntext"\n'
        f"1,When?,1998,{long}\n2,Why?,so,one\u2028document\n",
        encoding="utf-8",
    )
    dataset = load_dataset(path)
    assert dataset.documents[0].text == 'A "quoted"\ntext'
    assert dataset.questions[0].answers == ("Ann", "Bob")
    assert dataset.questions[1].document == 1
    assert dataset.documents[2].text == "one\u2028document"


def test_jsonl_rows_of_every_kind(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "qa.jsonl",
        {"document": "A", "question": "1?", "answer": "x"},
        {"text": "B", "question": "2?", "answers": ["y", "z"], "id": 7, "time": 2024},
        {"context": "A", "question": "3?", "answers": {"text": ["w"], "answer_start": [0]}},
        {"text": "C", "id": "c", "source": "s", "questions": [{"question": "4?", "answer": "v"}]},
        {"text": "D", "questions": []},
    )
    dataset = load_dataset(path)
    texts, questions = summary(dataset)
    assert texts == ["A", "B", "C", "D"]
    assert questions == [("q0", 0), ("7", 1), ("q2", 0), ("q3", 2)]
    assert [q.answers for q in dataset.questions] == [("x",), ("y", "z"), ("w",), ("v",)]
    assert dataset.documents[1].time == "2024"
    assert (dataset.documents[2].id, dataset.documents[2].source) == ("c", "s")
    assert dataset.questions_by_document() == [[0, 2], [1], [3], []]


def test_texts_that_differ_in_outer_white_space_are_one_document(tmp_path: Path) -> None:
    rows = [{"text": text, "question": "?", "answer": "x"} for text in ("A b", "A b ", "A b")]
    dataset = load_dataset(write_lines(tmp_path / "qa.jsonl", *rows))
    assert [question.document for question in dataset.questions] == [0, 0, 0]
    assert len(dataset.documents) == 1


@pytest.mark.parametrize(
    ("split", "articles"),
    [("qa_lt", [412_274]), ("qa_lt_val", [412_275]), ("train", [1_354_861]), ("val", [1_354_862])],
)
def test_archivalqa_splits_by_article(tmp_path: Path, split: str, articles: list[int]) -> None:
    known = (412_274, 412_275, 1_354_861, 1_354_862, 1_546_355)
    rows = [
        {
            "id": f"n{i}",
            "question": "?",
            "answer": "x",
            "para_id": f"{i}_3",
            "para_text": f"text {i}",
        }
        for i in known
    ]
    path = write_lines(tmp_path / "archival.jsonl", *rows)
    assert [d.text for d in load_dataset(path, split).documents] == [f"text {i}" for i in articles]
    assert [d.text for d in load_dataset(path, "test").documents] == ["text 1546355"]
    assert len(load_dataset(path).documents) == len(known)


def test_hugging_face_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, ...], str]] = []
    row = {"id": "1", "title": "T", "context": "A", "question": "?", "answers": {"text": ["x"]}}

    def fake(*name: str, split: str) -> list[dict[str, object]]:
        asked.append((name, split))
        if name == ("gone",):
            raise FileNotFoundError("no such dataset")
        return [row]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fake))
    dataset = load_dataset("hf:squad:validation")
    assert dataset.documents[0].source == "T"
    assert dataset.questions[0].answers == ("x",)
    load_dataset("hf:user/set:en:train")
    assert asked == [(("squad",), "validation"), (("user/set", "en"), "train")]
    with pytest.raises(InputError, match="no such dataset"):
        load_dataset("hf:gone:train")
    with pytest.raises(InputError, match="hf:name:split"):
        load_dataset("hf:squad")
    with pytest.raises(InputError, match="takes no split"):
        load_dataset("hf:squad:validation", "val")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", r"a\.jsonl is empty"),
        ("a.jsonl", b'{"text": "A", "question": "?", "answer": "x"}\n{oops\n', "line 2: malformed"),
        ("a.jsonl", b'\n{"text": "A", "question": "?"}\n', "line 2: answers missing"),
        ("a.jsonl", b'{"text": "A", "question": "?", "answers": []}', "line 1: answers missing"),
        ("a.jsonl", b'{"text": "A", "question": "?", "answer": " "}', "line 1: answer empty"),
        ("a.jsonl", b'{"text": "A", "question": "?", "answers": [3]}', "answer of type int"),
        ("a.jsonl", b'{"text": "A", "answer": "x"}', "line 1: question missing"),
        ("a.jsonl", b'{"question": "?", "answer": "x"}', "line 1: document missing"),
        ("a.jsonl", b'{"text": " ", "question": "?", "answer": "x"}', "line 1: document empty"),
        ("a.jsonl", b'{"text": "\\ud800", "question": "?", "answer": "x"}', "line 1: .*surrogate"),
        ("a.jsonl", b'{"text": "A", "questions": "?"}', "line 1: questions must be a list"),
        ("a.jsonl", b"[1]", "line 1: expected a JSON object, got list"),
        ("a.jsonl", b'{"text": "ok"\xff}', "line 1: not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: malformed"),
        ("a.json", b'{"data": [\n}', "line 2: malformed"),
        ("a.json", b"{}", "list `data`"),
        ("a.json", b'{"data": []}', "no document"),
        ("a.json", b'{"data": [{"title": "T"}]}', r"data\[0\] is not a SQuAD article"),
        ("a.json", b'{"data": [{"paragraphs": [{"context": "A", "qas": [3]}]}]}', r"data\[0\]"),
        ("a.json", b'\n\n"\xff"', "line 3: not UTF-8"),
        ("a.csv", b"question,answer,text\n", "line 1: missing columns: answers"),
        ("a.csv", b"question,answers,text\n", "no document"),
        ("a.csv", b"question,answers,text\n?,x,A\n?,\\,B\n", "line 3: answers missing"),
        ("a.csv", b"question,answers,text\n?,x\n", "line 2: document missing"),
        ("a.csv", b'question,answers,text\n"?,x,A\n?,x,B\n', "line 3: document missing"),
    ],
)
def test_bad_files_are_named_with_line_and_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        load_dataset(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    row = {"text": "A", "question": "?", "answer": "x", "id": "1"}
    with pytest.raises(InputError, match="line 2: question id '1' appears twice"):
        load_dataset(write_lines(tmp_path / "a.jsonl", row, row))
    rows = [{"text": text, "id": "d", "questions": []} for text in "AB"]
    with pytest.raises(InputError, match="line 2: document id 'd'"):
        load_dataset(write_lines(tmp_path / "b.jsonl", *rows))


def test_unknown_split_and_format_list_the_known(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"qa_lt, qa_lt_val, test, test-online, train, val"):
        load_dataset(folder, "tset")
    with pytest.raises(InputError, match="name a split, one of qa_lt"):
        load_dataset(folder)
    with pytest.raises(InputError, match="takes no split"):
        load_dataset(folder / "dev-v1.1.json", "test")
    path = write_lines(tmp_path / "a.jsonl", {"text": "A", "question": "?", "answer": "x"})
    with pytest.raises(InputError, match="para_id, which is missing"):
        load_dataset(path, "train")
    with pytest.raises(UnknownNameError, match="Known: qa_lt"):
        load_dataset(path, "dev")
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(UnknownNameError, match=r"\.csv, \.json, \.jsonl"):
        load_dataset(tmp_path / "a.xml")
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(tmp_path / "missing.jsonl")


def test_squad_folder_that_is_too_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SQUAD_TRAIN_SPLITS", {"val": (8, 11)})
    monkeypatch.setattr(data, "SQUAD_ONLINE_DOCUMENTS", 4)
    with pytest.raises(InputError, match="has 10 questions; squad:val needs 11"):
        load_dataset(folder, "val")
    with pytest.raises(InputError, match="has 3 contexts; test-online needs 4"):
        load_dataset(folder, "test-online")
    (folder / "train-v1.1.json").unlink()
    with pytest.raises(InputError, match=r"holds no train-v1\.1\.json"):
        load_dataset(folder, "val")


def test_take_and_sample(folder: Path) -> None:
    dataset = load_dataset(folder, "test")
    taken = dataset.take(documents=2)
    assert summary(taken) == (["X", "Y"], [("d0", 0), ("d1", 1), ("d3", 0)])
    assert dataset.take(documents=99) is dataset
    drawn = dataset.sample_questions(3, seed=1)
    assert drawn.documents == dataset.documents
    assert len(set(drawn.questions)) == 3
    assert list(drawn.questions) == [q for q in dataset.questions if q in drawn.questions]
    assert drawn == dataset.sample_questions(3, seed=1)
    assert len({dataset.sample_questions(2, seed=s).questions for s in range(20)}) > 1
    assert dataset.sample_questions(4, seed=1) is dataset
    with pytest.raises(InputError):
        dataset.take(documents=0)
    with pytest.raises(InputError):
        dataset.sample_questions(0, seed=1)


def test_hash_follows_the_contents_not_the_name(tmp_path: Path) -> None:
    rows = [{"text": text, "question": "?", "answer": "x"} for text in "AB"]
    first = load_dataset(write_lines(tmp_path / "a.jsonl", *rows))
    same = load_dataset(write_lines(tmp_path / "b.jsonl", *rows))
    assert first.hash == same.hash
    assert len(first.hash) == 32
    for change in ({"text": "C"}, {"answer": "y"}, {"question": "!"}, {"source": "s"}, {"id": "9"}):
        path = write_lines(tmp_path / "c.jsonl", rows[0], {**rows[1], **change})
        assert load_dataset(path).hash != first.hash, change


def test_shipped_sample() -> None:
    sample = load_sample()
    assert len(sample.documents) == 333
    assert len(sample.questions) >= 320
    assert {len(group) for group in sample.questions_by_document()} == {1, 2}
    assert len({document.source for document in sample.documents}) > 30
    assert all(answer for question in sample.questions for answer in question.answers)
    for question in sample.questions:
        assert all(
            answer in sample.documents[question.document].text for answer in question.answers
        )


def test_import_is_light() -> None:
    code = (
        "import sys, latentbank, latentbank.evaluate.data, latentbank.evaluate.metrics;"
        "import latentbank.bench.report.page;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(
    not (Path(os.environ.get("LATENTBANK_DATA", "/nonexistent")) / "squad_v1.1").is_dir(),
    reason="LATENTBANK_DATA does not name a folder with squad_v1.1",
)
@pytest.mark.parametrize(
    ("split", "documents", "questions"),
    [("train", 8_628, 39_893), ("val", 1_170, 5_588), ("test-online", 1_665, 8_669)],
)
def test_real_squad_splits(split: str, documents: int, questions: int) -> None:
    dataset = load_dataset(Path(os.environ["LATENTBANK_DATA"]) / "squad_v1.1", split)
    assert (len(dataset.documents), len(dataset.questions)) == (documents, questions)


def test_documents_without_questions_and_times(tmp_path: Path) -> None:
    rows = [
        {"document": "A", "time": "2024-01-01", "question": "?", "answer": "x"},
        {"document": "B", "time": "2024-02-01", "id": "b"},
    ]
    data = load_dataset(write_lines(tmp_path / "dated.jsonl", *rows))
    assert [(d.text, d.time) for d in data.documents] == [("A", "2024-01-01"), ("B", "2024-02-01")]
    assert data.documents[1].id == "b"
    assert len(data.questions) == 1
    (tmp_path / "dated.csv").write_text("time,question,answers,text\n2024,?,x\\y,A\n,?,z,B\n")
    data = load_dataset(tmp_path / "dated.csv")
    assert [d.time for d in data.documents] == ["2024", None]
    assert data.questions[0].answers == ("x", "y")
