"""Recall: retrieval and time by the layers that are spent when writing.

Fits the exits on paragraphs of `--background`, then encodes the paragraphs of `--data` at each
depth, as `write` does, and asks questions. A row has the share of the questions whose own paragraph
is among the best ten, by coarse keys and after the questions' nearest coarse texts were encoded to
full depth, and the processor time for writing. One record: results/recall/depths.json.
`--save` writes the fitted exits as an adapter.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from latentbank.adapter import build_method, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import QADataset, load_dataset, load_sample
from latentbank.evaluate.metrics import mean_interval
from latentbank.methods.recall import Recall
from latentbank.parts.retrieval.dense import DenseKeys
from measured import command_line, write_measured

BEST = 10


def by_depth(
    method: Recall, data: QADataset, depth: str, refine: tuple[int, ...]
) -> dict[str, Metric]:
    """The figures of one depth: `full`, a layer, or `predicted_0.6` with its least cosine."""
    texts = [d.text for d in data.documents]
    kind, _, least = depth.partition("_")
    method.config = replace(method.config, depth=kind)
    if least:
        method.config = replace(method.config, similarity=float(least))
    began = time.process_time()
    keys = method.coarse_keys(texts)
    seconds = time.process_time() - began
    layers = float(np.mean([key[0] for key in keys]))
    index = DenseKeys(method.exit_encoder.width)
    ids = [str(i) for i in range(len(texts))]
    index.add(ids, [key[1:] for key in keys])
    asked = method._full([q.text for q in data.questions])
    own = [str(q.document) for q in data.questions]
    found = {
        "seconds": Metric(seconds, "s"),
        "texts_per_second": Metric(len(texts) / seconds, "1/s"),
        "layers": Metric(layers, "layers"),
        "coarse": share(
            [o in [i for i, _ in r] for o, r in zip(own, index.search(asked, BEST), strict=True)]
        ),
    }
    full = DenseKeys(method.exit_encoder.width)
    full.add(ids, full_keys(method, texts))
    coarse = {i for i, key in zip(ids, keys, strict=True) if key[0] != method.full_depth}
    for count in refine:
        near = [[i for i, _ in row] for row in index.search(asked, count)]
        fine = full.cosines(asked, near)
        rough = index.cosines(asked, near)
        hits = []
        for row, better, worse, name in zip(near, fine, rough, own, strict=True):
            scores = [b if i in coarse else w for i, b, w in zip(row, better, worse, strict=True)]
            best = np.argsort(scores)[::-1][:BEST]
            hits.append(name in [row[at] for at in best])
        found[f"refined_{count}"] = share(hits)
    return found


_FULL: dict[int, list[bytes]] = {}


def full_keys(method: Recall, texts: list[str]) -> list[bytes]:
    """int8 keys of full depth, computed once."""
    if len(texts) not in _FULL:
        _FULL[len(texts)] = DenseKeys.encode(method._full(texts))
    return _FULL[len(texts)]


def share(hits: list[bool]) -> Metric:
    """Percent, with its interval."""
    found = mean_interval([float(hit) for hit in hits])
    return Metric(100 * float(np.mean(hits)), "percent", 100 * found.low, 100 * found.high)


def main() -> None:
    """Parses the command line, fits, measures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="PATH:SPLIT of the test; default: the sample")
    parser.add_argument("--background", default="", help="PATH:SPLIT of other paragraphs")
    parser.add_argument("--paragraphs", type=int, default=3000, help="of the background")
    parser.add_argument("--documents", type=int, default=None)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--refine", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--similarity", type=float, nargs="+", default=[0.5, 0.6, 0.7])
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--out", type=Path, default=Path("results/recall"))
    parser.add_argument("--save", type=Path, help="folder of an adapter with the fitted exits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data) if options.data else load_sample()
    data = data if options.documents is None else data.take(options.documents)
    background = [d.text for d in data.documents]
    if options.background:
        background = [d.text for d in load(options.background).documents]
    else:  # no other data is at hand: half of it is background
        half = len(data.documents) // 2
        data = data.take(half)
        background = background[half:]
    draw = np.random.default_rng(0)
    chosen = sorted(draw.permutation(len(background))[: options.paragraphs])
    data = data.sample_questions(options.questions, 0)
    overrides = {"encoder": options.encoder, "depth": "full"}
    overrides |= {"lora": {"rank": 0, "layer": 0}}
    method = build_method("recall", load_backbone("smollm2-135m"), overrides)
    assert isinstance(method, Recall)
    began = time.process_time()
    method.fit_exits([background[i] for i in chosen])
    fitting = time.process_time() - began
    if options.save:
        card = {"command": command_line(), "seconds": round(fitting, 1), "texts": len(chosen)}
        save_adapter(options.save, method, card, half=True)
    metrics = {"fitting_seconds": Metric(fitting, "s"), "background": Metric(len(chosen), "texts")}
    layers = [*map(str, method.exits.layers[:-1]), "full"]
    rows = {}
    predicted = [f"predicted_{one:g}" for one in options.similarity]
    for depth in [*reversed(layers), *predicted]:
        rows[depth] = by_depth(method, data, depth, tuple(options.refine))
        metrics |= {f"{depth}_{name}": value for name, value in rows[depth].items()}
        print(
            depth, {name: round(value.value, 2) for name, value in rows[depth].items()}, flush=True
        )
    for depth in [*layers[:-1], *predicted]:
        ratio = rows["full"]["seconds"].value / rows[depth]["seconds"].value
        metrics[f"{depth}_faster"] = Metric(ratio, "times")
        for name in ["coarse", *(f"refined_{count}" for count in options.refine)]:
            kept = rows[depth][name].value / rows["full"]["coarse"].value
            metrics[f"{depth}_{name}_kept"] = Metric(100 * kept, "percent of full depth")
    x = tuple(rows[depth]["layers"].value for depth in layers)
    series = {
        name: Series(
            x, tuple(rows[d][name].value for d in layers), "layers when writing", "layers",
            f"among the best {BEST}", "percent",
        )
        for name in ["coarse", *(f"refined_{count}" for count in options.refine)]
    }  # fmt: skip
    config = {"documents": len(data.documents), "questions": len(data.questions)}
    config |= {"similarity": options.similarity, "encoder": options.encoder, "key": "int8"}
    write_measured(
        options.out / "depths.json", "recall-depths", metrics, data,
        method="recall", dtype=torch.float32, config=config, series=series,
    )  # fmt: skip


def load(spec: str) -> QADataset:
    """PATH:SPLIT."""
    path, _, split = spec.partition(":")
    return load_dataset(path, split or None)


if __name__ == "__main__":
    main()
