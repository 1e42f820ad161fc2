"""`latentbank evolve`: a search for a fading policy or a fusion, its baselines, and a test."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentbank.cli.common import (
    Json,
    console,
    count,
    notice,
    print_json,
    quiet_libraries,
    share_processor,
)
from latentbank.cli.failures import Interrupted
from latentbank.errors import InputError, unknown

if TYPE_CHECKING:
    from latentbank.evaluate.data import QADataset
    from latentbank.evolve.objective import Objective
    from latentbank.evolve.population import Program
    from latentbank.evolve.proposer import Proposer
    from latentbank.evolve.search import Search
    from latentbank.evolve.study import Report

TARGETS = ("policy", "fusion")
_SMALL, _EVALUATIONS = 60, 300


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
        int | None, typer.Option(min=1, help="Only the first so many documents of each.")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help=f"Expressions to evaluate. Default: {_EVALUATIONS}.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="policy: bytes per document.")] = 128,
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

    train, tested = _streams(data, test, documents)
    count_ = evaluations or (_SMALL if small else _EVALUATIONS)
    settings = SearchSettings(evaluations=count_, seed=seed)
    proposer = _proposer(llm)
    objective, final = _objectives(target, train, tested, budget, seed, adapter, backbone)
    notice(
        f"{count(count_, 'expression')} for a {target} on {train.name}: "
        f"{count(len(train.documents), 'document')}; test: {tested.name}"
    )
    search = Search(objective, settings, Path(out), proposer, _teller(count_))
    try:
        winner = search.run()
    except KeyboardInterrupt:
        done = count(len(search.programs), "expression")
        raise Interrupted(f"Stopped after {done}; run it again to go on.") from None
    if proposer is not None:
        notice(f"endpoint: {proposer.told()}")
    _finish(search, winner, final, train, tested, out, answers, json_output)


def _finish(
    search: Search,
    winner: Program,
    final: Objective,
    train: QADataset,
    tested: QADataset,
    out: str,
    answers: bool,
    json_output: bool,
) -> None:
    """The baselines, the test and what is printed."""
    from latentbank.evolve.study import (
        EVOLVED,
        FIRST,
        Contestant,
        baselines,
        run_test,
        write_study,
    )

    settings, first = search.settings, search.programs[0]
    evaluated = settings.evaluations
    contestants = [
        Contestant(FIRST, first.text, first.score, 1),
        Contestant(EVOLVED, winner.text, winner.score, evaluated),
        *baselines(search.objective, evaluated, settings.seed, settings.most_nodes, notice),
    ]
    notice("test")
    reports = run_test(final, contestants, answers)
    command = shlex.join(["latentbank", *sys.argv[1:]])
    write_study(search, winner, reports, train, tested, command, Path(out))
    if json_output:
        print_json({"out": out, "counts": search.counts(), "rows": [_row(one) for one in reports]})
        return
    _show(reports)
    use = f"--policy 'formula:{winner.text}'"
    if search.objective.identity()["target"] == "fusion":
        use = f"-o 'retrieval.fusion={winner.text}'"
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


def _objectives(
    target: str,
    train: QADataset,
    tested: QADataset,
    budget: int,
    seed: int,
    adapter: str,
    backbone: str,
) -> tuple[Objective, Objective]:
    """The objective on the stream to search on, and on that of the test."""
    if target == "fusion":
        from latentbank.evolve.fusions import FusionObjective

        return FusionObjective(train), FusionObjective(tested)
    from latentbank.adapter import load_method
    from latentbank.capabilities import Retrieving
    from latentbank.evolve.policies import PolicyObjective, Stream

    plain = {"retrieval": {"rerank": 0, "candidates": 1}}
    method = load_method(adapter, backbone, overrides=plain)
    if not isinstance(method, Retrieving):
        raise InputError(
            f"'{adapter}' finds no texts, so no policy can be evolved with it; "
            "take one that reads texts, such as strata or rag."
        )
    return (
        PolicyObjective(method, train, Stream(budget, seed=seed)),
        PolicyObjective(method, tested, Stream(budget, seed=seed + 1)),
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
    }


def _show(reports: list[Report]) -> None:
    """A table: score on both streams, and the difference to the default with its interval."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "train %", "test %", "over the default", "expression"):
        table.add_column(name, justify="left" if name in ("", "expression") else "right")
    for report in reports:
        against = report.against
        difference = ""
        if against is not None:
            low, high = 100 * against.low, 100 * against.high
            difference = f"{100 * against.difference:+.1f} ({low:+.1f} … {high:+.1f})"
        table.add_row(
            report.contestant.name,
            f"{100 * report.contestant.score:.1f}",
            f"{100 * report.figures['score']:.1f}",
            difference,
            report.contestant.text,
        )
    console().print(table)
