"""`latentbank write`: documents from files, folders and standard input into a bank.

Each batch is durable before the next is read; whatever stops the command leaves a bank that opens.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import (
    Interrupts,
    count,
    format_bytes,
    interrupts,
    parse_pairs,
    print_json,
    progress_bar,
)
from latentbank.cli.failures import Interrupted
from latentbank.cli.opening import open_for_writing
from latentbank.cli.options import (
    BankPath,
    Device,
    Dtype,
    Json,
    NewAdapter,
    NewBudget,
    NewMethod,
    NewModel,
    Options,
)
from latentbank.cli.reading import (
    DayFirst,
    EncodingName,
    EntityColumn,
    IdColumn,
    PropertyColumn,
    Reading,
    SkipBad,
    SourceColumn,
    Strict,
    TextColumn,
    TimeColumn,
    ValueColumn,
)
from latentbank.cli.triples import newest_triples
from latentbank.errors import BankError, InputError, LatentbankError, unknown

if TYPE_CHECKING:
    from latentbank.documents.document import Document
    from latentbank.documents.readers import ReadOptions
    from latentbank.method import WriteReport
    from latentbank.model import MemoryModel

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Files (.txt, .md, .html, .pdf, .docx, .epub, .eml, .mbox, .srt, .json, .jsonl, "
        ".csv, .parquet, source code, .zip and more), folders, or - for standard input.",
    ),
]
TRIPLES = "triples"
KINDS = ("documents", TRIPLES)
LONG_TEXT = 100_000  # characters; writing such a document may be interrupted between its chunks


def write(
    paths: Paths,
    bank: BankPath,
    method: NewMethod = None,
    adapter: NewAdapter = None,
    backbone: NewModel = None,
    option: Options = None,
    budget: NewBudget = None,
    ledger: Annotated[
        str | None,
        typer.Option(help="Of a new bank: full (default), ids (no time, source, metadata), none."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Of a new bank: what fades first; age, hits, …, or age=1,hits=2."),
    ] = None,
    on_conflict: Annotated[
        str,
        typer.Option(
            "--on-conflict",
            metavar="WHAT",
            help="Another version of a document that the bank holds: replace, keep or error.",
        ),
    ] = "replace",
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What the rows are: documents, or triples of entity, property, value.",
        ),
    ] = "documents",
    entity_column: EntityColumn = None,
    property_column: PropertyColumn = None,
    value_column: ValueColumn = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    source_column: SourceColumn = None,
    dayfirst: DayFirst = None,
    encoding: EncodingName = None,
    strict: Strict = False,
    skip_bad: SkipBad = False,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Entries in one transaction (default: the method's choice)."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Write documents into a bank; a new bank is made if FILE does not exist.

    An existing bank is written with the method, adapter and model that it was made with. A jsonl
    row is {"text": ..., "id"?, "time"?, "source"?}; on standard input a line that is no such row is
    a document itself.

    With --kind triples each row is an entity, a property and a value. Entity and property are the
    key: the newest value replaces an older one, which is told. A bank may hold triples beside
    documents: a method without attention to triples keeps each as a document of one sentence.

    A document that the bank holds already is counted once. The same id with another text, time or
    metadata is a new version; a file that was edited is a new version of itself. Bad rows are left
    out and listed, and the exit status is then 3.
    """
    if method is not None and adapter is not None:
        raise InputError("Give --method or --adapter, not both: an adapter has its method.")
    from latentbank.documents.readers import ReadOptions

    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    columns = {"entity": entity_column, "property": property_column, "value": value_column}
    options = ReadOptions(
        text_column, id_column, time_column, source_column, dayfirst, encoding,
        kind == TRIPLES, *columns.values(),
    )  # fmt: skip
    _check_columns(options, columns)
    reading = Reading(paths, options, strict, skip_bad)
    documents = reading.documents()
    first = next(documents, None)  # a missing or bad first file ends here, before a bank is made
    if first is None:
        raise _nothing(bank, reading.bad)
    chosen = {"adapter": adapter or method, "backbone": backbone, "device": device, "dtype": dtype}
    kept = {name: v for name, v in (("ledger", ledger), ("policy", policy)) if v is not None}
    model = open_for_writing(bank, chosen, parse_pairs(option), budget, kept)
    run = _Run(model, reading, on_conflict)
    with model, interrupts() as guard:
        taken = itertools.chain([first], documents)
        run.write(newest_triples(taken, model) if options.triples else taken, batch, guard)
        result = run.result()
    if json_output:
        print_json(result)
    else:
        _print(result, bank)
    reading.finish()


def _check_columns(options: ReadOptions, columns: dict[str, str | None]) -> None:
    """Refuses columns of triples for documents, and the other way round."""
    given = [name for name, column in columns.items() if column is not None]
    if given and not options.triples:
        raise InputError(f"--{given[0]}-column is for triples; add --kind triples.")
    if options.triples and (options.text_column or options.id_column):
        raise InputError(
            "A triple has no text or id column: its key is entity and property. Leave "
            "--text-column and --id-column out."
        )


def _nothing(bank: str, bad: list[str]) -> InputError:
    """The error where there is no document to write."""
    if bad:
        return InputError(f"No document could be read: {bad[0]} The bank {bank} was not touched.")
    return InputError(f"There is no document in the input; the bank {bank} was not touched.")


class _Run:
    """One write: counts, the bar, and what is said when it ends early."""

    def __init__(self, model: MemoryModel, reading: Reading, on_conflict: str) -> None:
        from latentbank.method import WriteReport

        self.model, self.input, self.on_conflict = model, reading, on_conflict
        self.began = time.perf_counter()
        self.report, self.read = WriteReport(0, 0, 0.0), 0
        self.stopped: BaseException | None = None
        self.in_long_text = False

    def write(self, documents: Iterator[Document], batch: int | None, guard: Interrupts) -> None:
        """Writes all documents; raises what stopped it, with the number of documents kept.

        Ctrl-C and a bad document end the reading. What was read before them is written first.
        """
        with progress_bar("rate", "bytes") as bar:
            task = bar.add_task("writing", total=None, rate="", bytes="")

            def on_batch(report: WriteReport, read: int) -> None:
                self.read = read
                self.report = self.report + report
                bar.update(task, completed=read, **self._fields())
                if self.in_long_text:
                    guard.check()

            try:
                with guard.hold():
                    self.model.write(
                        self._reading(documents, guard), batch, on_batch, self.on_conflict
                    )
            except KeyboardInterrupt:
                self.stopped = KeyboardInterrupt()
            except BankError as error:
                raise BankError(f"{error} {self._kept()}") from error
            except InputError as error:  # another version, where these are refused
                raise InputError(f"{error} {self._kept()}") from error
            bar.update(task, completed=self.read, total=self.read, **self._fields())
        if isinstance(self.stopped, KeyboardInterrupt):
            raise Interrupted(f"interrupted. {self._kept()}")
        if self.stopped is not None:
            raise InputError(f"{str(self.stopped).rstrip('.')}. {self._kept()}") from self.stopped

    def _reading(self, documents: Iterator[Document], guard: Interrupts) -> Iterator[Document]:
        """The documents up to the first that cannot be read, or to Ctrl-C; `stopped` says which."""
        while True:
            try:
                with guard.release():
                    document = next(documents, None)
            except (KeyboardInterrupt, LatentbankError) as error:
                self.stopped = error
                return
            if document is None:
                return
            self.in_long_text = len(document.text) > LONG_TEXT
            yield document

    def _kept(self) -> str:
        held, were = len(self.model.bank), "was" if self.read == 1 else "were"
        return (
            f"{count(self.read, 'document')} of this run {were} stored before; "
            f"the bank {self.model.bank.name} is whole and holds {count(held, 'entry')}."
        )

    def _fields(self) -> dict[str, Any]:
        rate = self.read / max(1e-9, time.perf_counter() - self.began)
        return {"rate": f"{rate:.1f} documents/s", "bytes": f"bank {format_bytes(self._bytes())}"}

    def _bytes(self) -> int:
        """The file's size, the log beside it included."""
        path = Path(self.model.bank.name)
        files = (path, path.with_name(path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def result(self) -> dict[str, Any]:
        """The numbers of a whole run."""
        return {
            "bank": self.model.bank.name,
            "method": self.model.method.name,
            "documents": self.read,
            "entries": self.report.stored,
            "duplicates": self.report.duplicates,
            "faded": self.report.faded,
            "forgotten": self.report.forgotten,
            "replaced": self.report.replaced,
            "kept": self.report.kept,
            "skipped": self.input.bad,
            "skipped_files": self.input.skipped_files,
            "documents_in_bank": len(self.model.bank),
            "bank_bytes": self.model.footprint().total,
            "seconds": round(time.perf_counter() - self.began, 3),
            "seconds_writing": round(self.report.seconds, 3),
        }


def _print(result: dict[str, Any], bank: str) -> None:
    rate = result["documents"] / max(1e-9, result["seconds"])
    held, size = result["documents_in_bank"], result["bank_bytes"]
    typer.echo(
        f"Wrote {count(result['documents'], 'document')} with {result['method']}, {rate:.1f} "
        f"documents/s, {count(result['duplicates'], 'duplicate')}. {bank}: {count(held, 'entry')}, "
        f"{format_bytes(size)}, {size / max(1, held):.0f} bytes each."
    )
    if result["replaced"] or result["kept"]:
        typer.echo(
            "The bank held another version: "
            f"{count(result['replaced'], 'document')} replaced, {result['kept']:,} kept as before."
        )
    if result["faded"] or result["forgotten"]:
        typer.echo(
            f"The bank is full: {result['faded']:,} faded, {result['forgotten']:,} forgotten."
        )
    for sentence in result["skipped"]:
        typer.echo(f"skipped: {sentence}", err=True)
