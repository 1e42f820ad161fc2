"""What a bank can do without a model: storing, opening, reading, deleting, its size; records.

Entries are random payloads of 14 bytes, as long as twelve 9-bit codes. The bank lies in a folder of
the system's temporary files; what is durable there depends on that disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bench.record import DataInfo, Metric, Series, new_record, write_record

PRINT = BankFingerprint("measure", "none", "none", "none")
PAYLOAD_BYTES = 14
BATCH = 1000
SELECTED = 8  # documents read for a question
ROUNDS = 200
STREAM_BUDGET = 1 << 20

OPENER = """
import json, sys, time
from latentbank.bank import MemoryBank
def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
before = memory("VmRSS:")
began = time.perf_counter()
bank = MemoryBank.open(sys.argv[1], read_only=len(sys.argv) > 2)
seconds = time.perf_counter() - began
print(json.dumps([seconds, memory("VmHWM:"), memory("VmRSS:") - before, len(bank)]))
"""


def entries(first: int, count: int, size: int = PAYLOAD_BYTES) -> list[Entry]:
    """Entries whose ids are hashes of their numbers."""
    draw = random.Random(first)
    return [
        Entry(blake2b(str(n).encode(), digest_size=8).hexdigest(), "codes", draw.randbytes(size))
        for n in range(first, first + count)
    ]


def batches(total: int) -> Iterator[list[Entry]]:
    """All entries, `BATCH` at a time."""
    for first in range(0, total, BATCH):
        yield entries(first, min(BATCH, total - first))


def store(bank: MemoryBank, total: int) -> dict[str, Metric]:
    """Fills the bank; the time to make the entries does not count."""
    seconds = work = 0.0
    for part in batches(total):
        began, busy = time.perf_counter(), time.process_time()
        bank.append(part)
        seconds += time.perf_counter() - began
        work += time.process_time() - busy
    size = bank.footprint()
    beyond = (size.total - size.codes - size.codebook) / total
    return {
        "stored": Metric(total, "documents"),
        "stores in batches": Metric(total / seconds, "documents/s"),
        "stores in batches, by processor time": Metric(total / work, "documents/s"),
        "batch": Metric(BATCH, "documents"),
        "file": Metric(size.total, "bytes"),
        "codes": Metric(size.codes, "bytes"),
        "overhead for a document": Metric(beyond, "bytes"),
    }


def singles(folder: Path, seconds: float = 5.0) -> dict[str, Metric]:
    """Durable writes of one document each, without a budget and in a full bank; beside them what
    the disk does in the same minute.
    """
    with (folder / "raw").open("wb", buffering=0) as raw:
        began = time.perf_counter()
        for _ in range(300):
            raw.write(bytes(4096))
            os.fsync(raw.fileno())
        found = {"fsyncs of 4 KiB": Metric(300 / (time.perf_counter() - began), "1/s")}
    for name, budget in (("single writes", None), ("single writes in a full bank", "1MiB")):
        with MemoryBank.create(folder / name, PRINT, ledger="ids", budget=budget) as bank:
            number = 0
            if budget:
                bank.append(entries(10**7, 40_000), fade=lambda _: None)
            todo = entries(0, 200_000)
            busy, end = time.process_time(), (began := time.perf_counter()) + seconds
            while time.perf_counter() < end:
                bank.append(todo[number : number + 1], fade=lambda _: None)
                number += 1
            found[name] = Metric(number / (time.perf_counter() - began), "documents/s")
            rate = number / (time.process_time() - busy)
            found[f"{name}, by processor time"] = Metric(rate, "documents/s")
    return found


def opening(path: Path) -> dict[str, Metric]:
    """Opens the bank in fresh processes: the median of five, after one that warms the disk."""
    runs = []
    for _ in range(6):
        out = subprocess.run(
            [sys.executable, "-c", OPENER, str(path)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(out.stdout))
    seconds, peak, grown, documents = (
        statistics.median(column) for column in zip(*runs[1:], strict=True)
    )
    return {
        "documents": Metric(documents, "documents"),
        "open": Metric(seconds, "s"),
        "peak memory of the process": Metric(peak, "bytes"),
        "memory that opening takes": Metric(grown, "bytes"),
    }


def reading(path: Path, label: str) -> dict[str, Metric]:
    """Reads the payloads of a question's selected documents, again and again, warm."""
    draw = random.Random(1)
    with MemoryBank.open(path, read_only=True) as bank:
        ids = sorted(bank.ids())
        times = []
        for _ in range(ROUNDS):
            chosen = draw.sample(ids, SELECTED)
            began = time.perf_counter()
            assert all(bank.get(name) is not None for name in chosen)
            times.append(1000 * (time.perf_counter() - began))
    return {f"{SELECTED} documents of {label}": Metric(statistics.median(times), "ms")}


def searching(sizes: tuple[int, int]) -> dict[str, Metric]:
    """The flat search over 64-byte keys that stands before the reading."""
    import torch

    from latentbank.selection import DenseKeys

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {}
    for size in sizes:
        keys = DenseKeys(64)
        for first in range(0, size, 100_000):
            count = min(100_000, size - first)
            rows = torch.nn.functional.normalize(torch.randn(count, 64), dim=1)
            keys.add([str(first + n) for n in range(count)], DenseKeys.encode(rows))
        asked = torch.nn.functional.normalize(torch.randn(1, 64), dim=1)
        keys.search(asked, SELECTED)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            keys.search(asked, SELECTED)
            times.append(1000 * (time.perf_counter() - began))
        found[f"flat search of {size:,} keys"] = Metric(statistics.median(times), "ms")
    return found


def deleting(path: Path, total: int, count: int) -> dict[str, Metric]:
    """Deletes documents that lie close together, then ones from all over the bank."""
    found = {}
    with MemoryBank.open(path) as bank:
        ids = list(bank.ids())
        for name, chosen in (
            ("written one after another", ids[:count]),
            ("from all over the bank", ids[count :: (total - count) // count][:count]),
        ):
            began, busy = time.perf_counter(), time.process_time()
            assert bank.delete(chosen) == count
            seconds, work = time.perf_counter() - began, time.process_time() - busy
            label = f"{count:,} of {total:,}, {name}"
            found |= {label: Metric(seconds, "s"), f"{label}, processor": Metric(work, "s")}
        assert bank.verify().ok
    return found


def streaming(folder: Path, total: int) -> tuple[dict[str, Metric], dict[str, Series]]:
    """File sizes while a stream runs through a bank of one budget."""
    marks, sizes, most = [], [], 0
    points = {int(10 ** (step / 4)) for step in range(4, 25)} | {total}
    seconds = 0.0
    with MemoryBank.create(folder / "s", PRINT, budget=STREAM_BUDGET, ledger="ids") as bank:
        done = 0
        for point in sorted(p for p in points if p <= total):
            while done < point:
                part = entries(done, min(BATCH, point - done), 100)
                began = time.perf_counter()
                bank.append(part, fade=lambda _: None)
                seconds += time.perf_counter() - began
                done += len(part)
                most = max(most, bank.file_bytes())
            marks.append(float(done))
            sizes.append(float(bank.footprint().total))
        kept = len(bank)
    full = [size for mark, size in zip(marks, sizes, strict=True) if mark > kept * 1.5]
    metrics = {
        "budget": Metric(STREAM_BUDGET, "bytes"),
        "largest sum of all files": Metric(most, "bytes"),
        "documents kept": Metric(kept, "documents"),
        "written": Metric(done, "documents"),
        "stores in a full bank": Metric(done / seconds, "documents/s"),
        "smallest file once full": Metric(min(full), "bytes"),
        "largest file once full": Metric(max(full), "bytes"),
    }
    curve = Series(tuple(marks), tuple(sizes), "documents written", "documents", "file", "bytes")
    return metrics, {"file": curve}


def main() -> None:
    """Measures and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--stream", type=int, default=200_000)
    parser.add_argument("--only", choices=("size",), help="only the stream through a full bank")
    parser.add_argument("--out", type=Path, default=Path("results/bank"))
    options = parser.parse_args()
    command = shlex.join(["python", "scripts/measure_bank.py", *sys.argv[1:]])

    def keep(
        name: str, metrics: dict[str, Metric], series: dict[str, Series] | None = None
    ) -> None:
        for key, metric in metrics.items():
            print(f"{name}: {key}: {metric.value:,.4g} {metric.unit}", flush=True)
        record = new_record(
            task=f"bank-{name}",
            method="bank",
            command=command,
            seed=0,
            data=DataInfo("generated", ""),
            dtype="",
            metrics=metrics,
            config={"payload_bytes": PAYLOAD_BYTES, "ledger": "ids"},
            series=series or {},
        )
        write_record(record, options.out / f"{name}.json")

    with tempfile.TemporaryDirectory(prefix="latentbank-") as scratch:
        folder, total = Path(scratch), options.documents
        if options.only:
            keep("size", *streaming(folder, options.stream))
            return
        path, small = folder / "large", folder / "small"
        with MemoryBank.create(path, PRINT, ledger="ids") as bank:
            stored = store(bank, total)
        keep("store", {**stored, **singles(folder)})
        keep("open", opening(path))
        with MemoryBank.create(small, PRINT, ledger="ids") as bank:
            store(bank, 1000)
        read = reading(small, "1,000") | reading(path, f"{total:,}")
        few, many = (metric.value for metric in read.values())
        search = searching((1000, total))
        one, other = (metric.value for metric in search.values())
        ratios = {
            "reading, ratio": Metric(many / few, ""),
            "search, ratio": Metric(other / one, ""),
        }
        keep("read", {**read, **search, **ratios})
        keep("delete", deleting(path, total, 10_000))


if __name__ == "__main__":
    main()
