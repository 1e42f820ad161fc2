"""What the measuring scripts share: writing what one of them found as a record."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latentbank.bench.record import DataInfo, Metric, Series, new_record, write_record
from latentbank.evaluate.data import QADataset


def command_line() -> str:
    """The command that runs the present script again."""
    return shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def write_measured(
    path: Path,
    task: str,
    metrics: Mapping[str, Metric],
    data: QADataset | DataInfo,
    *,
    method: str = "all",
    dtype: torch.dtype | str = "",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    series: Mapping[str, Series] | None = None,
) -> None:
    """One record at `path` (.json) of what the present script measured on `data`."""
    record = new_record(
        task=task,
        method=method,
        command=command_line(),
        seed=seed,
        data=DataInfo(data.name, data.hash),
        dtype=str(dtype).removeprefix("torch."),
        metrics=metrics,
        config=config,
        series=series,
    )
    write_record(record, path)
