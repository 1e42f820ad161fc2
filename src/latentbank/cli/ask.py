"""`latentbank ask`: one question, a prompt, or a file of questions, answered from a bank.

Opens the bank for reading only, so that another process may go on writing it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.backbone.hub import check_model
from latentbank.cli.common import (
    BankPath,
    Device,
    Dtype,
    Engine,
    Json,
    Options,
    Quality,
    complete_overrides,
    console,
    notice,
    parse_pairs,
    print_json,
    quiet_libraries,
    share_processor,
)
from latentbank.cli.explain import (
    attended,
    check_explainable,
    draw_attended,
    print_attended,
)
from latentbank.cli.places import known_of, place_of
from latentbank.documents.ends import clip
from latentbank.errors import BankError, InputError

if TYPE_CHECKING:
    from latentbank.answering import Answer
    from latentbank.backbone.generate import DecodingConfig
    from latentbank.documents.conditions import Conditions
    from latentbank.model import MemoryModel

NO_ANSWER = "(no answer)"
SNIPPET = 160  # characters
NAMED = 3  # older versions that are shown to people by name
WINDOW, BATCH = 64, 16  # rows of a file that are sorted by length together; questions at a time


def ask(
    bank: BankPath,
    question: Annotated[
        str | None, typer.Argument(help="The question; without one, a prompt asks for it.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help='jsonl rows {"question": ...}; - for standard input.'),
    ] = None,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="The plain model with the same adapter.")
    ] = False,
    beams: Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 48,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Read only documents for which this holds."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Read only this source; a folder ends in /.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Read only documents from this time on.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Read only documents before this time.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="Read only what was known then.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="Where the bank's adapter lies now.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Where the bank's model lies now.")] = None,
    option: Options = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    quality: Quality = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream", help="Print the answer as it comes; as on a terminal."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw the attention to triples, layer by layer.")
    ] = False,
    explain_to: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same as a .png or .svg picture.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Ask a question about the documents of a bank."""
    if question is not None and file is not None:
        raise InputError("Give a question or --file, not both.")
    from latentbank.documents.conditions import conditions_of

    conditions = conditions_of(where or (), source, since, before, as_of)
    rows = None if file is None else read_questions(file)
    given = {
        "adapter": adapter,
        "backbone": backbone,
        "device": device,
        "dtype": dtype,
        "engine": engine,
    }
    with open_for_asking(bank, given, parse_pairs(option)) as model, _within(model, conditions):
        from latentbank.backbone.generate import DecodingConfig

        config = DecodingConfig(max_new_tokens, beams, whole_words=True)
        streamed = sys.stdout.isatty() if stream is None else stream
        if explain or explain_to is not None:
            if file is not None:
                raise InputError("--explain is for one question; leave --file out.")
            check_explainable(model, explain_to)
        explaining = Explaining(explain or explain_to is not None, explain_to)
        asker = Asker(
            model, config, not no_memory, quality, streamed and not json_output, explaining
        )
        if rows is not None:
            asker.check(rows)
            for row in asker.answer_rows(rows):
                print_json(row, indent=None)
        elif question is not None:
            asker.print(question, json_output)
        else:
            _prompt(asker, json_output)


@dataclass(frozen=True)
class QuestionRow:
    """A question, where it stands, and the id of its row, if it has one."""

    text: str
    where: str
    id: Any = None


def read_questions(file: str) -> list[QuestionRow]:
    """The rows of a jsonl file; raises InputError naming file, line and reason."""
    where = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}, line {line}: not UTF-8 text ({error.reason}).") from error
    rows: list[QuestionRow] = []
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.strip():
            rows.append(_question_row(line_text, f"{where}, line {number}"))
    if not rows:
        raise InputError(f"{where} is empty: no question was found in it.")
    return rows


def _question_row(line: str, where: str) -> QuestionRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON row: {error}.") from error
    if not isinstance(row, dict) or "question" not in row:
        raise InputError(f'{where}: expected an object such as {{"question": "..."}}.')
    text = row["question"]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: question must be a text that is not empty, got {text!r:.80}.")
    return QuestionRow(text, where, row.get("id"))


def open_for_asking(bank: str, given: dict[str, Any], changes: dict[str, Any]) -> MemoryModel:
    """The model of a bank, opened for reading."""
    from latentbank.bank import MemoryBank

    with MemoryBank.open(bank, read_only=True) as opened:  # a bad bank ends here, before a model
        named = {name: opened.get_meta(name) for name in ("adapter", "backbone")}
    named = {**named, **{name: value for name, value in given.items() if value is not None}}
    if not isinstance(named["adapter"], str) or not isinstance(named["backbone"], str):
        raise BankError(
            f"The bank {bank} does not name its adapter and backbone; "
            "give --adapter and --backbone."
        )
    quiet_libraries()
    check_model(named["backbone"])
    share_processor()
    from latentbank.model import MemoryModel

    overrides = complete_overrides(named["adapter"], named["backbone"], changes)
    return MemoryModel.open(
        bank, overrides=overrides, read_only=True, progress=notice, quick=True, **named
    )


def _within(model: MemoryModel, conditions: Conditions) -> AbstractContextManager[object]:
    """Keeps answers to the documents that are meant; raises InputError if there are none."""
    if not conditions:
        return nullcontext()
    if not model.bank.select(conditions):
        raise InputError(f"The bank {model.bank.name} holds no document with {conditions}.")
    return model.within(conditions)


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
        decoding: DecodingConfig,
        memory: bool,
        quality: str | None = None,
        streamed: bool = False,
        explaining: Explaining | None = None,
    ) -> None:
        self.explaining = explaining or Explaining()
        self.model, self.decoding, self.memory = model, decoding, memory
        self.options: dict[str, Any] = {} if quality is None else {"quality": quality}
        self.streamed = streamed

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
            answers = self.model.ask_many(
                texts, self.decoding, self.memory, batch=BATCH, **self.options
            )
            for i, row in enumerate(part):
                yield {
                    **({} if row.id is None else {"id": row.id}),
                    **self.row(row.text, answers[i]),
                }

    def row(self, question: str, answer: Answer) -> dict[str, Any]:
        """An answer as a JSON row."""
        documents = []
        for name, weight in answer.documents:
            known = known_of(name, self.model.bank.get(name))
            snippet = snippet_of(self.model.text(name), answer.text)
            documents.append({**known, "weight": round(weight, 4), "snippet": snippet})
        return {
            "question": question,
            "answer": answer.text,
            "from_memory": answer.from_memory,
            "documents": documents,
            "superseded": self._superseded(answer),
            "confidence": round(answer.confidence, 4),
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

        if self.streamed:
            answer = self._stream(question)
        else:
            answer = self.model.ask(question, self.decoding, self.memory, **self.options)
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
            typer.echo(self._introduction(answer) + (answer.text or NO_ANSWER))
        for document in row["documents"]:
            if document["snippet"]:
                console().print(f"[dim]> {escape(document['snippet'])}[/dim]")
        if row["superseded"]:
            console().print(f"[dim]{escape(_older_line(row['superseded']))}[/dim]")
        read = [place_of(document) for document in row["documents"]]
        where = ", ".join(read) if read else ("no memory" if not self.memory else "no document")
        console().print(
            f"[dim]{escape(where)}, confidence {answer.confidence:.2f}, "
            f"{1000 * answer.seconds:.0f} ms[/dim]"
        )
        if found is not None:
            print_attended(found)

    def _stream(self, question: str) -> Answer:
        """Prints the text of an answer as it comes."""
        stream = self.model.stream(question, self.decoding, self.memory, **self.options)
        begun = False
        for piece in stream:
            if not begun and stream.answer is not None:
                typer.echo(self._introduction(stream.answer), nl=False)
            begun = True
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        assert stream.answer is not None
        typer.echo("" if begun else self._introduction(stream.answer) + NO_ANSWER)
        return stream.answer

    def _introduction(self, answer: Answer) -> str:
        """What is said before an answer that was not read from the bank."""
        alone = self.memory and not answer.from_memory
        return "Not in memory. The model alone says: " if alone else ""


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


def _prompt(asker: Asker, json_output: bool) -> None:
    """Asks until an empty line or the end of the input."""
    from rich.prompt import Prompt

    screen = console(stderr=json_output)
    while True:
        try:
            question = Prompt.ask(
                "[bold]question[/bold]", console=screen, default="", show_default=False
            )
        except EOFError:
            screen.print()
            return
        if not question.strip():
            return
        try:
            asker.print(question, json_output)
        except InputError as error:  # the next question may be better
            notice(str(error))
