"""CMT on the validation split: top-k and the weight of memory-aware decoding; one record.

Documents are encoded once; each pair of settings asks the same questions of the same bank.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

from latentbank.adapter import build_method, find_adapter, load_adapter, read_config
from latentbank.backbone.model import load_backbone
from latentbank.bench.record import Metric
from latentbank.bench.scoring import rate
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.evaluation import Evaluation, ask_data
from latentbank.method import Method
from latentbank.model import MemoryModel
from measured import write_measured


def load(adapter: str) -> Method:
    """CMT with the weights of a `cmt` adapter, or of a `mac` adapter where names agree."""
    folder, backbone = find_adapter(adapter), load_backbone("smollm2-135m")
    config = read_config(folder)
    if config["method"] == "cmt":
        return load_adapter(folder, backbone)
    method = build_method("cmt", backbone, dict(config["config"]))
    state = load_adapter(folder, backbone).state()
    method.load_state({**method.state(), **state})
    return method


def sweep(
    method: Method, data: QADataset, pairs: list[tuple[int, float]]
) -> dict[tuple[int, float], Evaluation]:
    """The answers for each (top_k, memory_aware), read from one bank."""
    found = {}
    with MemoryModel(method) as model:
        model.write(data.documents)
        for top_k, weight in pairs:
            method.config = replace(method.config, top_k=top_k, memory_aware=weight)
            found[top_k, weight] = ask_data(model, data)
            print(top_k, weight, found[top_k, weight].summary(), flush=True)
    return found


def main() -> None:
    """Parses the command line, sweeps and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--adapter", default="cmt-smollm2-135m")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--top-k", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--memory-aware", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/cmt/sweep/decoding.json"))
    options = parser.parse_args()
    data = load_dataset(options.data, "val").sample_questions(options.questions, options.seed)
    method = load(options.adapter)
    if not method.matcher.measured:
        method.prepare(data.documents, [q.text for q in data.questions])
    pairs = list(itertools.product(options.top_k, options.memory_aware))
    metrics: dict[str, Metric] = {}
    for (top_k, weight), found in sweep(method, data, pairs).items():
        label = f"top-k {top_k}, α {weight:g}"
        metrics[f"F1, {label}"] = rate(found.f1)
        metrics[f"EM, {label}"] = rate(found.exact_match)
    write_measured(
        options.out,
        "cmt-sweep",
        metrics,
        data,
        method="cmt",
        dtype=method.backbone.dtype,
        seed=options.seed,
        config={"name": "cmt", "adapter": options.adapter},
    )


if __name__ == "__main__":
    main()
