"""Bits that an `mbc` bank can hold: the counts of its codes beside their bound; one record.

Codes carry no place and no owner, so a bank answers like the counts of its K codewords. After M
codes there are C(M + K - 1, K - 1) different counts: their log2 bounds what any code can store. The
code length of the measured counts is that of a symmetric Dirichlet-multinomial whose one parameter
is fitted to them. With the parameter 1 it is the bound itself.
"""

from __future__ import annotations

import argparse
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.model import load_backbone
from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import load_dataset
from latentbank.model import MemoryModel
from measured import write_measured

CONCENTRATIONS = np.geomspace(0.01, 1000, 201)


def bound_bits(codes: int, words: int) -> float:
    """log2 of the number of different counts of `words` codewords after `codes` codes."""
    return math.log2(math.comb(codes + words - 1, words - 1))


def code_bits(counts: np.ndarray, concentration: float) -> float:
    """Bits of `counts` [K] under a symmetric Dirichlet-multinomial."""
    total, words, a = int(counts.sum()), len(counts), concentration
    found = math.lgamma(total + 1) + math.lgamma(words * a) - math.lgamma(total + words * a)
    for count in counts.tolist():
        found += math.lgamma(count + a) - math.lgamma(a) - math.lgamma(count + 1)
    return -found / math.log(2)


def fitted_bits(counts: np.ndarray) -> float:
    """The shortest of the code lengths over `CONCENTRATIONS`."""
    return min(code_bits(counts, float(a)) for a in CONCENTRATIONS)


def main() -> None:
    """Writes the documents, counts their codes, and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with dev-v1.1.json")
    parser.add_argument("--out", type=Path, default=Path("results/bytes/mbc-histogram.json"))
    parser.add_argument("--documents", type=int, default=1665)
    parser.add_argument("--adapter", default="mbc-smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(options.squad, "test-online").take(options.documents)
    backbone = load_backbone("smollm2-135m", options.dtype)
    method: Any = load_adapter(find_adapter(options.adapter), backbone)
    MemoryModel(method).write(data.documents)
    words, latents = method.config.codebook.codes, method.config.latents
    rows = method._codes.view(-1, latents).numpy()  # (documents, T)
    sizes = [n for n in (1, 10, 50, 100, 200, 500, 1000) if n < len(rows)] + [len(rows)]
    counts = {n: np.bincount(rows[:n].ravel(), minlength=words) for n in sizes}
    bounds = [bound_bits(n * latents, words) for n in sizes]
    fitted = [fitted_bits(counts[n]) for n in sizes]
    whole = counts[sizes[-1]]
    halves = [np.bincount(half.ravel(), minlength=words) for half in (rows[::2], rows[1::2])]
    cosine = float(halves[0] @ halves[1] / np.prod([np.linalg.norm(half) for half in halves]))
    blob = whole.astype(np.uint32).tobytes()
    metrics = {
        "documents": Metric(float(len(rows)), "documents"),
        "codes of a document": Metric(float(latents), "codes"),
        "codewords": Metric(float(words), "codewords"),
        "codewords in use": Metric(float((whole > 0).sum()), "codewords"),
        "bound": Metric(bounds[-1] / 8, "bytes"),
        "bound of a document": Metric(bounds[-1] / len(rows), "bits/document"),
        "counts, fitted code": Metric(fitted[-1] / 8, "bytes"),
        "counts, lzma": Metric(float(len(lzma.compress(blob, preset=9))), "bytes"),
        "counts as stored": Metric(float(len(blob)), "bytes"),
        "codes as stored": Metric(len(rows) * latents * method.config.bits / 8, "bytes"),
        "counts of two halves": Metric(cosine, "cosine"),
    }
    axis = {"x_name": "documents", "x_unit": "documents", "y_unit": "bytes"}
    series = {
        name: Series(tuple(sizes), tuple(v / 8 for v in values), y_name=name, **axis)
        for name, values in (("bound", bounds), ("counts, fitted code", fitted))
    }
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:,.5g} {metric.unit}")
    write_measured(
        options.out,
        "histogram",
        metrics,
        data,
        method="mbc",
        dtype=backbone.dtype,
        config={"adapter": options.adapter},
        series=series,
    )


if __name__ == "__main__":
    main()
