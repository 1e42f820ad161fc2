"""A whole study: a search, its baselines at equal evaluations, and one test on another stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentbank.bank.policy import FORMULA
from latentbank.bench.record import (
    DataInfo,
    Metric,
    Record,
    new_record,
    write_atomically,
    write_record,
)
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.metrics import BootstrapResult, Interval, paired_bootstrap
from latentbank.evolve.baselines import cross_entropy, random_search
from latentbank.evolve.objective import Objective
from latentbank.evolve.policies import PolicyObjective, figures_of
from latentbank.evolve.search import Search
from latentbank.functions.expression import parse

__all__ = ["Contestant", "Report", "contestants", "run_test", "write_study"]

FIRST, EVOLVED, RANDOM, CEM = "default", "evolved", "random", "cem"
KEPT = 8  # of each search, for the choice
RECORD, LINEAGE = "evolve.json", "lineage.jsonl"


@dataclass(frozen=True)
class Contestant:
    """An expression, how it was found, its score where it was searched, and what that cost.

    `chosen_score`: its score where one of the best was chosen.
    """

    name: str
    text: str
    score: float
    chosen_score: float
    evaluations: int


@dataclass(frozen=True)
class Report:
    """What a contestant reached on the test.

    `against` compares it with the default, item by item; `by_document` draws all questions about
    one document together, which tells more of the noise, and `f1` so compares the model's answers.
    None for the default itself, `f1` also where no model answered.
    """

    contestant: Contestant
    figures: Mapping[str, float]
    questions: int
    against: BootstrapResult | None
    by_document: Interval | None
    f1: Interval | None = None


def contestants(
    search: Search, chooser: Objective, told: Callable[[str], None]
) -> list[Contestant]:
    """The default, and the winners of the search, of random search and of CEM.

    The baselines have as many evaluations as the search had. The `KEPT` best of each are scored
    once by `chooser`, and the one that is best there is the contestant.
    """
    settings, objective, first = search.settings, search.objective, search.programs[0]
    count, most = settings.evaluations, settings.most_nodes
    evolved = [(one.text, one.score) for one in search.population.archive[:KEPT]]
    told("random search")
    by_chance = random_search(objective, count, settings.seed, most, KEPT)
    told("cross-entropy method over weights")
    by_weight = cross_entropy(objective, count, settings.seed, keep=KEPT)
    told("choice among the best")
    score = chooser.figures(parse(first.text, chooser.names), 1.0)["score"]
    found = [Contestant(FIRST, first.text, first.score, score, 1)]
    for name, rows in ((EVOLVED, evolved), (RANDOM, by_chance.best), (CEM, by_weight.best)):
        tried = [
            Contestant(
                name, text, own, chooser.figures(parse(text, chooser.names), 1.0)["score"], count
            )
            for text, own in rows
        ]
        found.append(max(tried, key=lambda one: one.chosen_score))
    return found


def run_test(objective: Objective, contestants: list[Contestant], read: bool) -> list[Report]:
    """Every contestant once on the test, the default first.

    With `read` the model also answers the last questions of a policy's streams, for the default and
    for the one that was best where the best were chosen.
    """
    chosen = max(contestants[1:], key=lambda one: one.chosen_score, default=contestants[0])
    played = [_played(objective, o, read and o in (contestants[0], chosen)) for o in contestants]
    base, reports = played[0], []
    for contestant, own in zip(contestants, played, strict=True):
        against, by_document, f1 = None, None, None
        if contestant.name != FIRST:
            against = paired_bootstrap(own.outcomes, base.outcomes)
            difference = np.subtract(own.outcomes, base.outcomes)
            by_document = clustered_interval(difference, own.owners)
            if own.f1:
                f1 = clustered_interval(np.subtract(own.f1, base.f1), own.f1_owners)
        count = len(own.outcomes)
        reports.append(Report(contestant, own.figures, count, against, by_document, f1))
    return reports


@dataclass(frozen=True)
class _Tested:
    """Outcomes [n] of a test with the document of each, and F1 [m] of answers with theirs."""

    figures: Mapping[str, float]
    outcomes: Sequence[float]
    owners: Sequence[str]
    f1: Sequence[float] = ()
    f1_owners: Sequence[str] = ()


def _played(objective: Objective, contestant: Contestant, read: bool) -> _Tested:
    expression = parse(contestant.text, objective.names)
    if not isinstance(objective, PolicyObjective):
        outcomes = objective.outcomes(expression)
        owners = [str(i) for i in range(len(outcomes))]
        return _Tested(objective.figures(expression, 1.0), outcomes, owners)
    streams = objective.play(f"{FORMULA}{expression}", read=read)
    return _Tested(
        figures_of(streams),
        [value for one in streams for value in one.answered],
        [f"{i} {owner}" for i, one in enumerate(streams) for owner in one.owners],
        [value for one in streams for value in one.f1],
        [f"{i} {owner}" for i, one in enumerate(streams) for owner in one.f1_owners],
    )


def clustered_interval(
    differences: npt.ArrayLike, owners: Sequence[str], samples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of differences [n] with its 95 % interval; those of one owner are drawn together."""
    _, number = np.unique(np.asarray(owners), return_inverse=True)
    sums = np.bincount(number, np.asarray(differences, np.float64))
    counts = np.bincount(number)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (samples, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def write_study(
    search: Search,
    reports: list[Report],
    train: QADataset,
    test: QADataset,
    command: str,
    folder: Path,
) -> Record:
    """Writes the record and the lineage of the evolved one to `folder`; returns the record."""
    evolved = next(one.contestant.text for one in reports if one.contestant.name == EVOLVED)
    winner = next(one for one in search.programs if one.text == evolved)
    metrics: dict[str, Metric] = {}
    for report in reports:
        name, against = report.contestant.name, report.against
        metrics[f"{name}_train_score"] = Metric(100 * report.contestant.score, "percent")
        metrics[f"{name}_choice_score"] = Metric(100 * report.contestant.chosen_score, "percent")
        for figure, value in report.figures.items():
            counted = figure in ("kept", "questions")
            unit = "documents" if figure == "kept" else "questions" if counted else "percent"
            metrics[f"{name}_test_{figure}"] = Metric(value if counted else 100 * value, unit)
        if against is not None:
            metrics[f"{name}_over_default"] = Metric(
                100 * against.difference, "percent points", 100 * against.low, 100 * against.high
            )
        for kind, found in (("by_document", report.by_document), ("f1", report.f1)):
            if found is not None:
                metrics[f"{name}_over_default_{kind}"] = Metric(
                    100 * found.value, "percent points", 100 * found.low, 100 * found.high
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
