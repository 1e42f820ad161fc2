"""`latentbank verify`: checks every page, blob and checksum of a bank. Loads no model."""

from __future__ import annotations

from pathlib import Path

import typer

from latentbank.cli.bank_copy import stepping
from latentbank.cli.common import Json, count, print_json
from latentbank.cli.inspect import BankArgument
from latentbank.errors import BankError


def verify(bank: BankArgument, json_output: Json = False) -> None:
    """Check a bank for damage; exit status 0 if there is none, 1 if there is."""
    from latentbank.bank import MemoryBank, VerifyReport

    if not Path(bank).exists():
        raise BankError(f"There is no bank at {bank}.")
    try:
        with MemoryBank.open(bank, read_only=True) as opened, stepping("checking") as progress:
            report = opened.verify(progress)
    except BankError as error:
        report = VerifyReport(ok=False, documents=0, damage=(str(error),), damaged_ids=())
    if json_output:
        print_json(
            {
                "bank": bank,
                "ok": report.ok,
                "documents": report.documents,
                "damage": list(report.damage),
                "damaged_ids": list(report.damaged_ids),
            }
        )
    elif report.ok:
        typer.echo(f"{bank}: no damage, {count(report.documents, 'document')}.")
    else:
        typer.echo(f"{bank}: damaged; {count(report.documents, 'document')} can be read.")
        for sentence in report.damage:
            typer.echo(f"- {sentence}")
        if report.damaged_ids:
            typer.echo(f"damaged documents: {', '.join(report.damaged_ids)}")
    if not report.ok:
        raise typer.Exit(1)
