"""Files of questions and answers without documents: NQ-open, TriviaQA, WebQuestions and the like.

jsonl: rows of `question` and `answer` or `answers`. json: a list of such rows, or of WebQuestions'
`qText` and `answers`. Tab-separated: a question and a Python list (DPR's topics, Karpukhin et al.
2020). Knows these layouts; knows no model.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.formats import Row, json_lines, read_bytes

_QUESTION, _ANSWERS = ("question", "qText"), ("answers", "answer")


def load_questions(path: Path) -> QADataset:
    """A dataset without documents, named after the file; `document` of each question is 0.

    Raises InputError naming file, line and reason.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a file of questions and answers.")
    questions = tuple(
        Question(str(row.get("id", f"q{i}")), *_fields(row, place), 0)
        for i, (row, place) in enumerate(_rows(path))
    )
    if not questions:
        raise InputError(f"{path} is empty: no question was found in it.")
    return QADataset(path.stem, (), questions)


def _rows(path: Path) -> Iterator[tuple[Row, str]]:
    raw = read_bytes(path)
    if path.suffix.lower() == ".json" and raw.lstrip()[:1] == b"[":
        yield from _json_list(raw, path)
    elif raw.lstrip()[:1] == b"{":
        yield from json_lines(raw, str(path))
    else:
        yield from _tab_separated(raw, path)


def _json_list(raw: bytes, path: Path) -> Iterator[tuple[Row, str]]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{path} line {line}: malformed JSON ({error}).") from error
    for i, row in enumerate(content):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {i} is not a JSON object.")
        yield row, f"{path}: row {i}"


def _tab_separated(raw: bytes, path: Path) -> Iterator[tuple[Row, str]]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: not UTF-8 text ({error.reason}).") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    for cells in reader:
        place = f"{path} line {reader.line_num}"
        if not cells:
            continue
        if len(cells) != 2:
            raise InputError(f"{place}: expected a question, a tab and a list of answers.")
        try:
            answers = ast.literal_eval(cells[1])
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise InputError(f"{place}: the answers are not a list of texts.") from error
        yield {"question": cells[0], "answers": answers}, place


def _fields(row: Row, place: str) -> tuple[str, tuple[str, ...]]:
    question = next((row[name] for name in _QUESTION if name in row), None)
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{place}: question missing.")
    answers: Any = next((row[name] for name in _ANSWERS if name in row), None)
    items = [answers] if isinstance(answers, str) else answers
    if not isinstance(items, list) or not items:
        raise InputError(f"{place}: answers missing.")
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise InputError(f"{place}: an answer is empty or not a text.")
    return question, tuple(items)
