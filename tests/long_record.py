"""What the bank's tests share: records of the long ones, and a state that describes documents.

A long test leaves one JSON record in the folder that LATENTBANK_RESULTS names; without it, none.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from latentbank.bench.record import DataInfo, Metric, new_record, write_record


def keep(name: str, **figures: float) -> None:
    """Write `figures` as the record long-NAME.json."""
    folder = os.environ.get("LATENTBANK_RESULTS")
    if folder:
        record = new_record(
            task=f"bank-{name}",
            method="bank",
            command="make test-long",
            seed=0,
            data=DataInfo("generated", ""),
            dtype="",
            metrics={
                key.replace("_", " "): Metric(value, "s" if key == "seconds" else "count")
                for key, value in figures.items()
            },
        )
        write_record(record, Path(folder) / f"long-{name}.json")


def numbers_total(ids: Iterable[str]) -> bytes:
    """The sum of all ids as numbers, 16 bytes: other documents have another one."""
    return (sum(int(id, 16) for id in set(ids)) % (1 << 128)).to_bytes(16, "big")


def numbers_state(ids: Iterable[str]) -> dict[str, bytes]:
    """A state of constant size that describes documents: their number and `numbers_total`."""
    known = set(ids)
    return {"count": len(known).to_bytes(8, "big"), "total": numbers_total(known)}
