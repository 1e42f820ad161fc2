"""`latentbank delete`: takes documents, and what they left in the method's state, out of a bank."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.common import (
    BankPath,
    Device,
    Dtype,
    Json,
    count,
    notice,
    parse_pairs,
    print_json,
)
from latentbank.cli.common import quiet_libraries as quiet
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.bank import MemoryBank, Selection

Text = str | None


def delete(
    bank: BankPath,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")
    ] = None,
    source: Annotated[Text, typer.Option(help="Every document of this source.")] = None,
    since: Annotated[
        Text, typer.Option(metavar="TIME", help="Every document from this time on.")
    ] = None,
    before: Annotated[
        Text, typer.Option(metavar="TIME", help="Every document before this time.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Every document with this metadata."),
    ] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Pass over ids that the bank does not hold.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Delete documents by id, source, time or metadata; conditions given together all hold.

    The id of a long document deletes all of its chunks. Prints a receipt: the state's hash before
    and after, and what deleting cannot take back.
    """
    from latentbank.bank import MemoryBank, Receipt

    selection = _selection(source, since, before, where)
    if (selection is None) == (not ids):
        raise InputError(
            "Give ids, or conditions (--source, --since, --before, --where), and not both."
        )
    with MemoryBank.open(bank, read_only=True) as found:
        held, before_hash = len(found), found.root_hash()
        chosen, missing = _choose(found, ids or [], selection)
    if missing and not missing_ok:
        raise InputError(
            f"The bank {bank} holds no document {', '.join(missing)}; nothing was deleted. "
            f"List the ids with: latentbank inspect {bank} --documents"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    removed, receipt = 0, Receipt((), before=before_hash, after=before_hash, time=now)
    if chosen:
        quiet()
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


def _selection(
    source: Text, since: Text, before: Text, where: list[str] | None
) -> Selection | None:
    from latentbank.bank import Selection

    if source is None and since is None and before is None and not where:
        return None
    return Selection(source, since, before, parse_pairs(where))


def _choose(
    bank: MemoryBank, ids: list[str], selection: Selection | None
) -> tuple[list[str], list[str]]:
    from latentbank.documents.document import find_entries

    if selection is not None:
        return bank.select(selection), []
    return find_entries(list(bank.ids()), ids)
