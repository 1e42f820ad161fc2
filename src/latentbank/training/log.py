"""The log of a training run: `log.jsonl`, with one report of a step in each line.

Knows a file of JSON lines; knows no method and no optimiser.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "log.jsonl"


@dataclass(frozen=True)
class Progress:
    """What the trainer reports after each step.

    `presentations` counts the questions asked so far, each as often as it was asked.
    `seconds_left` is an estimate. `cpu_seconds` is the processor time of the step.
    """

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    seconds_left: float
    validation: dict[str, float] | None = None
    presentations: int = 0
    cpu_seconds: float = 0.0


def append_log(folder: Path, report: Mapping[str, Any]) -> None:
    """Adds the report of a step to the log in `folder`."""
    with (folder / NAME).open("a") as handle:
        handle.write(json.dumps(report) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The reports of a run, oldest first."""
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


def trim_log(folder: Path, step: int) -> None:
    """Drops the reports of steps after `step`, which a resumed run will report again.

    The file is replaced as a whole, and only if there is something to drop.
    """
    log = folder / NAME
    if not log.exists():
        return
    lines = log.read_text().splitlines(keepends=True)
    kept = [line for line in lines if 0 <= _step_of(line) <= step]
    if kept != lines:
        fresh = folder / f"{NAME}.new"
        fresh.write_text("".join(kept))
        os.replace(fresh, log)


def _step_of(line: str) -> int:
    """The step that a line reports; -1 for a line that a kill cut short."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else -1
    except (ValueError, KeyError, TypeError):
        return -1
