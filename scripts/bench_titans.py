"""Needles in haystacks for small language models: neural memories beside three baselines.

Trains each model on short texts with assignments and questions, then asks for one needle in texts
up to many times as long. All models have about the same number of parameters and see the same
texts. Checkpoints make it resumable. One record: exact match of the whole value.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentbank.bench.record import DataInfo, Metric
from latentbank.errors import InputError
from latentbank.evaluate.data import load_sample
from latentbank.evaluate.long_context import (
    KINDS,
    VALUE_TOKENS,
    Haystack,
    needle_sample,
    recall_sample,
)
from latentbank.parts.memory_lm import ARCHITECTURES, MemoryLM, MemoryLMConfig
from latentbank.training.language import LanguageConfig, LanguageTrainer
from measured import write_measured

# name of a variant → what it changes
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "no-momentum": {"momentum": False},
    "no-forgetting": {"forgetting": False},
    "no-convolution": {"convolution": 0},
    "no-persistent": {"persistent": 0},
    "chunk-gates": {"gates": "chunk"},
    "depth1": {"depth": 1},
    "depth2": {"depth": 2},
    "depth4": {"depth": 4},
    "no-cost": {},  # of what is written; see --write-cost
}
SIZES = {"width": 64, "layers": 2, "heads": 2, "head_dim": 32, "window": 32, "chunk": 16}
EVENT_NAMES = 8  # names in one training text, at most
PIECE = 1024


def parse_name(name: str) -> tuple[str, dict[str, Any]]:
    """(architecture, changed settings) of `MAC` or `MAC/no-momentum`."""
    architecture, _, variant = name.partition("/")
    if architecture not in ARCHITECTURES or variant not in VARIANTS:
        raise InputError(
            f"unknown model '{name}'; one of {', '.join(ARCHITECTURES)}, with one of "
            f"{', '.join(v for v in VARIANTS if v)} behind a slash"
        )
    return architecture, VARIANTS[variant]


def build(name: str, vocabulary: int, seed: int, parameters: int, depth: int) -> MemoryLM:
    """A model whose feed-forward width brings it near to `parameters` in all."""
    architecture, changes = parse_name(name)
    settings = {**SIZES, "vocab_size": vocabulary, "depth": depth, **changes}

    def made(ffn: int) -> MemoryLM:
        torch.manual_seed(seed)
        return MemoryLM(MemoryLMConfig(architecture, ffn=ffn, **settings))

    least = size_of(made(8))
    each = 3 * settings["width"] * settings["layers"]
    return made(max(8, 8 + round((parameters - least) / each)))


def size_of(model: MemoryLM) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def training_batches(
    hay: Haystack, length: int, batch: int, seed: int, long_from: int = sys.maxsize
) -> Any:
    """A function step → (ids, labels); the kinds take turns, the names grow in number.

    From step `long_from` the texts are four times as long, and a batch has a quarter of them.
    """

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([seed, step])
        most = 1 + min(EVENT_NAMES - 1, step // 50)
        times = 4 if step >= long_from else 1
        names = [int(rng.integers(1, most + 1)) for _ in range(max(1, batch // times))]
        rows = [recall_sample(hay, KINDS[step % 3], times * length, n, rng) for n in names]
        ids, labels = (torch.from_numpy(np.stack(one)) for one in zip(*rows, strict=True))
        return ids, labels

    return draw


@torch.no_grad()
def needle_rate(
    model: MemoryLM, hay: Haystack, kind: str, length: int, count: int, seed: int
) -> float:
    """Share of `count` needles, at depths from 0 to 1, whose whole value is the greedy answer."""
    rng = np.random.default_rng([seed, length])
    depths = np.linspace(0, 1, count)
    rows = [needle_sample(hay, kind, length, float(depth), rng) for depth in depths]
    right = 0
    for at in range(0, count, 16):
        texts, values = (
            torch.from_numpy(np.stack(one)) for one in zip(*rows[at : at + 16], strict=True)
        )
        stream = model.read(texts[:, :-1], piece=PIECE)
        asked = torch.cat([texts[:, -1:], values[:, :-1]], 1)
        said = model(asked, stream).logits.argmax(-1)
        right += int((said == values).all(1).sum())
    return right / count


@torch.no_grad()
def recall_rate(model: MemoryLM, hay: Haystack, length: int, count: int, seed: int) -> float:
    """Share of questions about names that change, asked in the text, that are answered whole."""
    rng = np.random.default_rng([seed, length, 1])
    rows = [recall_sample(hay, "number", length, EVENT_NAMES, rng, 0.5) for _ in range(count)]
    ids, labels = (torch.from_numpy(np.stack(one)) for one in zip(*rows, strict=True))
    said = model(ids).logits[:, :-1].argmax(-1)
    told = labels[:, 1:]
    right = (said == told)[told >= 0].view(-1, VALUE_TOKENS).all(1)
    return float(right.float().mean())


class Asked:
    """Rates that a run's model has been asked for, kept beside its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rates: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def once(self, what: str, ask: Callable[[], float]) -> float:
        """The rate that was kept, or what `ask` gives."""
        if what not in self.rates:
            self.rates[what] = ask()
            self.path.write_text(json.dumps(self.rates))
        return self.rates[what]


def measure(name: str, hay: Haystack, options: argparse.Namespace, seed: int) -> dict[str, Metric]:
    """Trains a model where its run is not done, and asks it."""
    model = build(name, len(hay.vocabulary), seed, options.parameters, options.depth)
    config = LanguageConfig(
        steps=options.steps,
        learning_rate=options.rate,
        seed=seed,
        write_cost=0.0 if name.endswith("/no-cost") else options.write_cost,
    )
    long_from = options.steps - options.long_steps
    draw = training_batches(hay, options.length, options.batch, seed, long_from)
    folder = options.runs / f"{name.replace('/', '-')}-{seed}"
    data = f"{fingerprint(hay)} {options.length} {options.batch}"
    data += f" {options.long_steps}" if options.long_steps else ""
    trainer = LanguageTrainer(model, draw, config, folder, data)
    trainer.run()
    began = time.perf_counter()
    label = f"{name} seed {seed}"
    metrics = {
        f"{label}: parameters": Metric(size_of(model), "count"),
        f"{label}: training": Metric(trainer.seconds, "s"),
        f"{label}: tokens": Metric(trainer.tokens, "count"),
    }
    asked, test = Asked(folder / "asked.json"), options.test_seed
    for length in options.lengths:
        count = options.needles if length <= 8192 else max(4, options.needles // 4)
        for kind in KINDS:
            ask = partial(needle_rate, model, hay, kind, length, count, test)
            rate = asked.once(f"{kind} {length} {count} {test}", ask)
            metrics[f"{label}: {kind} {length}"] = Metric(100 * rate, "percent")
        shown = {k: round(metrics[f"{label}: {k} {length}"].value) for k in KINDS}
        print(f"{label:<28} length {length:>6}  {shown}", flush=True)
    ask = partial(recall_rate, model, hay, options.length, 64, test)
    rate = asked.once(f"recall {options.length} {test}", ask)
    metrics[f"{label}: recall {options.length}"] = Metric(100 * rate, "percent")
    metrics[f"{label}: asking"] = Metric(time.perf_counter() - began, "s")
    if options.checkpoints is not None:
        model.save_pretrained(options.checkpoints / folder.name)
    return metrics


def fingerprint(hay: Haystack) -> str:
    """A hash of the haystack's text and words."""
    digest = hashlib.blake2b(hay.text.tobytes(), digest_size=8)
    digest.update(" ".join(hay.vocabulary.words).encode())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, trains, asks and writes the record; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="MAC,MAG,MAL,window,delta,lstm")
    parser.add_argument("--single", default="", help="more models, of the first seed only")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--length", type=int, default=128, help="tokens of a training text")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--long-steps", type=int, default=0, help="last ones, on 4 times the length"
    )
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument(
        "--write-cost", type=float, default=0.03, help="of what memories write; 0 for none"
    )
    parser.add_argument("--depth", type=int, default=1, help="layers of the memory's network")
    parser.add_argument("--parameters", type=int, default=110_000, help="of every model, about")
    parser.add_argument("--lengths", default="128,512,2048,8192", help="of the texts with a needle")
    parser.add_argument("--needles", type=int, default=32, help="for each kind and length")
    parser.add_argument("--test-seed", type=int, default=1234)
    parser.add_argument("--runs", type=Path, default=Path("runs/titans"))
    parser.add_argument("--checkpoints", type=Path, help="folder to save the models in")
    parser.add_argument("--out", type=Path, default=Path("results/titans/needle.json"))
    options = parser.parse_args(arguments)
    options.lengths = [int(part) for part in options.lengths.split(",")]
    torch.set_num_threads(1)
    hay = Haystack.of([d.text for d in load_sample().documents], 128)
    metrics: dict[str, Metric] = {}
    seeds = [int(part) for part in options.seeds.split(",")]
    models = [(name, seed) for name in options.models.split(",") for seed in seeds]
    models += [(name, seeds[0]) for name in options.single.split(",") if name]
    for name, seed in models:
        metrics |= measure(name, hay, options, seed)
    write_measured(
        options.out,
        "needle",
        metrics,
        DataInfo("sample", fingerprint(hay)),
        dtype=torch.float32,
        seed=seeds[0],
        config={
            **SIZES,
            "steps": options.steps,
            "length": options.length,
            "batch": options.batch,
            "long_steps": options.long_steps,
            "depth": options.depth,
            "lengths": options.lengths,
            "needles": options.needles,
            "train": asdict(
                LanguageConfig(
                    steps=options.steps,
                    learning_rate=options.rate,
                    write_cost=options.write_cost,
                )
            ),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
