"""Times a training step of every method and compares it with the machine's matrix products.

The same step of the plan of `train_long.py` is taken with packed layers and, with --plain, by the
plain path. The states of the frozen layers are cached before the clock starts. Floating-point
operations are those that PyTorch counts. Times are processor time, since other work may run beside.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import train_long
from latentbank.backbone.processor import flushed_denormals
from latentbank.bench.record import DataInfo, Metric, new_record, write_record
from latentbank.training import Trainer, batches

SHAPE = (2000, 576, 1536)  # a product of SmolLM2's width and MLP


def matmul_peak(repeats: int = 20) -> float:
    """The best rate of float32 products of `SHAPE`, in floating-point operations a second."""
    rows, inner, columns = SHAPE
    one, two = torch.randn(rows, inner), torch.randn(columns, inner)
    best = min(_seconds(lambda: torch.nn.functional.linear(one, two)) for _ in range(repeats))
    return 2 * rows * inner * columns / best


def _seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def step_metrics(
    job: train_long.Job, name: str, at: int, repeats: int, plain: bool
) -> dict[str, Metric]:
    """The figures of one method's step number `at`."""
    run = job.trainer(name)
    batch = next(batches(run.data, run.config, first=at))
    run.method.train()
    run._one_step(batch)  # fills the cache
    peaks, times = [], []
    for _ in range(repeats):
        peaks.append(matmul_peak())
        times.append(_seconds(lambda: run._one_step(batch)))
    with FlopCounterMode(display=False) as counter:
        run._one_step(batch)
    seconds, work = min(times), float(counter.get_total_flops())
    found = {
        "step": Metric(seconds, "s"),
        "operations": Metric(work / 1e9, "GFLOP"),
        "share of the matmul peak": Metric(100 * work / seconds / max(peaks), "percent"),
        "matmul peak": Metric(max(peaks) / 1e9, "GFLOP/s"),
        "questions an hour": Metric(3600 * len(batch.questions) / seconds, "questions"),
        "questions": Metric(float(len(batch.questions)), "questions"),
    }
    if plain:
        found["step, plain path"] = Metric(_plain_seconds(run, batch), "s")
    return {f"{name}: {kind}": metric for kind, metric in found.items()}


def _plain_seconds(run: Trainer, batch: object) -> float:
    run.method.packed = None
    return _seconds(lambda: run._one_step(batch))  # type: ignore[arg-type]


def main() -> None:
    """Measures and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    parser.add_argument("--methods", default=",".join(train_long.RECIPES))
    parser.add_argument("--step", type=int, default=2, help="which step of the plan")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="also time the plain path, once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    metrics: dict[str, Metric] = {}
    with tempfile.TemporaryDirectory() as folder, flushed_denormals():
        job = train_long.Job(
            train_long.arguments(["--squad", options.squad, "--out", folder, "--dtype", "float32"])
        )
        for name in options.methods.split(","):
            metrics |= step_metrics(job, name, options.step, options.repeats, options.plain)
            print(name, {k: round(m.value, 2) for k, m in metrics.items() if k.startswith(name)})
    shares = [m.value for name, m in metrics.items() if "share of" in name]
    words = ["--squad", Path(options.squad).name, "--out", str(options.out)]
    words += ["--plain"] if options.plain else []
    command = shlex.join(["python", "scripts/measure_step.py", *words])
    mean = Metric(statistics.fmean(shares), "percent")
    record = new_record(
        task="training step",
        method=options.methods,
        command=command,
        seed=0,
        data=DataInfo(job.data.name, job.data.hash),
        dtype="float32",
        metrics={**metrics, "share of the matmul peak": mean},
        config={"plan": dict(train_long.PLAN), "matrix product": list(SHAPE), "threads": 1},
    )
    print(write_record(record, options.out))


if __name__ == "__main__":
    main()
