"""`latentbank bench`: a protocol over methods and budgets, one record each; compare; report.

`latentbank bench TASK …` is short for `latentbank bench run TASK …`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from latentbank.cli.bench_results import compare, report
from latentbank.cli.common import (
    console,
    count,
    interrupts,
    merge,
    notice,
    parse_pairs,
    print_json,
    progress_bar,
    quiet_libraries,
)
from latentbank.cli.failures import Interrupted
from latentbank.cli.options import Device, Dtype, Json
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.bench.plan import Bench
    from latentbank.bench.record import Record

RUN = "run"
_COLUMNS = (
    ("kept", "documents_kept", "{:,.0f}"),
    ("EM %", "exact_match", "{:.1f}"),
    ("F1 %", "f1", "{:.1f}"),
    ("bank bytes", "bank_bytes", "{:,.0f}"),
    ("bytes/document", "bytes_per_document", "{:,.0f}"),
    ("ms/question", "milliseconds", "{:,.0f}"),
)


class BenchGroup(TyperGroup):
    """The group that takes a first word which is none of its commands as a task to run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=BenchGroup,
    no_args_is_help=True,
    help="Benchmarks: run TASK (or just TASK), compare records, report on a folder of them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@bench_app.command(RUN)
def run(
    task: Annotated[
        str,
        typer.Argument(
            help="online-qa, retention, noise, duplicates, updates, delete, forgetting, "
            "frontier-learning, abstain, capacity, kb-qa or scale."
        ),
    ],
    methods: Annotated[
        list[str],
        typer.Option(
            "--methods", "-m", metavar="A,B,…",
            help="Methods, packaged adapters, METHOD+LoRA, or NAME=METHOD[:ADAPTER][,KEY=VALUE…].",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where the records are put.")],
    data: Annotated[
        str,
        typer.Option(metavar="PATH[:SPLIT]", help="Folder of SQuAD, jsonl, csv, or sample."),
    ] = "sample",
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    budget: Annotated[
        str,
        typer.Option(metavar="B,B,…", help="Bytes per document; float: no limit; grid: the grid."),
    ] = "float",
    documents: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many documents.")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions, drawn by --seed.")
    ] = None,
    made: Annotated[
        int | None,
        typer.Option(
            "--make-questions", min=1, metavar="N",
            help="Make up to N questions about each document by rules.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    gold: Annotated[
        bool, typer.Option("--gold", help="Name each question's document to the method.")
    ] = False,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", "-a", metavar="NAME=ADAPTER", help="Adapter of a row; repeat."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Model: packaged, folder, .gguf or hub id.")] = (
        "smollm2-135m"
    ),
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Change the task's settings."),
    ] = None,
    closed_book: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="forgetting and frontier-learning: held-out questions."),
    ] = None,
    noise_data: Annotated[
        str | None, typer.Option(metavar="PATH[:SPLIT]", help="noise: unrelated documents.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Which fade first: age, hits, redundancy, sample, size or blend.")
    ] = "blend",
    batch: Annotated[int, typer.Option(min=1, help="Questions asked at a time.")] = 16,
    beams: Annotated[int, typer.Option(min=1)] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 16,
    chunk_tokens: Annotated[int, typer.Option(min=1, help="Longer documents are cut.")] = 512,
    again: Annotated[bool, typer.Option("--again", help="Run what is done already anew.")] = False,
    share: Annotated[
        bool, typer.Option(help="Encode documents once for all rows; changes no result.")
    ] = True,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:  # fmt: skip
    """Run a task over methods and budgets; the same command goes on where a killed one was."""
    quiet_libraries()
    from latentbank.backbone.generate import DecodingConfig
    from latentbank.bench.budget import parse_budgets
    from latentbank.bench.plan import Bench
    from latentbank.bench.session import Settings
    from latentbank.bench.task import TASKS
    from latentbank.cli.bench_data import load_stream
    from latentbank.cli.bench_rows import parse_rows

    TASKS.get(task)
    bench = Bench(
        task=task,
        rows=tuple(parse_rows(methods, backbone, adapter)),
        data=load_stream(data, split, documents, made, seed),
        out=Path(out),
        backbone=backbone,
        budgets=parse_budgets(budget),
        settings=Settings(
            questions, seed, gold, batch, DecodingConfig(max_new_tokens, beams), policy
        ),
        options=_options(task, option, closed_book, noise_data),
        dtype=dtype,
        device=device,
        chunk_tokens=chunk_tokens,
        again=again,
        share=share,
        command=shlex.join(["latentbank", *sys.argv[1:]]),
    )
    _run(bench, json_output)


bench_app.command("compare")(compare)
bench_app.command("report")(report)


def _options(
    task: str, pairs: list[str] | None, closed_book: list[str] | None, noise: str | None
) -> dict[str, Any]:
    """The task's options, checked against its config.

    Raises UnknownNameError, InputError for one that the task does not have.
    """
    from dataclasses import asdict

    from latentbank.bench.task import TASKS
    from latentbank.cli.train import split_spec

    base = asdict(TASKS.get(task).Config())
    values = parse_pairs(pairs)
    if closed_book:
        values["closed_book"] = closed_book
    if noise:
        path, named = split_spec(noise)
        values |= {"noise": path, "split": named or ""}
    if values and not base:
        raise InputError(f"The task {task} has no options, got {', '.join(values)}.")
    changed = merge(base, values)
    return {name: changed[name] for name in values}


def _run(bench: Bench, json_output: bool) -> None:
    from latentbank.bench.record import read_record
    from latentbank.bench.runner import run_bench

    try:
        with interrupts(), _watcher() as watcher:
            paths = run_bench(bench, watcher)
    except KeyboardInterrupt:
        done = sum(1 for _ in bench.out.glob(f"{bench.task}--*.json"))
        raise Interrupted(
            f"interrupted; {count(done, 'record')} of {bench.task} in {bench.out}. "
            "The same command goes on from here"
        ) from None
    records = [(path, read_record(path)) for path in paths]
    if json_output:
        rows = [_json_row(path, record) for path, record in records]
        print_json({"task": bench.task, "out": str(bench.out), "records": rows})
    else:
        _print(bench, records)


@contextmanager
def _watcher() -> Iterator[Any]:
    """Two bars on stderr: the runs, and the phase of the one under way, each with the time left."""
    from latentbank.bench.runner import Watcher

    with progress_bar("note") as bar:

        class Bars(Watcher):
            runs: Any = None
            phase: Any = None

            def begin(self, label: str, number: int, total: int) -> None:
                if self.runs is None:
                    self.runs = bar.add_task("runs", total=total, note="")
                bar.update(self.runs, completed=number, total=total, note=label)

            def start(self, label: str, total: int) -> None:
                if self.phase is not None:
                    bar.remove_task(self.phase)
                self.phase = bar.add_task(label, total=total, note="")

            def advance(self, steps: int) -> None:
                bar.advance(self.phase, steps)

            def note(self, text: str) -> None:
                notice(text)

        bars = Bars()
        yield bars
        if bars.runs is not None:
            bar.update(bars.runs, completed=bar.tasks[0].total, note="")


def _json_row(path: Path, record: Record) -> dict[str, Any]:
    return {
        "record": str(path),
        "name": record.config.get("name"),
        "method": record.method,
        "budget_per_document": record.config.get("budget_per_document"),
        "budget_bytes": record.budget_bytes,
        "skipped": record.skipped or None,
        "metrics": {name: metric.value for name, metric in record.metrics.items()},
    }


def _print(bench: Bench, records: list[tuple[Path, Record]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("row", "budget", *(title for title, _, _ in _COLUMNS), "", box=None)
    gold = " (gold document given)" if bench.settings.gold else ""
    table.title = escape(f"{bench.task} on {bench.data.name}{gold}, budgets in bytes per document")
    table.title_justify, table.title_style, table.header_style = "left", "bold", "dim"
    for column in table.columns[1:-1]:
        column.justify = "right"
    for _, record in records:
        budget = record.config.get("budget_per_document")
        cells = [
            form.format(record.metrics[name].value) if name in record.metrics else "–"
            for _, name, form in _COLUMNS
        ]
        why = f"skipped: {record.skipped}" if record.skipped else ""
        table.add_row(
            escape(str(record.config.get("name"))),
            "float" if budget is None else f"{budget:,}",
            *cells,
            escape(why),
        )
    console().print(table)
    typer.echo(f"{count(len(records), 'record')} in {bench.out}")
