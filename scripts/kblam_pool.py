"""The pool of a training of KBLaM: triples, questions about them, and what is frozen of both.

What the backbone computes is kept in files of a folder, so that a run that goes on does not repeat
it. Knows methods by their parts; knows no optimiser and no loop.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.evaluate.kb.data import REAL, real_triples
from latentbank.evaluate.kb.world import REFUSAL, Asked, World, wording
from latentbank.parts.knowledge.contrast import ContrastSettings, contrast
from latentbank.parts.knowledge.features import Features
from latentbank.parts.knowledge.start import align_to
from latentbank.parts.knowledge.states import entering_states, watched_states
from latentbank.parts.knowledge.supervision import KnowledgeBatch

SHARES = {"single": 0.6, "two": 0.06, "open": 0.08, "unanswerable": 0.26}
CARELESS = 0.1  # of questions have no question mark, as many no capital letters
LEAST = 10  # triples of a step
MOST_SIBLINGS = 8  # of an entity that stand beside a question about it
SIBLINGS = 0.5  # of unanswerable questions stand beside other triples of their entity


class Pool:
    """Triples and questions; `options` as of `train_kblam.py`."""

    def __init__(self, options: argparse.Namespace, method: Any, out: Path) -> None:
        self.options, self.method, self.out = options, method, out
        self.triples = World(options.seed).triples(options.pool)
        for path in options.real:
            self.triples += real_triples(path, "train")
        self.family: dict[str, list[int]] = {}
        for number, triple in enumerate(self.triples):
            self.family.setdefault(triple.entity, []).append(number)
        self.features = self._features()
        self.asked, self.absent = self._questions()
        self.said = answer_ids(method.backbone, [a.answer for a in self.asked])
        self.prompts = prompt_ids(method.backbone, [a.question for a in self.asked])
        self.states = self._states()

    def _features(self) -> Features:
        """The pool's features, from the file where they are kept."""
        path = self.out / "features.safetensors"
        names = ("keys", "values", "before", "place", "owner", "tokens")
        if path.exists():
            kept = load_file(str(path))
            if len(kept["keys"]) == len(self.triples):
                return Features(**{name: kept[name] for name in names})
        facts = [(t.entity, t.property, t.value) for t in self.triples]
        made = self.method.encoder.encode(facts)
        save_file({name: getattr(made, name).contiguous() for name in names}, str(path))
        return made

    def _questions(self) -> tuple[list[Asked], list[int]]:
        """The questions of the pool, and for each the triple that must be absent, or -1."""
        draw = random.Random(self.options.seed + 7)
        world, made = World(self.options.seed + 7), self.triples[: self.options.pool]
        asked, absent = [], []
        for kind in draw.choices(list(SHARES), list(SHARES.values()), k=self.options.asked):
            one, gone = world.question(made, kind), -1
            if kind == "unanswerable" and draw.random() < 0.7:
                one = world.question(made, "single")
                gone = one.facts[0]
                one = replace(one, answer=REFUSAL, facts=(), kind=kind)
            asked.append(replace(one, question=careless(draw, one.question)))
            absent.append(gone)
        for number in range(len(made), len(self.triples)):
            triple, missing = self.triples[number], draw.random() < SHARES["unanswerable"]
            text = wording(draw, "single", triple.property, triple.entity)
            kind, said = ("unanswerable", REFUSAL) if missing else ("single", triple.value)
            text = careless(draw, text)
            asked.append(Asked(text, said, () if missing else (number,), kind, REAL))
            absent.append(number if missing else -1)
        return asked, absent

    def _states(self) -> list[torch.Tensor]:
        """States of questions and answers that enter the first layer, from their file."""
        path = self.out / "states.safetensors"
        if path.exists():
            kept = load_file(str(path))
            if len(kept["lengths"]) == len(self.asked):
                return list(kept["states"].split(kept["lengths"].tolist()))
        rows = [[*p, *a] for p, a in zip(self.prompts, self.said, strict=True)]
        made = entering_states(self.method.backbone, self.method.layers[0], rows)
        lengths = torch.tensor([len(one) for one in made])
        save_file({"states": torch.cat(made), "lengths": lengths}, str(path))
        return made

    def _firsts(self) -> dict[int, torch.Tensor]:
        """Layer → states [Q, D] at the end of each question, from their file."""
        path, method = self.out / "firsts.safetensors", self.method
        if path.exists():
            kept = load_file(str(path))
            if all(len(one) == len(self.asked) for one in kept.values()):
                return {int(layer): one for layer, one in kept.items()}
        ends = [one[: len(row)] for one, row in zip(self.states, self.prompts, strict=True)]
        none = [[0]] * len(ends)  # the token after a question does not matter
        made, _ = watched_states(method.backbone, method.layers, ends, self.prompts, none)
        save_file({str(layer): one.contiguous() for layer, one in made.items()}, str(path))
        return made

    def start(self, contrast_steps: int, aligned: bool = True) -> list[float]:
        """The aligned start, then the choice of triples on frozen states; returns its losses.

        Without `aligned` only the choice is trained, from where the adapter is.
        """
        method = self.method
        if aligned:
            self._align()
        owners = {
            i: [*asked.facts, gone][0]
            for i, (asked, gone) in enumerate(zip(self.asked, self.absent, strict=True))
            if asked.kind != "two"
        }
        kept = [i for i, one in owners.items() if one >= 0]
        families = [self.family[triple.entity] for triple in self.triples]
        firsts = {layer: found[kept].float() for layer, found in self._firsts().items()}
        return contrast(
            method.adapters, self.features, firsts, [owners[i] for i in kept], families,
            ContrastSettings(
                contrast_steps, rate=self.options.choice_rate, seed=self.options.seed,
                scale_triples=method.config.scale_triples,
            ),
        )  # fmt: skip

    def _align(self) -> None:
        """The closed-form start from the questions about one triple."""
        method = self.method
        states, strengths = watched_states(
            method.backbone, method.layers, self.states, self.prompts, self.said
        )
        if method.books is not None:
            method.books.fit(self.features.keys)
        counts = torch.tensor([len(row) for row in self.said])
        begins = counts.cumsum(0) - counts
        single = [i for i, a in enumerate(self.asked) if a.kind == "single"]
        places = torch.cat([torch.arange(begins[i], begins[i] + counts[i]) for i in single])
        align_to(
            method.backbone,
            method.adapters,
            self.features,
            {layer: found[places] for layer, found in states.items()},
            strengths,
            [self.asked[i].facts[0] for i in single],
            [self.said[i] for i in single],
        )

    def batch(self, step: int) -> KnowledgeBatch:
        """The knowledge base and questions of a step; a function of the seed and the step."""
        draw = random.Random(f"{self.options.seed}/{step}")
        most = min(self.options.most, 100 * (1 + 20 * step / self.options.steps))
        size = round(math.exp(draw.uniform(math.log(LEAST), math.log(most))))
        chosen: dict[int, None] = {}
        absent: set[int] = set()
        rows: list[int] = []
        for row in draw.sample(range(len(self.asked)), self.options.questions):
            facts, gone = self.asked[row].facts, self.absent[row]
            if gone in chosen or absent & set(facts):
                continue
            rows.append(row)
            chosen.update(dict.fromkeys(facts))
            if gone >= 0:
                absent.add(gone)
                if draw.random() < SIBLINGS:
                    family = self.family[self.triples[gone].entity][:MOST_SIBLINGS]
                    chosen.update(dict.fromkeys(i for i in family if i not in absent))
        for gone in absent:  # a sibling of one question may be absent for another
            chosen.pop(gone, None)
        while len(chosen) < size:
            at = draw.randrange(len(self.triples))
            if at not in absent:
                chosen[at] = None
        order = list(chosen)
        draw.shuffle(order)
        number = {at: i for i, at in enumerate(order)}
        asked = [self.asked[row] for row in rows]
        kept = [i for i, a in enumerate(asked) if all(f in number for f in a.facts)]
        asked, rows = [asked[i] for i in kept], [rows[i] for i in kept]
        facts_of = tuple(tuple(number[f] for f in a.facts) for a in asked)
        return KnowledgeBatch(
            tuple(self.triples[i] for i in order),
            tuple(a.question for a in asked),
            tuple(a.answer for a in asked),
            tuple(facts[0] if facts else -1 for facts in facts_of),
            step,
            facts_of,
            self.features.rows(order),
            tuple(self.states[row] for row in rows),
        )


def careless(draw: random.Random, question: str) -> str:
    """A question as it is, now and then without its last mark or in small letters."""
    question = question.rstrip("?.") if draw.random() < CARELESS else question
    return question.lower() if draw.random() < CARELESS else question
