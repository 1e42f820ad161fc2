"""`latentbank chat`: a conversation about the documents of a bank.

Opens the bank for reading only. A line is a message; the history stays until `/new`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from latentbank.cli.answers import (
    NO_ANSWER,
    chat_row,
    introduction,
    print_sources,
    print_stream,
)
from latentbank.cli.ask import open_for_asking, within
from latentbank.cli.common import console, count, notice, parse_pairs, print_json, share_processor
from latentbank.cli.options import (
    AdapterPlace,
    AsOf,
    Device,
    Dtype,
    Engine,
    Json,
    ModelPlace,
    Options,
    Quality,
)
from latentbank.errors import InputError, unknown

HELP = "A line is a message. /new begins a new conversation, an empty line or Ctrl-D ends."


def chat(
    bank: Annotated[str, typer.Argument(metavar="BANK", help="The bank's file.")],
    style: Annotated[
        str, typer.Option(help="chat: with sources; sentence: a whole one; short: a few words.")
    ] = "chat",
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before all else.")
    ] = None,
    read_documents: Annotated[
        int, typer.Option(min=1, help="Most documents that are read together for an answer.")
    ] = 3,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer in tokens; by style.")
    ] = None,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="The plain model.")] = False,
    as_of: AsOf = None,
    abstain_at: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="As for ask: at most this share of false answers."),
    ] = None,
    adapter: AdapterPlace = None,
    backbone: ModelPlace = None,
    option: Options = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    quality: Quality = None,
    json_output: Json = False,
) -> None:
    """Talk about the documents of a bank; answers name their sources."""
    share_processor()
    from latentbank.answering.chat.chat import STYLES
    from latentbank.documents.conditions import conditions_of

    if style not in STYLES:
        raise unknown("style", style, STYLES)
    conditions = conditions_of((), None, None, None, as_of)
    given = {
        "adapter": adapter,
        "backbone": backbone,
        "device": device,
        "dtype": dtype,
        "engine": engine,
    }
    with open_for_asking(bank, given, parse_pairs(option)) as model, within(model, conditions):
        from latentbank.backbone.generate import DecodingConfig

        decoding = None
        if max_new_tokens is not None:
            decoding = DecodingConfig(max_new_tokens, whole_words=True)
        begin = [{"role": "system", "content": system}] if system else []
        messages, trimmed = list(begin), 0
        for line in _lines(json_output):
            if line == "/new":
                messages, trimmed = list(begin), 0
                continue
            asked = [*messages, {"role": "user", "content": line}]
            try:
                stream = model.chat(
                    asked,
                    style=style,
                    stream=True,
                    decoding=decoding,
                    memory=not no_memory,
                    read_documents=read_documents,
                    abstain_at=abstain_at,
                    **({} if quality is None else {"quality": quality}),
                )
                if json_output or not sys.stdout.isatty():
                    for _ in stream:
                        pass
                    answer = stream.answer
                    assert answer is not None
                else:
                    answer = print_stream(stream, not no_memory)
            except InputError as error:  # the next message may be better
                if json_output:
                    print_json({"question": line, "error": str(error)}, indent=None)
                notice(str(error))
                continue
            if answer.trimmed > trimmed:
                notice(
                    f"the oldest {count(answer.trimmed, 'message')} no longer fit into the "
                    "model's context and were left out"
                )
            trimmed = answer.trimmed
            if json_output:
                print_json(chat_row(line, answer), indent=None)
            else:
                if not sys.stdout.isatty():
                    typer.echo(introduction(answer, not no_memory) + (answer.text or NO_ANSWER))
                print_sources(answer)
            messages = [*asked, {"role": "assistant", "content": answer.text}]


def _lines(json_output: bool) -> Iterator[str]:
    """What is typed, or the lines of standard input."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if line.strip():
                yield line.strip()
        return
    from rich.prompt import Prompt

    screen = console(stderr=json_output)
    notice(HELP)
    while True:
        try:
            line = Prompt.ask("[bold]you[/bold]", console=screen, default="", show_default=False)
        except EOFError:
            screen.print()
            return
        if not line.strip():
            return
        yield line.strip()
