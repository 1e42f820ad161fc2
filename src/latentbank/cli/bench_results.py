"""`latentbank bench compare` and `bench report`: what was measured, tested and shown.

Runs no model and imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentbank.cli.common import console, count, format_bytes, notice, print_json
from latentbank.cli.options import Json


def compare(
    a: Annotated[str, typer.Argument(metavar="A.json", help="A record.")],
    b: Annotated[str, typer.Argument(metavar="B.json", help="The record to compare it with.")],
    common: Annotated[
        bool, typer.Option("--common", help="Where the questions differ, take those both have.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Tell whether two records of one task differ by more than their noise, in EM and F1.

    A paired bootstrap over the questions that both were asked; the predictions must lie beside the
    records.
    """
    from latentbank.bench.report.compare import compare_records

    comparison = compare_records(a, b, common)
    if json_output:
        print_json(comparison.to_json())
        return
    typer.echo(comparison.sentence())
    if comparison.notes:
        console().print(f"The runs also differ in {'; '.join(comparison.notes)}.", style="dim")


def report(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder with result records.")],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The page to write (.html).")
    ] = "report.html",
    json_output: Json = False,
) -> None:
    """Make one page of figures and tables from the records of a folder and its subfolders.

    The page is self-contained: it loads nothing from elsewhere. JSON files that are no records are
    named and left out.
    """
    from latentbank.bench.report.page import write_page

    page = write_page(folder, out)
    for name in page.foreign:
        notice(f"{Path(folder) / name} is not a result record and is left out")
    if json_output:
        print_json(
            {
                "page": str(page.path),
                "bytes": page.bytes,
                "records": page.records,
                "skipped": page.skipped,
                "figures": page.figures,
                "left_out": list(page.foreign),
            }
        )
        return
    skipped = f", {page.skipped} of them skipped runs" if page.skipped else ""
    typer.echo(
        f"{page.path}: {count(page.figures, 'figure')} from {count(page.records, 'record')}"
        f"{skipped} ({format_bytes(page.bytes)})"
    )
