"""How much faster workers of Ray write a corpus than one of them does; a record.

For a method that encodes documents. Each ingest starts its own processes, whose start counts. The
banks must be equal. Needs the extra `ray` and a quiet machine.

    python scripts/measure_ray.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentbank.bank import MemoryBank
from latentbank.bank.admin.join import diff_banks
from latentbank.bench.record import Metric
from latentbank.evaluate.data import load_sample
from latentbank.integrations.ray_ingest import ingest, start_ray
from measured import write_measured


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--copies", type=int, default=4, help="Of the sample's documents.")
    parser.add_argument("--adapter", default="strata")
    parser.add_argument("--overrides", default='{"entry": "pooled"}')
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", default="results/scale/ingest.json")
    args = parser.parse_args()
    data = load_sample()
    documents = [
        replace(document, id=f"{document.id}-{copy}", text=f"{copy}. {document.text}")
        for copy in range(args.copies)
        for document in data.documents
    ]
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    ray = start_ray(max(args.workers))
    options: dict[str, Any] = {
        "adapter": args.adapter,
        "overrides": json.loads(args.overrides),
        "dtype": args.dtype,
    }
    metrics = {"documents": Metric(len(documents), "count")}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{workers}.bank" for workers in args.workers]
        for workers, path in zip(args.workers, paths, strict=True):
            size = -(-len(documents) // max(args.workers))
            done = ingest(documents, path, workers, part_documents=size, **options)
            name = f"{workers} worker{'s' if workers > 1 else ''}"
            metrics[f"{name}: seconds"] = Metric(done.seconds, "s")
            metrics[f"{name}: merge"] = Metric(done.merge_seconds, "s")
        with MemoryBank.open(paths[0], read_only=True) as first:
            differing = 0
            for path in paths[1:]:
                with MemoryBank.open(path, read_only=True) as other:
                    found = diff_banks(first, other)
                    differing += len(found.only_first) + len(found.only_second)
                    differing += len(found.changed)
    ray.shutdown()
    metrics["entries that differ"] = Metric(differing, "count")
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.4g} {metric.unit}")
    write_measured(Path(args.out), "ray-ingest", metrics, data, method=args.adapter)


if __name__ == "__main__":
    main()
