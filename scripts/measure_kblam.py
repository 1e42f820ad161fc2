"""KBLaM's costs and options, as records: time and memory by the number of triples, pruning, keys.

`cost`: processor time until the first token and peak memory for 10 to 10,000 triples, a line fitted
to it, and the same with triples in the prompt. `prune`: answers with `top_k` against all triples.
`keys`: right answers over the bytes of a triple for each way to keep keys.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.answering import Answer
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.prompts import prompt_ids
from latentbank.bench.machine import PEAK, peak_memory_bytes
from latentbank.bench.record import Metric, Series
from latentbank.bench.scoring import curve, rate
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.kb.data import load_knowledge
from latentbank.evaluate.metrics import exact_match
from latentbank.model import MemoryModel
from measured import write_measured

SIZES = (10, 100, 300, 1_000, 3_000, 10_000)
PROMPTED = (50, 100, 200, 400)  # triples in the prompt; 8,192 tokens hold some 450
FIRST = DecodingConfig(max_new_tokens=1)
ANSWER = DecodingConfig(max_new_tokens=24)
KINDS = ("text", "float16", "int8", "rvq", "vq")
BATCH = 16


def opened(options: argparse.Namespace, **overrides: Any) -> MemoryModel:
    """The adapter with an empty bank in memory."""
    return MemoryModel.from_pretrained(
        options.adapter, backbone=options.backbone, overrides=overrides
    )


def answers(model: MemoryModel, data: QADataset) -> list[Answer]:
    """An answer to each question."""
    return model.ask_many([q.text for q in data.questions], ANSWER, batch=BATCH)


def scores(found: Sequence[Answer], data: QADataset) -> dict[str, Metric]:
    """Exact answers, and how often the first source is the right triple."""
    pairs = list(zip(found, data.questions, strict=True))
    wanted = [data.documents[q.document].id for _, q in pairs]
    first = [
        bool(a.documents) and a.documents[0][0] == id for a, id in zip(found, wanted, strict=True)
    ]
    return {
        "exact_match": rate([exact_match(a.text, q.answers) for a, q in pairs]),
        "first_source_right": rate([float(v) for v in first]),
    }


def cost(options: argparse.Namespace, data: QADataset) -> None:
    """Time and memory by the number of triples, in the attention and in the prompt."""
    model, held = opened(options), 0
    milliseconds: dict[str, dict[int, float]] = {"triples": {}, "prompt": {}, "opening": {}}
    peaks: dict[int, float] = {}
    questions = [q.text for q in data.questions[: options.repeats]]
    for size in [n for n in SIZES if n <= len(data.documents)]:
        began = time.process_time()
        model.write(data.documents[held:size])
        model.ask(questions[0], FIRST)  # keys and values are computed at the first question
        milliseconds["opening"][size] = 1000 * (time.process_time() - began)
        held = size
        milliseconds["triples"][size] = _first_token(lambda text: model.ask(text, FIRST), questions)
        peaks[size] = float(peak_memory_bytes() or 0)
        print(size, milliseconds["triples"][size], peaks[size], flush=True)
    backbone = model.backbone
    for size in PROMPTED:
        facts = "\n".join(f"{document.text}." for document in data.documents[:size])

        def ask(text: str, facts: str = facts) -> None:
            generate(backbone, prompt_ids(backbone, [text], [facts]), FIRST)

        milliseconds["prompt"][size] = _first_token(ask, questions[:2])
        print("prompt", size, milliseconds["prompt"][size], flush=True)
    x = np.array([n for n in milliseconds["triples"] if n >= 100], float)
    y = np.array([milliseconds["triples"][int(n)] for n in x])
    slope, start = np.polyfit(x, y, 1)
    left = float(((y - (slope * x + start)) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    most, prompted = max(milliseconds["triples"]), max(milliseconds["prompt"])
    ratio = milliseconds["prompt"][prompted] / milliseconds["triples"][min(1_000, most)]
    metrics = {
        "first_token_milliseconds": Metric(milliseconds["triples"][most], "ms"),
        "milliseconds_per_1000_triples": Metric(1000 * slope, "ms"),
        "milliseconds_without_triples": Metric(start, "ms"),
        "variance_explained_by_a_line": Metric(1 - left, "fraction"),
        PEAK: Metric(peaks[most], "bytes"),
        "triples": Metric(most, "triples"),
        "prompt_triples": Metric(prompted, "triples"),
        "prompt_over_1000_triples": Metric(ratio, "times"),
    }
    series: dict[str, Series] = {
        name: curve(
            list(found), "triples", "triples", [Metric(v, "ms") for v in found.values()], name
        )
        for name, found in milliseconds.items()
    }
    config = {"repeats": options.repeats, "time": "processor time of one thread"}
    write_measured(
        options.out / "cost.json", "kb-cost", metrics, data, method=model.method.name,
        dtype=backbone.dtype, config=config, series=series,
    )  # fmt: skip


def _first_token(ask: Any, questions: Sequence[str]) -> float:
    """Median processor milliseconds of `ask`."""
    found = []
    for text in questions:
        began = time.process_time()
        ask(text)
        found.append(1000 * (time.process_time() - began))
    return float(np.median(found))


def prune(options: argparse.Namespace, data: QADataset) -> None:
    """How many answers change where only the best `top_k` triples are read."""
    size = len(data.documents)
    asked = data.sample_questions(options.questions, 0)
    said: dict[int, list[str]] = {}
    metrics: dict[str, Metric] = {}
    for top_k in (0, 100, 10):
        model = opened(options, top_k=top_k)
        model.write(data.documents)
        found = answers(model, asked)
        said[top_k] = [a.text for a in found]
        other = [float(a != b) for a, b in zip(said[top_k], said[0], strict=True)]
        name = f"top_{top_k}" if top_k else "all"
        metrics |= {f"{k}_{name}": v for k, v in scores(found, asked).items()}
        metrics[f"answers_changed_{name}"] = rate(other)
        print(top_k, metrics[f"answers_changed_{name}"], flush=True)
    metrics |= {"triples": Metric(size, "triples"), "questions": Metric(len(asked.questions), "")}
    write_measured(
        options.out / "prune.json", "kb-prune", metrics, data, method=model.method.name,
        dtype=model.backbone.dtype,
    )  # fmt: skip


def keys(options: argparse.Namespace, data: QADataset) -> None:
    """Right answers over the bytes of a triple, by how its key is kept."""
    asked = data.sample_questions(options.questions, 0)
    metrics: dict[str, Metric] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kb.bank"
            words = {"backbone": options.backbone, "overrides": {"keys": kind}, "ledger": "ids"}
            with MemoryModel.from_pretrained(options.adapter, path, **words) as model:
                model.write(data.documents)
                size = model.footprint()
            with MemoryModel.from_pretrained(options.adapter, path, **words) as model:
                found = answers(model, asked)
                name, dtype = model.method.name, model.backbone.dtype
        each = (size.codes + size.keys) / len(data.documents)
        metrics |= {f"{k}_{kind}": v for k, v in scores(found, asked).items()}
        metrics[f"bytes_{kind}"] = Metric(each, "bytes")
        metrics[f"file_bytes_{kind}"] = Metric(size.total / len(data.documents), "bytes")
        print(kind, each, metrics[f"first_source_right_{kind}"], flush=True)
    metrics["triples"] = Metric(len(data.documents), "triples")
    write_measured(options.out / "keys.json", "kb-keys", metrics, data, method=name, dtype=dtype)


def main() -> None:
    """Measures what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cost", "prune", "keys"))
    parser.add_argument("--adapter", default="kblam-smollm2-135m")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--data", default="kb:1000")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/kblam"))
    options = parser.parse_args()
    data = load_knowledge(options.data)
    {"cost": cost, "prune": prune, "keys": keys}[options.what](options, data)


if __name__ == "__main__":
    main()
