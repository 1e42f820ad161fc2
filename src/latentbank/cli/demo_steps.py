"""The steps of `latentbank demo`: write, ask, squeeze, delete. Each prints as it goes.

Knows `MemoryModel` and a dataset; loads nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.cli.common import count, format_bytes, progress_bar
from latentbank.errors import BankError

if TYPE_CHECKING:
    from latentbank.answering import Answer
    from latentbank.documents.document import Document
    from latentbank.evaluate.data import QADataset, Question
    from latentbank.model import MemoryModel

BANK = "demo.bank"
SQUEEZE = 4  # the second round has a budget of one part in so many
LONGEST = 10  # tokens of an answer
BATCH = 8  # documents between two steps of the progress bar


@dataclass(frozen=True)
class Reader:
    """A way to answer: a model with its bank, or the same model closed book."""

    label: str
    model: MemoryModel
    closed: bool = False

    def ask(self, question: str) -> Answer:
        """One answer of at most `LONGEST` tokens."""
        from latentbank.backbone.generate import DecodingConfig

        return self.model.ask(question, DecodingConfig(LONGEST), memory=not self.closed)


class Tour:
    """The steps of the demo. Each prints as it goes, and returns its numbers as JSON values."""

    def __init__(
        self,
        say: Callable[[str], None],
        memory: MemoryModel,
        data: QADataset,
        asked: Sequence[Question],
    ) -> None:
        self.say, self.memory, self.data, self.asked = say, memory, data, asked
        self.answered: list[tuple[Question, Answer]] = []  # by the memory, in the latest round

    def write(self, readers: Sequence[Reader]) -> dict[str, Any]:
        """Writes the paragraphs into the bank of every reader that has one."""
        documents = self.data.documents
        self.say(f"[bold]1. Write[/bold] {count(len(documents), 'paragraph')} of {self.data.name}")
        began = time.perf_counter()
        with progress_bar("note") as bar:
            for reader in readers:
                if not reader.closed:
                    task = bar.add_task(f"writing, {reader.label}", total=len(documents), note="")
                    reader.model.write(
                        documents,
                        BATCH,
                        lambda _, read, task=task: bar.update(task, completed=read),  # type: ignore[misc]
                    )
                    bar.update(task, completed=len(documents))
        text = sum(len(document.text.encode()) for document in documents)
        size = self.memory.footprint().total
        self.say(
            f"   {BANK} holds them in {format_bytes(size)}, {size / len(documents):.0f} bytes each."
            f" Their plain text has {format_bytes(text)}."
        )
        return {
            "documents": len(documents),
            "text_bytes": text,
            "bank_bytes": size,
            "seconds": round(time.perf_counter() - began, 3),
        }

    def ask(self, readers: Sequence[Reader]) -> dict[str, Any]:
        """Asks the questions one by one; a tick marks an answer that holds an expected one."""
        self.say(
            f"\n[bold]2. Ask[/bold] {count(len(self.asked), 'question')}, one by one; ✓ marks an "
            "answer that holds one of the expected ones"
        )
        return self._round(readers)

    def squeeze(self, readers: Sequence[Reader]) -> dict[str, Any]:
        """Gives the same bank a fraction of its size, and asks the same questions."""
        from latentbank.capabilities import fade_of

        bank, method = self.memory.bank, self.memory.method
        before = self.memory.footprint().total
        self.say(
            f"\n[bold]3. Squeeze[/bold] the same bank from {format_bytes(before)} to a budget of "
            f"{format_bytes(before // SQUEEZE)}, and ask again"
        )
        try:
            report = bank.rebudget(before // SQUEEZE, fade=fade_of(method))
        except BankError as error:  # too few documents for so small a file
            self.say(f"   Not possible here: {error}")
            return {"bytes_before": before, "bytes": before, "answers": []}
        method.bind(bank)
        levels = Counter(entry.level for entry in map(bank.get, bank.ids()) if entry is not None)
        kept = ", ".join(f"{number} {level}" for level, number in levels.most_common())
        size = self.memory.footprint().total
        self.say(
            f"   {format_bytes(size)}: {count(len(bank), 'document')} kept ({kept}), "
            f"{len(report.forgotten)} forgotten."
        )
        return {
            "bytes_before": before,
            "bytes": size,
            "levels": dict(levels),
            "forgotten": len(report.forgotten),
            **self._round(readers),
        }

    def _round(self, readers: Sequence[Reader]) -> dict[str, Any]:
        from latentbank.evaluate.metrics import contains_answer

        right: Counter[str] = Counter()
        rows = []
        self.answered = []
        for number, question in enumerate(self.asked, start=1):
            expected = shown(question.answers[0])
            self.say(f"\n{number:>4}. {shown(question.text)}  [dim]expected: {expected}[/dim]")
            row: dict[str, Any] = {"question": question.text, "expected": question.answers[0]}
            for reader in readers:
                answer = reader.ask(question.text)
                good = bool(contains_answer(answer.text, question.answers))
                right[reader.label] += good
                row[reader.label] = self._row(answer, good)
                self.say(self._line(reader, answer, good))
                if reader.model is self.memory and not reader.closed:
                    self.answered.append((question, answer))
            rows.append(row)
        told = ", ".join(f"{one.label} {right[one.label]}" for one in readers)
        self.say(f"\n   Right answers of {len(self.asked)}: {told}.")
        return {"right": {one.label: right[one.label] for one in readers}, "answers": rows}

    def _row(self, answer: Answer, good: bool) -> dict[str, Any]:
        return {
            "answer": answer.text,
            "right": good,
            "documents": [id for id, _ in answer.documents],
            "milliseconds": round(1000 * answer.seconds, 1),
        }

    def _line(self, reader: Reader, answer: Answer, good: bool) -> str:
        mark = "[green]✓[/green]" if good else "[red]✗[/red]"
        where = ""
        if answer.documents:
            first = answer.documents[0][0]
            where = f"from {shown(self._document(first).source or '')} ({first}), "
        elif not reader.closed:
            where = "not in memory, the model's own, "
        text = shown(answer.text or "(no answer)")
        note = f"[dim]{where}{1000 * answer.seconds:.0f} ms[/dim]"
        return f"      {reader.label:<12}{mark} {text}  {note}"

    def _document(self, entry: str) -> Document:
        """The paragraph that an entry was written from; a long one has several, ID#0 and so on."""
        known = {document.id: document for document in self.data.documents}
        return known[entry if entry in known else entry.rpartition("#")[0]]

    def delete(self, reader: Reader) -> dict[str, Any]:
        """Deletes the document of a right answer and looks for its bytes in the file."""
        from latentbank.evaluate.metrics import contains_answer

        self.say("\n[bold]4. Delete[/bold] a document and look for it")
        question, answer = self._about_a_kept_document(reader)
        entry = self.memory.bank.get(answer.documents[0][0]) if answer.documents else None
        if entry is None:
            self.say("   No answer came from a document that is still there.")
            return {}
        document = self._document(entry.id)
        stored = self._in_file(entry.payload)
        receipt = self.memory.delete([document.id])
        kept = self._in_file(entry.payload) or self._in_file(document.text.encode())
        again = reader.ask(question.text)
        self.say(f"   {document.id}: “{shown(document.text[:72])}…”")
        self.say(
            f"   Before: its {len(entry.payload)} bytes are {'' if stored else 'not '}in {BANK}. "
            f"After: {'still there' if kept else 'they are gone, and so is the plain text'}."
        )
        self.say(f"   The receipt names state {receipt.before[:12]} → {receipt.after[:12]}.")
        self.say(f"   {shown(question.text)}")
        for when, one in (("before", answer), ("after", again)):
            where = one.documents[0][0] if one.documents else "no document"
            self.say(f"      {when:<7}{shown(one.text or '(no answer)')}  [dim]{where}[/dim]")
        return {
            "id": document.id,
            "found_in_file_before": stored,
            "found_in_file_after": kept,
            "question": question.text,
            "before": self._row(answer, True),
            "after": self._row(again, bool(contains_answer(again.text, question.answers))),
        }

    def _about_a_kept_document(self, reader: Reader) -> tuple[Question, Answer]:
        """A question that a document of the bank answered, with its answer.

        A right answer if there is one, else that of a further question about a held document.
        """
        from latentbank.evaluate.metrics import contains_answer

        read = [(question, answer) for question, answer in self.answered if answer.documents]
        read.sort(key=lambda pair: -contains_answer(pair[1].text, pair[0].answers))
        if read:
            return read[0]
        held = set(self.memory.bank.ids())
        ids = [document.id for document in self.data.documents]
        others = [one for one in self.data.questions if ids[one.document] in held][:5]
        for question in others or self.asked[:1]:
            answer = reader.ask(question.text)
            if answer.documents:
                break
        return question, answer

    def suggestion(self) -> str | None:
        """A question to go on with, whose document the bank still holds.

        One that was answered right in the latest round if there is one. None if the bank is empty.
        """
        from latentbank.evaluate.metrics import contains_answer

        held = {self._document(id).id for id in self.memory.bank.ids()}
        for question, answer in self.answered:
            good = contains_answer(answer.text, question.answers)
            if good and answer.documents and self._document(answer.documents[0][0]).id in held:
                return question.text
        ids = [document.id for document in self.data.documents]
        others = (one.text for one in self.data.questions if ids[one.document] in held)
        return next(others, None)

    def _in_file(self, part: bytes) -> bool:
        """Whether the bank's file, or the log beside it, holds these bytes."""
        self.memory.footprint()  # brings the log into the file
        files = (Path(BANK), Path(f"{BANK}-wal"))
        return any(part in file.read_bytes() for file in files if file.exists())


def shown(text: str) -> str:
    """A text on one line, safe for rich."""
    from rich.markup import escape

    return escape(" ".join(text.split()))
