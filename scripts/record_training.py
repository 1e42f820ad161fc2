"""One record from a finished training run: its last losses and telemetry, and its validation.

RUN is the folder that `latentbank train --out` wrote.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from latentbank.bench.record import DataInfo, Metric, new_record, write_record
from latentbank.errors import InputError

UNITS = {"milliseconds": "ms", "perplexity": "codes", "dead": "codes", "share": "fraction"}


def read_log(run: Path) -> list[dict[str, Any]]:
    """The steps of a run in order, the last line of each."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = {row["step"]: row for row in map(json.loads, lines)}
    if not steps:
        raise InputError(f"{run} holds no step of training")
    return [steps[at] for at in sorted(steps)]


def run_metrics(steps: list[dict[str, Any]], last: int) -> dict[str, Metric]:
    """Means of every loss part over the last steps, and the last validation."""
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
    return metrics


def main() -> None:
    """Reads the run and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True, help="label of the row")
    parser.add_argument("--last", type=int, default=20, help="steps that the means are over")
    options = parser.parse_args()
    config = json.loads((options.run / "last" / "config.json").read_text(encoding="utf-8"))
    training = config["training"]
    record = new_record(
        task="training",
        method=config["method"],
        command=training["command"],
        seed=training["seed"],
        data=DataInfo(**training["data"]),
        dtype="float32",
        metrics=run_metrics(read_log(options.run), options.last),
        config={"name": options.name, "method": config["config"]},
    )
    write_record(record, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
