"""`latentbank watch`: keeps a bank up to date with a folder until Ctrl-C.

Looks at sizes and times of change; reads what changed. Nothing is kept beside the bank.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import Interrupts, count, interrupts, notice, parse_pairs, print_json
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
from latentbank.cli.reading import SKIPPED, DayFirst, EncodingName
from latentbank.errors import BankError, InputError, LatentbankError

if TYPE_CHECKING:
    from latentbank.documents.readers import Note, ReadOptions
    from latentbank.model import MemoryModel
    from latentbank.upkeep.folders import Change, Look

_SETTLED_SECONDS = 1.0  # a file that changed within this time may still be written


def watch(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder with the files.")],
    bank: BankPath,
    once: Annotated[
        bool, typer.Option("--once", help="Bring the bank up to date and end; for scripts.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks at the folder.")
    ] = 2.0,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Delete all documents of a folder that is empty now."),
    ] = False,
    method: NewMethod = None,
    adapter: NewAdapter = None,
    backbone: NewModel = None,
    option: Options = None,
    budget: NewBudget = None,
    dayfirst: DayFirst = None,
    encoding: EncodingName = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Keep a bank up to date with a folder: changed files are written, removed ones deleted.

    A changed file replaces all of its old chunks. A removed one is deleted, with a receipt. A file
    that cannot be read keeps what the bank has of it. What the bank holds from elsewhere stays.

    All state is in the bank, so the command may be killed and started again. Ctrl-C ends it behind
    the file that it is at, with status 0. With --once it ends by itself, with status 3 if a file
    could not be read. --json prints one line for each file.
    """
    if method is not None and adapter is not None:
        raise InputError("Give --method or --adapter, not both: an adapter has its method.")
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder that can be watched.")
    from latentbank.documents.readers import ReadOptions

    printer = _Printer(json_output)
    if once and _is_current(folder, bank, allow_empty):
        printer.end(bank, None)
        return
    options = ReadOptions(dayfirst=dayfirst, encoding=encoding)
    chosen = {"adapter": adapter or method, "backbone": backbone, "device": device, "dtype": dtype}
    model = open_for_writing(bank, chosen, parse_pairs(option), budget, {})
    with model, _until_told() as guard:
        try:
            with guard.hold():
                watcher = _Watcher(model, folder, options, printer, guard, allow_empty)
                watcher.run(once, interval)
        except KeyboardInterrupt:
            printer.stopped = True
        printer.end(bank, len(model.bank))
    if once and printer.bad:
        raise typer.Exit(SKIPPED)


def _is_current(folder: str, bank: str, allow_empty: bool) -> bool:
    """Whether an existing bank has all that is in the folder; loads no model."""
    if not Path(bank).exists():
        return False
    from latentbank.bank import MemoryBank
    from latentbank.upkeep.folders import WatchedFolder

    with MemoryBank.open(bank, read_only=True) as opened:
        look = WatchedFolder(opened, folder, allow_empty).look()
        return not look.changed and not look.gone


@contextmanager
def _until_told() -> Iterator[Interrupts]:
    """Ctrl-C and the signal to end, both noted while a file is written."""
    with interrupts() as guard:
        before = signal.signal(signal.SIGTERM, guard.on_signal)
        try:
            yield guard
        finally:
            signal.signal(signal.SIGTERM, before)


class _Printer:
    """Says what became of each file, for people or as JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.bad, self.stopped, self.changes = as_json, 0, False, 0

    def note(self, note: Note) -> None:
        """What the reader did and the user may want to know."""
        if note.kind != "skipped":
            notice(str(note))

    def change(self, change: Change) -> None:
        """What became of one file; says nothing where the bank had all of it."""
        self.bad += bool(change.bad)
        for sentence in change.bad:
            notice(f"skipped: {sentence}")
        receipt = change.receipt
        if self.as_json:
            row = {
                "file": change.file,
                "written": change.written,
                "replaced": change.replaced,
                "removed": change.removed,
                "receipt": None if receipt is None else asdict(receipt),
                "skipped": change.bad,
            }
            print_json(row, indent=None)
        parts = []
        if change.written:
            said = "replaced, " if change.replaced else ""
            parts.append(f"{said}{count(change.written, 'entry')} written")
        if receipt is not None and change.removed:
            parts.append(
                f"{count(change.removed, 'entry')} deleted, state {receipt.before} → "
                f"{receipt.after}"
            )
        self.changes += bool(parts)
        if parts and not self.as_json:
            typer.echo(f"{change.file}: {'; '.join(parts)}")
            if receipt is not None and receipt.remains:
                typer.echo(receipt.remains)

    def end(self, bank: str, held: int | None) -> None:
        """The last line."""
        if self.as_json:
            return
        what = "Stopped." if self.stopped else "Up to date." if not self.bad else "Done."
        files = (
            "nothing has changed" if not self.changes else count(self.changes, "file") + " changed"
        )
        more = "" if held is None else f"; {bank} holds {count(held, 'entry')}"
        typer.echo(f"{what} {files[0].upper()}{files[1:]}{more}.")


class _Watcher:
    """Looks, writes and waits."""

    def __init__(
        self,
        model: MemoryModel,
        folder: str,
        options: ReadOptions,
        printer: _Printer,
        guard: Interrupts,
        allow_empty: bool,
    ) -> None:
        from latentbank.upkeep.folders import FolderSync

        self.folder, self.printer, self.guard = folder, printer, guard
        self.sync = FolderSync(model, folder, options, printer.note, guard.check, allow_empty)
        self._last: dict[str, Any] = {}
        self._told = ""  # the last trouble, so that it is told once

    def run(self, once: bool, interval: float) -> None:
        """Until `once`, or until Ctrl-C, which raises KeyboardInterrupt between two files."""
        begun = False
        while True:
            try:
                self._pass(self.sync.look(), once)
                self._told = ""
            except LatentbankError as error:
                if once or not isinstance(error, InputError | BankError):
                    raise
                if str(error) != self._told:
                    notice(f"{error} Trying again.")
                self._told = str(error)
            if once:
                return
            if not begun:
                begun = True
                notice(f"watching {self.folder} ({count(len(self._last), 'file')}); Ctrl-C ends")
            with self.guard.release():
                time.sleep(interval)

    def _pass(self, look: Look, once: bool) -> None:
        from dataclasses import replace

        if not once:
            ready = tuple(file for file in look.changed if self._is_settled(file, look))
            self._last = dict(look.stamps)
            look = replace(look, changed=ready)
        for change in self.sync.sync(look):
            self.printer.change(change)
            self.guard.check()

    def _is_settled(self, file: str, look: Look) -> bool:
        """Whether a file is not being written now, as far as its stamp tells."""
        stamp = look.stamps[file]
        return self._last.get(file) == stamp or (
            time.time() - stamp[1] / 1e9 > _SETTLED_SECONDS and file not in self._last
        )
