"""Learns the reranker's weights on SQuAD's `train` split: src/latentbank/assets/rerank.json.

The paragraphs are taken in blocks as large as a collection of the papers' test. Each block is
indexed; the best texts by BM25 of each question get their features. The weights minimise the
cross-entropy of the right text under the softmax of the logits, with a small L2 penalty. The
record says how many right texts come first on `val`, with all features, without each, and by BM25
with one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from latentbank.bench.record import DataInfo, Metric
from latentbank.evaluate.data import load_dataset
from latentbank.evolve.contests import Contests, contests, join
from latentbank.parts.retrieval.rerank.reranker import FEATURES
from measured import write_measured

AMONG = (1, 4, 8, 16)
BLOCK = 1700  # paragraphs
PENALTY = 1e-4  # of the squared weights in units of the features' standard deviations

Numbers = npt.NDArray[np.float64]


def fit(data: Contests, kept: Sequence[int]) -> Numbers:
    """Weights [features] of the features `kept`; those of the others are 0."""
    rows = data.right >= 0
    features, there = data.features[rows][..., list(kept)], data.there[rows]
    right = data.right[rows]
    scale = features[there].std(0) + 1e-9
    features = features / scale
    own = features[np.arange(len(right)), right]

    def loss(weights: Numbers) -> tuple[float, Numbers]:
        logits = np.where(there, features @ weights, -np.inf)
        top = logits.max(1, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(1, keepdims=True)
        lost = float((np.log(total) + top).mean() - (own @ weights).mean())
        slope = np.einsum("qc,qcf->f", shares / total, features) / len(right) - own.mean(0)
        return lost + PENALTY * float(weights @ weights), slope + 2 * PENALTY * weights

    found = minimize(loss, np.zeros(len(kept)), jac=True, method="L-BFGS-B")
    weights = np.zeros(len(FEATURES))
    weights[list(kept)] = found.x / scale
    return weights


def variants() -> Iterator[tuple[str, list[int]]]:
    """(name, the features that are kept): all of them first."""
    every = list(range(len(FEATURES)))
    yield "all features", every
    yield "BM25 alone", every[:1]
    for i in every[1:]:
        yield f"BM25 and {FEATURES[i]}", [0, i]
    for i in every:
        yield f"all but {FEATURES[i]}", [j for j in every if j != i]


def main() -> None:
    """Reads the splits, fits, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--every", type=int, default=5, help="every so many questions of train")
    parser.add_argument("--top", type=int, default=16, help="candidates of a question")
    parser.add_argument("--record", type=Path, help="where to write the figures on val")
    parser.add_argument("--out", type=Path, default=Path("src/latentbank/assets/rerank.json"))
    options = parser.parse_args()
    train, val = load_dataset(options.data, "train"), load_dataset(options.data, "val")
    blocks = range(0, len(train.documents) - BLOCK + 1, BLOCK)
    learned = join([contests(train, at, at + BLOCK, options.every, options.top) for at in blocks])
    held_out = contests(val, 0, len(val.documents), 1, options.top)
    chosen = None
    metrics = {}
    for name, kept in variants():
        weights = fit(learned, kept)
        chosen = weights if chosen is None else chosen
        figures = {k: held_out.first(weights, k) for k in AMONG}
        metrics |= {f"{name}: right among {k}": Metric(v, "%") for k, v in figures.items()}
        print(f"{name:28s}", *(f"{value:.1f}" for value in figures.values()), flush=True)
    assert chosen is not None
    packed = {name: float(f"{w:.4g}") for name, w in zip(FEATURES, chosen, strict=True)}
    told = {"data": f"squad_v1.1:train {train.hash}", "questions": len(learned.right)}
    if options.record:
        info = DataInfo("squad_v1.1:val", val.hash)
        write_measured(options.record, "reranker-features", metrics, info, config=told)
    options.out.write_text(json.dumps({**told, "weights": packed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
