"""What a cold command costs: processor time and wall time of whole processes, on one document.

Each command runs several times and the least is kept, because other processes only add to it.
Writes results/speed/cold-start.json. Run: python scripts/measure_cold_start.py
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from latentbank.bench.record import DataInfo, Metric
from measured import write_measured

RECORD = Path(__file__).resolve().parent.parent / "results" / "speed" / "cold-start.json"
TEXT = "The meeting moved to Thursday at ten in room 4."
QUESTION = "When is the meeting?"
COMMAND = [sys.executable, "-m", "latentbank"]


def cost(command: list[str]) -> tuple[float, float]:
    """(processor seconds, wall seconds) of a command; its output is thrown away."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    wall = time.perf_counter() - began
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system, wall


def main() -> None:
    """Measures each command and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="runs of each command")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        source, bank = Path(folder) / "note.txt", str(Path(folder) / "note.bank")
        source.write_text(TEXT)
        subprocess.run([*COMMAND, "write", str(source), "--bank", bank], check=True)
        commands = {
            "ask": [*COMMAND, "ask", QUESTION, "--bank", bank],
            "help": [*COMMAND, "--help"],
            "import": [sys.executable, "-c", "import latentbank"],
            "import_torch": [sys.executable, "-c", "import torch"],
        }
        metrics = {}
        for name, command in commands.items():
            runs = [cost(command) for _ in range(times)]
            metrics[f"{name}_processor_seconds"] = Metric(min(used for used, _ in runs), "s")
            metrics[f"{name}_wall_seconds"] = Metric(min(wall for _, wall in runs), "s")
    for name, metric in metrics.items():
        print(f"{name:<32}{metric.value:8.2f} {metric.unit}")
    digest = hashlib.blake2b(TEXT.encode(), digest_size=16).hexdigest()
    write_measured(
        RECORD,
        "cold-start",
        metrics,
        DataInfo("one sentence", digest),
        method="strata",
        config={"times": times, "omp_num_threads": os.environ.get("OMP_NUM_THREADS")},
    )


if __name__ == "__main__":
    main()
