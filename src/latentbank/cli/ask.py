"""`latentbank ask`: one question, a prompt, or a file of questions, answered from a bank.

Opens the bank for reading only, so that another process may go on writing it.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.backbone.hub import check_model
from latentbank.cli.answers import Asker, Explaining, QuestionRow
from latentbank.cli.common import (
    complete_overrides,
    console,
    notice,
    parse_pairs,
    print_json,
    quiet_libraries,
    share_processor,
)
from latentbank.cli.explain import check_explainable
from latentbank.cli.options import (
    AdapterPlace,
    AsOf,
    BankPath,
    Device,
    Dtype,
    Engine,
    Json,
    ModelPlace,
    Options,
    Quality,
)
from latentbank.errors import BankError, InputError, unknown

if TYPE_CHECKING:
    from latentbank.documents.conditions import Conditions
    from latentbank.model import MemoryModel


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
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer in tokens; 48, or by style.", show_default=False),
    ] = None,
    style: Annotated[
        str, typer.Option(help="short: a few words; sentence: a whole one; chat: with sources.")
    ] = "short",
    abstain_at: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Say 'not in memory' so often that at most this share of unanswerable questions "
            "gets an answer: 0.05.",
        ),
    ] = None,
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
    as_of: AsOf = None,
    adapter: AdapterPlace = None,
    backbone: ModelPlace = None,
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
    with open_for_asking(bank, given, parse_pairs(option)) as model, within(model, conditions):
        from latentbank.answering.chat.chat import STYLES, TOKENS
        from latentbank.backbone.generate import DecodingConfig

        if style not in STYLES:
            raise unknown("style", style, STYLES)
        config = None
        if style == "short" or beams > 1 or max_new_tokens is not None:
            config = DecodingConfig(max_new_tokens or TOKENS[style], beams, whole_words=True)
        streamed = sys.stdout.isatty() if stream is None else stream
        if explain or explain_to is not None:
            if file is not None:
                raise InputError("--explain is for one question; leave --file out.")
            check_explainable(model, explain_to)
        explaining = Explaining(explain or explain_to is not None, explain_to)
        streamed = streamed and not json_output
        asker = Asker(
            model, config, not no_memory, quality, streamed, explaining, style, abstain_at
        )
        if rows is not None:
            asker.check(rows)
            for row in asker.answer_rows(rows):
                print_json(row, indent=None)
        elif question is not None:
            asker.print(question, json_output)
        else:
            _prompt(asker, json_output)


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


def within(model: MemoryModel, conditions: Conditions) -> AbstractContextManager[object]:
    """Keeps answers to the documents that are meant; raises InputError if there are none."""
    if not conditions:
        return nullcontext()
    if not model.bank.select(conditions):
        raise InputError(f"The bank {model.bank.name} holds no document with {conditions}.")
    return model.within(conditions)


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
