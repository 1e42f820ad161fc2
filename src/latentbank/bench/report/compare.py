"""Compares two records: a paired bootstrap over the questions that both were asked.

Knows records and their prediction files; knows no method and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentbank.bench.record import Record, read_predictions, read_record
from latentbank.errors import InputError
from latentbank.evaluate.metrics import paired_bootstrap

SCORES = (("f1", "F1"), ("exact_match", "EM"))


@dataclass(frozen=True)
class Difference:
    """Score a, score b and a - b in percentage points, its 95 % interval and two-sided p."""

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero: the difference is larger than its noise."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Record a minus record b. `notes`: what else differs between the two runs."""

    a: str
    b: str
    task: str
    data: str
    questions: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def sentence(self) -> str:
        """The result in one sentence."""
        titles = dict(SCORES)
        parts = [
            f"{titles[d.metric]} {_signed(d.difference)} points (95 % interval {_signed(d.low)} to "
            f"{_signed(d.high)}, p = {_p(d.p_value)}), "
            f"{'larger than' if d.clear else 'within'} its noise"
            for d in self.differences
        ]
        asked = f"{self.questions:,} question{'' if self.questions == 1 else 's'}"
        return f"{self.a} minus {self.b} over {asked}: {'; '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sentence and each difference's `clear`."""
        fields = asdict(self)
        fields["differences"] = [{**asdict(d), "clear": d.clear} for d in self.differences]
        return {**fields, "sentence": self.sentence()}


def compare_records(
    a: str | Path, b: str | Path, common: bool = False, samples: int = 10_000, seed: int = 0
) -> Comparison:
    """Compares the answers of two records question by question (`metrics.paired_bootstrap`).

    Questions are resampled. A question of several phases counts with its mean score. `common` takes
    the questions that both were asked; without it both must have been asked the same.

    Raises InputError if a record or its predictions are missing or damaged, if a run was skipped,
    or if task, data or questions differ.
    """
    first, second = read_record(a), read_record(b)
    _comparable(first, Path(a), second, Path(b))
    left, right = question_scores(Path(a)), question_scores(Path(b))
    shared = sorted(left.keys() & right.keys())  # the order in the files does not matter
    if not shared or (not common and (len(left) != len(shared) or len(right) != len(shared))):
        hint = "; --common compares on those" if shared else ""
        raise InputError(
            f"{a} and {b} were asked different questions: {len(left):,} and {len(right):,}, "
            f"{len(shared):,} in common{hint}."
        )
    differences = []
    for metric, _ in SCORES:
        ours = [100 * left[name][metric] for name in shared]
        theirs = [100 * right[name][metric] for name in shared]
        result = paired_bootstrap(ours, theirs, samples, seed)
        differences.append(
            Difference(
                metric, sum(ours) / len(ours), sum(theirs) / len(theirs), result.difference,
                result.low, result.high, result.p_value,
            )
        )  # fmt: skip
    return Comparison(
        *_names(first, second, Path(a), Path(b)),
        first.task,
        first.data.name,
        len(shared),
        tuple(differences),
        tuple(_notes(first, second)),
    )


def _comparable(first: Record, a: Path, second: Record, b: Path) -> None:
    for path, record in ((a, first), (b, second)):
        if record.skipped:
            reason = record.skipped.rstrip(".")
            raise InputError(f"{path} has no answers to compare; it was skipped: {reason}.")
    if first.task != second.task:
        raise InputError(
            f"{a} and {b} are of different tasks, {first.task} and {second.task}; compare two "
            "records of one task."
        )
    if first.data.hash != second.data.hash:
        raise InputError(
            f"{a} and {b} are of different data: {first.data.name} ({first.data.hash[:8]}) and "
            f"{second.data.name} ({second.data.hash[:8]})."
        )


def question_scores(path: Path) -> dict[str, dict[str, float]]:
    """Question id → mean score over its rows, by metric."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_predictions(path):
        rows.setdefault(row["id"], []).append(row)
    scores: dict[str, dict[str, float]] = {}
    for name, answers in rows.items():
        scores[name] = {metric: _mean(path, name, answers, metric) for metric, _ in SCORES}
    return scores


def _mean(path: Path, name: str, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    values = [row.get(metric) for row in rows]
    numbers = [v for v in values if isinstance(v, int | float) and 0 <= v <= 1]
    if len(numbers) != len(values):
        raise InputError(
            f"The predictions of {path} have no {metric} between 0 and 1 for question {name!r}."
        )
    return sum(numbers) / len(numbers)


def _names(first: Record, second: Record, a: Path, b: Path) -> tuple[str, str]:
    """The labels of the two records, or their paths if the labels are equal."""
    labels = [str(r.config.get("name") or r.method) for r in (first, second)]
    return (labels[0], labels[1]) if labels[0] != labels[1] else (str(a), str(b))


def _notes(first: Record, second: Record) -> list[str]:
    pairs = {
        "dtype": (first.dtype, second.dtype),
        "seed": (first.seed, second.seed),
        "budget in bytes": (first.budget_bytes, second.budget_bytes),
        "gold document given": (first.config.get("gold", False), second.config.get("gold", False)),
        "code revision": (first.code_revision, second.code_revision),
    }
    return [f"{name}: {a} against {b}" for name, (a, b) in pairs.items() if a != b]


def _signed(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if text[1:] == "0.0" else text


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.2f}"
