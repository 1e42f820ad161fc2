"""Options of the commands that read documents, and the reading itself with what was left out.

Knows the readers and the terminal; nothing about banks or models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.common import notice
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.documents.document import Document
    from latentbank.documents.readers import Note, ReadOptions

SKIPPED = 3  # exit status of a command that did its work but left bad rows out

Column = str | None
TextColumn = Annotated[
    Column,
    typer.Option(
        "--text-column", metavar="NAME", help="Column of the text (text, content, body, …)."
    ),
]
IdColumn = Annotated[
    Column, typer.Option("--id-column", metavar="NAME", help="Column of the id (id).")
]
TimeColumn = Annotated[
    Column, typer.Option("--time-column", metavar="NAME", help="Column of the time (time).")
]
SourceColumn = Annotated[
    Column, typer.Option("--source-column", metavar="NAME", help="Column of the source (source).")
]
EntityColumn = Annotated[
    Column, typer.Option("--entity-column", metavar="NAME", help="Of triples (entity, subject, …).")
]
PropertyColumn = Annotated[
    Column, typer.Option("--property-column", metavar="NAME", help="Of triples (property, …).")
]
ValueColumn = Annotated[
    Column, typer.Option("--value-column", metavar="NAME", help="Of triples (value, object, …).")
]
DayFirst = Annotated[
    bool | None,
    typer.Option("--dayfirst/--monthfirst", help="Read 01/02/2024 as 1 February, or 2 January."),
]
EncodingName = Annotated[
    str | None,
    typer.Option("--encoding", metavar="NAME", help="Encoding of text files (default: detected)."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Also go on behind a path that cannot be read.")
]

_SHOWN = 10  # files of a folder that are named one by one


@dataclass
class Reading:
    """Documents from paths, with the sentences for what was left out.

    Attributes:
        paths: files, folders and - for standard input.
        options: how to read rows.
        strict: raise the first error.
        skip_paths: go on behind a path that does not exist or has no known format.
        bad: sentences, one for each bad row, file or path.
        skipped_files: files that folders held and that were not read.
    """

    paths: list[str]
    options: ReadOptions
    strict: bool = False
    skip_paths: bool = False
    bad: list[str] = field(default_factory=list)
    skipped_files: list[str] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """The documents, lazily; bad rows are told on stderr as they are met.

        Raises `InputError` for a path that cannot be read, unless `skip_paths` is set.
        """
        from latentbank.documents.readers import read_documents
        from latentbank.documents.readers.folder import list_files

        if not self.skip_paths:
            for path in self.paths:
                if path != "-":
                    list_files(path)
        on_bad = None if self.strict else self._bad
        return read_documents(self.paths, on_bad, self.options, self._note)

    def _bad(self, error: InputError) -> None:
        self.bad.append(str(error))
        notice(f"skipped: {error}")

    def _note(self, note: Note) -> None:
        if note.kind != "skipped":
            notice(str(note))
            return
        self.skipped_files.append(str(note))
        if len(self.skipped_files) <= _SHOWN:
            notice(str(note))

    def finish(self) -> None:
        """Say how many files were not named; exit with status 3 if there was anything bad."""
        more = len(self.skipped_files) - _SHOWN
        if more > 0:
            notice(f"and {more:,} more that were left out")
        if self.bad:
            raise typer.Exit(SKIPPED)
