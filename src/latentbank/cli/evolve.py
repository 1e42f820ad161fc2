"""`latentbank evolve`: a search for a fading policy or a fusion, its baselines, and a test."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.common import (
    console,
    count,
    notice,
    print_json,
    quiet_libraries,
    share_processor,
)
from latentbank.cli.failures import Interrupted
from latentbank.cli.options import Json
from latentbank.errors import InputError, unknown

if TYPE_CHECKING:
    from latentbank.evaluate.data import QADataset
    from latentbank.evolve.objective import Objective
    from latentbank.evolve.policies import Stream
    from latentbank.evolve.population import Program
    from latentbank.evolve.proposer import Proposer
    from latentbank.evolve.search import Search
    from latentbank.evolve.study import Report

TARGETS = ("policy", "fusion")
_SMALL, _EVALUATIONS, _SMALL_STREAM = 60, 300, 120


def evolve(
    target: Annotated[
        str, typer.Argument(help="policy: what fades first. fusion: which text is read first.")
    ] = "policy",
    out: Annotated[
        str, typer.Option("--out", metavar="FOLDER", help="Checkpoint, lineage and record.")
    ] = "evolve",
    small: Annotated[
        bool, typer.Option("--small", help="A few minutes, on the data of the package.")
    ] = False,
    data: Annotated[
        str, typer.Option(metavar="PATH[:SPLIT]", help="The stream to search on.")
    ] = "sample",
    test: Annotated[
        str | None,
        typer.Option(metavar="PATH[:SPLIT]", help="Another stream, for the test at the end."),
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(min=1, help="policy: documents of a stream. fusion: the first of each set."),
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help=f"Expressions to evaluate. Default: {_EVALUATIONS}.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="policy: bytes per document.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    adapter: Annotated[
        str, typer.Option("--adapter", "-a", help="policy: method or adapter of the bank.")
    ] = "strata-smollm2-135m",
    backbone: Annotated[str, typer.Option(help="Model: packaged, folder or hub id.")] = (
        "smollm2-135m"
    ),
    answers: Annotated[
        bool, typer.Option("--answers", help="policy: the model also answers in the test (slow).")
    ] = False,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="openai:URL#MODEL",
            help="An OpenAI-compatible endpoint that proposes changes, such as "
            "openai:http://localhost:11434/v1#llama3.2. OPENAI_API_KEY holds its key.",
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Search for a better expression; run it again to go on where it stopped."""
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    quiet_libraries()
    share_processor()
    from latentbank.evolve.search import Search, SearchSettings

    train, tested = _streams(data, test, documents if target == "fusion" else None)
    count_ = evaluations or (_SMALL if small else _EVALUATIONS)
    settings = SearchSettings(evaluations=count_, seed=seed)
    proposer = _proposer(llm)
    objective, chooser, final = _objectives(
        target, train, tested, _stream(small, documents, budget, seed), adapter, backbone
    )
    notice(
        f"{count(count_, 'expression')} for a {target} on {train.name}: "
        f"{count(len(train.documents), 'document')}; test: {tested.name}"
    )
    search = Search(objective, settings, Path(out), proposer, _teller(count_))
    try:
        search.run()
    except KeyboardInterrupt:
        done = count(len(search.programs), "expression")
        raise Interrupted(f"Stopped after {done}; run it again to go on.") from None
    if proposer is not None:
        notice(f"endpoint: {proposer.told()}")
    _finish(search, chooser, final, train, tested, out, answers, json_output)


def _finish(
    search: Search,
    chooser: Objective,
    final: Objective,
    train: QADataset,
    tested: QADataset,
    out: str,
    answers: bool,
    json_output: bool,
) -> None:
    """The baselines, the test and what is printed."""
    from latentbank.evolve.study import EVOLVED, contestants, run_test, write_study

    found = contestants(search, chooser, notice)
    notice("test")
    reports = run_test(final, found, answers)
    command = shlex.join(["latentbank", *sys.argv[1:]])
    write_study(search, reports, train, tested, command, Path(out))
    if json_output:
        print_json({"out": out, "counts": search.counts(), "rows": [_row(one) for one in reports]})
        return
    _show(reports)
    evolved = next(one.text for one in found if one.name == EVOLVED)
    use = f"--policy 'formula:{evolved}'"
    if search.objective.identity()["target"] == "fusion":
        use = f"-o 'retrieval.fusion={evolved}'"
    typer.echo(f"\n{out}: record, lineage, checkpoint. To use it: latentbank write … {use}")


def _streams(spec: str, test: str | None, documents: int | None) -> tuple[QADataset, QADataset]:
    """(the stream to search on, the stream for the test). Without `test` each is a half."""
    from latentbank.cli.bench_data import load_stream
    from latentbank.evaluate.data import held_out

    train = load_stream(spec, None, documents, None, 0)
    if test is not None:
        return train, load_stream(test, None, documents, None, 0)
    first, second = held_out(train, 0.5)
    if second is None:
        raise InputError(f"{train.name} cannot be halved for a test; name another with --test.")
    return first, second


def _stream(small: bool, documents: int | None, budget: int, seed: int) -> Stream:
    """The streams to search on."""
    from latentbank.evolve.policies import Stream

    size = documents or (_SMALL_STREAM if small else Stream.documents)
    return Stream(budget, size, 2 if small else Stream.streams, seed=seed)


def _objectives(
    target: str, train: QADataset, tested: QADataset, stream: Stream, adapter: str, backbone: str
) -> tuple[Objective, Objective, Objective]:
    """The objective of the search, that of the choice among the best, and that of the test."""
    if target == "fusion":
        from latentbank.evolve.fusions import FusionObjective

        searched = FusionObjective(train)
        return searched, searched, FusionObjective(tested)
    from latentbank.adapter import load_method
    from latentbank.capabilities import Retrieving
    from latentbank.evolve.policies import PolicyObjective

    plain = {"retrieval": {"rerank": 0, "candidates": 1}}
    method = load_method(adapter, backbone, overrides=plain)
    if not isinstance(method, Retrieving):
        raise InputError(
            f"'{adapter}' finds no texts, so no policy can be evolved with it; "
            "take one that reads texts, such as strata or rag."
        )
    return (
        PolicyObjective(method, train, stream),
        PolicyObjective(method, train, replace(stream, seed=stream.seed + 1)),
        PolicyObjective(method, tested, replace(stream, seed=stream.seed + 2)),
    )


def _proposer(llm: str | None) -> Proposer | None:
    """The endpoint of --llm."""
    if llm is None:
        return None
    from latentbank.backbone.endpoint import EndpointBackbone
    from latentbank.evolve.proposer import Proposer

    return Proposer(EndpointBackbone(llm).client)


def _teller(total: int) -> Callable[[Program], None]:
    """Prints a line for each program that is better than all before."""
    best = [-1.0]

    def told(program: Program) -> None:
        if program.score > best[0]:
            best[0] = program.score
            notice(f"{program.number:>5} of {total}  {100 * program.score:.1f} %  {program.text}")

    return told


def _row(report: Report) -> dict[str, object]:
    against = report.against
    return {
        "name": report.contestant.name,
        "expression": report.contestant.text,
        "evaluations": report.contestant.evaluations,
        "train_score": report.contestant.score,
        "test": dict(report.figures),
        "over_default": None
        if against is None
        else {"difference": against.difference, "low": against.low, "high": against.high},
        "over_default_by_document": None
        if report.by_document is None
        else {"low": report.by_document.low, "high": report.by_document.high},
    }


def _show(reports: list[Report]) -> None:
    """A table: scores, and the difference to the default; its interval draws whole documents."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "train %", "test %", "over the default", "expression"):
        table.add_column(name, justify="left" if name in ("", "expression") else "right")
    for report in reports:
        against = report.against
        difference = ""
        if against is not None and report.by_document is not None:
            low, high = 100 * report.by_document.low, 100 * report.by_document.high
            difference = f"{100 * against.difference:+.1f} ({low:+.1f} … {high:+.1f})"
        table.add_row(
            report.contestant.name,
            f"{100 * report.contestant.score:.1f}",
            f"{100 * report.figures['score']:.1f}",
            difference,
            report.contestant.text,
        )
    console().print(table)
