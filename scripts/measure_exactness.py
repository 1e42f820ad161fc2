"""Whether texts survive coding and decoding byte for byte, and in how many; one record.

One process codes all of them; others, with one thread and with two and in batches of 1 to 16 texts,
decode them and code again what they found. Every text must come back, and every coding
must give the same bytes. Emoji and random bytes are drawn by the seed; the other texts are the
paragraphs (between blank lines) of the files of each `--texts KIND=FOLDER`, in the order of their
names, and those of `--data`. Exit status 1 if one text is lost.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from latentbank.backbone.model import load_backbone
from latentbank.bank import Entry
from latentbank.bench.record import DataInfo, Metric
from latentbank.evaluate.data import load_dataset
from latentbank.parts.text_levels import WHOLE, TextLevels
from measured import write_measured

Item = TypeVar("Item")
MOST_CHARACTERS = 4000
EMOJI = [chr(c) for c in (*range(0x1F300, 0x1F650), *range(0x1F900, 0x1FA00))]
JOINERS = ["\u200d", "\ufe0f", "\U0001f3fd", " ", "\n"]
# (threads, batch sizes in turn) of each process that decodes.
READERS = ((1, tuple(range(16, 0, -1))), (2, (3, 14, 1, 16, 5, 12, 7, 10)))


def paragraphs(folder: Path) -> Iterator[str]:
    """The parts between blank lines of all files of a folder that are UTF-8."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        for part in re.split(r"\n\s*\n", text):
            if part.strip():
                yield part[:MOST_CHARACTERS]


def emoji(draw: random.Random) -> Iterator[str]:
    """Runs of emoji with joiners, skin tones and some words."""
    while True:
        pieces = draw.choices([*EMOJI, *JOINERS, "and", "naïve"], k=draw.randint(1, 200))
        yield "".join(pieces)


def noise(draw: random.Random) -> Iterator[str]:
    """Random bytes as text: half of them Latin-1, half whatever code points they make."""
    while True:
        size = draw.randint(1, 800)
        if draw.random() < 0.5:
            yield draw.randbytes(size).decode("latin-1")
        else:
            points = (draw.randrange(0x110000) for _ in range(size))
            yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def collect(options: argparse.Namespace) -> dict[str, list[str]]:
    """The texts of each kind."""
    draw = random.Random(options.seed)
    kinds = {}
    for spec in options.data:
        path, _, split = spec.partition(":")
        documents = load_dataset(path, split or None).documents
        name = Path(path).name + (f":{split}" if split else "")
        kinds[name] = [document.text for document in documents]
    for item in options.texts:
        kind, _, folder = item.partition("=")
        kinds[kind] = list(dict.fromkeys(paragraphs(Path(folder))))
    kinds = {
        kind: draw.sample(texts, min(options.each, len(texts))) for kind, texts in kinds.items()
    }
    kinds["emoji"] = list(islice(emoji(draw), options.drawn))
    kinds["random bytes"] = list(islice(noise(draw), options.drawn))
    return kinds


def work(task: Path) -> None:
    """In a process of its own: codes the texts, or decodes payloads and codes them again."""
    job = pickle.loads(task.read_bytes())  # written by the parent
    torch.set_num_threads(job["threads"])
    levels = TextLevels(load_backbone("smollm2-135m", dtype="float32"))
    levels.encode(["Load the tables."], job["level"])
    texts: list[str] = job.get("texts", [])
    begun = time.perf_counter()
    if "payloads" in job:
        for part in batches(job["payloads"], job["sizes"]):
            texts += levels.decode([Entry(id="", level=job["level"], payload=p) for p in part])
    decoding = time.perf_counter() - begun
    payloads: list[bytes] = []
    begun = time.perf_counter()
    for part in batches(texts, job["sizes"]):
        payloads += levels.encode(part, job["level"])
    result = {"texts": texts, "payloads": payloads, "decoding": decoding}
    task.write_bytes(pickle.dumps(result | {"encoding": time.perf_counter() - begun}))


def batches(items: Sequence[Item], sizes: Sequence[int]) -> Iterator[Sequence[Item]]:
    """Parts of these sizes in turn."""
    at = turn = 0
    while at < len(items):
        yield items[at : at + sizes[turn % len(sizes)]]
        at, turn = at + sizes[turn % len(sizes)], turn + 1


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a new process makes of a job."""
    task = folder / "task"
    task.write_bytes(pickle.dumps(job))
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
    subprocess.run([sys.executable, __file__, "--task", str(task)], check=True, env=environment)
    result: dict[str, Any] = pickle.loads(task.read_bytes())
    return result


def measure(level: str, texts: list[str]) -> tuple[list[bool], list[int], dict[str, Metric]]:
    """Which texts every process found again, the bytes of each, and milliseconds a text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = run({"level": level, "threads": 1, "sizes": (4,), "texts": texts}, folder)
        payloads, whole = first["payloads"], [True] * len(texts)
        times = {f"{level}: encoding": first["encoding"]}
        for threads, sizes in READERS:
            job = {"level": level, "threads": threads, "sizes": sizes, "payloads": payloads}
            again = run(job, folder)
            times[f"{level}: decoding, {threads} threads"] = again["decoding"]
            for i, (text, payload) in enumerate(
                zip(again["texts"], again["payloads"], strict=True)
            ):
                whole[i] &= text == texts[i] and payload == payloads[i]
    share = 1000 / len(texts)
    found = {key: Metric(value * share, "milliseconds/text") for key, value in times.items()}
    return whole, [len(payload) for payload in payloads], found


def main() -> int:
    """Measures all levels that keep whole texts, writes the record, returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", action="append", default=[], help="as for latentbank bench")
    parser.add_argument("--texts", action="append", default=[], metavar="KIND=FOLDER")
    parser.add_argument("--each", type=int, default=6000, help="texts of each kind at most")
    parser.add_argument("--drawn", type=int, default=500, help="texts of emoji, of random bytes")
    parser.add_argument("--levels", nargs="*", default=WHOLE, choices=WHOLE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/exactness/texts.json"))
    options = parser.parse_args()
    if options.task is not None:
        work(options.task)
        return 0
    kinds = collect(options)
    texts = [text for part in kinds.values() for text in part]
    metrics = {}
    for kind, part in kinds.items():
        metrics[f"texts, {kind}"] = Metric(float(len(part)), "texts")
        size = sum(len(text.encode()) for text in part) / len(part)
        metrics[f"UTF-8, {kind}"] = Metric(size, "bytes/text")
    metrics["texts"] = Metric(float(len(texts)), "texts")
    lost = 0
    for level in options.levels:
        whole, sizes, times = measure(level, texts)
        for kind, part in kinds.items():
            mine, sizes = sizes[: len(part)], sizes[len(part) :]
            metrics[f"{level}, {kind}"] = Metric(sum(mine) / len(mine), "bytes/text")
        metrics[f"{level}: lost"] = Metric(float(len(whole) - sum(whole)), "texts")
        metrics |= times
        lost += len(whole) - sum(whole)
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:,.4g} {metric.unit}")
    digest = blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()
    write_measured(
        options.out,
        "exactness",
        metrics,
        DataInfo(", ".join(kinds), digest),
        dtype=torch.float32,
        seed=options.seed,
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
