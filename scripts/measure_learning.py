"""What a step of sparse memory costs with a small and with a large table, in one run.

Tables live in memory-mapped files. The same documents, and the same number of accessed slots; the
steps with each table take turns. Times are processor time, since other work may run beside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from latentbank.adapter import build_method
from latentbank.backbone.model import load_backbone
from latentbank.bench.record import Metric
from latentbank.evaluate.data import load_sample
from latentbank.parts.online.losses import document_ids
from latentbank.parts.product_keys.sparse_delta import SparseDelta
from measured import write_measured

WIDTH = 128  # of a value row


def step_seconds(method: Any, ids: list[list[int]], delta: SparseDelta) -> float:
    """Processor time of one step."""
    began = time.process_time()
    method.step(ids, delta)
    return time.process_time() - began


def main() -> None:
    """Measures and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    parser.add_argument("--sides", type=int, nargs=2, default=[100, 1000], help="slots are side²")
    parser.add_argument("--t", type=int, default=500, help="slots that a step changes")
    parser.add_argument("--documents", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone, data = load_backbone("smollm2-135m", dtype="float32"), load_sample()
    texts = [document.text for document in data.documents[: options.documents]]
    times: dict[int, list[float]] = {side: [] for side in options.sides}
    with tempfile.TemporaryDirectory() as folder:
        methods = {
            side: build_method(
                "sparse_memory",
                backbone,
                {"side": side, "value_width": WIDTH, "t": options.t,
                 "table_file": f"{folder}/{side}"},
            )
            for side in options.sides
        }  # fmt: skip
        for method in methods.values():
            method.prepare(data.documents[:8])  # type: ignore[attr-defined]
        deltas = {side: SparseDelta(WIDTH) for side in options.sides}
        changed = {side: 0 for side in options.sides}
        for text in [texts[0], *texts]:  # the first one warms up
            ids = document_ids(backbone, [text], 512)
            for side, method in methods.items():
                before = len(deltas[side])
                times[side].append(step_seconds(method, ids, deltas[side]))
                changed[side] = max(changed[side], len(deltas[side]) - before)
        metrics = {}
        for side in methods:
            slots, seconds = side**2, times[side][1:]
            counts = 4 * slots  # of background accesses, int32
            metrics |= {
                f"step, {slots} slots": Metric(
                    statistics.median(seconds), "s", min(seconds), max(seconds)
                ),
                f"table, {slots} slots": Metric(4 * slots * WIDTH, "bytes"),
                f"optimiser state, {slots} slots": Metric(0, "bytes"),
                f"counts of accesses, {slots} slots": Metric(
                    100 * counts / (4 * slots * WIDTH), "percent of the table"
                ),
                f"rows changed for the first time, {slots} slots": Metric(changed[side], "rows"),
            }
    small, large = (statistics.median(times[side][1:]) for side in options.sides)
    metrics["large table against small"] = Metric(large / small, "times")
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.4g} {metric.unit}")
    config = {"t": options.t, "value_width": WIDTH, "threads": 1, "documents": options.documents}
    write_measured(
        options.out, "step of sparse memory", metrics, data,
        method="sparse_memory", dtype=torch.float32, config=config,
    )  # fmt: skip


if __name__ == "__main__":
    main()
