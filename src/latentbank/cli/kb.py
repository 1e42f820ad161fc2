"""`latentbank kb`: triples out of plain text, and what a bank knows about an entity.

Knows triples, readers and banks; extracting loads no model.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.ask import open_for_asking
from latentbank.cli.common import console, count, notice, print_json
from latentbank.cli.options import BankPath, Json
from latentbank.cli.reading import DayFirst, EncodingName, Reading, SkipBad, Strict, TextColumn
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.documents.facts import Triple
    from latentbank.model import MemoryModel

__all__ = ["kb_app"]

SHOWN = 40  # entities that are listed to people

kb_app = typer.Typer(no_args_is_help=True, help="Knowledge bases: triples of text, and of a bank.")


@kb_app.command("extract")
def extract(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Texts: files, folders or -.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="A .jsonl file (default: to the screen)."),
    ] = None,
    text_column: TextColumn = None,
    dayfirst: DayFirst = None,
    encoding: EncodingName = None,
    strict: Strict = False,
    skip_bad: SkipBad = False,
) -> None:
    """Find triples in plain English text by rules, each with its sentence.

    The rows are what `latentbank write --kind triples` reads. A rule takes a whole sentence, such
    as "The founder of Acme is Ada Park." Sentences of other forms give nothing.
    """
    from latentbank.documents.extraction import SENTENCE, extract_triples
    from latentbank.documents.readers import ReadOptions

    options = ReadOptions(text_column, dayfirst=dayfirst, encoding=encoding)
    reading = Reading(paths, options, strict, skip_bad)
    found: list[Triple] = []
    texts = 0
    for document in reading.documents():
        texts += 1
        found += extract_triples(document)
    if not found:
        raise InputError(
            f"No triple was found in {count(texts, 'text')}. The rules know sentences such as "
            '"The founder of Acme is Ada Park."'
        )
    rows = [
        {
            "entity": triple.entity,
            "property": triple.property,
            "value": triple.value,
            "source": triple.source,
            **({"time": triple.time} if triple.time else {}),
            SENTENCE: triple.metadata[SENTENCE],
        }
        for triple in found
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if out is None:
        sys.stdout.write(lines)
    else:
        try:
            Path(out).write_text(lines, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror or error}.") from error
    notice(f"{count(len(rows), 'triple')} of {count(texts, 'text')}")
    reading.finish()


@kb_app.command("show")
def show(
    bank: BankPath,
    entity: Annotated[
        str | None, typer.Argument(help="The entity; without one all entities are counted.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Show what a bank holds about an entity: property, value, time and source."""
    with open_for_asking(bank, {}, {}) as model:
        held = triples_of(model)
    if not held:
        raise InputError(f"The bank {bank} holds no triple; write some with --kind triples.")
    if entity is None:
        _print_entities(Counter(row["entity"] for row in held), json_output)
        return
    wanted = _folded(entity)
    rows = [row for row in held if _folded(row["entity"]) == wanted]
    if not rows:
        near = sorted({r["entity"] for r in held if wanted in _folded(r["entity"])})[:5]
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"The bank {bank} holds no triple about {entity!r}.{hint}")
    if json_output:
        print_json(rows)
        return
    _print_rows(rows)


def triples_of(model: MemoryModel) -> list[dict[str, Any]]:
    """Every triple of a bank with its id, time, source and metadata, as JSON values."""
    from latentbank.capabilities import Knowledge
    from latentbank.documents.facts import ENTITY, PROPERTY, as_triple

    rows = []
    for entry in model.bank.entries():
        if isinstance(model.method, Knowledge):
            fact = model.method.fact(entry.id)
        elif ENTITY in entry.metadata:
            fact = as_triple(model.text(entry.id), entry.metadata)
        else:
            fact = None
        if fact is None or not fact[0]:
            continue
        more = {k: v for k, v in entry.metadata.items() if k not in (ENTITY, PROPERTY)}
        rows.append({
            "entity": fact[0], "property": fact[1], "value": fact[2], "id": entry.id,
            "time": entry.time, "source": entry.source, "metadata": more,
        })  # fmt: skip
    return rows


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _print_entities(counts: Counter[str], json_output: bool) -> None:
    if json_output:
        print_json(dict(sorted(counts.items())))
        return
    for name, number in sorted(counts.items())[:SHOWN]:
        typer.echo(f"{name}: {count(number, 'triple')}")
    if len(counts) > SHOWN:
        typer.echo(f"and {count(len(counts) - SHOWN, 'entity')} more")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=rows[0]["entity"], box=None, title_justify="left", pad_edge=False)
    shown = [name for name in ("time", "source") if any(row[name] for row in rows)]
    for name in ("property", "value", *shown):
        table.add_column(name, overflow="fold")
    for row in sorted(rows, key=lambda row: row["property"]):
        table.add_row(row["property"], row["value"], *(row[name] or "" for name in shown))
    console().print(table)
