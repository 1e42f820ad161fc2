"""A corpus written by several processes with Ray Data: a bank for each part, merged or kept.

Each part is a run of documents in their order, so the merged bank holds what one process would have
written. Knows documents and models; knows no command line.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.arguments import as_count, as_documents
from latentbank.errors import BankError, InputError
from latentbank.integrations.common import missing

if TYPE_CHECKING:
    from latentbank.documents.document import Document

__all__ = ["Ingested", "ingest", "start_ray"]

_MULTIPLE = 128  # documents: a part is whole batches of every method, so batches are the same


@dataclass(frozen=True)
class Ingested:
    """What an ingest did.

    Attributes:
        banks: the merged bank, or the banks of the parts.
        documents: that were read.
        entries: that were stored by the parts.
        duplicates: documents that a part held already.
        seconds: of writing the parts, the start of the workers included.
        merge_seconds: of merging.
    """

    banks: tuple[str, ...]
    documents: int
    entries: int
    duplicates: int
    seconds: float
    merge_seconds: float


def start_ray(workers: int, address: str | None = None) -> Any:
    """Ray's module, connected to a cluster or to a new one of `workers` cores on this machine.

    Raises:
        InputError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise missing("Ray", "ray") from None
    if not ray.is_initialized():
        own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        ray.init(
            address=address,
            logging_level="warning",
            log_to_driver=False,
            **({} if address else own),
        )
    return ray


def ingest(
    documents: Iterable[Document | str],
    bank: str | Path,
    workers: int = 2,
    *,
    part_documents: int | None = None,
    keep_parts: bool = False,
    address: str | None = None,
    budget_bytes: int | None = None,
    on_conflict: str = "replace",
    **options: Any,
) -> Ingested:
    """Writes documents with `workers` processes of one core each.

    The parts are `BANK.parts/000000.bank` and so on. They are merged into the new bank `bank`, or
    stay with `keep_parts`, each with its share of the budget. An ingest that was stopped and is run
    again goes on: a part passes over documents that it holds. `part_documents`: documents in a
    part, rounded up to a multiple of 128; None: as many parts as workers, which reads all documents
    before the first is written. `address` names a running Ray cluster, whose machines must share
    the folder. `options` as for `MemoryModel.from_pretrained`.

    Raises:
        InputError: Ray is not installed, or there is no document.
        BankError: the bank exists.
    """
    target = Path(bank).absolute()
    if target.exists():
        raise BankError(f"There is a bank at {bank} already; an ingest makes a new one.")
    as_count(workers, "workers")
    folder = target.with_name(f"{target.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    ray = start_ray(workers, address)
    import_module("ray.data")
    parts, sizes = [], []
    for part in _parts(as_documents(documents), workers, part_documents):
        parts.append(ray.put(part))
        sizes.append(len(part))
    if not parts:
        raise InputError("There is no document to write.")
    paths = [folder / f"{place:06d}.bank" for place in range(len(parts))]
    own = budget_bytes
    if keep_parts and budget_bytes is not None:
        own = budget_bytes // len(parts)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.raise_original_map_exception = True
    count = len(parts)
    rows = ray.data.from_items([{"part": i} for i in range(count)], override_num_blocks=count)
    written = rows.map_batches(
        _Writer,
        fn_constructor_kwargs={
            "parts": parts,
            "paths": [str(path) for path in paths],
            "options": {**options, "budget_bytes": own},
            "on_conflict": on_conflict,
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
    ).take_all()
    seconds = time.perf_counter() - began
    if not keep_parts:
        _merge(paths, target, budget_bytes)
    merged = time.perf_counter() - began - seconds
    return Ingested(
        tuple(map(str, paths)) if keep_parts else (str(target),),
        sum(sizes),
        sum(int(row["stored"]) for row in written),
        sum(int(row["duplicates"]) for row in written),
        seconds,
        merged,
    )


def _parts(
    documents: Iterator[Document], workers: int, size: int | None
) -> Iterator[list[Document]]:
    """Runs of documents, each of whole batches."""
    if size is None:
        whole = list(documents)
        size, documents = -(-len(whole) // workers), iter(whole)
    size = max(1, -(-size // _MULTIPLE)) * _MULTIPLE
    while part := list(itertools.islice(documents, size)):
        yield part


class _Writer:
    """A process that writes parts."""

    def __init__(
        self,
        parts: Sequence[Any],
        paths: Sequence[str],
        options: Mapping[str, Any],
        on_conflict: str,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self._parts, self._paths = parts, paths
        self._options, self._on_conflict = options, on_conflict

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the part that the batch names; {"stored", "duplicates"}, a number each."""
        from latentbank.model import MemoryModel

        ray: Any = import_module("ray")
        [place] = batch["part"].tolist()
        with MemoryModel.from_pretrained(bank=self._paths[place], quick=True, **self._options) as m:
            report = m.write(ray.get(self._parts[place]), on_conflict=self._on_conflict)
        return {"stored": [report.stored], "duplicates": [report.duplicates]}


def _merge(paths: Sequence[Path], target: Path, budget_bytes: int | None) -> None:
    """Makes one bank of the parts, which are removed."""
    from latentbank.bank import MemoryBank
    from latentbank.bank.admin.join import merge_banks
    from latentbank.bank.words.folder import remove_index

    if len(paths) == 1:
        os.replace(paths[0], target)
    else:
        with ExitStack() as stack:
            banks = [stack.enter_context(MemoryBank.open(path, read_only=True)) for path in paths]
            fade = None if budget_bytes is None else (lambda entry: None)
            merge_banks(banks, target, budget_bytes, fade)
    for path in paths:
        remove_index(str(path))
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    paths[0].parent.rmdir()
