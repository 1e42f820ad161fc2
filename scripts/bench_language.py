"""Perplexity of small language models on text: neural memories beside the baselines.

All models have about the same number of parameters and see the same tokens in the same order.
`--train` is text to learn from, each `--test` text to predict: a file of text, or of SQuAD's json.
Words beyond the vocabulary count as one word, so perplexities compare models of one run only.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench_titans import SIZES, build, fingerprint, size_of
from latentbank.bench.record import DataInfo, Metric
from latentbank.errors import InputError
from latentbank.evaluate.data import load_sample
from latentbank.evaluate.long_context import Haystack
from latentbank.parts.memory_lm import MemoryLM
from latentbank.training.language import LanguageConfig, LanguageTrainer
from measured import write_measured


def texts_of(path: Path | None) -> list[str]:
    """The paragraphs of a file: SQuAD's json, or plain text by its lines; the sample without one.

    Raises:
        InputError: the file holds no text.
    """
    if path is None:
        return [document.text for document in load_sample().documents]
    raw = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        found = [p["context"] for a in json.loads(raw)["data"] for p in a["paragraphs"]]
    else:
        found = [line for line in raw.splitlines() if line.strip()]
    if not found:
        raise InputError(f"{path} holds no text; name a file with text")
    return found


def batches(ids: Any, length: int, batch: int, seed: int) -> Any:
    """A function step → (ids, labels): windows of the text drawn by the seed."""

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        starts = np.random.default_rng([seed, step]).integers(0, len(ids) - length, batch)
        rows = torch.from_numpy(np.stack([ids[at : at + length] for at in starts]))
        return rows, rows

    return draw


@torch.no_grad()
def perplexity(model: MemoryLM, ids: Any, length: int, rows: int) -> float:
    """exp of the mean loss over `rows` texts of `length` tokens, each from an empty state."""
    ids = ids[: rows * length]
    rows = len(ids) // length
    texts = torch.from_numpy(ids[: rows * length].reshape(rows, length))
    total = 0.0
    for part in texts.split(16):
        stream, before = None, None
        for at in range(0, length, 512):
            piece = part[:, at : at + 512]
            found = model(piece, stream)
            logits, stream = found.logits, found.past_key_values
            if before is not None:
                logits = torch.cat([before, logits], 1)
                piece = part[:, at - 1 : at + 512]
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), piece[:, 1:].flatten(), reduction="sum"
            )
            before, total = logits[:, -1:], total + float(loss)
    return math.exp(total / (rows * (length - 1)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, trains, tests and writes the record; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="MAC,MAG,MAL,window,delta,lstm")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--train", type=Path, help="default: the packaged sample")
    parser.add_argument("--test", type=Path, action="append", default=[], help="may be repeated")
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--parameters", type=int, default=170_000)
    parser.add_argument("--lengths", default="256,2048", help="of the texts that are predicted")
    parser.add_argument("--rows", type=int, default=32, help="texts of each length, at most")
    parser.add_argument("--runs", type=Path, default=Path("runs/titans-language"))
    parser.add_argument("--out", type=Path, default=Path("results/titans/language.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    learned = Haystack.of(texts_of(options.train), options.vocabulary)
    vocabulary, cut = learned.vocabulary, len(learned.text)
    tests = {}
    for path in options.test:
        found = [vocabulary.encode(text) for text in texts_of(path)]
        tests[f"{path.parent.name}/{path.name}"] = np.concatenate(found)
    if not tests:
        cut = cut * 9 // 10
        tests["sample, last tenth"] = learned.text[cut:]
    metrics: dict[str, Metric] = {}
    lengths = [int(part) for part in options.lengths.split(",")]
    for seed in map(int, options.seeds.split(",")):
        for name in options.models.split(","):
            model = build(name, len(vocabulary), seed, options.parameters, options.depth)
            config = LanguageConfig(steps=options.steps, learning_rate=options.rate, seed=seed)
            draw = batches(learned.text[:cut], options.length, options.batch, seed)
            data = f"{fingerprint(learned)} {cut} {options.length} {options.batch}"
            folder = options.runs / f"{name.replace('/', '-')}-{seed}"
            trainer = LanguageTrainer(model, draw, config, folder, data)
            trainer.run()
            label = f"{name} seed {seed}"
            metrics[f"{label}: parameters"] = Metric(size_of(model), "count")
            metrics[f"{label}: tokens"] = Metric(trainer.tokens, "count")
            metrics[f"{label}: training"] = Metric(trainer.seconds, "s")
            for test, ids in tests.items():
                for length in lengths:
                    value = perplexity(model, ids, length, options.rows)
                    metrics[f"{label}: {test} {length}"] = Metric(value, "perplexity")
                    print(f"{label:<16} {test:<24} {length:>6} {value:8.2f}", flush=True)
    write_measured(
        options.out,
        "language",
        metrics,
        DataInfo(options.train.name if options.train else "sample", fingerprint(learned)),
        dtype=torch.float32,
        config={**SIZES, "steps": options.steps, "depth": options.depth, "lengths": lengths},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
