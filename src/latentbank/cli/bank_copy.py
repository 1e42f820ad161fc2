"""`latentbank snapshot`, `export`, `import`: a bank as another file or folder. Loads no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from latentbank.cli.common import count, format_bytes, print_json, progress_bar
from latentbank.cli.inspect import BankArgument
from latentbank.cli.options import Json

Out = Annotated[str, typer.Option("--out", "-o", metavar="PATH", help="Where to write.")]


@contextmanager
def stepping(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a function of (done, total)."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def snapshot(bank: BankArgument, out: Out, json_output: Json = False) -> None:
    """Copy a bank as it is at this moment; others may go on writing to it."""
    from latentbank.bank import MemoryBank

    with MemoryBank.open(bank, read_only=True) as source, stepping("copying") as progress:
        source.snapshot(out, progress)
    with MemoryBank.open(out, read_only=True) as copy:
        documents, hash = len(copy), copy.root_hash()
    size = Path(out).stat().st_size
    if json_output:
        print_json({"bank": out, "documents": documents, "bytes": size, "root_hash": hash})
    else:
        typer.echo(f"{out}: {count(documents, 'document')}, {format_bytes(size)}.")


def export(bank: BankArgument, out: Out, json_output: Json = False) -> None:
    """Write a bank into a folder as safetensors and JSON; equal banks give equal bytes."""
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.export import export_bank

    with MemoryBank.open(bank, read_only=True) as source, stepping("exporting") as progress:
        documents = len(source)
        folder = export_bank(source, out, progress)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    if json_output:
        print_json({"folder": out, "documents": documents, "files": files})
    else:
        sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in files.items())
        typer.echo(f"{out}: {count(documents, 'document')}; {sizes}.")


def import_(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="What export wrote.")],
    out: Out,
    budget: Annotated[
        str | None, typer.Option(help="Another budget than the exported one, such as 8MiB.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Make a new bank from an exported folder."""
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.export import import_bank

    with stepping("importing") as progress:
        import_bank(folder, out, budget, progress)
    with MemoryBank.open(out, read_only=True) as made:
        documents = len(made)
    if json_output:
        print_json({"bank": out, "documents": documents, "bytes": Path(out).stat().st_size})
    else:
        typer.echo(f"{out}: {count(documents, 'document')}.")
