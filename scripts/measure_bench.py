"""What the bench itself costs: its own time beside the time in the methods' calls; one record.

Runs online-qa on the shipped sample. In the method: write, read, generate, footprint, telemetry.
The bench adds: batching, scores, their intervals, progress, partial answers, the record. Loading
the model and building the methods is left out on both sides. Exit status 1 if the bench adds more
than 5 % in all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from latentbank.bench.plan import Bench, Row
from latentbank.bench.record import Metric, read_record
from latentbank.bench.runner import Watcher, run_bench
from latentbank.bench.session import Settings
from latentbank.cli.bench_rows import parse_rows
from latentbank.evaluate.data import load_sample
from measured import write_measured

LIMIT_PERCENT = 5.0


class Clock(Watcher):
    """Notes when each run begins; a record is written before the next one does."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    def begin(self, label: str, number: int, total: int) -> None:
        """See `Watcher`."""
        self.begun.append(time.perf_counter())


def main() -> int:
    """Parses the command line, runs and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--methods", default="none,rag,mac", help="as for latentbank bench")
    parser.add_argument("--adapter", action="append", help="NAME=ADAPTER")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--chunk-tokens", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("results/bench-own/overhead.json"))
    options = parser.parse_args()
    added = spent = 0.0
    metrics: dict[str, Metric] = {}
    for row in parse_rows([options.methods], options.backbone, options.adapter):
        inside, total = profile(row, options)
        added, spent = added + total - inside, spent + inside
        share = 100 * (total - inside) / inside
        metrics |= _metrics(row.name, inside, total - inside)
        print(
            f"{row.name:<20} method {inside:8.2f} s   bench {total - inside:6.2f} s   {share:.1f} %"
        )
    share = 100 * added / spent
    print(f"{'all':<20} method {spent:8.2f} s   bench {added:6.2f} s   {share:.1f} %")
    data = load_sample().take(options.documents)
    write_measured(
        options.out,
        "bench-overhead",
        {**metrics, **_metrics("all", spent, added)},
        data,
        dtype="auto",
        config={"limit_percent": LIMIT_PERCENT, "questions": options.questions},
    )
    return int(share > LIMIT_PERCENT)


def _metrics(name: str, inside: float, added: float) -> dict[str, Metric]:
    return {
        f"{name}: in the method": Metric(inside, "s"),
        f"{name}: added by the bench": Metric(added, "s"),
        f"{name}: share added": Metric(100 * added / inside, "percent of time"),
    }


def profile(row: Row, options: argparse.Namespace) -> tuple[float, float]:
    """(seconds in the method, seconds from the begin of the run to its record on disk)."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            task="online-qa",
            rows=(row,),
            data=load_sample().take(options.documents),
            out=Path(folder),
            backbone=options.backbone,
            settings=Settings(questions=options.questions),
            chunk_tokens=options.chunk_tokens,
            command="scripts/measure_bench.py",
        )
        (path,) = run_bench(bench, clock)
        ended = time.perf_counter()
        metrics = read_record(path).metrics
    inside = metrics["seconds"].value * (1 - metrics["overhead"].value / 100)
    return inside, ended - clock.begun[0]


if __name__ == "__main__":
    sys.exit(main())
