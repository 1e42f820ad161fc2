"""A bank of 10^3 to 10^6 texts: writing, opening, finding, deleting, and their memory; one record.

Texts are chains of words: each word is followed by one that follows it somewhere in the data, so
words are as frequent as there. One word of each text is invented, so that the vocabulary grows.
Each step runs in a process of its own, on `strata` and its packaged model. Finding is `candidates`
of a question: the search, versions and matches, without an answer. Memory is what the process takes
beyond the loaded model.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from latentbank.adapter import load_method, new_bank
from latentbank.bank import MemoryBank
from latentbank.bank.words.folder import index_bytes
from latentbank.bench.record import Metric
from latentbank.documents.document import Document
from latentbank.evaluate.data import QADataset, load_dataset, load_sample
from latentbank.model import MemoryModel
from measured import write_measured

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUESTIONS = 200
BUDGET_BYTES_EACH = 96  # of a full bank, for each document written


def texts(data: QADataset, count: int) -> Iterator[str]:
    """`count` texts of 20 to 120 words; the same for the same data."""
    following: dict[str, list[str]] = {}
    for document in data.documents:
        for one, two in pairwise(document.text.split()):
            following.setdefault(one, []).append(two)
    starts = sorted(word for word in following if word[:1].isupper())
    for number in range(count):
        draw = random.Random(number).random
        words = [starts[int(draw() * len(starts))]]
        for _ in range(int(20 + 100 * draw() ** 2)):
            then = following.get(words[-1], starts)
            words.append(then[int(draw() * len(then))])
        words[len(words) // 2] = f"{int(draw() * 1e7):x}".translate(_LETTERS).capitalize()
        yield f"{' '.join(words)}."


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def resident() -> int:
    """Bytes of memory that the process takes now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def write(path: Path, data: QADataset, count: int, budget: int | None = None) -> dict[str, float]:
    """Writes `count` texts into a new bank; making them does not count."""
    method = load_method("strata", quick=True)
    began_with = resident()
    seconds = work = 0.0
    with MemoryModel(method, new_bank(path, method, {}, budget)) as model:
        source = texts(data, count)
        model.write([Document(f"A first text. {BUDGET_BYTES_EACH}")])  # loads what is loaded once
        while part := [Document(text) for _, text in zip(range(1024), source, strict=False)]:
            began, busy = time.perf_counter(), time.process_time()
            model.write(part)
            seconds += time.perf_counter() - began
            work += time.process_time() - busy
        held = len(model.bank)
        memory = resident() - began_with
    return {
        "write": count / seconds,
        "write, processor": count / work,
        "held": held,
        "memory of writing": memory,
        "bank": path.stat().st_size,
        "index": index_bytes(path),
    }


def find(path: Path, data: QADataset) -> dict[str, float]:
    """Opens the bank and asks for candidates."""
    method = load_method("strata", quick=True)
    began_with, began, busy = resident(), time.perf_counter(), time.process_time()
    with MemoryModel(method, MemoryBank.open(path, read_only=True)) as model:
        opened, work = time.perf_counter() - began, time.process_time() - busy
        asked = [question.text for question in data.questions]
        chosen = random.Random(0).sample(asked, min(QUESTIONS, len(asked)))
        walls, works = [], []
        for question in [*chosen[:20], *chosen]:  # the first ones warm up
            began, busy = time.perf_counter(), time.process_time()
            method.candidates([question])
            walls.append(1000 * (time.perf_counter() - began))
            works.append(1000 * (time.process_time() - busy))
        memory = resident() - began_with
        del model
    found = {"open": opened, "open, processor": work, "memory of finding": memory}
    for name, times in (("find", walls[20:]), ("find, processor", works[20:])):
        found[f"{name}, median"] = statistics.median(times)
        found[f"{name}, p95"] = statistics.quantiles(times, n=20)[-1]
    return found


def delete(path: Path, count: int) -> dict[str, float]:
    """Deletes documents from all over the bank through the model; the index is purged."""
    method = load_method("strata", quick=True)
    with MemoryModel(method, MemoryBank.open(path)) as model:
        ids = random.Random(1).sample(list(model.bank.ids()), count)
        began, busy = time.perf_counter(), time.process_time()
        assert len(model.delete(ids).deleted) == count
        return {
            "delete": time.perf_counter() - began,
            "delete, processor": time.process_time() - busy,
        }


UNITS = {
    "write": "documents/s", "held": "documents", "memory": "bytes", "bank": "bytes",
    "index": "bytes", "open": "s", "find": "ms", "delete": "s",
}  # fmt: skip


def unit(name: str) -> str:
    """The unit of a figure."""
    return next(unit for start, unit in UNITS.items() if name.startswith(start))


def measure(step: str, path: Path, options: argparse.Namespace, count: int) -> dict[str, float]:
    """The figures of one step, from a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--data",
        options.data,
        "--step",
        step,
        "--bank",
        str(path),
    ]
    out = subprocess.run([*command, "--documents", str(count)], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def run_step(options: argparse.Namespace, data: QADataset) -> dict[str, float]:
    """One step, in this process."""
    path, count = options.bank, options.documents[0]
    if options.step == "find":
        return find(path, data)
    if options.step == "delete":
        return delete(path, count)
    full = count * BUDGET_BYTES_EACH if options.step == "full" else None
    return write(path, data, count, full)


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--data", default="sample", help="where words and questions come from")
    parser.add_argument("--full", type=int, default=20_000, help="texts written into a full bank")
    parser.add_argument("--out", type=Path, default=Path("results/bank/words.json"))
    parser.add_argument("--step", choices=("write", "full", "find", "delete"))
    parser.add_argument("--bank", type=Path)
    options = parser.parse_args()
    data = load_sample() if options.data == "sample" else load_dataset(options.data)
    if options.step:
        print(json.dumps(run_step(options, data)))
        return
    metrics: dict[str, Metric] = {}

    def keep(label: str, found: dict[str, Any]) -> None:
        for name, value in found.items():
            metrics[f"{name}, {label}"] = Metric(value, unit(name))
            print(f"{name}, {label}: {value:,.4g} {unit(name)}", flush=True)

    with tempfile.TemporaryDirectory(prefix="latentbank-") as scratch:
        for count in options.documents:
            path, label = Path(scratch) / f"{count}.bank", f"{count:,} documents"
            keep(label, measure("write", path, options, count))
            keep(label, measure("find", path, options, count))
            keep(f"{count // 100:,} of {label}", measure("delete", path, options, count // 100))
        if options.full:
            path = Path(scratch) / "full.bank"
            label = f"{options.full:,} documents into a full bank"
            keep(label, measure("full", path, options, options.full))
    smallest, largest = (
        metrics[f"find, median, {count:,} documents"].value
        for count in (min(options.documents), max(options.documents))
    )
    metrics["find, ratio"] = Metric(largest / smallest, "")
    write_measured(options.out, "bank-words", metrics, data, method="strata")


if __name__ == "__main__":
    main()
