"""What a bench is to make: rows × budgets of one protocol, one record each, and which are there.

Knows records, rows and protocols; runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentbank.bench.budget import budget_label
from latentbank.bench.record import read_record
from latentbank.bench.rows import Row
from latentbank.bench.task import Settings, Task, task_class
from latentbank.config import build_config
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset


@dataclass(frozen=True)
class Bench:
    """What to run. `options` change the protocol's config; `budgets` are in bytes per document,
    None for no limit; `again` runs what is done already anew; `share` encodes a batch of documents
    once for all rows and budgets, which changes no result.
    """

    task: str
    rows: tuple[Row, ...]
    data: QADataset
    out: Path
    backbone: str
    budgets: tuple[int | None, ...] = (None,)
    settings: Settings = Settings()
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str = "cpu"
    chunk_tokens: int = 512
    again: bool = False
    share: bool = True
    command: str = ""


@dataclass(frozen=True)
class Cell:
    """One record to be: a row under a budget, and the settings that make it what it is."""

    row: Row
    budget: int | None
    path: Path
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For people: the row and, if there is one, the budget."""
        return self.row.name if self.budget is None else f"{self.row.name}, {self.budget} B"


def make_task(bench: Bench, data: QADataset) -> Task:
    """The protocol over `data`; raises as `run_bench` does."""
    cls = task_class(bench.task)
    if not cls.takes_budget and bench.budgets != (None,):
        raise InputError(f"{bench.task} measures a bank without limit; leave --budget out.")
    if not cls.takes_gold and bench.settings.gold:
        raise InputError(f"{bench.task} has no gold document to give; leave --gold out.")
    try:
        config = build_config(cls.Config, bench.options)
    except (TypeError, ValueError) as error:
        raise InputError(f"An option of {bench.task} has the wrong type: {error}.") from error
    return cls(data, bench.settings, config)


def plan(bench: Bench, task: Task) -> list[Cell]:
    """One cell for each row and budget, in order. Raises InputError if two share a file."""
    common = {
        "task": bench.task,
        "backbone": bench.backbone,
        "dtype": bench.dtype,
        "device": bench.device,
        "data": bench.data.hash,
        "extra_data": task.extra_hash,
        "chunk_tokens": bench.chunk_tokens,
        "options": asdict(task.config),
        **bench.settings.identity(),
    }
    cells, taken = list[Cell](), dict[str, str]()
    for row in bench.rows:
        identity = row.identity()
        for budget in bench.budgets:
            gold = ("gold",) * bench.settings.gold
            stem = "--".join([bench.task, _slug(row.name), budget_label(budget), *gold])
            if taken.setdefault(stem, row.name) != row.name or stem in {c.path.stem for c in cells}:
                raise InputError(
                    f"The rows {taken[stem]!r} and {row.name!r} would share the record "
                    f"{stem}.json; give one another name."
                )
            settings = json.loads(json.dumps({**common, **identity, "budget": budget}))
            cells.append(Cell(row, budget, bench.out / f"{stem}.json", settings))
    return cells


def is_done(cell: Cell, again: bool = False) -> bool:
    """Whether the cell's record is there, and need not be made `again`.

    Raises InputError if it was made with other settings, or another file is in its place.
    """
    if not cell.path.exists():
        return False
    try:
        found = read_record(cell.path).config.get("settings")
    except InputError as error:
        raise InputError(f"{error} It is in the way of a record; move it away.") from error
    if again or found == cell.settings:
        return not again
    known = found if isinstance(found, Mapping) else {}
    names = [k for k in cell.settings if known.get(k) != cell.settings[k]]
    changes = "; ".join(f"{k} was {known.get(k)!r}, is {cell.settings[k]!r}" for k in names)
    raise InputError(
        f"{cell.path} was made with other settings ({changes}). Name another --out, or replace it "
        "with --again."
    )


def name_strangers(out: Path, cells: Sequence[Cell], note: Callable[[str], None]) -> None:
    """Says which JSON files in the results folder are no records; they are left alone."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder; name one for the records.")
    own = {cell.path for cell in cells}
    for path in sorted(out.glob("*.json")) if out.is_dir() else ():
        if path not in own:
            try:
                read_record(path)
            except InputError as error:
                note(f"{error} It is left alone.")


def _slug(name: str) -> str:
    """ "none+LoRA" → "none-LoRA"."""
    return "-".join(part for part in "".join(c if c.isalnum() else " " for c in name).split())
