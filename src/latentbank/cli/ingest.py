"""`latentbank ingest`: a corpus into a new bank, by several processes with Ray or by one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from latentbank.cli.common import (
    complete_overrides,
    count,
    parse_pairs,
    parse_size,
    print_json,
    quiet_libraries,
)
from latentbank.cli.options import BankPath, Device, Dtype, Json, Options
from latentbank.cli.reading import Reading, SkipBad, Strict
from latentbank.errors import InputError

Workers = Annotated[int, typer.Option(min=1, help="Processes, of one core each.")]


def ingest(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and folders; see write.")
    ],
    bank: BankPath,
    ray: Annotated[
        bool, typer.Option("--ray", help="Write with Ray, on this machine or on a cluster.")
    ] = False,
    workers: Workers = 2,
    part_documents: Annotated[
        int | None,
        typer.Option(
            min=1, help="Documents in a part, rounded up to 128s (default: one part per worker)."
        ),
    ] = None,
    keep_parts: Annotated[
        bool, typer.Option("--keep-parts", help="Leave the parts in FILE.parts, for serve --ray.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, such as auto.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Method or adapter (default: strata).")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Model (default: smollm2-135m).")] = None,
    option: Options = None,
    budget: Annotated[
        str | None, typer.Option(help="Largest size of the bank, such as 8MiB.")
    ] = None,
    strict: Strict = False,
    skip_bad: SkipBad = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Write a corpus into a new bank, in parts that are written at once and then merged.

    The merged bank holds what `write` would have written, as long as the budget holds all.
    Without --ray this process writes the only part.
    """
    if not ray:
        if keep_parts or part_documents or address:
            raise InputError("--keep-parts, --part-documents and --address need --ray.")
        from latentbank.cli.write import write

        write(
            paths, bank, method, None, backbone, option, budget,
            strict=strict, skip_bad=skip_bad, device=device, dtype=dtype, json_output=json_output,
        )  # fmt: skip
        return
    quiet_libraries()
    from latentbank.adapter import DEFAULT_BACKBONE, method_for
    from latentbank.documents.readers import ReadOptions
    from latentbank.integrations.ray_ingest import ingest as run
    from latentbank.methods import DEFAULT_METHOD

    model = backbone or DEFAULT_BACKBONE
    adapter = method_for(method or DEFAULT_METHOD, model)
    reading = Reading(paths, ReadOptions(), strict, skip_bad)
    done = run(
        reading.documents(),
        bank,
        workers,
        part_documents=part_documents,
        keep_parts=keep_parts,
        address=address,
        budget_bytes=None if budget is None else parse_size(budget),
        adapter=adapter,
        backbone=model,
        overrides=complete_overrides(adapter, model, parse_pairs(option)),
        device=device,
        dtype=dtype,
    )
    result: dict[str, Any] = {**asdict(done), "skipped": reading.bad}
    if json_output:
        print_json(result)
    else:
        where = f"{len(done.banks)} parts in {bank}.parts" if keep_parts else bank
        typer.echo(
            f"Wrote {count(done.documents, 'document')} with {count(workers, 'worker')} in "
            f"{done.seconds:.1f} s, merged in {done.merge_seconds:.1f} s: {where}."
        )
    reading.finish()
