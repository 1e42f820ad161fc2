"""What a bench is to make: rows (method, adapter, changes) × budgets, one record each.

Which adapter belongs to which method is read from the adapters. Knows the registry, adapters,
records and protocols; runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from latentbank.adapter import (
    build_method,
    find_adapter,
    load_adapter,
    packaged_adapters,
    read_config,
)
from latentbank.backbone.model import Backbone
from latentbank.bench.budget import budget_label
from latentbank.bench.record import read_record
from latentbank.bench.session import Settings
from latentbank.bench.task import TASKS, Task
from latentbank.capabilities import Trained, set_training
from latentbank.config import build_config
from latentbank.errors import AdapterError, InputError
from latentbank.evaluate.data import QADataset
from latentbank.method import METHODS, Method

LORA = "+LoRA"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `adapter`: a packaged name or a folder, "" for none. `preset` names the sizes of a method that
    is built without an adapter.
    """

    name: str
    method: str
    adapter: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""

    def identity(self) -> dict[str, Any]:
        """What decides about the numbers of this row; the adapter by its content."""
        return {
            "method": self.method,
            "adapter": _digest(self.adapter) if self.adapter else "",
            "overrides": dict(self.overrides),
            "preset": self.preset,
        }


@dataclass(frozen=True)
class Bench:
    """What to run.

    `options` change the protocol's config. `budgets` are in bytes per document, None for no limit.
    `again` repeats what is done already. `share` encodes a batch of documents once for all rows and
    budgets, which changes no result.
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
    """A record to make: a row under a budget, and the settings that decide about its numbers."""

    row: Row
    budget: int | None
    path: Path
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The row's name and, if there is one, its budget."""
        return self.row.name if self.budget is None else f"{self.row.name}, {self.budget} B"


# ---- rows


def backbone_name(spec: str) -> str:
    """The name that `load_backbone` gives the model of `spec`."""
    return spec if "/" not in spec else spec.split("/")[-1]


def packaged_for(method: str, backbone: str) -> str:
    """The packaged adapter of a method for the backbone called `backbone`, or "".

    Without an adapter of its own, a method takes that of a method with the same config class, whose
    weights fit it.
    """
    wanted = METHODS.get(method).Config
    own, related = [], []
    for name, folder in packaged_adapters().items():
        config = read_config(folder)
        if config["backbone"].rpartition(":")[0] != backbone:
            continue
        if config["method"] == method:
            own.append(name)
        elif METHODS.get(config["method"]).Config is wanted:
            related.append(name)
    named = f"{method}-{backbone}"
    return named if named in own else next(iter([*own, *related]), "")


def only_lora(adapter: str) -> bool:
    """Whether an adapter holds only low-rank weights: its method works without them.

    Raises AdapterError if its file is missing or damaged.
    """
    path = find_adapter(adapter) / "adapter.safetensors"
    try:
        with safe_open(str(path), framework="pt") as file:
            return all(name.startswith(("lora.", "closed_lora.")) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"'{path}' is damaged: {error}") from None


def build_row(row: Row, backbone: Backbone, seed: int = 0) -> Method:
    """The method of a row, in eval mode.

    Without an adapter it is bare where it needs no training. Otherwise it has random weights from
    `seed`, in the sizes of the row's preset or of the one named after the backbone.

    Raises:
        AdapterError: the adapter is damaged, or for another backbone or method.
    """
    if row.adapter:
        return load_adapter(find_adapter(row.adapter), backbone, row.overrides, row.method)
    preset = row.preset or None
    method = build_method(row.method, backbone, row.overrides, preset, seed)
    known = METHODS.get(row.method).presets
    if preset is None and is_untrained(row, method) and backbone.name in known:
        method = build_method(row.method, backbone, row.overrides, backbone.name, seed)
    set_training(method, False)
    return method


def is_untrained(row: Row, method: Method) -> bool:
    """Whether the method answers with random weights because it has no adapter."""
    return not row.adapter and isinstance(method, Trained) and bool(method.network.state_dict())


# ---- cells


def make_task(bench: Bench, data: QADataset) -> Task:
    """The protocol over `data`; raises as `run_bench` does."""
    cls = TASKS.get(bench.task)
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
    cells: dict[str, Cell] = {}
    for row in bench.rows:
        identity = row.identity()
        for budget in bench.budgets:
            gold = ("gold",) * bench.settings.gold
            stem = "--".join([bench.task, _slug(row.name), budget_label(budget), *gold])
            if stem in cells:
                raise InputError(
                    f"The rows {cells[stem].row.name!r} and {row.name!r} would share the record "
                    f"{stem}.json; give one another name."
                )
            settings = json.loads(json.dumps({**common, **identity, "budget": budget}))
            cells[stem] = Cell(row, budget, bench.out / f"{stem}.json", settings)
    return list(cells.values())


def is_done(cell: Cell, again: bool = False) -> bool:
    """Whether the cell's record is there and need not be made `again`.

    Raises InputError if it was made with other settings, or another file is in its place.
    """
    if not cell.path.exists():
        return False
    try:
        recorded = read_record(cell.path).config.get("settings")
    except InputError as error:
        raise InputError(f"{error} It is in the way of a record; move it away.") from error
    if again or recorded == cell.settings:
        return not again
    known = recorded if isinstance(recorded, Mapping) else {}
    names = [k for k in cell.settings if known.get(k) != cell.settings[k]]
    changes = "; ".join(f"{k} was {known.get(k)!r}, is {cell.settings[k]!r}" for k in names)
    raise InputError(
        f"{cell.path} was made with other settings ({changes}). Name another --out, or replace it "
        "with --again."
    )


def name_strangers(out: Path, cells: Sequence[Cell], note: Callable[[str], None]) -> None:
    """Names the JSON files of the results folder that are no records; they stay as they are.

    Raises InputError if `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder; name one for the records.")
    own = {cell.path for cell in cells}
    for path in sorted(out.glob("*.json")) if out.is_dir() else ():
        if path not in own:
            try:
                read_record(path)
            except InputError as error:
                note(f"{error} It is left alone.")


def _digest(adapter: str) -> str:
    """32 hexadecimal digits over the adapter's weights and config."""
    folder = find_adapter(adapter)
    digest = hashlib.blake2b(digest_size=16)
    try:
        for name in ("config.json", "adapter.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise AdapterError(f"the adapter '{folder}' cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _slug(name: str) -> str:
    """ "none+LoRA" → "none-LoRA"."""
    return "-".join(part for part in "".join(c if c.isalnum() else " " for c in name).split())
