"""Answers on the screen and as JSON, with the sources from the bank's ledger.

Knows answers and terminals; opens no bank.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from latentbank.cli.common import console, print_json, progress_bar
from latentbank.cli.explain import attended, draw_attended, print_attended
from latentbank.cli.places import known_of, place_of
from latentbank.documents.ends import clip

if TYPE_CHECKING:
    from latentbank.answering import Answer
    from latentbank.answering.chat import ChatAnswer, ChatStream
    from latentbank.backbone.generate import DecodingConfig
    from latentbank.model import MemoryModel

NO_ANSWER = "(no answer)"
NOT_IN_MEMORY = "Not in memory."
SNIPPET = 160  # characters
NAMED = 3  # older versions that are shown to people by name
WINDOW, BATCH = 1024, 16  # rows of a file that are ordered together; questions at a time


@dataclass(frozen=True)
class QuestionRow:
    """A question, where it stands, and the id of its row, if it has one."""

    text: str
    where: str
    id: Any = None


@dataclass(frozen=True)
class Explaining:
    """Whether the attention to triples is shown, and the picture that it is drawn into."""

    shown: bool = False
    picture: str | None = None


class Asker:
    """Questions to answers as JSON rows, with the sources from the bank's ledger."""

    def __init__(
        self,
        model: MemoryModel,
        decoding: DecodingConfig | None,
        memory: bool,
        quality: str | None = None,
        streamed: bool = False,
        explaining: Explaining | None = None,
        style: str = "short",
        abstain_at: float | None = None,
    ) -> None:
        self.style, self.abstain_at = style, abstain_at
        self.explaining = explaining or Explaining()
        self.model, self.decoding, self.memory = model, decoding, memory
        self.options: dict[str, Any] = {} if quality is None else {"quality": quality}
        self.streamed = streamed and abstain_at is None  # what is not said is not shown before

    def check(self, rows: list[QuestionRow]) -> None:
        """Raises InputError for a question that is empty or longer than the context window."""
        from latentbank.answering import check_questions

        texts, places = [row.text for row in rows], [row.where for row in rows]
        check_questions(self.model.backbone, texts, self.decoding, places)

    def answer_rows(self, rows: list[QuestionRow]) -> Iterator[dict[str, Any]]:
        """One JSON row for each question, in order."""
        for at in range(0, len(rows), WINDOW):
            part = rows[at : at + WINDOW]
            texts = [row.text for row in part]
            if self.style != "short":
                for row in part:
                    told = chat_row(row.text, self._chat(row.text))
                    yield {**({} if row.id is None else {"id": row.id}), **told}
                continue
            answers = self._answers(texts)
            for i, row in enumerate(part):
                yield {
                    **({} if row.id is None else {"id": row.id}),
                    **self.row(row.text, answers[i]),
                }

    def _answers(self, questions: list[str]) -> dict[int, Answer]:
        """Answers by the position of the question; a bar on a terminal tells how many there are."""
        options = {"batch": BATCH, **self._asked()}
        found: dict[int, Answer] = {}
        with progress_bar() if len(questions) > BATCH else nullcontext() as bar:
            task = bar.add_task("asking", total=len(questions)) if bar else None
            for answers in self.model.answers(questions, self.decoding, self.memory, **options):
                found |= answers
                if bar and task is not None:
                    bar.update(task, advance=len(answers))
        return found

    def _asked(self) -> dict[str, Any]:
        return {**self.options, "abstain_at": self.abstain_at}

    def _chat(self, question: str) -> ChatAnswer:
        answer: ChatAnswer = self.model.chat(
            question, style=self.style, decoding=self.decoding, memory=self.memory, **self._asked()
        )
        return answer

    def row(self, question: str, answer: Answer) -> dict[str, Any]:
        """An answer as a JSON row."""
        documents = []
        for name, weight in answer.documents:
            known = known_of(name, self.model.bank.get(name))
            snippet = snippet_of(self.model.text(name), answer.text)
            documents.append({**known, "weight": round(weight, 4), "snippet": snippet})
        return {
            "question": question,
            "answer": None if answer.abstained else answer.text,
            "from_memory": answer.from_memory,
            "abstained": answer.abstained,
            "documents": documents,
            "superseded": self._superseded(answer),
            "confidence": round(answer.confidence, 4),
            **_probability(answer.probability),
        }

    def _superseded(self, answer: Answer) -> list[dict[str, Any]]:
        """Id and time of each older version of what was read, newest first."""
        from latentbank.documents.identity import document_id

        older: dict[str, str | None] = {}
        for name in answer.superseded:
            entry = self.model.bank.get(name)
            older.setdefault(document_id(name), None if entry is None else entry.time)
        return [{"id": id, "time": time} for id, time in older.items()]

    def print(self, question: str, json_output: bool) -> None:
        """Answers one question and prints it."""
        from rich.markup import escape

        if self.style != "short":
            self._print_chat(question, json_output)
            return
        if self.streamed:
            answer = self._stream(question)
        else:
            answer = self.model.ask(question, self.decoding, self.memory, **self._asked())
        row = self.row(question, answer)
        found = attended(self.model) if self.explaining.shown and self.memory else None
        if found is not None:
            row["attention"] = found
            if self.explaining.picture is not None:
                draw_attended(found, question, answer.text, self.explaining.picture)
        if json_output:
            print_json({**row, "milliseconds": round(1000 * answer.seconds, 1)})
            return
        if not self.streamed:
            text = NOT_IN_MEMORY if answer.abstained else answer.text or NO_ANSWER
            typer.echo(introduction(answer, self.memory) + text)
        for document in row["documents"]:
            if document["snippet"]:
                console().print(f"[dim]> {escape(document['snippet'])}[/dim]")
        if row["superseded"]:
            console().print(f"[dim]{escape(_older_line(row['superseded']))}[/dim]")
        read = [place_of(document) for document in row["documents"]]
        where = ", ".join(read) if read else ("no memory" if not self.memory else "no document")
        sure = f"confidence {answer.confidence:.2f}"
        if answer.probability is not None:
            sure += f" (right {100 * answer.probability:.0f} % of the time)"
        console().print(f"[dim]{escape(where)}, {sure}, {1000 * answer.seconds:.0f} ms[/dim]")
        if found is not None:
            print_attended(found)

    def _print_chat(self, question: str, json_output: bool) -> None:
        """Answers one question in the style that was asked for, and prints it."""
        if json_output or not self.streamed:
            answer = self._chat(question)
        else:
            stream = self.model.chat(
                question,
                style=self.style,
                decoding=self.decoding,
                memory=self.memory,
                stream=True,
                **self._asked(),
            )
            answer = print_stream(stream, self.memory)
        if json_output:
            row = chat_row(question, answer)
            print_json({**row, "milliseconds": round(1000 * answer.seconds, 1)})
            return
        if not self.streamed:
            typer.echo(introduction(answer, self.memory) + (answer.text or NO_ANSWER))
        print_sources(answer)

    def _stream(self, question: str) -> Answer:
        """Prints the text of an answer as it comes."""
        stream = self.model.stream(question, self.decoding, self.memory, **self.options)
        begun = False
        for piece in stream:
            if not begun and stream.answer is not None:
                typer.echo(introduction(stream.answer, self.memory), nl=False)
            begun = True
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        assert stream.answer is not None
        typer.echo("" if begun else introduction(stream.answer, self.memory) + NO_ANSWER)
        return stream.answer


def introduction(answer: Answer | ChatAnswer, memory: bool) -> str:
    """What is said before an answer that was not read from the bank."""
    alone = memory and not answer.from_memory and not answer.abstained
    return "Not in memory. The model alone says: " if alone else ""


def print_stream(stream: ChatStream, memory: bool) -> ChatAnswer:
    """Prints the text of an answer as it comes."""
    begun = False
    for piece in stream:
        if not begun and stream.answer is not None:
            typer.echo(introduction(stream.answer, memory), nl=False)
        begun = True
        typer.echo(piece, nl=False)
        sys.stdout.flush()
    assert stream.answer is not None
    typer.echo("" if begun else introduction(stream.answer, memory) + NO_ANSWER)
    return stream.answer


def print_sources(answer: ChatAnswer) -> None:
    """The documents below an answer: those that it names, or all that were read."""
    from rich.markup import escape

    named = [one for one in answer.citations if one.cited]
    for one in named or answer.citations:
        known = {"id": one.id, "source": one.source, "time": one.time, "title": one.title}
        place = place_of(known)
        line = f"[{one.number}] {place}: {one.snippet}" if one.snippet else place
        console().print(f"[dim]{escape(line)}[/dim]")


def chat_row(question: str, answer: ChatAnswer) -> dict[str, Any]:
    """An answer of a conversation as a JSON row."""
    return {
        "question": question,
        "understood": answer.question,
        "answer": None if answer.abstained else answer.text,
        "from_memory": answer.from_memory,
        "abstained": answer.abstained,
        "documents": [
            {
                "number": one.number,
                "id": one.id,
                "title": one.title,
                "source": one.source,
                "time": one.time,
                "snippet": one.snippet,
                "cited": one.cited,
            }
            for one in answer.citations
        ],
        "superseded": list(answer.superseded),
        "confidence": round(answer.confidence, 4),
        "trimmed": answer.trimmed,
    }


def _probability(value: float | None) -> dict[str, float]:
    return {} if value is None else {"probability": round(value, 4)}


def snippet_of(text: str, answer: str) -> str:
    """The part of a text that holds the answer, or its beginning; one line of 160 characters."""
    line = " ".join(text.split())
    at = line.lower().find(answer.lower().strip(" .")) if answer.strip(" .") else -1
    start = line.rfind(". ", 0, at) + 2 if at > 80 and ". " in line[:at] else 0
    return clip(line[start:], SNIPPET)


def _older_line(older: list[dict[str, Any]]) -> str:
    """The older versions for people: the first three by name, the others by their number."""
    names = [f"{one['id']}, {one['time']}" if one["time"] else one["id"] for one in older]
    more = f"; {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"supersedes {'; '.join(names[:NAMED])}{more}"
