"""The answers of a run that has not ended, batch by batch, so that a killed bench can go on.

Knows answers and one file of JSON lines; knows no method. The file lies apart from the records and
is removed once its record is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from latentbank.answering import Answer
from latentbank.bench.record import write_atomically
from latentbank.errors import InputError


class PartialAnswers:
    """Answers by phase of the run and number of the batch.

    A file that was written under other `settings` counts for nothing, and so does a last line that
    was cut off. `path` None keeps nothing.
    """

    def __init__(self, path: Path | None, settings: str) -> None:
        self.path = path
        self.reused = 0
        self._found: dict[tuple[str, int], list[Answer]] = {}
        if path is None:
            return
        header = json.dumps({"settings": settings})
        kept = [header]
        try:
            first, *lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError, ValueError):
            first, lines = "", []
        for line in lines if first == header else ():
            try:
                row = json.loads(line)
                answers = [_answer(item) for item in row["answers"]]
                self._found[row["phase"], row["batch"]] = answers
            except (ValueError, KeyError, TypeError):
                break
            kept.append(line)
        write_atomically(path, "".join(line + "\n" for line in kept))

    def get(self, phase: str, batch: int, count: int) -> list[Answer] | None:
        """The `count` answers of a batch, if they were kept."""
        answers = self._found.get((phase, batch))
        if answers is None or len(answers) != count:
            return None
        self.reused += count
        return answers

    def put(self, phase: str, batch: int, answers: Sequence[Answer]) -> None:
        """Appends the answers of a batch to the file. Raises InputError if that fails."""
        if self.path is None:
            return
        row = {"phase": phase, "batch": batch, "answers": [asdict(a) for a in answers]}
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}.") from error

    def remove(self) -> None:
        """Removes the file, and its folder if that is then empty."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.parent.rmdir()


def _answer(row: dict[str, object]) -> Answer:
    values = dict(row)
    documents = values.pop("documents")
    if not isinstance(documents, list):
        raise TypeError("documents must be a list")
    pairs = tuple((str(name), float(share)) for name, share in documents)
    older = values.pop("superseded", [])
    if not isinstance(older, list):
        raise TypeError("superseded must be a list")
    return Answer(documents=pairs, superseded=tuple(older), **values)  # type: ignore[arg-type]
