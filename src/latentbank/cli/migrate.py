"""`latentbank migrate`: a bank of texts for another model, from the bank alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.bank_copy import stepping
from latentbank.cli.common import (
    complete_overrides,
    count,
    notice,
    parse_pairs,
    parse_size,
    print_json,
    quiet_libraries,
    share_processor,
)
from latentbank.cli.inspect import BankArgument
from latentbank.cli.options import Device, Dtype, Json, Options
from latentbank.cli.reading import SKIPPED
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.model import MemoryModel
    from latentbank.upkeep.migration import MigrationReport

_SHOWN = 10  # ids that are named one by one


def migrate(
    bank: BankArgument,
    backbone: Annotated[str, typer.Option(metavar="MODEL", help="The model to move to.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A new file (default: in the bank's place)."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Method of the new bank (default: as before)."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="Adapter for the new model.")
    ] = None,
    option: Options = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Of the new bank: such as 8MiB, or none (default: as before)."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Re-code a bank of texts for another model, without the documents.

    The texts are decoded from the bank and written for the new model, with ids, times, sources and
    metadata. What cannot be kept is listed: texts that had faded move as they are now; states and
    codes of the old model do not move. Then the exit status is 3.

    The old file is only read until the new one is whole. It is kept as BANK.before.
    """
    if method is not None and adapter is not None:
        raise InputError("Give --method or --adapter, not both: an adapter has its method.")
    quiet_libraries()
    from latentbank.backbone.hub import check_model

    check_model(backbone)
    share_processor()
    from latentbank.model import MemoryModel
    from latentbank.upkeep.migration import migrate_bank

    def open_new(file: Path, old: str, settings: Any) -> MemoryModel:
        name = adapter or method or old
        limit = settings.budget_bytes
        if budget is not None:
            limit = None if budget.lower() == "none" else parse_size(budget)
        return MemoryModel.from_pretrained(
            name,
            file,
            backbone,
            dtype=dtype,
            device=device,
            overrides=complete_overrides(name, backbone, parse_pairs(option)),
            budget_bytes=limit,
            ledger=settings.ledger,
            policy=settings.policy,
            progress=notice,
            quick=True,
        )

    with stepping("moving") as progress:
        report = migrate_bank(bank, open_new, out, progress, device)
    if json_output:
        print_json({**asdict(report), "kept_all": report.kept_all})
    else:
        _print(report, bank)
    if not report.kept_all:
        raise typer.Exit(SKIPPED)


def _print(report: MigrationReport, bank: str) -> None:
    typer.echo(
        f"{report.bank}: {report.moved:,} of {count(report.read, 'entry')} moved; the bank as it "
        f"was is {report.before}."
    )
    written = report.written
    if report.cut:
        typer.echo(f"{count(len(report.cut), 'document')} cut into other chunks.")
    if written.faded or written.forgotten:
        typer.echo(
            f"The new bank is full: {written.faded:,} faded, {written.forgotten:,} forgotten."
        )
    _list("Faded before, so only the sentences that were left moved", report.shortened)
    _list("Without a text, not moved", report.without_text)
    _list("Damaged, not moved", [f"{id} ({why})" for id, why in report.unreadable.items()])
    if report.state:
        typer.echo(f"What the method had learned stays behind: {', '.join(report.state)}.")
    if report.options:
        pairs = " ".join(f"--option {name}={value}" for name, value in report.options.items())
        typer.echo(f"Options of the old bank that were not taken over: {pairs}")


def _list(what: str, ids: list[str]) -> None:
    if ids:
        more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
        typer.echo(f"{what}: {count(len(ids), 'entry')} ({', '.join(ids[:_SHOWN])}{more}).")
