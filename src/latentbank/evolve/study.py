"""A whole study: a search, its baselines at equal evaluations, and one test on another stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latentbank.bench.record import (
    DataInfo,
    Metric,
    Record,
    new_record,
    write_atomically,
    write_record,
)
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.metrics import BootstrapResult, paired_bootstrap
from latentbank.evolve.baselines import Found, cross_entropy, random_search
from latentbank.evolve.objective import Objective
from latentbank.evolve.policies import PolicyObjective
from latentbank.evolve.population import Program
from latentbank.evolve.search import Search
from latentbank.functions.expression import parse

__all__ = ["Contestant", "Report", "baselines", "run_test", "write_study"]

FIRST, EVOLVED, RANDOM, CEM = "default", "evolved", "random", "cem"
RECORD, LINEAGE = "evolve.json", "lineage.jsonl"


@dataclass(frozen=True)
class Contestant:
    """An expression, how it was found, its score on the training stream, and what that cost."""

    name: str
    text: str
    score: float
    evaluations: int


@dataclass(frozen=True)
class Report:
    """What a contestant reached on the test stream.

    `against` compares it with the default, question by question; None for the default itself.
    """

    contestant: Contestant
    figures: Mapping[str, float]
    questions: int
    against: BootstrapResult | None


def baselines(
    objective: Objective, evaluations: int, seed: int, most_nodes: int, told: Callable[[str], None]
) -> list[Contestant]:
    """Random search and CEM over weights, each with as many evaluations as the search had."""
    told("random search")
    by_chance = random_search(objective, evaluations, seed, most_nodes)
    told("cross-entropy method over weights")
    by_weight = cross_entropy(objective, evaluations, seed)
    return [_contestant(RANDOM, by_chance), _contestant(CEM, by_weight)]


def _contestant(name: str, found: Found) -> Contestant:
    return Contestant(name, found.text, found.score, found.evaluations)


def run_test(objective: Objective, contestants: list[Contestant], read: bool) -> list[Report]:
    """Every contestant once on the test stream, the default first.

    With `read` the model also answers the questions of a policy's stream, and F1 is a figure.
    """
    reports: list[Report] = []
    base: list[float] = []
    for contestant in contestants:
        expression = parse(contestant.text, objective.names)
        if isinstance(objective, PolicyObjective):
            played = objective.play_expression(expression, read=read)
            outcomes, figures = [*played.answered, *played.retained], played.figures()
        else:
            outcomes, figures = objective.outcomes(expression), objective.figures(expression, 1.0)
        base = base or outcomes
        against = None if contestant.name == FIRST else paired_bootstrap(outcomes, base)
        reports.append(Report(contestant, figures, len(outcomes), against))
    return reports


def write_study(
    search: Search,
    winner: Program,
    reports: list[Report],
    train: QADataset,
    test: QADataset,
    command: str,
    folder: Path,
) -> Record:
    """Writes the record and the winner's lineage to `folder`; returns the record."""
    metrics: dict[str, Metric] = {}
    for report in reports:
        name, against = report.contestant.name, report.against
        metrics[f"{name}_train_score"] = Metric(100 * report.contestant.score, "percent")
        for figure, value in report.figures.items():
            counted = figure in ("kept", "questions")
            unit = "documents" if figure == "kept" else "questions" if counted else "percent"
            metrics[f"{name}_test_{figure}"] = Metric(value if counted else 100 * value, unit)
        if against is not None:
            metrics[f"{name}_over_default"] = Metric(
                100 * against.difference, "percent points", 100 * against.low, 100 * against.high
            )
    metrics["test_questions"] = Metric(float(reports[0].questions), "questions")
    counts = search.counts()
    metrics |= {f"programs_{name}": Metric(float(n), "programs") for name, n in counts.items()}
    objective = search.objective
    record = new_record(
        task="evolve",
        method=str(objective.identity()["target"]),
        command=command,
        seed=search.settings.seed,
        data=DataInfo(f"{train.name} → {test.name}", f"{train.hash} {test.hash}"),
        dtype="float64",
        metrics=metrics,
        config={
            **search.identity(),
            "evaluations": search.settings.evaluations,
            "expressions": {one.contestant.name: one.contestant.text for one in reports},
        },
    )
    write_record(record, folder / RECORD)
    rows = [json.dumps(program.row()) for program in search.lineage(winner)]
    write_atomically(folder / LINEAGE, "\n".join(rows) + "\n")
    return record
