"""The file formats of question-answer data, read into plain rows.

Each reader yields (row, place), where place names the file and line for error messages. Knows no
data sets, splits or documents; data.py turns rows into those.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentbank.errors import InputError

Row = Mapping[str, Any]


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises InputError if it is unreadable or blank."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not raw.strip():
        raise InputError(f"{path} is empty.")
    return raw


def json_lines(raw: bytes, name: str) -> Iterator[tuple[Row, str]]:
    """Each JSON object of a jsonl file; blank lines are skipped.

    Raises InputError with the number of a line that is not UTF-8 or no JSON object.
    """
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{name} line {number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not UTF-8 text ({error.reason}).") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{place}: malformed JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected a JSON object, got {type(row).__name__}.")
        yield row, place


def paper_csv(path: Path) -> Iterator[tuple[Row, str]]:
    r"""The rows of the papers' csv: `question`, `answers` joined by a backslash, `text`.

    CaMeLS, MAC and MBC use this layout for StreamingQA, SQuAD and ArchivalQA. A column `time` is
    kept; other columns are ignored.
    """
    text = _decode(read_bytes(path), path)
    # The default limit refuses a document above 131,072 characters.
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = {"question", "answers", "text"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path} line 1: missing columns: {', '.join(sorted(missing))}.")
        for row in reader:
            answers = [part for part in (row["answers"] or "").split("\\") if part.strip()]
            fields = {"text": row["text"], "question": row["question"], "answers": answers}
            fields |= {"time": row["time"]} if row.get("time") else {}
            yield fields, f"{path} line {reader.line_num}"
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: malformed csv ({error}).") from error
    finally:
        csv.field_size_limit(limit)


def squad_json(path: Path) -> Iterator[tuple[Row, str]]:
    """The paragraphs of a SQuAD v1.1 or 2 file as rows with a list `questions`.

    A question that SQuAD 2 marks as impossible has the answers `{"text": []}`.
    """
    try:
        content = json.loads(_decode(read_bytes(path), path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {error.lineno}: malformed JSON ({error.msg}).") from error
    except RecursionError as error:
        raise InputError(f"{path}: malformed JSON (nested too deeply).") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise InputError(f"{path}: expected SQuAD json with a list `data`.")
    for i, article in enumerate(content["data"]):
        try:
            rows = [_squad_row(article, paragraph) for paragraph in article["paragraphs"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: data[{i}] is not a SQuAD article ({error}).") from error
        for j, row in enumerate(rows):
            yield row, f"{path}: data[{i}].paragraphs[{j}]"


def hub_rows(spec: str) -> Iterator[tuple[Row, str]]:
    """The rows of the Hugging Face data set `hf:name[:config]:split`; may use the network."""
    parts = spec.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"{spec!r} is not hf:name:split or hf:name:config:split.")
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{spec} needs the package datasets: pip install datasets.") from error
    *name, split = parts
    try:
        rows = datasets.load_dataset(*name, split=split)
    except (OSError, ValueError) as error:
        raise InputError(f"{spec} cannot be loaded: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield row, f"{spec} row {number}"


def _squad_row(article: Row, paragraph: Row) -> Row:
    questions = []
    for item in paragraph["qas"]:
        answers = {"text": []} if item.get("is_impossible") else item.get("answers")
        questions.append(
            {"id": item.get("id"), "question": item.get("question"), "answers": answers}
        )
    return {"text": paragraph["context"], "source": article.get("title"), "questions": questions}


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: not UTF-8 text ({error.reason}).") from error
