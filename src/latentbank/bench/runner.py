"""Runs rows × budgets of one protocol and writes a record for each; finished ones stay.

The same command continues a killed run: it keeps finished records and takes the answers of the run
that was under way from OUT/partial. Knows plans, sessions and protocols; knows no command line.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bank.space import LARGE_BUDGET
from latentbank.bench.budget import holds, least_bytes
from latentbank.bench.encodings import SharedEncodings
from latentbank.bench.machine import reset_peak_memory
from latentbank.bench.partial import PartialAnswers
from latentbank.bench.plan import (
    Bench,
    Cell,
    Row,
    build_row,
    is_done,
    is_untrained,
    make_task,
    name_strangers,
    plan,
)
from latentbank.bench.record import DataInfo, Metric, new_record, write_record
from latentbank.bench.session import CannotDo, Progress, Session
from latentbank.bench.task import Outcome
from latentbank.errors import InputError
from latentbank.evaluate.stream import chunked
from latentbank.method import NAMED_ONLY, Method

PARTIAL = "partial"


class Watcher(Progress):
    """Told what happens, run by run. This one does nothing; the command line's shows it."""

    def begin(self, label: str, number: int, total: int) -> None:
        """Run `number` of `total`, from 0, begins."""

    def note(self, text: str) -> None:
        """A sentence that the user should see."""


def run_bench(bench: Bench, watcher: Watcher | None = None) -> list[Path]:
    """Makes every record that is not there yet; returns the paths of all, in order.

    Raises:
        UnknownNameError: unknown task or option.
        InputError: data that does not fit, budgets too small for every row, or a record in the way
            that was made with other settings.
    """
    watcher = watcher or Watcher()
    task = make_task(bench, bench.data)
    cells = plan(bench, task)
    name_strangers(bench.out, cells, watcher.note)
    waiting = [cell for cell in cells if not is_done(cell, bench.again)]
    if len(waiting) < len(cells):
        watcher.note(f"{len(cells) - len(waiting)} of {len(cells)} records are there already.")
    if waiting:
        _Runner(bench, watcher).run(waiting)
    return [cell.path for cell in cells]


class _Runner:
    """The backbone, loaded once, and the cells one after another."""

    def __init__(self, bench: Bench, watcher: Watcher) -> None:
        self.bench, self.watcher = bench, watcher
        self.backbone: Backbone = load_backbone(
            bench.backbone, bench.dtype, bench.device, watcher.note
        )
        self.data = chunked(bench.data, self.backbone.count_tokens, bench.chunk_tokens)
        if self.data is not bench.data:
            watcher.note(
                f"Long documents were cut: {len(self.data.documents):,} chunks of "
                f"{len(bench.data.documents):,} documents, each counted as a document."
            )
        self.task = make_task(bench, self.data)
        self._built: dict[str, Method] = {}
        self._smallest: dict[str, int] = {}
        self._unbounded: dict[str, tuple[Outcome, str]] = {}
        self._encodings: SharedEncodings | None = None

    def run(self, cells: Sequence[Cell]) -> None:
        """Makes the records of `cells`.

        A method is built once for all budgets of its row. A batch of documents is encoded once for
        all rows.
        """
        with tempfile.TemporaryDirectory(prefix="latentbank-") as folder:
            if self.bench.share:
                self._encodings = SharedEncodings(Path(folder))
            self._run_all(cells)

    def _run_all(self, cells: Sequence[Cell]) -> None:
        possible = self._affordable(cells)
        for number, cell in enumerate(possible):
            method = self._method(cell.row)
            self.watcher.begin(cell.label, number, len(possible))
            self._run_cell(cell, method)
            if all(later.row is not cell.row for later in possible[number + 1 :]):
                del self._built[cell.row.name]

    def _method(self, row: Row) -> Method:
        if row.name not in self._built:
            method = self._built[row.name] = build_row(row, self.backbone, self.bench.settings.seed)
            if is_untrained(row, method):
                self.watcher.note(
                    f"{row.name} has no adapter for {self.backbone.name} and runs untrained, with "
                    "random weights; its record says so."
                )
        return self._built[row.name]

    def _affordable(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells whose budget holds a document; the others get a record that says why not.

        Raises InputError if there is no cell left.
        """
        possible, reasons = [], []
        for cell in cells:
            if cell.budget is None:
                possible.append(cell)
                continue
            total = cell.budget * self.task.documents
            reason = self._too_small(cell.row, total)
            if reason is None:
                possible.append(cell)
                continue
            budget = f"a budget of {cell.budget} bytes per document ({total:,} bytes for "
            budget += f"{self.task.documents:,} documents) is too small"
            reasons.append((cell, f"{budget}: {reason}"))
        if not possible:
            raise InputError(f"Nothing can be run: {'; '.join(text for _, text in reasons)}.")
        for cell, reason in reasons:
            self.watcher.note(f"{cell.label}: {reason}.")
            self._write(cell, self._method(cell.row), Outcome({}), reason)
        return possible

    def _too_small(self, row: Row, total: int) -> str | None:
        """Why a bank of `total` bytes is of no use to a row; None if it is of use."""
        least = self._least(row)
        if least > total:
            each = -(-least // self.task.documents)
            return f"the least bank of {row.name} takes {least:,} bytes, {each:,} per document"
        if least and not holds(self._method(row), self.task.data.documents[0], total):
            return (
                f"from {LARGE_BUDGET:,} bytes on a bank has a write-ahead log, and {row.name} does "
                f"not fit beside it; take fewer (at least {least:,}) or more"
            )
        return None

    def _least(self, row: Row) -> int:
        """Bytes of the smallest useful bank of a row, measured once."""
        if row.name not in self._smallest:
            document = self.task.data.documents[0]
            self._smallest[row.name] = least_bytes(self._method(row), document)
        return self._smallest[row.name]

    def _run_cell(self, cell: Cell, method: Method) -> None:
        """Runs a cell and writes its record.

        A row that stores nothing is the same under every budget, so it is run once.
        """
        name = cell.row.name
        if name in self._unbounded:
            self._write(cell, method, *self._unbounded[name])
            return
        digest = hashlib.blake2b(json.dumps(cell.settings).encode(), digest_size=16).hexdigest()
        partial = PartialAnswers(self.bench.out / PARTIAL / f"{cell.path.stem}.jsonl", digest)
        nothing = self._smallest.get(name) == 0
        outcome, skipped = self._measure(method, None if nothing else cell.budget, partial)
        if skipped:
            self.watcher.note(f"{cell.label} is skipped: {skipped}.")
        if nothing:
            self._unbounded[name] = (outcome, skipped)
        self._write(cell, method, outcome, skipped)
        partial.remove()

    def _measure(
        self, method: Method, budget: int | None, partial: PartialAnswers
    ) -> tuple[Outcome, str]:
        """What the protocol found with a method, or why it cannot be taken through it."""
        reset_peak_memory()
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="latentbank-") as scratch:
            settings, shared = self.bench.settings, self._encodings
            session = Session(
                method, settings, Path(scratch), budget, partial, self.watcher, shared
            )
            try:
                skipped = self.task.refuses(method) or self._too_long(method)
                if skipped:
                    return Outcome({}), skipped
                outcome = self.task.run(session)
            except CannotDo as error:
                return Outcome({}), str(error)
            finally:
                session.close()
        return _with_times(outcome, time.perf_counter() - began, session, partial), ""

    def _too_long(self, method: Method) -> str:
        """Why the stream's documents are too long for the entries of a method, or ""."""
        limit = getattr(method.config, "chunk_tokens", self.bench.chunk_tokens)
        if limit >= self.bench.chunk_tokens:
            return ""
        return (
            f"its entries hold {limit} tokens and --chunk-tokens is {self.bench.chunk_tokens}; "
            f"give the row chunk_tokens={self.bench.chunk_tokens}"
        )

    def _write(self, cell: Cell, method: Method, outcome: Outcome, skipped: str) -> None:
        bench = self.bench
        gold = bench.settings.gold or NAMED_ONLY in method.claims
        config = {
            "name": cell.row.name,
            "adapter": cell.row.adapter or None,
            "gold": gold,
            "untrained": is_untrained(cell.row, method),
            "budget_per_document": cell.budget,
            "backbone": self.backbone.fingerprint,
            "settings": dict(cell.settings),
            "method": json.loads(json.dumps(asdict(method.config))),
            **outcome.notes,
        }
        record = new_record(
            task=bench.task,
            method=method.name,
            command=bench.command,
            seed=bench.settings.seed,
            data=DataInfo(self.data.name, self.data.hash),
            dtype=str(self.backbone.dtype).removeprefix("torch."),
            metrics=outcome.metrics,
            config=config,
            read_as="gold" if gold else "selected",
            device=bench.device,
            series=outcome.series,
            budget_bytes=None if cell.budget is None else cell.budget * self.task.documents,
            skipped=skipped,
        )
        write_record(record, cell.path, outcome.predictions)


def _with_times(
    outcome: Outcome, seconds: float, session: Session, partial: PartialAnswers
) -> Outcome:
    """The outcome with the time of the run and the share of it that the bench itself took."""
    own = 100 * (1 - session.method_seconds / seconds) if seconds > 0 else 0.0
    times = {"seconds": Metric(seconds, "s"), "overhead": Metric(own, "percent of time")}
    notes: dict[str, float] = {}
    if partial.reused:
        notes["answers_from_an_interrupted_run"] = partial.reused
    if session.encoding_seconds_shared > 0:
        notes["encoding_seconds_of_another_run"] = session.encoding_seconds_shared
    return Outcome(
        {**outcome.metrics, **times},
        outcome.series,
        outcome.predictions,
        {**outcome.notes, **notes},
    )
