"""RAP on BabyAI: success of one acting model with and without a memory of episodes.

Episodes of BabyAI's own bot on training tasks enter the memory in batches. After each batch the
model itself attempts practice tasks, and what was retrieved for a success gets a hit. Then held-out
tasks are attempted in three trials. Rows:

  random            any action
  none              the model without passages
  fixed             the model with passages drawn once from the same episodes, the same at each step
  memory            the model with the memory
  flood             as memory, where `--flood` of all episodes are of other levels
  SHARE POLICY      a bank of a share of the memory's bytes, such as "0.25 hits"
  flood SHARE POLICY  the same of the flooded memory

POLICY is one of the bank (blend, hits, sample), or first-in-first-out, least recently used, least
frequently used or any (fifo, lru, lfu, any): such a bank is written anew after each batch, the ones
that it should lose first at the beginning, and the bank drops the oldest. One record:
babyai.json; run it again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from latentbank.adapter import build_method
from latentbank.agents.actor import Actor, LikelihoodActor, Prompt, RandomActor
from latentbank.agents.environment import BabyAI
from latentbank.agents.episode import Episode
from latentbank.agents.memory import EpisodeMemory
from latentbank.agents.trials import Rules, attempt, run_trials
from latentbank.backbone.model import load_backbone
from latentbank.bench.budget import bounded_model, write_fitting
from latentbank.bench.record import DataInfo, Metric, write_atomically
from latentbank.evaluate.metrics import mean_interval, paired_bootstrap
from latentbank.method import Method
from measured import write_measured

BANKS = {"blend": "blend", "hits": "hits", "sample": "sample"}
CLASSIC = ("fifo", "lru", "lfu", "any")
FREE = 1 << 30
NOT_KEY = ("rows", "seeds", "out", "runs", "policies", "shares")


class Memory(EpisodeMemory):
    """A memory of `size` bytes that fades by one of the policies."""

    def __init__(self, method: Method, size: int, policy: str, seed: int) -> None:
        self._size, self._policy = size, policy
        self._hits: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._clock, self._draw = 0, np.random.default_rng(seed)
        super().__init__(bounded_model(method, ":memory:", size, BANKS.get(policy, "age")))

    def reward(self, success: bool) -> None:
        """See `EpisodeMemory`; the classic policies count here."""
        self._clock += 1
        if success:
            self._hits.update(self.used)
            self._last.update(dict.fromkeys(self.used, self._clock))
        super().reward(success)

    def learn(self, episodes: Sequence[Episode]) -> None:
        """Writes a batch. A classic policy writes the whole bank anew, in its order."""
        made = [episode.document() for episode in episodes]
        self._clock += 1
        self._last.update({one.id: self._clock for one in made})
        if self._policy in ("lru", "lfu", "any"):
            held = [one.document() for one in self.episodes().values()]
            made = list({one.id: one for one in [*held, *made]}.values())
            made = [made[at] for at in self._draw.permutation(len(made))]
            if self._policy == "lru":
                made.sort(key=lambda one: self._last.get(one.id, 0))
            if self._policy == "lfu":
                made.sort(key=lambda one: (self._hits[one.id], self._last.get(one.id, 0)))
            method = self.model.method
            self.model.bank.close()
            self.model = bounded_model(method, ":memory:", self._size, "age")
        write_fitting(self.model, made, batch=16)


class Fixed:
    """Reads the same passages at each step."""

    def __init__(self, actor: Actor, passages: Sequence[str]) -> None:
        self._actor, self._passages = actor, tuple(passages)

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        """See `Actor`."""
        return self._actor.choose(replace(prompt, passages=self._passages), actions)


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


class Bench:
    """Runs rows of one seed after another; what is done already is read."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        backbone = load_backbone("smollm2-135m", quick=True)
        self.actor = LikelihoodActor(backbone)
        self.method = build_method("rag", backbone, {"retrieval": {"rerank": 0}})
        self.rules = Rules(options.steps, windows=options.windows)
        self._streams: dict[tuple[int, bool], list[Episode]] = {}
        self._sizes: dict[tuple[int, bool], int] = {}

    def stream(self, seed: int, flooded: bool) -> list[Episode]:
        """Episodes in the order of writing."""
        key = seed, flooded
        if key not in self._streams:
            draw = np.random.default_rng([seed, flooded])
            options = self.options
            shown = demonstrations(options.levels, options.demonstrations, 10_000 * (seed + 1))
            if flooded:
                share = options.flood / (1 - options.flood)
                count = round(len(shown) * share / len(options.others))
                shown += demonstrations(options.others, count, 10_000 * (seed + 1))
            self._streams[key] = [shown[i] for i in draw.permutation(len(shown))]
        return self._streams[key]

    def filled(self, seed: int, flooded: bool, share: float, policy: str) -> Memory:
        """A memory that has seen a stream; practised in between where its bytes are limited."""
        stream, options = self.stream(seed, flooded), self.options
        size = FREE if share == 1 else round(share * self._size(seed, flooded))
        memory = Memory(self.method, size, policy, seed)
        draw = np.random.default_rng([seed, 7])
        bounds = np.linspace(0, len(stream), options.batches + 1).astype(int)
        for number, (begin, end) in enumerate(pairwise(bounds)):
            memory.learn(stream[begin:end])
            if share < 1 and number < options.batches - 1:
                worlds = draw.choice(options.levels, options.practice)
                first = 70_000 + 1000 * seed + 100 * number
                for i, level in enumerate(worlds):
                    attempt(BabyAI(str(level)), first + i, self.actor, memory, self.rules)
        return memory

    def _size(self, seed: int, flooded: bool) -> int:
        """Bytes of the memory that holds the whole stream."""
        if (seed, flooded) not in self._sizes:
            memory = self.filled(seed, flooded, 1, "blend")
            self._sizes[seed, flooded] = memory.model.bank.footprint().total
        return self._sizes[seed, flooded]

    def row(self, name: str, seed: int) -> dict:  # type: ignore[type-arg]
        """Success of each task in each trial."""
        options = self.options
        path = options.runs / f"{name.replace(' ', '-')}-{seed}.json"
        key = {k: str(v) for k, v in sorted(vars(options).items()) if k not in NOT_KEY}
        if path.exists() and (known := json.loads(path.read_text()))["key"] == key:
            return dict(known)
        began = time.process_time()
        actor, memory = self._parts(name, seed)
        held = [] if memory is None else [len(memory), memory.model.bank.footprint().total]
        tasks = [
            (BabyAI(level), 1000 * seed + i)
            for level in options.levels
            for i in range(options.tasks)
        ]
        made = run_trials(tasks, actor, memory, self.rules, options.trials)
        seconds = time.process_time() - began
        found = {"key": key, "by_trial": made.by_trial, "held": held, "seconds": seconds}
        options.runs.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found) + "\n")
        return found

    def _parts(self, name: str, seed: int) -> tuple[Actor, Memory | None]:
        """(who acts, the memory) of a row."""
        if name == "random":
            return RandomActor(seed), None
        if name == "none":
            return self.actor, None
        if name == "fixed":
            shown = self.stream(seed, False)
            draw = np.random.default_rng([seed, 3])
            passages = []
            for at in draw.permutation(len(shown))[: self.options.windows]:
                one = shown[at]
                step = one.steps[int(draw.integers(len(one.steps)))]
                passages.append(
                    f"Task: {one.task}\nObservation: {step.observation}\nAction: {step.action}"
                )
            return Fixed(self.actor, passages), None
        if name in ("memory", "flood"):
            return self.actor, self.filled(seed, name == "flood", 1, "blend")
        share, policy = name.split()[-2:]
        return self.actor, self.filled(seed, name.startswith("flood"), float(share), policy)


def rows_of(options: argparse.Namespace) -> list[str]:
    """All rows by name."""
    found = []
    for name in options.rows:
        if name in ("curves", "flood curves"):
            head = name.removesuffix("curves")
            found += [
                f"{head}{share} {one}" for share in options.shares for one in options.policies
            ]
        else:
            found.append(name)
    return found


def main() -> None:
    """Parses the command line, runs what is missing, and writes the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    levels = ["GoToObj", "GoToRedBallGrey", "OpenRedDoor"]
    parser.add_argument("--levels", nargs="+", default=levels)
    parser.add_argument("--others", nargs="+", default=["OpenDoor", "PickupLoc", "GoToLocal"])
    parser.add_argument("--demonstrations", type=int, default=1000, help="of each level")
    parser.add_argument("--tasks", type=int, default=20, help="held-out tasks of each level")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="in which the memory is filled")
    parser.add_argument("--practice", type=int, default=3, help="tasks after each batch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--flood", type=float, default=0.75, help="share of distractor episodes")
    parser.add_argument("--policies", nargs="+", default=[*BANKS, *CLASSIC])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25])
    rows = ["random", "none", "fixed", "memory", "flood", "curves", "flood curves"]
    parser.add_argument("--rows", nargs="+", default=rows)
    parser.add_argument("--out", type=Path, default=Path("results/agents"))
    parser.add_argument("--runs", type=Path, default=Path("runs/agents"))
    options = parser.parse_args()
    bench = Bench(options)
    found: dict[str, list[dict]] = {}  # type: ignore[type-arg]
    for name in rows_of(options):
        for seed in options.seeds:
            done = bench.row(name, seed)
            found.setdefault(name, []).append(done)
            rates = " ".join(f"{100 * np.mean(one):.1f}" for one in done["by_trial"])
            print(f"{name}  seed {seed}: {rates} %  {done['seconds']:.0f} s", flush=True)
    report(found, options)


def report(found: dict[str, list[dict]], options: argparse.Namespace) -> None:  # type: ignore[type-arg]
    """Writes the record of all rows."""
    metrics: dict[str, Metric] = {}
    flat = {
        name: [one for done in rows for one in done["by_trial"][-1]] for name, rows in found.items()
    }
    for name, rows in found.items():
        spread = mean_interval(flat[name])
        first = float(np.mean([done["by_trial"][0] for done in rows]))
        metrics[f"{name}: success"] = Metric(
            100 * spread.value, "percent", 100 * spread.low, 100 * spread.high
        )
        metrics[f"{name}: first trial"] = Metric(100 * first, "percent")
        if rows[0]["held"]:
            held = np.mean([done["held"] for done in rows], 0)
            metrics[f"{name}: episodes"] = Metric(float(held[0]), "episodes")
            metrics[f"{name}: bytes"] = Metric(float(held[1]), "bytes")
        metrics[f"{name}: seconds"] = Metric(sum(done["seconds"] for done in rows), "s")
        base = "none" if "none" in flat else name
        if base != name:
            against = paired_bootstrap(flat[name], flat[base])
            metrics[f"{name}: over none"] = Metric(
                100 * against.difference, "percent points", 100 * against.low, 100 * against.high
            )
    for base in ("none", "fixed", "random"):
        if "memory" in flat and flat.get(base) and np.mean(flat[base]) > 0:
            ratio = _ratio(flat["memory"], flat[base])
            metrics[f"memory to {base}"] = Metric(ratio[0], "times", ratio[1], ratio[2])
    write_measured(
        options.out / "babyai.json", "agents-babyai", metrics,
        DataInfo(f"BabyAI:{','.join(options.levels)}", ""), method="rap", dtype="auto",
        seed=options.seeds[0],
        config={k: v for k, v in vars(options).items() if k not in ("out", "runs")},
    )  # fmt: skip


def _ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """(mean of one over mean of other, 2.5 and 97.5 percentile when tasks are drawn again)."""
    left, right = np.array(one), np.array(other)
    places = np.random.default_rng(0).integers(0, len(left), (2000, len(left)))
    drawn = left[places].mean(1) / np.maximum(right[places].mean(1), 1 / len(left))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(left.mean() / right.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
