"""Question in, first token out: strata's levels, hot and cold, beside rag; one record.

One document is read for each question, selection and all included. Hot: the document's keys and
values lie in the cache. Cold: nothing is remembered, as in a process that has just opened the bank;
the document is decoded from its entry and run through the backbone. All times of a question are
taken in turn, and ratios are medians over the questions. The part `answers` times whole answers,
with as many candidates as the packaged adapter has and with one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from latentbank.adapter import find_adapter, load_adapter
from latentbank.answering import answer_batch as answer
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset, load_sample
from latentbank.method import Method
from latentbank.methods.strata import Strata
from latentbank.model import MemoryModel
from measured import write_measured

ONE_TOKEN = DecodingConfig(max_new_tokens=1)
LEVELS = ("verbatim", "packed", "gist50", "gist25", "lm", "pooled48", "pooled16")
ONE = {"candidates": 1, "closed_weight": 0.0, "gain_scale": 0.0}  # one document, read once
SLOW = 4  # questions asked of texts by predictions: each takes many seconds cold


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def first_token(method: Method, question: str) -> None:
    """From the question's text to its first token, selection and all."""
    conditioning = method.read([question])
    prompts = prompt_ids(method.backbone, [question], conditioning.passages)
    with conditioning.attach(method.backbone):
        generate(method.backbone, prompts, ONE_TOKEN)


def stored(level: str, backbone: Backbone, data: QADataset) -> tuple[Strata, float]:
    """Strata with all documents at `level`, and the mean bytes of an entry's payload and key."""
    overrides: dict[str, object] = {"least_match": 0.0}
    if level.startswith("pooled"):
        overrides |= {"entry": "pooled", "segments": int(level.removeprefix("pooled"))}
    elif level in ("packed", "lm"):
        overrides |= {"entry": level}
    method = load_adapter(find_adapter("strata-smollm2-135m"), backbone, overrides)
    assert isinstance(method, Strata)
    model = MemoryModel(method)
    model.write(data.documents)
    bank = model.bank
    if level.startswith("gist"):
        entries = list(bank.entries())
        while any(entry.level != level for entry in entries):
            lower = [e if e.level == level else method.fade(e) for e in entries]
            entries = [entry for entry in lower if entry is not None]
        bank = MemoryModel(method).bank
        bank.append(entries)
        method.bind(bank)
    sizes = [len(entry.payload) + len(entry.key) for entry in bank.entries()]
    return method, statistics.mean(sizes)


def forget(method: Strata) -> None:
    """What a process that has just opened the bank does not have."""
    method.reader.hot.clear()
    method.texts._recent.clear()


def levels(backbone: Backbone, data: QADataset, count: int) -> dict[str, Metric]:
    """First tokens of every level, hot and cold, and of rag with one passage in the prompt."""
    rag = load_adapter(find_adapter("rag-smollm2-135m"), backbone, ONE | {"least_match": 0.0})
    MemoryModel(rag).write(data.documents)
    asked = [q.text for q in data.sample_questions(count, 0).questions]
    metrics: dict[str, Metric] = {}
    for level in LEVELS:
        strata, size = stored(level, backbone, data)
        times: dict[str, list[float]] = {"hot": [], "cold": [], "rag": []}
        for question in asked[:SLOW] if level == "lm" else asked:
            forget(strata)
            times["cold"].append(seconds(partial(first_token, strata, question)))
            for name, method in (("hot", strata), ("rag", rag)):
                times[name].append(seconds(partial(first_token, method, question), 3))
        for name in ("hot", "cold"):
            middle = statistics.median(times[name])
            pairs = zip(times["rag"], times[name], strict=True)
            ratio = statistics.median(text / own for text, own in pairs)
            metrics[f"{level}: {name}"] = Metric(1000 * middle, "ms")
            metrics[f"{level}: rag over {name}"] = Metric(ratio, "ratio")
            print(f"{level} {name}: {1000 * middle:.0f} ms, {ratio:.2f}", flush=True)
        metrics[f"{level}: bytes"] = Metric(size, "bytes/document")
        metrics[f"{level}: rag"] = Metric(1000 * statistics.median(times["rag"]), "ms")
    return metrics


def answers(backbone: Backbone, data: QADataset, count: int) -> dict[str, Metric]:
    """Whole answers: strata with the adapter's candidates and with one, everything hot; rag."""
    rows = {
        "strata": ("strata-smollm2-135m", {}),
        "strata, one document": ("strata-smollm2-135m", ONE),
        "rag": ("rag-smollm2-135m", ONE),
        "rag, candidates": ("rag-smollm2-135m", {}),
    }
    asked = [q.text for q in data.sample_questions(count, 0).questions]
    times: dict[str, list[float]] = {}
    for name, (adapter, overrides) in rows.items():
        method = load_adapter(find_adapter(adapter), backbone, overrides)
        MemoryModel(method).write(data.documents)
        answer(method, asked)  # what each question reads is hot from here on
        times[name] = [seconds(partial(answer, method, [q]), 3) for q in asked]
    metrics: dict[str, Metric] = {}
    for name, found in times.items():
        ratios = [text / own for text, own in zip(times["rag"], found, strict=True)]
        metrics[f"answer, {name}"] = Metric(1000 * statistics.mean(found), "ms")
        metrics[f"answer, rag over {name}"] = Metric(statistics.median(ratios), "ratio")
        print(f"answer, {name}: {1000 * statistics.mean(found):.0f} ms", flush=True)
    return metrics


PARTS = {"levels": levels, "answers": answers}


def main() -> None:
    """Runs all parts and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/speed/latency.json"))
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    backbone, data = load_backbone("smollm2-135m"), load_sample().take(options.documents)
    metrics: dict[str, Metric] = {}
    for name in options.parts:
        metrics |= PARTS[name](backbone, data, options.questions)
    write_measured(options.out, "latency", metrics, data, method="strata", dtype=backbone.dtype)


if __name__ == "__main__":
    main()
