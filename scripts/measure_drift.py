"""`mbc` on a stream that drifts from SQuAD to news: a frozen codebook beside one that learns.

The documents of both domains are written in order, in parts. After each part: the share of the
variance of its latents that the codes miss, and the perplexity of its codes. At the end questions
about both domains are answered. One record. The news (ArchivalQA's layout, a .jsonl file) is read
from where the user has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.encoder import MemoryCache
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bench.record import DataInfo, Metric, Series
from latentbank.codec.quantizer import ResidualMeter, usage_perplexity
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.metrics import f1
from latentbank.model import MemoryModel
from measured import write_measured

ADAPTER = "mbc-smollm2-135m"


def stream(
    backbone: Backbone,
    domains: Mapping[str, QADataset],
    part: int,
    overrides: Mapping[str, Any],
    questions: int,
    cache: MemoryCache,
) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """(figures of each domain, curves over the parts) of one run over the stream."""
    method: Any = load_adapter(find_adapter(ADAPTER), backbone, overrides)
    method.encoder.cache = cache
    model, size = MemoryModel(method), method.config.codebook.codes
    metrics: dict[str, Metric] = {}
    curves: dict[str, list[float]] = {"residual": [], "perplexity": []}
    for name, data in domains.items():
        before, whole = len(method._codes), ResidualMeter()
        for at in range(0, len(data.documents), part):
            first, method.codewords.meter = len(method._codes), ResidualMeter()
            model.write(data.documents[at : at + part])
            codes = method._codes[first:]
            curves["residual"].append(method.codewords.meter.value() or 0.0)
            curves["perplexity"].append(
                usage_perplexity(torch.bincount(codes % size, minlength=size))
            )
            latents = method.amortise_all([d.text for d in data.documents[at : at + part]])
            if len(codes) == latents.shape[0] * latents.shape[1]:
                whole.add(latents.flatten(0, 1), method.codewords.all.float()[codes])
        used = torch.bincount(method._codes[before:] % size, minlength=size)
        metrics[f"{name}: perplexity"] = Metric(usage_perplexity(used), "codes")
        metrics[f"{name}: residual"] = Metric(whole.value() or 0.0, "fraction")
    for name, data in domains.items():
        asked = data.sample_questions(questions, 0).questions
        answers = model.ask_many([q.text for q in asked], DecodingConfig())
        scores = [f1(a.text, q.answers) for a, q in zip(answers, asked, strict=True)]
        metrics[f"{name}: F1"] = Metric(100 * sum(scores) / len(scores), "percent")
    words = method.codewords.all.numel() * 2
    metrics["codewords"] = Metric(float(words), "bytes")
    metrics["generations"] = Metric(float(method.codewords.generations), "codebooks")
    return metrics, curves


def main() -> None:
    """Runs both forms over the same stream and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with dev-v1.1.json")
    parser.add_argument("--news", required=True, help="ArchivalQA's .jsonl")
    parser.add_argument("--out", type=Path, default=Path("results/training/mbc-drift.json"))
    parser.add_argument("--documents", type=int, default=512, help="of each domain")
    parser.add_argument("--part", type=int, default=64)
    parser.add_argument("--questions", type=int, default=200, help="about each domain")
    parser.add_argument("--generation", type=int, default=128)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--discount", type=float, default=0.9)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    domains = {
        "SQuAD": load_dataset(options.squad, "test-online").take(options.documents),
        "news": load_dataset(options.news, "test").take(options.documents),
    }
    backbone, cache = load_backbone("smollm2-135m", options.dtype), MemoryCache()
    online = {
        "adapt": "online",
        "generation": options.generation,
        "generations": options.generations,
        "discount": options.discount,
    }
    metrics: dict[str, Metric] = {}
    series: dict[str, Series] = {}
    for form, overrides in (("frozen", {}), ("online", online)):
        found, curves = stream(backbone, domains, options.part, overrides, options.questions, cache)
        metrics |= {f"{form}: {name}": metric for name, metric in found.items()}
        for name, values in curves.items():
            places = tuple(float(options.part * (i + 1)) for i in range(len(values)))
            unit = "fraction" if name == "residual" else "codes"
            series[f"{form}: {name}"] = Series(
                places, tuple(values), "documents", "documents", name, unit
            )
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:,.4g} {metric.unit}")
    names = " then ".join(data.name for data in domains.values())
    write_measured(
        options.out,
        "drift",
        metrics,
        DataInfo(names, domains["SQuAD"].hash),
        method="mbc",
        dtype=backbone.dtype,
        config={"adapter": ADAPTER, "online": online, "documents of a domain": options.documents},
        series=series,
    )


if __name__ == "__main__":
    main()
