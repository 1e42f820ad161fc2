"""Question-answer data for training and evaluation: documents, questions, the papers' splits.

Knows no model, no tokenizer and no bank. The file formats are in formats.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from latentbank.documents.document import Document
from latentbank.errors import InputError, unknown
from latentbank.evaluate.formats import Row, hub_rows, json_lines, paper_csv, read_bytes, squad_json

# Question indices of train-v1.1.json in file order, as in CaMeLS, MAC and MBC.
SQUAD_TRAIN_SPLITS: Mapping[str, tuple[int, int]] = {
    "qa_lt": (0, 40_006),
    "qa_lt_val": (40_006, 42_118),
    "train": (42_118, 82_011),
    "val": (82_011, 87_599),
}
SQUAD_ONLINE_DOCUMENTS = 1_665  # contexts of dev-v1.1.json in the papers' online adaptation test
# Article-id cuts that approximate the papers' years; a split ends before its cut.
ARCHIVALQA_CUTS: Mapping[str, float] = {
    "qa_lt": 412_275,
    "qa_lt_val": 580_095,
    "train": 1_354_862,
    "val": 1_546_355,
    "test": float("inf"),
}
_TEXT_FIELDS = ("document", "text", "context", "para_text")


@dataclass(frozen=True)
class Question:
    """One question about one document.

    `answers` holds every accepted answer; training uses the first. It is `("",)` for a question
    that SQuAD 2 marks as unanswerable. `document` is an index into `QADataset.documents`.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    document: int


@dataclass(frozen=True)
class QADataset:
    """Documents (unique texts, in order of first appearance) and questions (in file order)."""

    name: str
    documents: tuple[Document, ...]
    questions: tuple[Question, ...]

    @functools.cached_property
    def hash(self) -> str:
        """32 hex digits (blake2b-16) over texts, times, sources and questions, not the name."""
        digest = hashlib.blake2b(digest_size=16)
        for document in self.documents:
            fields = [document.text, document.time, document.source]
            digest.update(json.dumps(fields).encode() + b"\n")
        for question in self.questions:
            row = [question.id, question.text, question.answers, question.document]
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def take(self, documents: int) -> QADataset:
        """The first `documents` documents (all, if there are fewer) with their questions.

        Raises InputError if `documents` is below 1.
        """
        if documents < 1:
            raise InputError(f"The number of documents must be at least 1, got {documents}.")
        if documents >= len(self.documents):
            return self
        kept = tuple(question for question in self.questions if question.document < documents)
        return replace(self, documents=self.documents[:documents], questions=kept)

    def sample_questions(self, n: int, seed: int) -> QADataset:
        """All documents with `n` questions drawn by `seed` (all, if there are fewer).

        The drawn questions keep their order in the file. Raises InputError if `n` is below 1.
        """
        if n < 1:
            raise InputError(f"The number of questions must be at least 1, got {n}.")
        if n >= len(self.questions):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.questions)), n))
        return replace(self, questions=tuple(self.questions[index] for index in chosen))

    def questions_by_document(self) -> list[list[int]]:
        """For each document, the indices into `questions` of those that ask about it."""
        groups: list[list[int]] = [[] for _ in self.documents]
        for index, question in enumerate(self.questions):
            groups[question.document].append(index)
        return groups


def held_out(data: QADataset, share: float) -> tuple[QADataset, QADataset | None]:
    """(data of the first documents, data of the last `share` of them), each with its questions.

    Where either part would have no questions: (all data, None).
    """
    first = len(data.documents) - max(1, round(share * len(data.documents)))
    late = tuple(
        replace(question, document=question.document - first)
        for question in data.questions
        if question.document >= first
    )
    if first < 1 or not late or len(late) == len(data.questions):
        return data, None
    return data.take(first), QADataset(f"{data.name}:held-out", data.documents[first:], late)


def load_dataset(spec: str | Path, split: str | None = None) -> QADataset:
    """Loads question-answer data from a file, a folder or `hf:name[:config]:split`.

    - A folder holds `train-v1.1.json` and `dev-v1.1.json` of SQuAD (Rajpurkar et al. 2016,
      https://arxiv.org/abs/1606.05250). `split` is one of `qa_lt`, `qa_lt_val`, `train`, `val`,
      `test`, `test-online`: the splits of CaMeLS (Hu et al. 2023,
      https://arxiv.org/abs/2305.15076), MAC and MBC.
    - A .json file is SQuAD v1.1 or 2.
    - A .csv file has the columns `question`, `answers` (joined by a backslash) and `text`.
    - A .jsonl file has rows with a text in `document`, `text` or `context`. A row may have a
      `question` with `answer` or `answers`, or a list `questions` of such. `time` and `source`
      belong to the document. ArchivalQA (Wang et al. 2022) is such a file; its `split` goes by
      article id.

    Only `hf:` may use the network.

    Raises:
        InputError: the sentence names the file, the line and the reason.
        UnknownNameError: an unknown split or format.
    """
    if str(spec).startswith("hf:"):
        _refuse_split(spec, split, "the split is part of hf:name:split")
        return _build(str(spec), hub_rows(str(spec)), spec)
    path = Path(spec)
    if path.is_dir():
        return _load_squad_folder(path, split)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a file (.json, .jsonl, .csv) or folder.")
    format = path.suffix.lower()
    if format == ".jsonl":
        return _load_jsonl(path, split)
    if format == ".json":
        _refuse_split(path, split, "name the folder that holds train-v1.1.json and dev-v1.1.json")
        return _build(path.stem, squad_json(path), path)
    if format == ".csv":
        _refuse_split(path, split, "the papers keep one csv per split")
        return _build(path.stem, paper_csv(path), path)
    raise unknown("data format", path.suffix or path.name, (".json", ".jsonl", ".csv"))


def load_sample() -> QADataset:
    """The packaged sample of SQuAD v1.1 dev (CC BY-SA 4.0, see samples/ATTRIBUTION.md)."""
    file = resources.files("latentbank") / "samples" / "squad_sample.jsonl"
    return _build("squad-sample", json_lines(file.read_bytes(), file.name), file.name)


def _load_jsonl(path: Path, split: str | None) -> QADataset:
    rows = json_lines(read_bytes(path), str(path))
    if split is None:
        return _build(path.stem, rows, path)
    if split not in ARCHIVALQA_CUTS:
        raise unknown("split", split, ARCHIVALQA_CUTS)
    kept = ((row, place) for row, place in rows if _archivalqa_split(row, place) == split)
    return _build(f"{path.stem}:{split}", kept, f"split {split} of {path}")


def _archivalqa_split(row: Row, place: str) -> str:
    """The split of an ArchivalQA row: the first one whose cut is above its article id."""
    if "para_id" not in row:
        raise InputError(f"{place}: a split needs ArchivalQA's para_id, which is missing.")
    try:
        article = int(str(row["para_id"]).split("_")[0])
    except ValueError as error:
        raise InputError(f"{place}: para_id {row['para_id']!r} has no article number.") from error
    return next(name for name, cut in ARCHIVALQA_CUTS.items() if article < cut)


def _load_squad_folder(path: Path, split: str | None) -> QADataset:
    known = [*SQUAD_TRAIN_SPLITS, "test", "test-online"]
    if split is None:
        raise InputError(f"{path} is a folder: name a split, one of {', '.join(known)}.")
    if split not in known:
        raise unknown("split", split, known)
    file = path / ("train-v1.1.json" if split in SQUAD_TRAIN_SPLITS else "dev-v1.1.json")
    if not file.is_file():
        raise InputError(f"{path} holds no {file.name}, which split {split!r} needs.")
    name = f"{path.resolve().name}:{split}"
    if split in SQUAD_TRAIN_SPLITS:
        return _build(name, _question_range(file, name, *SQUAD_TRAIN_SPLITS[split]), file)
    data = _build(name, squad_json(file), file)
    if split == "test":
        return data
    count, needed = len(data.documents), SQUAD_ONLINE_DOCUMENTS
    if count < needed:
        raise InputError(f"{file} has {count} contexts; test-online needs {needed}.")
    return data.take(documents=needed)


def _question_range(file: Path, name: str, start: int, stop: int) -> Iterator[tuple[Row, str]]:
    """Paragraphs with the questions number `start` to `stop` - 1, in file order."""
    position = 0
    for row, place in squad_json(file):
        first, position = position, position + len(row["questions"])
        kept = row["questions"][max(start - first, 0) : max(stop - first, 0)]
        if kept:
            yield {**row, "questions": kept}, place
    if position < stop:
        raise InputError(f"{file} has {position} questions; {name} needs {stop}.")


def _refuse_split(spec: str | Path, split: str | None, reason: str) -> None:
    if split is not None:
        raise InputError(f"{spec} takes no split, got {split!r}: {reason}.")


def _build(name: str, rows: Iterable[tuple[Row, str]], origin: str | Path) -> QADataset:
    builder = _Builder()
    for row, place in rows:
        builder.add_row(row, place)
    if not builder.documents:
        raise InputError(f"{origin} is empty: no document was found in it.")
    return QADataset(name, tuple(builder.documents), tuple(builder.questions))


class _Builder:
    """Collects one document per distinct text, and questions with unique ids."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.questions: list[Question] = []
        self._index_by_text: dict[str, int] = {}
        self._index_by_id: dict[str, int] = {}
        self._question_ids: set[str] = set()

    def add_row(self, row: Row, place: str) -> None:
        """Adds a row of one of three kinds.

        A row with one question: its `id` is the question's. A row with a list `questions`, or with
        no question at all: its `id` is the document's.
        """
        field = next((name for name in _TEXT_FIELDS if row.get(name) is not None), None)
        if field is None:
            raise InputError(f"{place}: document missing (expected {', '.join(_TEXT_FIELDS)}).")
        text = _non_empty(row[field], "document", place)
        if not row.keys() & {"questions", "question", "answers", "answer"}:
            self._add_document(row, text, row.get("id"), place)
            return
        if "questions" not in row:
            self._add_question(row, self._add_document(row, text, None, place), place)
            return
        items = row["questions"]
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise InputError(f"{place}: questions must be a list of objects.")
        index = self._add_document(row, text, row.get("id"), place)
        for item in items:
            self._add_question(item, index, place)

    def _add_document(self, row: Row, text: str, id: Any, place: str) -> int:
        if text in self._index_by_text:
            return self._index_by_text[text]
        time, source = row.get("time"), row.get("source", row.get("title"))
        try:
            document = Document(text, _text_or_none(id), _text_or_none(time), _text_or_none(source))
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        index = self._index_by_id.get(document.id)
        if index is not None and id is not None:
            raise InputError(f"{place}: document id {document.id!r} is used by another text.")
        if index is None:  # else the texts differ only in white space
            index = self._index_by_id[document.id] = len(self.documents)
            self.documents.append(document)
        self._index_by_text[text] = index
        return index

    def _add_question(self, row: Row, document: int, place: str) -> None:
        id = f"q{len(self.questions)}" if row.get("id") is None else str(row["id"])
        if id in self._question_ids:
            raise InputError(f"{place}: question id {id!r} appears twice.")
        self._question_ids.add(id)
        text = _non_empty(row.get("question"), "question", place)
        answers = _answers(row.get("answers", row.get("answer")), place)
        self.questions.append(Question(id, text, answers, document))


def _answers(value: Any, place: str) -> tuple[str, ...]:
    """Answers from a text, a list of texts, SQuAD's objects or Hugging Face's {"text": [...]}."""
    if isinstance(value, Mapping):
        value = value.get("text")
        if value == []:
            return ("",)  # unanswerable, as in SQuAD 2's evaluation
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise InputError(f"{place}: answers missing.")
    texts = [item.get("text") if isinstance(item, Mapping) else item for item in items]
    return tuple(_non_empty(text, "answer", place) for text in texts)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _non_empty(value: Any, what: str, place: str) -> str:
    if not isinstance(value, str):
        state = "missing" if value is None else f"of type {type(value).__name__}, not a text"
        raise InputError(f"{place}: {what} {state}.")
    if not value.strip():
        raise InputError(f"{place}: {what} empty.")
    return value
