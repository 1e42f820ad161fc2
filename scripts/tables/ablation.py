"""The table of an ablation: each variant of a method against the whole method.

Knows records and predictions of rows named `VARIANT` or `VARIANT seed N`; runs nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from latentbank.bench.record import Record, read_record
from latentbank.bench.report.compare import question_scores
from latentbank.errors import InputError
from latentbank.evaluate.metrics import paired_bootstrap
from tables.markdown import table

_SEED = re.compile(r" seed (\d+)$")
Runs = dict[int, tuple[Record, dict[str, float]]]  # seed -> (record, question -> F1 in percent)


def ablation_table(folder: Path, whole: str) -> str:
    """Markdown: F1 of each variant, and its difference from the variant `whole`, over the questions
    of the seeds that both have.

    Raises InputError without records of `whole`, or where a variant was asked other questions.
    """
    variants: defaultdict[str, Runs] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        name = str(record.config.get("name", record.method))
        seed = _SEED.search(name)
        scores = {one: 100 * row["f1"] for one, row in question_scores(path).items()}
        variants[_SEED.sub("", name)][int(seed[1]) if seed else record.seed] = record, scores
    if whole not in variants:
        raise InputError(f"{folder} holds no record of {whole!r} to compare with.")
    base = variants.pop(whole)
    rows = [(whole, str(len(base)), f"{_mean(base):.1f}", "", "")]
    for name, runs in sorted(variants.items(), key=lambda item: -_mean(item[1])):
        rows.append((name, str(len(runs)), f"{_mean(runs):.1f}", *_difference(runs, base)))
    first = base[min(base)][0]
    questions = len(base[min(base)][1])
    kept = f"{first.metrics['documents'].value:,.0f} documents, {questions} questions"
    every = (record for part in (base, *variants.values()) for record, _ in part.values())
    code = ", ".join(sorted({record.code_revision for record in every}))
    head = ("", "seeds", "F1", "difference", "p")
    return f"{table(head, rows)}\n\n*{first.data.name}, {kept}; code {code}.*"


def _mean(runs: Runs) -> float:
    return sum(record.metrics["f1"].value for record, _ in runs.values()) / len(runs)


def _difference(runs: Runs, base: Runs) -> tuple[str, str]:
    """The difference with its interval, and its p-value, over all questions of the common seeds."""
    pairs = [(runs[seed][1], base[seed][1]) for seed in sorted(runs.keys() & base.keys())]
    if not pairs:
        return "", ""
    for one, other in pairs:
        if one.keys() != other.keys():
            raise InputError("The variants of an ablation must be asked the same questions.")
    found = paired_bootstrap(_joined(pairs, 0), _joined(pairs, 1))
    interval = f"[{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.difference:+.1f} {interval}", f"{found.p_value:.2g}"


def _joined(pairs: Sequence[tuple[dict[str, float], dict[str, float]]], side: int) -> list[float]:
    return [pair[side][name] for pair in pairs for name in sorted(pair[0])]
