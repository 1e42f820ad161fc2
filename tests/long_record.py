"""Where the long tests leave their figures: one JSON record each in the folder that
LATENTBANK_RESULTS names; without it they leave none.
"""

import os
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
