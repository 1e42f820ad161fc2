"""Trains every learned memory alike and long: the same questions in the same order, in turns.

Each round takes one method after the other through the same `--round` steps, so that all methods
stand at equal question presentations whenever the job stops. The same command goes on after a
kill, from the last checkpoint of each method.

The learning rate is constant after its warm-up and falls linearly in the last fifth of the
presentations. Up to there a run does not depend on how long it will be, which a cosine would: the
number of presentations may still be raised, and curves of all methods are comparable at any time.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from latentbank.adapter import adapter_folder, build_method, copy_matching
from latentbank.backbone.encoder import MemoryCache
from latentbank.backbone.model import load_backbone
from latentbank.backbone.packed.elementwise import fuse
from latentbank.bench.machine import this_machine, versions
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.training import Progress, TrainConfig, Trainer, planned_questions

PRESENTATIONS = 120_000  # three epochs of the split `train`
PLAN: Mapping[str, Any] = {
    "documents_per_step": 16,
    "questions_per_document": 0,  # all
    "neighbours": 4,
    "schedule": "decay",
    "warmup": 30,
}
VALIDATION: Mapping[str, Any] = {"validation_documents": 1 << 30, "validation_questions": 300}
# Learning rates are those of the shipped adapters. The memories that search among latents see 48
# more documents in each step: what they learn is to find one among many.
SEARCHING: Mapping[str, Any] = {"learning_rate": 5e-4, "distractors": 48}
# `mbc` with binding, at most 0.3 % of the bytes of `mac` at 10,000 documents, codebooks included.
BOUND: Mapping[str, Any] = {
    "binding": True,
    "codebook": {"codes": 128},
    "bound": {"places": True, "levels": 2, "width": 64, "key_width": 32, "key_bits": 4, "top_k": 4},
}
RECIPES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "none": ({}, {"learning_rate": 7e-4}),
    "rag": ({}, {"learning_rate": 7e-4}),
    "strata": (
        {"all_share": 1.0, "closed_share": 0.0, "selector_weight": 0.0},
        {"learning_rate": 8e-4},
    ),
    "mac": ({}, SEARCHING),
    "mbc": ({}, SEARCHING),
    "mbc-bound": (BOUND, SEARCHING),
    "cmt": ({"top_k": 4}, SEARCHING),
}
"""Method → (its settings beside the preset, the trainer's). What follows a dash names a form."""


def steps_for(data: QADataset, config: TrainConfig, presentations: int) -> int:
    """The fewest steps of the plan that ask at least `presentations` questions."""
    total = itertools.accumulate(planned_questions(data, config))
    return next(step for step, asked in enumerate(total, 1) if asked >= presentations)


class Job:
    """Every method's run: data, plan and folders."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.data = load_dataset(options.squad, "train")
        self.validation = load_dataset(options.squad, "val")
        self.plan = {**PLAN, "documents_per_step": options.documents_per_step}
        plan = TrainConfig(**self.plan, seed=options.seed)
        self.cache = MemoryCache() if options.cache_in_memory else options.cache
        self.steps = steps_for(self.data, plan, options.presentations)

    def config(self, name: str) -> TrainConfig:
        """The trainer's settings for one method."""
        recipe = dict(RECIPES[name][1])
        # Adam's usual square-root rule, for another batch than the recipes were made for
        scale = (self.plan["documents_per_step"] / PLAN["documents_per_step"]) ** 0.5
        recipe["learning_rate"] *= scale
        return TrainConfig(
            **self.plan,
            **VALIDATION,
            **recipe,
            steps=self.steps,
            seed=self.options.seed,
            validate_every=self.options.validate_every,
        )

    def step_of(self, name: str) -> int:
        """The step at which the method's checkpoint stands."""
        state = self.options.out / name / "last" / "trainer.json"
        return int(json.loads(state.read_text())["step"]) if state.exists() else 0

    def trainer(self, name: str) -> Trainer:
        """The method at its first step, or where its checkpoint stands."""
        options, config = self.options, self.config(name)
        backbone = load_backbone(options.backbone, options.dtype, options.device)
        preset = options.preset or options.backbone
        method = build_method(
            name.partition("-")[0], backbone, RECIPES[name][0], preset, options.seed
        )
        shipped = adapter_folder(method.name, options.backbone) if options.from_shipped else None
        if shipped is not None:
            copy_matching(method, shipped)
        return Trainer(
            method,
            self.data,
            self.validation,
            config,
            options.out / name,
            card=self.card(config),
            feature_cache=self.cache,
        )

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """What an adapter's config keeps about its training."""
        return {
            "command": shown_command(self.options),
            "data": {"name": self.data.name, "hash": self.data.hash},
            "validation_data": self.validation.name,
            "from_shipped": self.options.from_shipped,
            "seed": config.seed,
            "settings": asdict(config),
            "machine": asdict(this_machine()),
            "versions": versions(),
        }

    def turn(self, name: str, until: int, max_seconds: float | None = None) -> None:
        """Takes one method to step `until`, or as far as `max_seconds` allow."""
        began = time.monotonic()
        run = self.trainer(name)
        first, asked = run.step, run.presentations
        last: list[Progress] = []

        def report(progress: Progress) -> None:
            last[:] = [progress]
            if progress.validation:
                tell(f"{name}: step {progress.step}, validation F1 {progress.validation['f1']:.1f}")

        run.run(report, max_seconds, until)
        loss = f", loss {last[0].loss:.3f}" if last else ""
        tell(
            f"{name}: steps {first}-{run.step} of {self.steps}, {run.presentations} questions"
            f"{loss}, {run.presentations - asked} in {time.monotonic() - began:.0f} s"
        )


def shown_command(options: argparse.Namespace) -> str:
    """The command that repeats the job, without the folders of this machine."""
    squad = Path(options.squad).name
    words = ["python", "scripts/train_long.py", "--squad", squad, "--out", "runs/long"]
    if options.documents_per_step != PLAN["documents_per_step"]:
        words += ["--documents-per-step", str(options.documents_per_step)]
    if options.presentations != PRESENTATIONS:
        words += ["--presentations", str(options.presentations)]
    if options.seed:
        words += ["--seed", str(options.seed)]
    if options.from_shipped:
        words += ["--from-shipped"]
    return shlex.join(words)


def tell(line: str) -> None:
    """Prints one line with the time."""
    print(time.strftime("%m-%d %H:%M:%S"), line, flush=True)


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or `line` in its place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--out", type=Path, required=True, help="one folder for each method in it")
    parser.add_argument(
        "--cache", type=Path, help="states of the frozen layers (default OUT/cache)"
    )
    parser.add_argument("--methods", default=",".join(RECIPES), help="in the order of a round")
    parser.add_argument("--presentations", type=int, default=PRESENTATIONS)
    parser.add_argument("--round", type=int, default=27, help="steps of a method in a round")
    parser.add_argument("--rounds", type=int, default=1 << 30, help="stop after so many rounds")
    parser.add_argument("--validate-every", type=int, default=54, help="steps")
    parser.add_argument("--documents-per-step", type=int, default=PLAN["documents_per_step"])
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--cache-in-memory", action="store_true", help="on the device, not on disk")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--preset", help="default: the one named after the backbone")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fused", action="store_true", help="compiled steps; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--from-shipped", action="store_true", help="start from the packaged adapters' tensors"
    )
    options = parser.parse_args(line)
    options.methods = options.methods.split(",")
    unknown = [name for name in options.methods if name not in RECIPES]
    if unknown:
        raise InputError(f"no recipe for {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    options.cache = options.cache or options.out / "cache"
    return options


def main() -> None:
    """Trains in rounds until every method has had all its presentations."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.fused:
        fuse()
    job = Job(options)
    train(job)


def train(job: Job) -> None:
    """Rounds until the job's presentations, rounds or minutes are used up."""
    options, began = job.options, time.monotonic()
    limit = float("inf") if options.minutes is None else 60 * options.minutes
    for _ in range(options.rounds):
        step = min(job.step_of(name) for name in options.methods)
        if step >= job.steps:
            tell("every method has had all its presentations")
            return
        until = (step // options.round + 1) * options.round
        for name in options.methods:
            if job.step_of(name) < until:
                left = limit - (time.monotonic() - began)
                if left <= 0:
                    tell("the minutes are used up; the same command goes on")
                    return
                job.turn(name, until, None if left == float("inf") else left)
                gc.collect()


if __name__ == "__main__":
    main()
