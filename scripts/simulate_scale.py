"""What a bank in parts would need for more documents and questions than were measured; a record.

Takes the measured costs of one part from records: finding and writing from results/bank, reading
from results/speed. The time of a search by words grows with a power of the documents that is fitted
to the measured sizes; an index of vectors has the time that was measured at 1,000,000 keys. Every
question goes to every part, so it waits for the slowest: times are drawn, and the largest counts.
Prices and load are assumptions, named in the record.

    python scripts/simulate_scale.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from latentbank.bench.record import DataInfo, Metric, Record, read_record
from measured import write_measured

ROOT = Path(__file__).resolve().parent.parent / "results"
MEASURED = (1_000, 10_000, 100_000)  # documents of the searches by words
KEYS = 1_000_000  # of the index of vectors
HOURS = 730  # of a month


@dataclass(frozen=True)
class Assumed:
    """Prices in dollars, and what is planned for."""

    core_hour: float = 0.04
    memory_gib_hour: float = 0.005
    disk_gib_month: float = 0.08
    busy: float = 0.6  # share of a core's time that is used
    process_gib: float = 0.3  # memory of a process with the model, one for each core


@dataclass(frozen=True)
class Costs:
    """Measured, of one core.

    `find(n)` seconds to search n documents by words; `spread` of its logarithm over questions.
    """

    scale: float
    power: float
    spread: float
    find_keys: float
    key_bytes: float
    read: float
    bytes_each: float
    part_memory: float
    writes: float
    encodes: float

    def find(self, documents: float) -> float:
        """The median seconds of a search by words."""
        return self.scale * documents**self.power


def costs_of(words: Record, keys: Record, contest: Record, speed: Record) -> Costs:
    """The costs from the records."""
    word, key = _values(words), _values(keys)
    sizes = np.array(MEASURED, float)
    times = np.array([word[f"find, median, {n:,} documents"] for n in MEASURED]) / 1000
    power, offset = np.polyfit(np.log(sizes), np.log(times), 1)
    largest = f"{MEASURED[-1]:,} documents"
    tail = word[f"find, p95, {largest}"] / word[f"find, median, {largest}"]
    return Costs(
        scale=math.exp(offset),
        power=float(power),
        spread=math.log(tail) / 1.645,
        find_keys=key[f"search of {KEYS:,} keys"] / 1000,
        key_bytes=key["index, memory"] / KEYS,
        # of a machine of two cores, both at work
        read=2 * _values(contest)["strata fast, cold: whole answer"] / 1000,
        bytes_each=(word[f"bank, {largest}"] + word[f"index, {largest}"]) / MEASURED[-1],
        part_memory=word[f"memory of finding, {largest}"],
        writes=word[f"write, processor, {largest}"],
        encodes=_values(speed)["write strata pooled48: documents/s"],
    )


def _values(record: Record) -> Mapping[str, float]:
    return {name: float(metric.value) for name, metric in record.metrics.items()}


def slowest(median: float, spread: float, parts: int, draw: np.random.Generator) -> float:
    """Seconds within which 95 % of questions have an answer of each of `parts` parts.

    The largest of n draws has the n-th root of a uniform number as its place in the distribution.
    """
    places = draw.random(20_000) ** (1 / parts)
    return float(np.quantile(median * np.exp(spread * ndtri(places)), 0.95))


def simulate(
    costs: Costs, assumed: Assumed, documents: int, questions: int, limit: float, seed: int
) -> dict[str, Metric]:
    """Parts, cores, memory, disk and money for so many documents and questions a second.

    By words: the largest parts whose slowest answers within `limit` seconds in 95 %. By keys: parts
    of `KEYS`, whose memory is that of the index.
    """
    draw, found = np.random.default_rng(seed), dict[str, Metric]()
    size = documents
    while slowest(costs.find(size), costs.spread, -(-documents // size), draw) > limit:
        if size <= MEASURED[0]:
            break
        size //= 2
    reading = questions * costs.read / assumed.busy
    disk = documents * costs.bytes_each / 2**30
    for kind, part, seconds, spread, memory in (
        ("words", size, costs.find(size), costs.spread, costs.part_memory),
        ("keys", min(KEYS, documents), costs.find_keys, costs.spread, costs.key_bytes * KEYS),
    ):
        parts = -(-documents // part)
        finding = questions * parts * seconds / assumed.busy
        cores = max(1, math.ceil(finding + reading))
        held = parts * memory / 2**30 + cores * assumed.process_gib
        name = f"{documents:,} documents, {questions:,} questions/s, {kind}"
        price = cores * assumed.core_hour + held * assumed.memory_gib_hour
        price += disk * assumed.disk_gib_month / HOURS
        found |= {
            f"{name}: parts": Metric(parts, "count"),
            f"{name}: cores that find": Metric(finding, "count"),
            f"{name}: cores that read": Metric(reading, "count"),
            f"{name}: memory": Metric(held, "GiB"),
            f"{name}: disk": Metric(disk, "GiB"),
            f"{name}: finding, p95": Metric(slowest(seconds, spread, parts, draw), "s"),
            f"{name}: price": Metric(price, "dollars/h"),
            f"{name}: price of 1,000 questions": Metric(price / questions / 3.6, "dollars"),
        }
    return found


def main() -> None:
    """Simulates and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[10**6, 10**7, 10**8, 10**9])
    parser.add_argument("--questions", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--limit", type=float, default=1.0, help="Seconds of finding, p95.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="results/scale/simulation.json")
    args = parser.parse_args()
    records = [
        read_record(ROOT / name)
        for name in ("bank/words.json", "bank/read.json", "speed/contest.json", "speed/speed.json")
    ]
    costs, assumed = costs_of(*records), Assumed()
    metrics = {
        "find, 100,000 documents": Metric(costs.find(100_000), "s"),
        "find, grows with the power": Metric(costs.power, ""),
        "read": Metric(costs.read, "s"),
        "bytes": Metric(costs.bytes_each, "bytes/document"),
        "write": Metric(1 / costs.writes, "s/document"),
        "write with encoding": Metric(1 / costs.encodes, "s/document"),
    }
    for documents in args.documents:
        hours = [documents / rate / 3600 for rate in (costs.writes, costs.encodes)]
        metrics[f"{documents:,} documents: write"] = Metric(hours[0], "core-hours")
        metrics[f"{documents:,} documents: write with encoding"] = Metric(hours[1], "core-hours")
        for questions in args.questions:
            metrics |= simulate(costs, assumed, documents, questions, args.limit, args.seed)
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.6g} {metric.unit}")
    write_measured(
        Path(args.out),
        "scale-simulation",
        metrics,
        DataInfo("records of results/bank and results/speed", ""),
        seed=args.seed,
        config={"assumed": asdict(assumed), "costs": asdict(costs), "limit": args.limit},
    )


if __name__ == "__main__":
    main()
