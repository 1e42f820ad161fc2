"""`latentbank bench compare` and `bench report`: what records say, side by side.

Knows records and their predictions; runs nothing.
"""

from __future__ import annotations

from pathlib import Path

import typer

from latentbank.cli.common import print_json


def compare(a: str, b: str, json: bool) -> None:
    """Prints the metrics of two records side by side."""
    from latentbank.bench.record import read_record

    one, two = read_record(Path(a)), read_record(Path(b))
    shared = [name for name in one.metrics if name in two.metrics]
    rows = {n: [one.metrics[n].value, two.metrics[n].value] for n in shared}
    if json:
        print_json(rows)
    else:
        for name, (left, right) in rows.items():
            typer.echo(f"{name}: {left:g} {right:g}")


def report(folder: str, out: str, json: bool) -> None:
    """Writes the table of a folder of records."""
    from latentbank.bench.record import write_atomically
    from latentbank.bench.report import results_table

    write_atomically(Path(out), results_table(folder))
    if json:
        print_json({"report": out})
    else:
        typer.echo(out)
