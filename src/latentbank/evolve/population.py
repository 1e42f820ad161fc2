"""Islands of programs, each with a MAP-Elites grid of its best, and migration between them.

Knows programs with scores; knows neither what they are worth nor how they are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Island", "Population", "Program"]


@dataclass(frozen=True)
class Program:
    """One expression of a search.

    `parents` are numbers of programs; `way` is how it was made from them. `cell` is its place in
    the grid. `rejected` is "" for one that passed all stages, and only such ones have descendants.
    """

    number: int
    text: str
    island: int
    parents: tuple[int, ...]
    way: str
    stages: int
    figures: Mapping[str, float]
    rejected: str
    cell: tuple[int, int]

    @property
    def score(self) -> float:
        """Its score on all data; -inf for one that was rejected."""
        return -math.inf if self.rejected else self.figures["score"]

    def row(self) -> dict[str, Any]:
        """As a row of the lineage."""
        return {
            "number": self.number,
            "text": self.text,
            "island": self.island,
            "parents": list(self.parents),
            "way": self.way,
            "stages": self.stages,
            "figures": dict(self.figures),
            "rejected": self.rejected,
            "cell": list(self.cell),
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Program:
        """The program of a row."""
        return cls(**{**row, "parents": tuple(row["parents"]), "cell": tuple(row["cell"])})


def cell_of(size: int, most: int, likeness: float, bins: int) -> tuple[int, int]:
    """The place in the grid: by the logarithm of its size, and by its likeness to the first."""
    by_size = math.log(size) / math.log(most)
    by_likeness = (likeness + 1) / 2
    return _bin(by_size, bins), _bin(by_likeness, bins)


def _bin(share: float, bins: int) -> int:
    return min(bins - 1, max(0, int(share * bins))) if math.isfinite(share) else 0


@dataclass
class Island:
    """Programs that multiply among themselves. `grid`: cell → the best program in it."""

    members: list[Program] = field(default_factory=list)
    grid: dict[tuple[int, int], Program] = field(default_factory=dict)
    born: int = 0  # since the last migration

    def add(self, program: Program, most: int) -> None:
        """Takes a program; the worst leaves where there are more than `most`."""
        self.members.append(program)
        best = self.grid.get(program.cell)
        if best is None or program.score > best.score:
            self.grid[program.cell] = program
        if len(self.members) > most:
            elite = {one.number for one in self.grid.values()}
            spare = [one for one in self.members if one.number not in elite] or self.members
            self.members.remove(min(spare, key=lambda one: (one.score, one.number)))


class Population:
    """Several islands with a common archive of the best.

    A parent is the archive's with the chance `elite`, any member of the island with the chance
    `explore`, and else one of its grid. Every `migrate_every` births of an island its best
    `migrate_share` go to the next one.
    """

    def __init__(
        self,
        islands: int,
        most: int,
        archive: int,
        elite: float,
        explore: float,
        migrate_every: int,
        migrate_share: float,
    ) -> None:
        self.islands = [Island() for _ in range(islands)]
        self._most = max(2, most // islands)
        self._archive, self._elite, self._explore = archive, elite, explore
        self._every, self._share = migrate_every, migrate_share
        self.archive: list[Program] = []

    def add(self, program: Program) -> bool:
        """Takes a program that passed; migrates where its island is due. Says whether it did."""
        island = self.islands[program.island]
        island.add(program, self._most)
        self._remember(program)
        island.born += 1
        if island.born < self._every or len(self.islands) == 1:
            return False
        island.born = 0
        self._migrate(program.island)
        return True

    def _remember(self, program: Program) -> None:
        if any(one.text == program.text for one in self.archive):
            return
        self.archive.append(program)
        self.archive.sort(key=lambda one: (-one.score, one.number))
        del self.archive[self._archive :]

    def _migrate(self, source: int) -> None:
        """The best of an island are also members of the next one from now on."""
        island, target = self.islands[source], self.islands[(source + 1) % len(self.islands)]
        count = max(1, round(self._share * len(island.members)))
        best = sorted(island.members, key=lambda one: (-one.score, one.number))[:count]
        known = {one.text for one in target.members}
        for program in best:
            if program.text not in known:
                target.add(program, self._most)

    @property
    def best(self) -> Program:
        """The best program so far; the earliest and so mostly the simplest of equal ones."""
        return self.archive[0]

    def parents(self, draw: np.random.Generator, island: int) -> tuple[Program, Program]:
        """(a parent, another to cross it with) for a child on an island that has members."""
        own = self.islands[island]
        chance = draw.random()
        if chance < self._elite:
            pool: Sequence[Program] = self.archive
        elif chance < self._elite + self._explore:
            pool = own.members
        else:
            pool = [own.grid[cell] for cell in sorted(own.grid)]
        parent = pool[int(draw.integers(len(pool)))]
        elites = [own.grid[cell] for cell in sorted(own.grid)]
        return parent, elites[int(draw.integers(len(elites)))]
