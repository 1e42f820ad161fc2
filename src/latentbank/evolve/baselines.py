"""What a search is compared with at equal evaluations: random expressions, and CEM over weights.

CEM is the cross-entropy method (Rubinstein 1999): weights of a sum are drawn from a normal
distribution that moves to the best of each round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentbank.evolve.grammar import Grammar, room_for
from latentbank.evolve.objective import Cascade, Evaluation, Objective
from latentbank.functions.expression import Call, Constant, Expression, Node, parse

__all__ = ["Found", "cross_entropy", "random_search"]


@dataclass(frozen=True)
class Found:
    """The best expressions of a baseline with their scores, the best first."""

    best: tuple[tuple[str, float], ...]
    evaluations: int


class _Best:
    """The expressions with the highest scores so far, each text once."""

    def __init__(self, objective: Objective, cascade: Cascade, count: int) -> None:
        first = parse(objective.first, objective.names)
        self._scores = {str(first): cascade.start(first).score}
        self._count = count

    def add(self, expression: Expression, found: Evaluation) -> None:
        if not found.rejected:
            self._scores[str(expression)] = found.score

    def rows(self) -> tuple[tuple[str, float], ...]:
        order = sorted(self._scores.items(), key=lambda one: -one[1])
        return tuple(order[: self._count])


def random_search(
    objective: Objective,
    evaluations: int,
    seed: int = 0,
    most_nodes: int = 32,
    keep: int = 1,
    told: Callable[[int], None] = lambda done: None,
) -> Found:
    """The best of so many random expressions, by the same cascade; the first one counts, too.

    `keep` of them are returned.
    """
    cascade, draw = Cascade(objective), np.random.default_rng(seed)
    room = room_for(parse(objective.first, objective.names), most_nodes)
    grammar = Grammar(objective.names, objective.scale, room)
    best = _Best(objective, cascade, keep)
    for done in range(evaluations):
        expression = grammar.random(draw)
        best.add(expression, cascade.evaluate(expression))
        told(done + 1)
    return Found(best.rows(), evaluations)


def cross_entropy(
    objective: Objective,
    evaluations: int,
    seed: int = 0,
    round_size: int = 20,
    elite: float = 0.2,
    keep: int = 1,
    told: Callable[[int], None] = lambda done: None,
) -> Found:
    """The best weighted sum of the objective's `terms` after so many evaluations.

    Weights begin at the objective's, with a standard deviation of about their own size. `keep` of
    the best are returned.
    """
    cascade, draw = Cascade(objective), np.random.default_rng(seed)
    parts = [parse(term, objective.names).root for term in objective.terms]
    mean = np.array(list(objective.terms.values()), np.float64)
    spread = np.abs(mean) + 0.1 * np.abs(mean).max()
    best, done = _Best(objective, cascade, keep), 0
    while done < evaluations:
        rows = draw.normal(mean, spread, (min(round_size, evaluations - done), len(parts)))
        scores = []
        for row in rows:
            expression = Expression(_sum(parts, row))
            found = cascade.evaluate(expression)
            best.add(expression, found)
            scores.append(-np.inf if found.rejected else found.score)
            done += 1
            told(done)
        kept = np.argsort(scores)[::-1][: max(2, round(elite * len(rows)))]
        kept = kept[np.isfinite(np.array(scores)[kept])]
        if len(kept) > 1:
            mean, spread = rows[kept].mean(0), 0.9 * rows[kept].std(0) + 0.1 * spread
    return Found(best.rows(), done)


def _sum(parts: Sequence[Node], weights: Sequence[float]) -> Node:
    """The sum of the parts, each times its weight."""
    scaled = [Call("*", (Constant(float(w)), part)) for w, part in zip(weights, parts, strict=True)]
    total: Node = scaled[0]
    for one in scaled[1:]:
        total = Call("+", (total, one))
    return total
