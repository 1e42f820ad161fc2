"""`latentbank merge`, `split`, `diff`: banks made of banks. Loads no model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from latentbank.cli.bank_copy import Out, stepping
from latentbank.cli.common import count, print_json
from latentbank.cli.inspect import BankArgument
from latentbank.cli.options import Json
from latentbank.errors import InputError


def merge(
    banks: Annotated[list[str], typer.Argument(metavar="BANK BANK...", help="Banks to unite.")],
    out: Out,
    budget: Annotated[str | None, typer.Option(help="Budget of the new bank.")] = None,
    json_output: Json = False,
) -> None:
    """Unite banks of one adapter in a new one: ids unite, counts and histograms add up.

    Of two versions of a document that of the later bank is kept.
    With a budget too small for all, the documents of least value are left out.
    """
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.join import merge_banks

    with ExitStack() as stack, stepping("merging") as progress:
        sources = [stack.enter_context(MemoryBank.open(name, read_only=True)) for name in banks]
        fade = None if budget is None else (lambda entry: None)
        report = merge_banks(sources, out, budget, fade, progress)
    with MemoryBank.open(out, read_only=True) as made:
        documents = len(made)
    if json_output:
        print_json(
            {
                "bank": out,
                "documents": documents,
                "forgotten": list(report.forgotten),
                "replaced": list(report.replaced),
            }
        )
    else:
        forgotten, replaced = len(report.forgotten), len(report.replaced)
        left = f", {count(forgotten, 'document')} left out" if forgotten else ""
        left += f", {count(replaced, 'older version')} replaced" if replaced else ""
        typer.echo(f"{out}: {count(documents, 'document')}{left}.")


def split(
    bank: BankArgument,
    out: Out,
    by: Annotated[str | None, typer.Option(help="source (the default), or time with --at.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="Where to cut, such as 2024-01-01; may be repeated."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="One bank of the documents for which this holds, such as year=2020, one of the "
            "others.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Make several banks of one, by source, time or a condition, in a new folder; the bank stays.

    Conditions given together must all hold.
    """
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.split import split_bank
    from latentbank.documents.conditions import parse_conditions

    if where and (by is not None or at):
        raise InputError("Give --where, or --by and --at, not both.")
    conditions = parse_conditions(where) if where else None
    way = "where" if conditions else by or ("time" if at else "source")
    with MemoryBank.open(bank, read_only=True) as source, stepping("splitting") as progress:
        parts = split_bank(source, out, way, at or (), progress, conditions)
    if json_output:
        print_json({"folder": out, "parts": parts})
    else:
        for name, group in parts.items():
            typer.echo(f"{out}/{name}: {group}")


def diff(
    first: Annotated[str, typer.Argument(metavar="BANK", help="A bank's file.")],
    second: Annotated[str, typer.Argument(metavar="BANK", help="Another bank's file.")],
    json_output: Json = False,
) -> None:
    """Compare two banks; exit status 0 if they hold the same, 1 if not."""
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.join import diff_banks

    with (
        MemoryBank.open(first, read_only=True) as one,
        MemoryBank.open(second, read_only=True) as two,
        stepping("comparing") as progress,
    ):
        difference = diff_banks(one, two, progress)
    if json_output:
        print_json(
            {
                "same": difference.same,
                "only_first": list(difference.only_first),
                "only_second": list(difference.only_second),
                "changed": {id: list(names) for id, names in difference.changed.items()},
                "blobs": list(difference.blobs),
                "meta": list(difference.meta),
                "same_fingerprint": difference.fingerprint,
                "same_state": difference.state,
            }
        )
    elif difference.same:
        typer.echo("The banks hold the same.")
    else:
        if not difference.fingerprint:
            typer.echo("They were written by different adapters or models.")
        if not difference.state:
            typer.echo("Their states differ.")
        for sign, ids in (("-", difference.only_first), ("+", difference.only_second)):
            for id in ids:
                typer.echo(f"{sign} {id}")
        for id, names in difference.changed.items():
            typer.echo(f"~ {id} ({', '.join(names)})")
        for kind, names in (("blob", difference.blobs), ("metadata", difference.meta)):
            for name in names:
                typer.echo(f"~ {kind} {name}")
    if not difference.same:
        raise typer.Exit(1)
