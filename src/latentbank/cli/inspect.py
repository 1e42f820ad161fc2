"""`latentbank inspect`: what a bank is, what it holds and what its bytes are.

Loads a model only for `--surprise` and `--token-weights`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import console, format_bytes, print_json
from latentbank.cli.options import Json
from latentbank.cli.places import list_documents, print_documents

if TYPE_CHECKING:
    from latentbank.bank import MemoryBank

BankArgument = Annotated[str, typer.Argument(metavar="BANK", help="The bank's file.")]


def inspect(
    bank: BankArgument,
    documents: Annotated[
        bool, typer.Option("--documents", "-d", help="List every document of the bank.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="List only documents for which this holds: year=2020."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="List at most so many entries.")
    ] = None,
    surprise: Annotated[
        str | None,
        typer.Option(
            metavar="DOCUMENT",
            help="A text file: how surprising its tokens are to the memory. Loads the model.",
        ),
    ] = None,
    token_weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Colour a text by how much its tokens are learned."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Show the method, adapter, model, documents and bytes of a bank."""
    from latentbank.bank import MemoryBank

    if surprise is not None:
        show_surprise(bank, surprise, json_output)
        return
    if token_weights is not None:
        from latentbank.cli.token_weights import show_weights

        show_weights(bank, token_weights, json_output)
        return

    with MemoryBank.open(bank, read_only=True) as opened:
        summary = describe(opened)
        listed = documents or bool(where) or limit is not None
        rows = list_documents(opened, where or (), limit) if listed else []
    if json_output:
        print_json({**summary, **({"list": rows} if listed else {})})
        return
    _print(summary, rows, limit)


def describe(bank: MemoryBank) -> dict[str, Any]:
    """A bank's summary as JSON values."""
    from latentbank.bank.words.folder import index_bytes

    levels: Counter[str] = Counter()
    for page in bank.pages():
        levels[page.level] += page.count
    footprint, count = bank.footprint(), len(bank)
    fingerprint = bank.fingerprint
    parts = ("codes", "codebook", "state", "keys", "ledger", "index", "overhead", "total")
    return {
        "bank": bank.name,
        "method": fingerprint.method,
        "adapter": bank.get_meta("adapter"),
        "backbone": bank.get_meta("backbone"),
        "overrides": bank.get_meta("overrides") or {},
        "fingerprints": {
            "adapter": fingerprint.adapter,
            "backbone": fingerprint.backbone,
            "tokenizer": fingerprint.tokenizer,
        },
        "documents": count,
        "budget_bytes": bank.budget_bytes,
        "ledger": bank.settings.ledger,
        "policy": bank.settings.policy,
        "root_hash": bank.root_hash(),
        "free_bytes": footprint.free,
        "bytes": {name: getattr(footprint, name) for name in parts},
        "word_index_bytes": index_bytes(bank.name),
        "bytes_per_document": round(footprint.total / count, 2) if count else None,
        "levels": dict(levels),
    }


def show_surprise(bank: str, document: str, json_output: bool) -> None:
    """Prints the surprise of each token of a text file; the bank is not changed.

    Raises:
        InputError: the method of the bank measures no surprise, or the file cannot be read as text.
    """
    from rich.text import Text

    from latentbank.capabilities import Surprised
    from latentbank.documents.readers.read import read_documents
    from latentbank.errors import InputError
    from latentbank.model import MemoryModel

    text = "\n\n".join(one.text for one in read_documents([document]))
    model = MemoryModel.open(bank, read_only=True)
    if not isinstance(model.method, Surprised):
        raise InputError(
            f"method '{model.method.name}' of bank {bank} measures no surprise; use a bank of a "
            "method with a neural memory"
        )
    found = model.method.surprise(text)
    if json_output:
        print_json({"bank": bank, "surprise": [{"token": t, "value": v} for t, v in found]})
        return
    screen, values = console(), [value for _, value in found]
    mean, most = sum(values) / len(values), max(values)
    line = Text()
    for token, value in found:
        share = value / most if most else 0.0
        line.append(token, style="bold red" if share > 0.8 else "yellow" if share > 0.6 else "")
    screen.print(line)
    ranked = sorted(range(len(values)), key=lambda i: -values[i])[:5]
    for i in ranked:
        screen.print(f"{values[i]:8.3f}  token {i}", Text(repr(found[i][0])))
    screen.print(f"mean {mean:.3f}, largest {most:.3f}, {len(values):,} tokens")


def _print(summary: dict[str, Any], rows: list[dict[str, Any]], limit: int | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    for name in ("bank", "method", "adapter", "backbone"):
        screen.print(f"{name:<12}{escape(str(summary[name]))}")
    for name, value in summary["overrides"].items():
        screen.print(f"{'option':<12}{escape(f'{name}={value}')}")
    levels = ", ".join(f"{number:,} {level}" for level, number in summary["levels"].items())
    screen.print(f"{'documents':<12}{summary['documents']:,}" + (f" ({levels})" if levels else ""))
    budget = summary["budget_bytes"]
    screen.print(f"{'budget':<12}{'none' if budget is None else format_bytes(budget)}")
    screen.print(f"{'ledger':<12}{summary['ledger']}")
    screen.print(f"{'policy':<12}{escape(summary['policy'])}")
    table = Table("component", "bytes", "bytes/document", box=None, header_style="dim")
    for name, size in summary["bytes"].items():
        each = f"{size / summary['documents']:.1f}" if summary["documents"] else "-"
        table.add_row(name, f"{size:,}", each)
    for column in table.columns[1:]:
        column.justify = "right"
    screen.print(table)
    if summary["word_index_bytes"]:
        size = format_bytes(summary["word_index_bytes"])
        screen.print(f"{'word index':<12}{size}, beside the bank and its budget")
    if rows:
        print_documents(rows, summary["documents"] if limit is not None else len(rows))
