"""`latentbank compare`: every method on the shipped sample, a row as soon as it is measured.

The protocol and the records are the bench's; this command only chooses the rows and shows them.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import (
    console,
    count,
    interrupts,
    notice,
    print_json,
    progress_bar,
    quiet_libraries,
)
from latentbank.cli.failures import Interrupted
from latentbank.cli.options import AdaptersModel, Dtype, Json, OwnAdapters
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.bench.plan import Bench
    from latentbank.bench.record import Record

TASK = "online-qa"
COLUMNS = (
    ("exact_match", "EM %", "{:.1f}"),
    ("f1", "F1 %", "{:.1f}"),
    ("bank_bytes", "bank bytes", "{:,.0f}"),
    ("bytes_per_document", "bytes each", "{:,.0f}"),
    ("milliseconds", "ms/question", "{:,.0f}"),
)
_NAME, _CELL = 20, 12  # widths of the columns


def compare(
    questions: Annotated[int, typer.Option(min=1, help="Questions to ask.")] = 300,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many paragraphs.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "-m", metavar="A,B,…", help="Rows, as in bench. Default: all."),
    ] = None,
    out: Annotated[
        str, typer.Option("--out", metavar="FOLDER", help="Where the records are put.")
    ] = "compare",
    backbone: AdaptersModel = "smollm2-135m",
    adapters: OwnAdapters = None,
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Compare the methods on 333 SQuAD paragraphs; run it again to go on where it stopped."""
    quiet_libraries()
    from latentbank.bench.plan import Bench, backbone_name
    from latentbank.bench.session import Settings
    from latentbank.cli.bench_rows import parse_rows
    from latentbank.evaluate.data import load_sample

    own = _own(adapters, backbone_name(backbone))
    names = methods.split(",") if methods else _all_rows(backbone_name(backbone), own)
    data = load_sample() if documents is None else load_sample().take(documents)
    rows = parse_rows(names, backbone, [f"{name}={own[name]}" for name in names if name in own])
    bench = Bench(
        task=TASK,
        rows=tuple(rows),
        data=data,
        out=Path(out),
        backbone=backbone,
        settings=Settings(questions),
        dtype=dtype,
        command=shlex.join(["latentbank", *sys.argv[1:]]),
    )
    said = f"{count(len(rows), 'row')}: {len(data.documents)} paragraphs of {data.name},"
    notice(f"{said} {count(questions, 'question')}, {backbone}")
    records = _run(bench, show=not json_output)
    if json_output:
        print_json({"out": out, "rows": [_json_row(record) for record in records]})
    else:
        typer.echo(f"\n{count(len(records), 'record')} in {out}")


def _own(folder: str | None, backbone: str) -> dict[str, Path]:
    """The user's adapters by the row that takes them.

    The row is METHOD for a method that needs training, else METHOD+LoRA. Raises InputError where
    the folder is missing.
    """
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder of adapters.")
    from latentbank.bench.plan import LORA, only_lora

    adapters = {}
    for path in sorted(Path(folder).glob(f"*-{backbone}")):
        if (path / "config.json").exists():
            method = path.name.removesuffix(f"-{backbone}")
            adapters[method + (LORA if only_lora(str(path)) else "")] = path.resolve()
    return adapters


def _all_rows(backbone: str, own: dict[str, Path]) -> list[str]:
    """Every method that can answer on this backbone.

    Without an adapter where it needs no training, and with its adapter where there is one.
    """
    from latentbank.bench.plan import LORA, only_lora, packaged_for
    from latentbank.capabilities import Trained
    from latentbank.method import METHODS

    rows: list[str] = []
    for name, cls in METHODS.items().items():
        adapter = str(own.get(name, own.get(name + LORA, ""))) or packaged_for(name, backbone)
        if not issubclass(cls, Trained):
            rows.append(name)
        elif adapter:
            rows += [name, name + LORA] if only_lora(adapter) else [name]
    return rows


def _run(bench: Bench, show: bool) -> list[Record]:
    """The records of all rows, each shown once it is there."""
    from latentbank.bench.record import read_record
    from latentbank.bench.runner import run_bench

    if show:
        titles = "".join(f"{title:>{_CELL}}" for _, title, _ in COLUMNS)
        typer.echo(f"{'method':<{_NAME}}{titles}")
    try:
        with interrupts(), _watcher(bench.out, show) as watcher:
            return [read_record(path) for path in run_bench(bench, watcher)]
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the finished rows are in {bench.out}. The same command goes on from here"
        ) from None


@contextmanager
def _watcher(out: Path, show: bool) -> Iterator[Any]:
    """Two bars on stderr, the rows as they come, and the time left where there are no bars."""
    from latentbank.bench.record import read_record
    from latentbank.bench.runner import Watcher

    with progress_bar("note") as bar:
        live = bar.console.is_terminal and console().is_terminal

        class Rows(Watcher):
            def __init__(self) -> None:
                self.began = time.monotonic()
                self.runs: Any = None
                self.phase: Any = None
                self.shown: set[Path] = set()

            def begin(self, label: str, number: int, total: int) -> None:
                self.show()
                if self.runs is None:
                    self.runs = bar.add_task("rows", total=total, note="")
                bar.update(self.runs, completed=number, total=total, note=label)
                if not bar.console.is_terminal:
                    notice(f"{label}: row {number + 1} of {total}{self.left(number, total)}")

            def left(self, done: int, total: int) -> str:
                """The time that the other rows take if they are like those before."""
                if not done:
                    return ""
                seconds = (time.monotonic() - self.began) / done * (total - done)
                return f", about {max(1, round(seconds / 60))} min left"

            def start(self, label: str, total: int) -> None:
                if self.phase is not None:
                    bar.remove_task(self.phase)
                self.phase = bar.add_task(label, total=total, note="")

            def advance(self, steps: int) -> None:
                bar.advance(self.phase, steps)

            def note(self, text: str) -> None:
                notice(text)

            def show(self) -> None:
                """Prints the rows whose records were written since the last call."""
                for path in sorted(
                    out.glob(f"{TASK}--*.json"), key=lambda one: one.stat().st_mtime
                ):
                    if show and path not in self.shown:
                        line = _line(read_record(path))
                        bar.console.print(line) if live else print(line, flush=True)
                    self.shown.add(path)

        rows = Rows()
        yield rows
        rows.show()
        if rows.runs is not None:
            bar.update(rows.runs, completed=bar.tasks[0].total, note="")


def _line(record: Record) -> str:
    cells = [
        form.format(record.metrics[name].value) if name in record.metrics else "–"
        for name, _, form in COLUMNS
    ]
    told = f"  skipped: {record.skipped}" if record.skipped else ""
    name = str(record.config.get("name"))
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells) + told


def _json_row(record: Record) -> dict[str, Any]:
    return {
        "name": record.config.get("name"),
        "skipped": record.skipped or None,
        "metrics": {name: metric.value for name, metric in record.metrics.items()},
    }
