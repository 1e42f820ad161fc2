"""`latentbank delete`: takes documents, and what they left in the method's state, out of a bank."""

from __future__ import annotations

from typing import Annotated

import typer

from latentbank.cli.common import BankPath, Device, Dtype, Json, count, notice, print_json
from latentbank.cli.common import quiet_libraries as quiet
from latentbank.errors import InputError


def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of documents.")],
    bank: BankPath,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Pass over ids that the bank does not hold.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Delete documents from a bank; the id of a long document deletes all of its chunks."""
    from latentbank.bank import MemoryBank
    from latentbank.document import find_entries

    with MemoryBank.open(bank, read_only=True) as found:
        held = list(found.ids())
    chosen, missing = find_entries(held, ids)
    if missing and not missing_ok:
        raise InputError(
            f"The bank {bank} holds no document {', '.join(missing)}; nothing was deleted. "
            f"List the ids with: latentbank inspect {bank} --documents"
        )
    removed = 0
    if chosen:
        quiet()
        from latentbank.model import MemoryModel

        with MemoryModel.open(bank, device=device, dtype=dtype, progress=notice) as model:
            removed = model.delete(chosen)
    left = len(held) - removed
    if json_output:
        print_json({"bank": bank, "deleted": removed, "missing": missing, "documents": left})
    else:
        typer.echo(f"Deleted {count(removed, 'entry')}; {bank} holds {count(left, 'entry')}.")
