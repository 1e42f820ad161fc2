"""`latentbank compact`, `rebudget`, `repair`: a bank's file made smaller, larger, or whole."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latentbank.cli.bank_copy import stepping
from latentbank.cli.common import count, format_bytes, notice, print_json, quiet_libraries
from latentbank.cli.inspect import BankArgument
from latentbank.cli.options import Device, Dtype, Json
from latentbank.cli.verify import Decode, entry_check


def compact(bank: BankArgument, json_output: Json = False) -> None:
    """Fill a bank's pages up and give its free space back. Loads no model."""
    from latentbank.bank import MemoryBank

    with MemoryBank.open(bank) as opened, stepping("compacting") as progress:
        saved = opened.compact(progress)
        size = opened.footprint().total
    if json_output:
        print_json({"bank": bank, "bytes": size, "saved": saved})
    else:
        typer.echo(f"{bank}: {format_bytes(size)}, {format_bytes(saved)} less than before.")


def rebudget(
    bank: BankArgument,
    budget: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 8MiB, or none.")],
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Change a bank's budget. For a smaller one the method lowers the documents of least value."""
    from latentbank.bank import MemoryBank
    from latentbank.sizes import parse_size

    wanted = None if budget.lower() == "none" else parse_size(budget)
    with MemoryBank.open(bank) as opened:
        grows = wanted is None or wanted >= opened.file_bytes()
        report: Any = None
        if grows:
            with stepping("changing the budget") as progress:
                report = opened.rebudget(wanted, progress=progress)
    if report is None:
        quiet_libraries()
        from latentbank.capabilities import fade_of
        from latentbank.model import MemoryModel

        with (
            MemoryModel.open(bank, device=device, dtype=dtype, progress=notice) as model,
            stepping("changing the budget") as progress,
        ):
            report = model.bank.rebudget(wanted, fade=fade_of(model.method), progress=progress)
    with MemoryBank.open(bank, read_only=True) as opened:
        documents, size = len(opened), opened.footprint().total
    if json_output:
        print_json(
            {
                "bank": bank,
                "budget_bytes": wanted,
                "bytes": size,
                "documents": documents,
                "faded": len(report.faded),
                "forgotten": len(report.forgotten),
            }
        )
    else:
        now = "none" if wanted is None else format_bytes(wanted)
        typer.echo(
            f"{bank}: budget {now}, {format_bytes(size)}, {count(documents, 'document')}; "
            f"{len(report.faded):,} faded, {len(report.forgotten):,} forgotten."
        )


def repair(
    bank: BankArgument,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A new file (default: in the bank's place)."
        ),
    ] = None,
    decode: Decode = False,
    json_output: Json = False,
) -> None:
    """Keep what is whole of a damaged bank; the damaged file stays as BANK.damaged."""
    from latentbank.bank.admin.repair import repair_bank

    check = entry_check(bank, decode)
    with stepping("repairing") as progress:
        report = repair_bank(bank, out, progress, check)
    if json_output:
        print_json(
            {
                "bank": out or bank,
                "documents": report.documents,
                "damage": list(report.damage),
                "damaged": report.damaged,
            }
        )
        return
    typer.echo(f"{out or bank}: {count(report.documents, 'document')} kept.")
    for sentence in report.damage:
        typer.echo(f"- {sentence}")
    if report.damaged:
        typer.echo(f"The damaged file is {report.damaged}.")
