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
    """The best expression of a baseline, its score, and how many were evaluated."""

    text: str
    score: float
    evaluations: int


def random_search(
    objective: Objective,
    evaluations: int,
    seed: int = 0,
    most_nodes: int = 32,
    told: Callable[[int], None] = lambda done: None,
) -> Found:
    """The best of so many random expressions, by the same cascade; the first one counts, too."""
    cascade, draw = Cascade(objective), np.random.default_rng(seed)
    room = room_for(parse(objective.first, objective.names), most_nodes)
    grammar = Grammar(objective.names, objective.scale, room)
    best = _start(cascade, objective)
    for done in range(evaluations):
        expression = grammar.random(draw)
        best = _better(best, expression, cascade.evaluate(expression))
        told(done + 1)
    return Found(*best, evaluations)


def cross_entropy(
    objective: Objective,
    evaluations: int,
    seed: int = 0,
    round_size: int = 20,
    elite: float = 0.2,
    told: Callable[[int], None] = lambda done: None,
) -> Found:
    """The best weighted sum of the objective's `terms` after so many evaluations.

    Weights begin at the objective's, with a standard deviation of about their own size.
    """
    cascade, draw = Cascade(objective), np.random.default_rng(seed)
    parts = [parse(term, objective.names).root for term in objective.terms]
    mean = np.array(list(objective.terms.values()), np.float64)
    spread = np.abs(mean) + 0.1 * np.abs(mean).max()
    best, done = _start(cascade, objective), 0
    while done < evaluations:
        rows = draw.normal(mean, spread, (min(round_size, evaluations - done), len(parts)))
        scores = []
        for row in rows:
            expression = Expression(_sum(parts, row))
            found = cascade.evaluate(expression)
            best = _better(best, expression, found)
            scores.append(-np.inf if found.rejected else found.score)
            done += 1
            told(done)
        kept = np.argsort(scores)[::-1][: max(2, round(elite * len(rows)))]
        kept = kept[np.isfinite(np.array(scores)[kept])]
        if len(kept) > 1:
            mean, spread = rows[kept].mean(0), 0.9 * rows[kept].std(0) + 0.1 * spread
    return Found(*best, done)


def _sum(parts: Sequence[Node], weights: Sequence[float]) -> Node:
    """The sum of the parts, each times its weight."""
    scaled = [Call("*", (Constant(float(w)), part)) for w, part in zip(weights, parts, strict=True)]
    total: Node = scaled[0]
    for one in scaled[1:]:
        total = Call("+", (total, one))
    return total


def _start(cascade: Cascade, objective: Objective) -> tuple[str, float]:
    first = parse(objective.first, objective.names)
    return str(first), cascade.start(first).score


def _better(
    best: tuple[str, float], expression: Expression, found: Evaluation
) -> tuple[str, float]:
    passed = not found.rejected and found.score > best[1]
    return (str(expression), found.score) if passed else best
