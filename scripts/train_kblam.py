"""Trains KBLaM's adapter on synthetic knowledge bases; the same command goes on after a kill.

Each step draws questions about a pool of triples, on one triple, two triples, open-ended and
unanswerable, and a knowledge base that holds what they need and other triples. Its size is
log-uniform from 10 up to a limit that grows to `--most` over the steps.

What is frozen is computed once and kept in OUT: the features of the pool, and the states of the
questions that enter the first layer with triples. Keys and values of a knowledge base are computed
once for all questions of a step. The vocabulary head runs at answer tokens only.

`--real` adds triples of files (DART, tables) to the pool. `--start-from` goes on from an adapter
with another pool of questions, in place of the aligned start. `--steps 0` trains the choice of
triples only, on frozen states (`--contrast` steps).

Held-out entities and wordings validate, by first tokens; `best/` keeps the best adapter.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kblam_held import COST, Held, held_out
from kblam_pool import Pool
from latentbank.adapter import build_method, copy_matching, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.bench.machine import this_machine, versions
from latentbank.errors import InputError
from latentbank.training import TrainConfig
from latentbank.training.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    read_checkpoint,
    recover,
    save_checkpoint,
)
from latentbank.training.log import append_log

CHOICE = 0.1  # of the learning rate: keys and queries


class Job:
    """Pool, plan and method of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.out.mkdir(parents=True, exist_ok=True)
        recover(self.out)
        backbone = load_backbone(options.backbone, options.dtype, options.device)
        overrides = dict(pair.split("=", 1) for pair in options.option)
        values = {name: json.loads(text) for name, text in overrides.items()}
        method: Any = build_method("kblam", backbone, values, options.preset, options.seed)
        for parameter in method.trainable().values():  # also where the backbone is bfloat16
            parameter.data = parameter.data.float()
        self.method = method
        if options.start_from:
            copy_matching(method, options.start_from)
        self.pool = Pool(options, method, self.out)
        self.config = TrainConfig(
            steps=max(1, options.steps), learning_rate=options.rate, warmup=20, schedule="decay",
            decay_share=0.6, seed=options.seed,
        )  # fmt: skip
        self.held: dict[str, Held] = {}
        self.step, self.best, self.seconds, self.cpu_seconds = 0, -math.inf, 0.0, 0.0
        resumed = has_checkpoint(self.out)
        if not resumed and not options.prepare and (options.contrast or not options.start_from):
            lost = self.pool.start(options.contrast, aligned=not options.start_from)
            tell(f"start: loss of the choice of triples {lost[:1]} to {lost[-1:]}")
        self.optimizer = torch.optim.AdamW(
            self._groups(), self.config.learning_rate, weight_decay=0.0, fused=True
        )
        if resumed:
            self._resume()

    def _groups(self) -> list[dict[str, Any]]:
        """Scalars learn faster than matrices, and what chooses triples slower: it has its start."""
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.method.trainable().items():
            chooses = ".keys." in name or ".queries." in name
            factor = 50.0 if parameter.numel() <= 64 else CHOICE if chooses else 1.0
            groups.setdefault(factor, []).append(parameter)
        return [{"params": found, "factor": factor} for factor, found in groups.items()]

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run."""
        return {
            "backbone": self.method.backbone.fingerprint,
            "config": json.loads(json.dumps(asdict(self.method.config))),
            "pool": self.options.pool,
            "asked": self.options.asked,
            "seed": self.options.seed,
            "real": [path.name for path in self.options.real],
        }

    def _resume(self) -> None:
        saved = read_checkpoint(self.out)
        own = self._identity()
        for identity in (own, saved["identity"]):
            identity["config"].pop("chunk_tokens", None)  # has no effect on training
        if saved["identity"] != own:
            raise InputError(f"{self.out} holds another run; name another --out")
        load_checkpoint(self.out, self.method, self.optimizer)
        self.step, self.best = saved["step"], saved["best"]
        self.seconds, self.cpu_seconds = saved["seconds"], saved["cpu_seconds"]
        tell(f"goes on at step {self.step}")

    def checkpoint(self) -> None:
        """Writes `last/`."""
        state = {
            "identity": self._identity(), "settings": asdict(self.config), "step": self.step,
            "best": self.best, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds,
        }  # fmt: skip
        save_checkpoint(self.out, self.method, self.optimizer, state, self.card())

    def card(self, **more: Any) -> dict[str, Any]:
        """What the adapter's config keeps about its training."""
        words = ["python", "scripts/train_kblam.py", "--out", f"runs/{self.out.name}"]
        for name in (
            "steps",
            "rate",
            "pool",
            "asked",
            "most",
            "questions",
            "seed",
            "contrast",
            "choice_rate",
        ):
            words += [f"--{name.replace('_', '-')}", f"{getattr(self.options, name):g}"]
        for path in self.options.real:
            words += ["--real", path.name]
        started = self.options.start_from
        words += ["--start-from", f"runs/{started.parent.name}/{started.name}"] if started else []
        return {
            "command": " ".join(words),
            "data": {
                "name": "; ".join(
                    [
                        f"synthetic knowledge bases, seed {self.options.seed}",
                        *(
                            f"{path.stem}, three quarters of its entities"
                            for path in self.options.real
                        ),
                    ]
                )
            },
            "seed": self.options.seed,
            "settings": asdict(self.config),
            "machine": asdict(this_machine()),
            "versions": versions(),
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            **more,
        }

    # ---- steps

    def train(self) -> None:
        """Steps until the last one or until the minutes are used up."""
        options, began, saved = self.options, time.monotonic(), time.monotonic()
        if not self.step:
            self.validate()
        self.method.train()
        recent: Counter[str] = Counter()
        while self.step < options.steps:
            tick, work = time.monotonic(), time.process_time()
            parts = self._one_step()
            self.step += 1
            self.seconds += time.monotonic() - tick
            self.cpu_seconds += time.process_time() - work
            recent.update(parts)
            if self.step % options.tell_every == 0:
                means = {k: round(v / options.tell_every, 4) for k, v in recent.items()}
                append_log(self.out, {"step": self.step, "cpu": self.cpu_seconds, **means})
                tell(f"step {self.step} {means} {self.cpu_seconds / self.step:.2f} s each")
                recent.clear()
            if self.step % options.validate_every == 0 or self.step == options.steps:
                self.validate()
            late = options.minutes and time.monotonic() - began > 60 * options.minutes
            if time.monotonic() - saved > 120 or late:
                self.checkpoint()
                saved = time.monotonic()
            if late:
                return
        self.checkpoint()

    def _one_step(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            rate = self.config.learning_rate * self.config.rate(self.step)
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad()
        batch = self.pool.batch(self.step)
        torch.manual_seed(self.options.seed * 1_000_003 + self.step)
        loss = self.method.loss(batch)
        if not torch.isfinite(loss.total):
            raise InputError(f"the loss is not finite at step {self.step}; lower --rate")
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(list(self.method.trainable().values()), self.config.clip)
        self.optimizer.step()
        return dict(loss.parts)

    # ---- validation

    def validate(self) -> None:
        """Scores first tokens on held-out data; `best/` keeps the best adapter."""
        self.method.train(False)
        if not self.held:
            self.held = held_out(self.method, self.options.seed + 101, 48)
        scores = {f"{k}_{name}": v for name, one in self.held.items()
                  for k, v in one.scores(self.method).items()}  # fmt: skip
        self.method.train()
        append_log(self.out, {"step": self.step, "validation": scores})
        tell(f"step {self.step} validation {scores}")
        value = sum(
            -COST * v if k.startswith("false") else v if k[:5] in ("right", "refus") else 0.0
            for k, v in scores.items()
        )
        if value > self.best:
            self.best = value
            save_adapter(self.out / "best", self.method, self.card(validation=scores), half=True)


def tell(line: str) -> None:
    """Prints one line with the time."""
    print(time.strftime("%m-%d %H:%M:%S"), line, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--questions", type=int, default=24, help="of a step")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--pool", type=int, default=6000, help="triples")
    parser.add_argument("--asked", type=int, default=3000, help="questions of the pool")
    parser.add_argument("--most", type=int, default=1000, help="triples of a step")
    parser.add_argument("--real", type=Path, action="append", default=[], help="file of triples")
    parser.add_argument("--start-from", type=Path, help="folder of an adapter")
    parser.add_argument("--contrast", type=int, default=200, help="steps on frozen states first")
    parser.add_argument("--choice-rate", type=float, default=4e-4, help="learning rate of these")
    parser.add_argument("--prepare", action="store_true", help="only features and states")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--tell-every", type=int, default=20, help="steps")
    parser.add_argument("--validate-every", type=int, default=150, help="steps")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--preset", default="smollm2-135m")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Trains until the last step."""
    options = arguments()
    torch.set_num_threads(options.threads)
    with flushed_denormals():
        job = Job(options)
        if not options.prepare:
            job.train()


if __name__ == "__main__":
    main()
