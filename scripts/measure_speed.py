"""Speed of writing and aggregation, side by side in one run; one record.

Ratios are the result: absolute times belong to the machine that ran it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset, load_sample
from latentbank.method import Method
from latentbank.methods.mbc_codes import Mbc
from latentbank.model import MemoryModel
from measured import write_measured


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` runs after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def bare_forward(backbone: Backbone, texts: list[str], layer: int) -> None:
    """The backbone's layers below `layer` over the texts, in batches of 16 of like length."""
    order = sorted(texts, key=len)
    for at in range(0, len(order), 16):
        ids, mask = backbone.pad(backbone.encode(order[at : at + 16]))
        backbone.states(ids, mask, layer)


def write_ratios(backbone: Backbone, data: QADataset, repeats: int) -> dict[str, Metric]:
    """Documents/s of each method's `write` over that of the bare forward pass that it needs."""
    documents = data.documents[:96]
    texts = [d.text for d in documents]
    metrics: dict[str, Metric] = {}
    variants = (
        ("strata verbatim", "strata-smollm2-135m", {}),
        ("strata pooled48", "strata-smollm2-135m", {"entry": "pooled"}),
        ("mac", "mac-smollm2-135m", {}),
        ("mbc", "mbc-smollm2-135m", {}),
    )
    for name, adapter, overrides in variants:
        method = load_adapter(find_adapter(adapter), backbone, overrides)
        assert method.encoder is not None
        layer, written, bare = method.encoder.layer, [], []
        for _ in range(repeats):

            def write(method: Method = method) -> None:
                MemoryModel(method).write(documents)

            written.append(median_seconds(write, 1))
            bare.append(median_seconds(lambda layer=layer: bare_forward(backbone, texts, layer), 1))
        ratio = statistics.median(b / w for w, b in zip(written, bare, strict=True))
        rate = len(documents) / statistics.median(written)
        metrics[f"write {name}: documents/s"] = Metric(rate, "1/s")
        metrics[f"write {name}: speed over bare forward"] = Metric(ratio, "ratio")
    return metrics


@torch.no_grad()
def aggregation(backbone: Backbone, count: int, repeats: int) -> dict[str, Metric]:
    """MBC's two bank forms after `count` documents of random codes: time and difference."""
    folder = find_adapter("mbc-smollm2-135m")
    tokens, seconds = [], []
    for form in ("indices", "histogram"):
        method = load_adapter(folder, backbone, {"form": form})
        assert isinstance(method, Mbc)
        MemoryModel(method)
        books, latents = method.config.codebook.codes, method.config.latents
        generator = torch.Generator().manual_seed(0)
        method.take_codes(torch.randint(0, books, (count * latents,), generator=generator))
        question = method.amortise(["What is it about?"], "questions")
        with flushed_denormals():  # as `read` does
            tokens.append(method.memory_tokens(question))
            seconds.append(median_seconds(lambda m=method, q=question: m.memory_tokens(q), repeats))
    difference = float((tokens[0] - tokens[1]).abs().max() / tokens[1].abs().max())
    return {
        "aggregate indices": Metric(1000 * seconds[0], "ms"),
        "aggregate histogram": Metric(1000 * seconds[1], "ms"),
        "aggregate: indices over histogram": Metric(seconds[0] / seconds[1], "ratio"),
        "aggregate: relative difference": Metric(difference, "ratio"),
        "aggregate: documents": Metric(float(count), "documents"),
    }


def main() -> None:
    """Runs all parts and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/speed/speed.json"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--documents", type=int, default=20_000, help="for the aggregation part")
    options = parser.parse_args()
    backbone, data = load_backbone("smollm2-135m"), load_sample()
    metrics = write_ratios(backbone, data, options.repeats)
    metrics |= aggregation(backbone, options.documents, options.repeats)
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.4g} {metric.unit}")
    write_measured(options.out, "speed", metrics, data, dtype=backbone.dtype)


if __name__ == "__main__":
    main()
