"""What the neural memory costs: chunks against steps, time by length, a stream of a million tokens.

`--only speed` or `--only stream` for one of them. Records: speed.json and stream.json.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from latentbank.backbone.processor import flushed_denormals
from latentbank.bench.record import DataInfo, Metric, Series
from latentbank.parts.neural_memory import MemorySettings, NeuralMemory
from measured import write_measured

WIDTH = 64
DRAWN = DataInfo("standard normal vectors", "")
CHUNKS = (1, 4, 16, 64, 256)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)


def seconds(work: Callable[[], object], times: int) -> float:
    """The least processor time of some runs."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


@torch.no_grad()
def speed(out: Path, depth: int) -> None:
    """Tokens a second by chunk, and seconds by length at chunk 64 with a straight line's fit."""
    metrics, rates = {}, []
    for chunk in CHUNKS:
        torch.manual_seed(0)
        settings = MemorySettings(heads=2, head_dim=32, depth=depth, chunk=chunk)
        memory = NeuralMemory(WIDTH, settings)
        x = torch.randn(1, 1024, WIDTH)
        memory(x)
        rates.append(1024 / seconds(lambda memory=memory, x=x: memory(x), 3))
        metrics[f"chunk {chunk}"] = Metric(rates[-1], "tokens/s")
        print(f"chunk {chunk:>4}: {rates[-1]:>10,.0f} tokens/s", flush=True)
    metrics["chunk 64 to steps"] = Metric(rates[CHUNKS.index(64)] / rates[0], "times")
    memory = NeuralMemory(WIDTH, MemorySettings(heads=2, head_dim=32, depth=depth, chunk=64))
    times = []
    for length in LENGTHS:
        x = torch.randn(1, length, WIDTH)
        times.append(seconds(lambda x=x: memory(x), 3))
        print(f"length {length:>6}: {times[-1]:.3f} s", flush=True)
    slope, start = np.polyfit(LENGTHS, times, 1)
    rest = np.array(times) - (slope * np.array(LENGTHS) + start)
    explained = 1 - float((rest**2).sum() / ((np.array(times) - np.mean(times)) ** 2).sum())
    power = float(np.polyfit(np.log(LENGTHS), np.log(times), 1)[0])
    metrics["microseconds a token"] = Metric(1e6 * float(slope), "µs")
    metrics["r2 of the line"] = Metric(explained, "share")
    metrics["power of the length"] = Metric(power, "exponent")
    print(f"{1e6 * slope:.1f} µs a token, R² {explained:.4f}, power {power:.3f}")
    lengths = tuple(map(float, LENGTHS))
    series = {"time": Series(lengths, tuple(times), "length", "tokens", "time", "s")}
    write_measured(
        out / "speed.json", "memory-speed", metrics, DRAWN, dtype=torch.float32, method="none",
        config={"depth": depth, "heads": 2, "head_dim": 32, "width": WIDTH}, series=series,
    )  # fmt: skip


@torch.no_grad()
def stream(out: Path, tokens: int, depth: int) -> None:
    """Streams `tokens` random vectors; the largest memory of the process at a tenth and the end."""
    torch.manual_seed(0)
    settings = MemorySettings(heads=1, head_dim=32, depth=depth, chunk=64)
    memory = NeuralMemory(32, settings)
    for weight in memory.initial:  # no layer at zero
        weight.normal_(std=settings.head_dim**-0.5)
    draw, state, piece = torch.Generator().manual_seed(0), memory.start(1), 1000
    first, sizes, finite = state.nbytes, [], True
    began = time.process_time()
    with flushed_denormals():
        for at in range(0, tokens, piece):
            read = memory(torch.randn(1, piece, 32, generator=draw), state)
            state = read.state
            finite = finite and bool(read.output.isfinite().all())
            if at // piece in (tokens // piece // 10, tokens // piece - 1):
                sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    spent = time.process_time() - began
    finite = finite and all(bool(w.isfinite().all()) for w in state.weights)
    metrics = {
        "tokens": Metric(state.seen, "count"),
        "all finite": Metric(float(finite), "yes is 1"),
        "state at the start": Metric(first, "bytes"),
        "state at the end": Metric(state.nbytes, "bytes"),
        "process after a tenth": Metric(sizes[0], "bytes"),
        "process at the end": Metric(sizes[-1], "bytes"),
        "growth of the process": Metric(100 * (sizes[-1] / sizes[0] - 1), "percent"),
        "clipped": Metric(int(state.clipped.sum()), "count"),
        "skipped": Metric(int(state.skipped.sum()), "count"),
        "time": Metric(spent, "s"),
    }
    for name, metric in metrics.items():
        print(f"{name:<24}{metric.value:>14,.2f} {metric.unit}")
    write_measured(
        out / "stream.json", "memory-stream", metrics, DRAWN, dtype=torch.float32, method="none",
        config={"depth": depth, "heads": 1, "head_dim": 32, "chunk": 64},
    )  # fmt: skip


def main() -> int:
    """Parses the command line, measures and writes the records; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("speed", "stream"))
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--depth", type=int, default=0, help="default: 2 for speed, 4 for stream")
    parser.add_argument("--out", type=Path, default=Path("results/titans"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "stream":
        speed(options.out, options.depth or 2)
    if options.only != "speed":
        stream(options.out, options.tokens, options.depth or 4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
