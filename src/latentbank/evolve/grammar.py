"""Random expressions, mutations and crossovers over a set of signals.

Knows trees and a generator of random numbers; knows no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from latentbank.functions.expression import (
    FUNCTIONS,
    MOST_NODES,
    OPERATORS,
    Call,
    Choice,
    Constant,
    Expression,
    Name,
    Node,
    children,
    walk,
)

__all__ = ["Grammar", "room_for"]

_DEPTH = 3  # of a random tree
_TRIES = 20  # to make a child that differs from its parent and is small enough
_COMPARISONS = ("<", ">=")
_TWO = tuple(name for name, (count, _) in FUNCTIONS.items() if count == 2)
_ONE = tuple(name for name, (count, _) in FUNCTIONS.items() if count == 1)


def room_for(first: Expression, most: int) -> int:
    """Nodes that a program may have: `most`, but half as many again as the first one has."""
    return min(MOST_NODES, max(most, first.size + first.size // 2))


@dataclass(frozen=True)
class Grammar:
    """Makes expressions over `names` of at most `most` nodes; constants lie around ±`scale`."""

    names: tuple[str, ...]
    scale: float = 1.0
    most: int = MOST_NODES

    # ---- new trees

    def tree(self, draw: np.random.Generator, depth: int = _DEPTH) -> Node:
        """A random tree."""
        kind = draw.random()
        if depth == 0 or kind < 0.25:
            return self._leaf(draw)
        if kind < 0.75:
            name = self._one(draw, tuple(OPERATORS))
            return Call(name, (self.tree(draw, depth - 1), self.tree(draw, depth - 1)))
        if kind < 0.9:
            two = draw.random() < 0.5
            name = self._one(draw, _TWO if two else _ONE)
            return Call(name, tuple(self.tree(draw, depth - 1) for _ in range(1 + two)))
        return Choice(
            self._leaf(draw),
            self._one(draw, _COMPARISONS),
            self._leaf(draw),
            self.tree(draw, depth - 1),
            self.tree(draw, depth - 1),
        )

    def random(self, draw: np.random.Generator) -> Expression:
        """A random expression."""
        for _ in range(_TRIES):
            found = Expression(self.tree(draw))
            if found.size <= self.most and found.names:
                return found
        return Expression(Name(self._one(draw, self.names)))

    def _leaf(self, draw: np.random.Generator) -> Node:
        if draw.random() < 0.6:
            return Name(self._one(draw, self.names))
        return Constant(float(draw.normal(0, self.scale)))

    @staticmethod
    def _one(draw: np.random.Generator, options: Sequence[str]) -> str:
        return options[int(draw.integers(len(options)))]

    # ---- children

    def mutate(self, draw: np.random.Generator, parent: Expression) -> tuple[Expression, str]:
        """(a child that differs from its parent, the name of the mutation)."""
        ways = (self._nudged, self._replaced, self._swapped, self._hoisted, self._wrapped)
        chances = (0.4, 0.2, 0.15, 0.1, 0.15)
        for _ in range(_TRIES):
            at = int(draw.choice(len(ways), p=chances))
            child = self._fitting(ways[at](draw, parent.root), parent)
            if child is not None:
                return child, ways[at].__name__.lstrip("_")
        return self.random(draw), "random"

    def crossover(
        self, draw: np.random.Generator, parent: Expression, other: Expression
    ) -> tuple[Expression, str]:
        """(the parent with one of its nodes replaced by one of the other's, "crossover")."""
        for _ in range(_TRIES):
            graft = _pick(draw, list(walk(other.root)))
            child = self._fitting(self._at_random(draw, parent.root, _always(graft)), parent)
            if child is not None:
                return child, "crossover"
        return self.mutate(draw, parent)

    def _fitting(self, root: Node | None, parent: Expression) -> Expression | None:
        """The expression of a tree, if it is new, small enough and reads a signal."""
        if root is None:
            return None
        child = Expression(root)
        fits = child.size <= self.most and child.names and str(child) != str(parent)
        return child if fits else None

    def _nudged(self, draw: np.random.Generator, root: Node) -> Node | None:
        """One constant is multiplied by about 1, and moved a little."""
        places = [i for i, node in enumerate(walk(root)) if isinstance(node, Constant)]
        if not places:
            return None
        factor, step = float(np.exp(draw.normal(0, 0.5))), float(draw.normal(0, 0.1 * self.scale))

        def nudge(node: Node) -> Node:
            assert isinstance(node, Constant)
            return Constant(float(np.clip(node.value * factor + step, -1e5, 1e5)))

        return _changed(root, places[int(draw.integers(len(places)))], nudge)

    def _replaced(self, draw: np.random.Generator, root: Node) -> Node:
        """A node becomes a random tree."""
        return self._at_random(draw, root, lambda _: self.tree(draw, 2))

    def _swapped(self, draw: np.random.Generator, root: Node) -> Node:
        """An operator, a function, a signal or a comparison becomes another of its kind."""

        def swap(node: Node) -> Node:
            if isinstance(node, Name):
                return Name(self._one(draw, self.names))
            if isinstance(node, Call):
                two = (*OPERATORS, *_TWO)
                return replace(
                    node, name=self._one(draw, two if len(node.arguments) == 2 else _ONE)
                )
            if isinstance(node, Choice):
                return replace(node, then=node.other, other=node.then)
            return Constant(-node.value)

        return self._at_random(draw, root, swap)

    def _hoisted(self, draw: np.random.Generator, root: Node) -> Node:
        """A node takes the place of the one above it."""

        def hoist(node: Node) -> Node:
            below = children(node)
            return _pick(draw, list(below)) if below else node

        return self._at_random(draw, root, hoist)

    def _wrapped(self, draw: np.random.Generator, root: Node) -> Node:
        """A node becomes a part of a larger one."""

        def wrap(node: Node) -> Node:
            if draw.random() < 0.3:
                return Call(self._one(draw, _ONE), (node,))
            return Call(self._one(draw, (*OPERATORS, *_TWO)), (node, self.tree(draw, 1)))

        return self._at_random(draw, root, wrap)

    @staticmethod
    def _at_random(draw: np.random.Generator, root: Node, change: Callable[[Node], Node]) -> Node:
        return _changed(root, int(draw.integers(sum(1 for _ in walk(root)))), change)


def _always(node: Node) -> Callable[[Node], Node]:
    return lambda _: node


def _pick(draw: np.random.Generator, nodes: Sequence[Node]) -> Node:
    return nodes[int(draw.integers(len(nodes)))]


def _changed(root: Node, place: int, change: Callable[[Node], Node]) -> Node:
    """The tree with its node number `place`, in the order of `walk`, changed."""
    if place == 0:
        return change(root)
    place -= 1
    parts = list(children(root))
    for i, child in enumerate(parts):
        size = sum(1 for _ in walk(child))
        if place < size:
            parts[i] = _changed(child, place, change)
            break
        place -= size
    if isinstance(root, Call):
        return replace(root, arguments=tuple(parts))
    assert isinstance(root, Choice)
    left, right, then, other = parts
    return Choice(left, root.sign, right, then, other)
