"""RAP on BabyAI: success of one acting model with and without a memory of episodes.

The memory is filled with episodes of BabyAI's own bot on training tasks. Then held-out tasks are
attempted in three trials. Rows: chance, the model without memory, with the memory, with the memory
flooded by `--flood` (a share) of episodes of other levels, and with a quarter of the bytes by each
of the bank's policies. One record: results/agents/babyai.json; run it again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from latentbank.adapter import build_method, new_bank
from latentbank.agents.actor import Actor, LikelihoodActor, RandomActor
from latentbank.agents.environment import BabyAI
from latentbank.agents.episode import Episode
from latentbank.agents.likeness import likeness
from latentbank.agents.memory import EpisodeMemory
from latentbank.agents.trials import Rules, run_trials
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bench.record import DataInfo, Metric, write_atomically
from latentbank.evaluate.metrics import mean_interval, paired_bootstrap
from latentbank.model import MemoryModel
from measured import write_measured

POLICIES = {"blend": "blend", "hits": "hits", "fifo": "age", "sample": "sample"}
FREE = 1 << 30


def demonstrations(levels: Sequence[str], count: int, first: int) -> list[Episode]:
    """Successful episodes of the bot, `count` of each level, from the seed `first` on."""
    found = []
    for level in levels:
        world, seed, own = BabyAI(level), first, 0
        while own < count:
            episode = world.demonstration(seed).kept()
            seed += 1
            if episode.success and episode.steps:
                found.append(episode)
                own += 1
    return found


def memory_of(
    backbone: Backbone, episodes: Sequence[Episode], budget: int | None, policy: str, kind: str
) -> EpisodeMemory:
    """A memory that has seen `episodes` in order."""
    method = build_method("rag", backbone, {"retrieval": {"rerank": 0}})
    bank = new_bank(":memory:", method, budget_bytes=budget, policy=policy)
    memory = EpisodeMemory(MemoryModel(method, bank), likeness(kind))
    for at in range(0, len(episodes), 16):
        memory.add(episodes[at : at + 16])
    return memory


def main() -> None:
    """Parses the command line, runs what is missing, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="+", default=["GoToRedBallGrey", "GoToObj"])
    parser.add_argument("--others", nargs="+", default=["OpenRedDoor", "PickupLoc"])
    parser.add_argument("--demonstrations", type=int, default=40, help="of each level")
    parser.add_argument("--tasks", type=int, default=12, help="held-out tasks of each level")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--flood", type=float, default=0.75, help="share of distractor episodes")
    parser.add_argument(
        "--rows", nargs="+", default=["random", "none", "memory", "flood", "quarter"]
    )
    parser.add_argument("--likeness", default="words")
    parser.add_argument("--out", type=Path, default=Path("results/agents"))
    parser.add_argument("--runs", type=Path, default=Path("runs/agents"))
    options = parser.parse_args()
    torch.set_num_threads(max(1, torch.get_num_threads()))
    backbone = load_backbone("smollm2-135m")
    rules = Rules(options.steps, windows=options.windows)
    rows: dict[str, list[list[float]]] = {}
    steps: dict[str, list[float]] = {}
    for seed in options.seeds:
        for name in rows_of(options.rows):
            done = run(name, seed, options, backbone, rules)
            rows.setdefault(name, []).append(done["best"])
            steps.setdefault(name, []).append(done["seconds"])
            print(
                name,
                seed,
                f"{100 * np.mean(done['best']):.1f} %",
                f"{done['seconds']:.0f} s",
                flush=True,
            )
    report(rows, steps, options)


def rows_of(names: Sequence[str]) -> list[str]:
    """The rows by name; `quarter` stands for one of each policy."""
    found = []
    for name in names:
        found += [f"quarter {policy}" for policy in POLICIES] if name == "quarter" else [name]
    return found


def run(
    name: str, seed: int, options: argparse.Namespace, backbone: Backbone, rules: Rules
) -> dict:  # type: ignore[type-arg]
    """One row of one seed; what is done already is read."""
    path = options.runs / f"{name.replace(' ', '-')}-{seed}.json"
    key = {
        k: str(v)
        for k, v in sorted(vars(options).items())
        if k not in ("rows", "seeds", "out", "runs")
    }
    if path.exists() and (known := json.loads(path.read_text()))["key"] == key:
        return dict(known)
    began = time.process_time()
    shown = demonstrations(options.levels, options.demonstrations, 10_000 * (seed + 1))
    draw = np.random.default_rng(seed)
    shown = [shown[i] for i in draw.permutation(len(shown))]
    budget, policy = None, "blend"
    if name == "flood":
        count = round(len(shown) * options.flood / (1 - options.flood) / len(options.others))
        strange = demonstrations(options.others, count, 20_000 * (seed + 1))
        mixed = [*shown, *strange]
        shown = [mixed[i] for i in draw.permutation(len(mixed))]
    if name.startswith("quarter"):
        size = (
            memory_of(backbone, shown, FREE, "blend", options.likeness).model.bank.footprint().total
        )
        budget, policy = max(24_000, size // 4), POLICIES[name.split()[1]]
    actor: Actor = RandomActor(seed) if name == "random" else LikelihoodActor(backbone)
    memory = None
    if name not in ("random", "none"):
        memory = memory_of(backbone, shown, budget, policy, options.likeness)
    tasks = [
        (BabyAI(level), seed * 1000 + i) for level in options.levels for i in range(options.tasks)
    ]
    made = run_trials(tasks, actor, memory, rules, options.trials)
    found = {
        "key": key,
        "best": made.best(),
        "by_trial": made.by_trial,
        "seconds": time.process_time() - began,
        "steps": float(np.mean(made.steps)),
    }
    options.runs.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(found) + "\n")
    return found


def report(
    rows: dict[str, list[list[float]]], seconds: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """Writes the record of all rows."""
    metrics: dict[str, Metric] = {}
    flat = {name: [one for row in found for one in row] for name, found in rows.items()}
    for name, values in flat.items():
        spread = mean_interval(values)
        metrics[f"{name}: success"] = Metric(
            100 * float(np.mean(values)), "percent", 100 * spread.low, 100 * spread.high
        )
        metrics[f"{name}: seconds"] = Metric(float(np.sum(seconds[name])), "s")
    if "none" in flat and "memory" in flat:
        found = paired_bootstrap(flat["memory"], flat["none"])
        metrics["memory over none"] = Metric(
            100 * found.difference, "percent points", 100 * found.low, 100 * found.high
        )
        base = float(np.mean(flat["none"]))
        if base:
            metrics["memory to none"] = Metric(float(np.mean(flat["memory"])) / base, "times")
    levels = ",".join(options.levels)
    write_measured(
        options.out / "babyai.json", "agents-babyai", metrics, DataInfo(f"BabyAI:{levels}", ""),
        method="rap", dtype=torch.float32, seed=options.seeds[0],
        config={k: v for k, v in vars(options).items() if k not in ("out", "runs")},
    )  # fmt: skip


if __name__ == "__main__":
    main()
