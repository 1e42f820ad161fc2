"""Records of training runs as far as they are: curves, last losses and telemetry, validation.

RUN is the folder of one run (`latentbank train --out`), or of several (`train_long.py --out`): then
every run in it gets a record OUT/long-METHOD.json, and --plot draws their validation curves.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentbank.bench.record import (
    DataInfo,
    Metric,
    Record,
    Series,
    new_record,
    write_atomically,
    write_record,
)
from latentbank.bench.report.plots import colours, curves, to_svg
from latentbank.errors import InputError

UNITS = {"milliseconds": "ms", "perplexity": "codes", "dead": "codes", "share": "fraction"}
X = ("question presentations", "questions")
VALIDATION = "validation F1"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The steps of a run in order, the last line of each.

    Raises:
        InputError: the run has no step.
    """
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = {row["step"]: row for row in map(json.loads, lines)}
    if not steps:
        raise InputError(f"{run} holds no step of training")
    return [steps[at] for at in sorted(steps)]


def run_metrics(steps: Sequence[dict[str, Any]], last: int) -> dict[str, Metric]:
    """Means of every loss part over the last steps, the last validation, and the effort."""
    parts: dict[str, list[float]] = {}
    for row in steps[-last:]:
        for name, value in row["parts"].items():
            parts.setdefault(name, []).append(value)
    metrics = {
        f"{name}, mean of last {len(values)}": Metric(
            statistics.fmean(values), UNITS.get(name, "nats")
        )
        for name, values in parts.items()
    }
    validations = [row["validation"] for row in steps if row["validation"]]
    for name, value in (validations[-1] if validations else {}).items():
        metrics[f"validation {name}"] = Metric(value, UNITS.get(name, "percent"))
    metrics["steps"] = Metric(float(steps[-1]["step"]), "steps")
    if steps[-1].get("presentations"):
        metrics["presentations"] = Metric(float(steps[-1]["presentations"]), "questions")
        hours = sum(row.get("cpu_seconds", 0.0) for row in steps) / 3600
        metrics["processor time of the steps"] = Metric(hours, "hours")
    return metrics


def run_series(steps: Sequence[dict[str, Any]], window: int) -> dict[str, Series]:
    """Curves over the question presentations: validation F1, and every loss part as the mean of
    `window` steps. None for a run that did not count its presentations.
    """
    if not steps[-1].get("presentations"):
        return {}
    found: dict[str, Series] = {}
    judged = [row for row in steps if row["validation"]]
    if judged:
        points = [(row["presentations"], row["validation"]["f1"]) for row in judged]
        found[VALIDATION] = _curve(points, VALIDATION, "percent")
    for name in dict.fromkeys(name for row in steps for name in row["parts"]):
        points = []
        for at in range(0, len(steps), window):
            rows = [row for row in steps[at : at + window] if name in row["parts"]]
            if rows:
                mean = statistics.fmean(row["parts"][name] for row in rows)
                points.append((rows[-1]["presentations"], mean))
        found[name] = _curve(points, name, UNITS.get(name, "nats"))
    return found


def _curve(points: Sequence[tuple[float, float]], name: str, unit: str) -> Series:
    x, y = zip(*points, strict=True)
    return Series(x, y, *X, name, unit)


def portable(command: str) -> str:
    """The command without the folders of one machine: absolute paths keep their last part."""
    words = [Path(word).name if word.startswith("/") else word for word in shlex.split(command)]
    return shlex.join(f"scripts/{w}" if w == "train_long.py" else w for w in words)


def run_record(run: Path, name: str, last: int) -> Record:
    """The record of one run."""
    config = json.loads((run / "last" / "config.json").read_text(encoding="utf-8"))
    training, steps = config["training"], read_log(run)
    return new_record(
        task="training",
        method=config["method"],
        command=portable(training["command"]),
        seed=training["seed"],
        data=DataInfo(**training["data"]),
        dtype="float32",
        metrics=run_metrics(steps, last),
        config={"name": name, "method": config["config"], "training": training.get("settings", {})},
        series=run_series(steps, last),
    )


def picture(records: Sequence[Record]) -> str:
    """The validation curves of several runs as SVG.

    Raises:
        InputError: no run has been validated yet.
    """
    drawn = {r.method: r.series[VALIDATION] for r in records if VALIDATION in r.series}
    if not drawn:
        raise InputError("no run has a validation yet, so there is nothing to draw")
    lines = [(name, name, curve) for name, curve in drawn.items()]
    return to_svg(curves(lines, colours(list(drawn)), X[0], "F1 on validation, %"), "training")


def main() -> None:
    """Reads the runs and writes their records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a record, or a folder of records")
    parser.add_argument("--name", help="label of the row (one run)")
    parser.add_argument("--last", type=int, default=20, help="steps that the means are over")
    parser.add_argument("--plot", type=Path, help="validation curves as SVG (several runs)")
    options = parser.parse_args()
    if (options.run / "log.jsonl").exists():
        name = options.name or options.run.name
        print(write_record(run_record(options.run, name, options.last), options.out))
        return
    runs = sorted(path.parent for path in options.run.glob("*/log.jsonl"))
    runs = [run for run in runs if (run / "last" / "config.json").exists()]
    if not runs:
        raise InputError(f"{options.run} holds no run with a checkpoint")
    records = [run_record(run, run.name, options.last) for run in runs]
    for run, record in zip(runs, records, strict=True):
        print(write_record(record, options.out / f"long-{run.name}.json"))
    if options.plot is not None:
        write_atomically(options.plot, picture(records))


if __name__ == "__main__":
    main()
