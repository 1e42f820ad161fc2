"""The search: children of good programs are evaluated one after another, and can be resumed.

`Search` writes a checkpoint to its folder, which holds every program and the state of the random
numbers. A run that was killed goes on from the last one; the same seed gives the same lineage.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.bench.record import write_atomically
from latentbank.errors import InputError
from latentbank.evolve.grammar import Grammar, room_for
from latentbank.evolve.objective import Cascade, Evaluation, Objective
from latentbank.evolve.population import Population, Program, cell_of
from latentbank.evolve.proposer import Proposer
from latentbank.functions.expression import MOST_NODES, Expression, parse

__all__ = ["Search", "SearchSettings"]

STATE = "search.json"


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes. The defaults of the population are openevolve's.

    `evaluations`: programs after the first, the rejected ones included. `most_nodes`: of one
    program; a first one that is nearly as large gets more room, see `room_for`.
    """

    evaluations: int = 300
    seed: int = 0
    islands: int = 5
    population: int = 1000
    archive: int = 100
    bins: int = 10
    elite: float = 0.1
    explore: float = 0.2
    crossover: float = 0.3
    migrate_every: int = 50
    migrate_share: float = 0.1
    most_nodes: int = 32

    def __post_init__(self) -> None:
        if min(self.evaluations, self.islands, self.archive, self.bins, self.migrate_every) < 1:
            raise InputError("evaluations, islands, archive, bins and migrate_every are at least 1")
        if not 3 <= self.most_nodes <= MOST_NODES:
            raise InputError(f"most_nodes lies in 3 … {MOST_NODES}, got {self.most_nodes}")
        for name in ("elite", "explore", "crossover", "migrate_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} lies between 0 and 1, got {getattr(self, name)}")


class Search:
    """An evolution of expressions for one objective.

    `told` is called with every new program. `proposer` may suggest children; see `Proposer`.
    """

    def __init__(
        self,
        objective: Objective,
        settings: SearchSettings,
        folder: Path | None = None,
        proposer: Proposer | None = None,
        told: Callable[[Program], None] = lambda program: None,
    ) -> None:
        self.objective, self.settings, self.folder = objective, settings, folder
        self.cascade = Cascade(objective)
        first = parse(objective.first, objective.names)
        self.most = room_for(first, settings.most_nodes)
        self._grammar = Grammar(objective.names, objective.scale, self.most)
        self._proposer, self._told = proposer, told
        self._draw = np.random.default_rng(settings.seed)
        self._known: dict[str, Program] = {}
        self.programs: list[Program] = []
        self.repeats = 0  # children that had been evaluated before
        self.population = Population(
            settings.islands,
            settings.population,
            settings.archive,
            settings.elite,
            settings.explore,
            settings.migrate_every,
            settings.migrate_share,
        )

    # ---- running

    def run(self, every: int = 20) -> Program:
        """Evaluates until all evaluations are done; returns the best program.

        A checkpoint is written after each `every` programs and at the end, also when interrupted.
        """
        first = self._parsed(self.objective.first)
        started = self.cascade.start(first)
        self._resume()
        try:
            if not self.programs:
                self._take(first, 0, (), "first", started)
            for number, text in enumerate(self.objective.starts):
                if len(self.programs) == number + 1:
                    island = number % self.settings.islands
                    self._take(self._parsed(text), island, (), "start")
            while len(self.programs) <= self.settings.evaluations:
                self._step()
                if len(self.programs) % every == 0:
                    self.save()
        finally:
            self.save()
        return self.population.best

    def _step(self) -> None:
        """One child on the next island."""
        island = len(self.programs) % self.settings.islands
        parent, other = self.population.parents(self._draw, island)
        expression = self._parsed(parent.text)
        proposed = self._proposer and self._proposer.propose(self.objective, parent, other)
        parents: tuple[int, ...]
        if proposed:
            child, way, parents = proposed, "endpoint", (parent.number,)
        elif self._draw.random() < self.settings.crossover and other.text != parent.text:
            child, way = self._grammar.crossover(self._draw, expression, self._parsed(other.text))
            parents = (parent.number, other.number)
        else:
            child, way = self._grammar.mutate(self._draw, expression)
            parents = (parent.number,)
        self._take(child, island, parents, way)

    def _take(
        self,
        expression: Expression,
        island: int,
        parents: tuple[int, ...],
        way: str,
        found: Evaluation | None = None,
    ) -> None:
        """Evaluates a program, unless its text was evaluated before, and adds it."""
        text = str(expression)
        before = self._known.get(text)
        if found is None and before is not None:
            self.repeats += 1
            found = Evaluation(before.stages, before.figures, before.rejected or "")
            cell = before.cell
        else:
            found = found or self.cascade.evaluate(expression)
            size, most = expression.size, self.most
            cell = cell_of(size, most, found.likeness, self.settings.bins)
        program = Program(
            len(self.programs),
            text,
            island,
            parents,
            way,
            found.stages,
            found.figures,
            found.rejected,
            cell,
        )
        self._add(program)
        self._told(program)

    def _add(self, program: Program) -> None:
        """Remembers a program. The first one lives on all islands, an equal one on none again."""
        self.programs.append(program)
        self._known.setdefault(program.text, program)
        members = self.population.islands[program.island].members
        if not program.rejected and all(one.text != program.text for one in members):
            self.population.add(program)
        if program.number == 0:
            for island in self.population.islands[1:]:
                island.add(program, self.settings.population)

    def _parsed(self, text: str) -> Expression:
        return parse(text, self.objective.names)

    # ---- checkpoints

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on: settings but the number of evaluations, data."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "evaluations"}
        return {
            "settings": settings,
            "objective": self.objective.identity(),
            "first": self.objective.first,
        }

    def save(self) -> None:
        """Writes the checkpoint, if there is a folder."""
        if self.folder is None or not self.programs:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": self.identity(),
            "random": self._draw.bit_generator.state,
            "repeats": self.repeats,
            "programs": [program.row() for program in self.programs],
        }
        write_atomically(self.folder / STATE, json.dumps(state, indent=1) + "\n")

    def _resume(self) -> None:
        """Takes the programs of the folder's checkpoint.

        Raises:
            InputError: it is of another search, or no checkpoint.
        """
        path = None if self.folder is None else self.folder / STATE
        if path is None or not path.exists():
            return
        try:
            state = json.loads(path.read_text("utf-8"))
            programs = [Program.of(row) for row in state["programs"]]
            random, identity = state["random"], state["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no checkpoint of a search; move it away to begin anew."
            ) from error
        if identity != json.loads(json.dumps(self.identity())):
            raise InputError(
                f"{path} is of a search with other settings or data; give another folder, or move "
                "it away to begin anew."
            )
        for program in programs:
            self._add(program)
        self.repeats = int(state["repeats"])
        self._draw.bit_generator.state = random

    # ---- results

    def counts(self) -> dict[str, int]:
        """How many programs passed, and at which stage the others were rejected."""
        found = Counter(
            "passed" if not program.rejected else f"rejected_at_{program.stages}"
            for program in self.programs
        )
        return {**dict(sorted(found.items())), "repeated": self.repeats}

    def lineage(self, program: Program) -> list[Program]:
        """A program and its ancestors, the first one first."""
        wanted, waiting = {program.number}, [program.number]
        while waiting:
            for parent in self.programs[waiting.pop()].parents:
                if parent not in wanted:
                    wanted.add(parent)
                    waiting.append(parent)
        return [self.programs[number] for number in sorted(wanted)]
