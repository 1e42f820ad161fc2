"""`latentbank verify`: checks every page, blob, checksum and text of a bank.

Loads no model unless `--decode` asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.bank_copy import stepping
from latentbank.cli.common import count, notice, print_json, quiet_libraries
from latentbank.cli.inspect import BankArgument
from latentbank.cli.options import Json
from latentbank.errors import BankError

if TYPE_CHECKING:
    from latentbank.bank.admin.verify import EntryCheck

Decode = Annotated[
    bool, typer.Option("--decode", help="Decode every entry with the bank's model, not texts only.")
]


def verify(bank: BankArgument, decode: Decode = False, json_output: Json = False) -> None:
    """Check a bank for damage; exit status 0 if there is none, 1 if there is."""
    from latentbank.bank import MemoryBank, VerifyReport

    if not Path(bank).exists():
        raise BankError(f"There is no bank at {bank}.")
    try:
        check = entry_check(bank, decode)
        with MemoryBank.open(bank, read_only=True) as opened, stepping("checking") as progress:
            report = opened.verify(progress, check)
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


def entry_check(bank: str, decode: bool) -> EntryCheck:
    """Tells texts that are none; with `decode` whatever the bank's own method cannot read."""
    import warnings

    from latentbank.bank.admin.verify import text_check

    if not decode:
        return text_check()
    from latentbank.capabilities import Incremental
    from latentbank.errors import DamageWarning
    from latentbank.model import MemoryModel

    quiet_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)  # the report names them
        with MemoryModel.open(bank, read_only=True, progress=notice, quick=True) as model:
            method = model.method
            unreadable = dict(method.unreadable) if isinstance(method, Incremental) else {}
    return lambda entry: unreadable.get(entry.id)
