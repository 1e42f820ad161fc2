"""`latentbank delete`: takes documents, and what they left in the method's state, out of a bank."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.common import count, notice, print_json, quiet_libraries, share_processor
from latentbank.cli.options import BankPath, Device, Dtype, Json
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.bank import MemoryBank
    from latentbank.documents.conditions import Conditions

Text = str | None


def delete(
    bank: BankPath,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")
    ] = None,
    source: Annotated[
        Text, typer.Option(help="Every document of this source; a folder ends in /.")
    ] = None,
    since: Annotated[
        Text, typer.Option(metavar="TIME", help="Every document from this time on.")
    ] = None,
    before: Annotated[
        Text, typer.Option(metavar="TIME", help="Every document before this time.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Every document for which this holds, such as year=2020 or title~harbour.",
        ),
    ] = None,
    dayfirst: Annotated[
        bool, typer.Option("--dayfirst", help="Read 01/02/2024 as 1 February.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Go on where an id or condition finds nothing.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Delete documents by id, source, time or metadata; conditions given together all hold.

    The id of a long document deletes all of its chunks, and no other document. Says first how many
    documents are meant. Prints a receipt: the state's hash before and after, and what deleting
    cannot take back.
    """
    from latentbank.bank import MemoryBank, Receipt
    from latentbank.documents.conditions import conditions_of
    from latentbank.documents.identity import group

    conditions = conditions_of(where or (), source, since, before, dayfirst=dayfirst or None)
    if bool(conditions) == bool(ids):
        raise InputError(
            "Give ids, or conditions (--source, --since, --before, --where), and not both."
        )
    with MemoryBank.open(bank, read_only=True) as opened:
        held, before_hash = len(opened), opened.root_hash()
        chosen, missing = _choose(opened, ids or [], conditions)
    if not missing_ok and (missing or not chosen):
        meant = ", ".join(missing) or f"with {conditions}"
        raise InputError(
            f"The bank {bank} holds no document {meant}; nothing was deleted. "
            f"List the ids with: latentbank inspect {bank} --documents"
        )
    documents = list(group(chosen))
    if dry_run:
        _print_plan(bank, documents, len(chosen), missing, json_output)
        return
    if not json_output:
        notice(f"deleting {count(len(documents), 'document')} of {bank}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    removed, receipt = 0, Receipt((), before=before_hash, after=before_hash, time=now)
    if chosen:
        quiet_libraries()
        share_processor()
        from latentbank.model import MemoryModel

        with MemoryModel.open(
            bank, device=device, dtype=dtype, progress=notice, quick=True
        ) as model:
            receipt = model.delete(chosen)
            removed = len(receipt.deleted)
    left = held - removed
    if json_output:
        result = {"bank": bank, "deleted": removed, "missing": missing, "documents": left}
        print_json({**result, "receipt": asdict(receipt)})
    else:
        typer.echo(f"Deleted {count(removed, 'entry')}; {bank} holds {count(left, 'entry')}.")
        typer.echo(f"state before {receipt.before}\nstate after  {receipt.after}")
        if receipt.remains:
            typer.echo(receipt.remains)


def _choose(
    bank: MemoryBank, ids: list[str], conditions: Conditions
) -> tuple[list[str], list[str]]:
    """The entries that are meant, and the ids that are not there."""
    if conditions:
        return bank.select(conditions), []
    return bank.entries_of(ids)


def _print_plan(
    bank: str, documents: list[str], entries: int, missing: list[str], json_output: bool
) -> None:
    if json_output:
        print_json(
            {"bank": bank, "would_delete": documents, "entries": entries, "missing": missing}
        )
        return
    typer.echo(
        f"Would delete {count(len(documents), 'document')} ({count(entries, 'entry')}) of {bank}:"
    )
    for id in documents:
        typer.echo(id)
