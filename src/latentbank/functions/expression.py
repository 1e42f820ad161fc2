"""Expressions of numbers: parsed into a tree of known nodes, and computed on arrays by NumPy.

The grammar is a part of Python's: numbers, names, `+ - * /`, a sign, comparisons, `a if c else b`,
and the functions of `FUNCTIONS`. Nothing else is a node, so an expression can neither loop nor
reach anything beyond the arrays that it is given. Knows arrays; knows no bank and no retrieval.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentbank.errors import InputError

__all__ = [
    "FUNCTIONS",
    "MOST_NODES",
    "OPERATORS",
    "Call",
    "Choice",
    "Constant",
    "Expression",
    "Name",
    "Node",
    "children",
    "parse",
    "walk",
]

Array = npt.NDArray[np.float64]

MOST_NODES = 64  # of one expression
_MOST_CHARACTERS = 2000
_MOST_DIGITS = 6  # of a constant, significant ones
_LARGEST = 1e6

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "log1p": (1, np.log1p),
    "tanh": (1, np.tanh),
    "mod1": (1, lambda x: np.mod(x, 1.0)),
}
"""Name → (number of arguments, what computes it). `mod1(x)` is x modulo 1, in [0, 1)."""

_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2}  # a choice has 0
_TIGHT = 4

_SIGNS: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_COMPARE: Mapping[str, Callable[..., Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True)
class Constant:
    """A number. It is rounded to the digits that its text has."""

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(f"{self.value:.{_MOST_DIGITS}g}"))

    def __str__(self) -> str:
        return f"{self.value:.{_MOST_DIGITS}g}"


@dataclass(frozen=True)
class Name:
    """A signal, one number for each thing that is valued."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """An operator or a function of `FUNCTIONS` on one or two nodes."""

    name: str
    arguments: tuple[Node, ...]

    def __str__(self) -> str:
        if self.name in OPERATORS:
            left, right = self.arguments
            own = _BINDING[self.name]
            return f"{_inside(left, own)} {self.name} {_inside(right, own + 1)}"
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Choice:
    """`then` where `left sign right` holds, else `other`."""

    left: Node
    sign: str
    right: Node
    then: Node
    other: Node

    def __str__(self) -> str:
        then, left, right, other = (
            _inside(node, 1) for node in (self.then, self.left, self.right, self.other)
        )
        return f"{then} if {left} {self.sign} {right} else {other}"


Node = Constant | Name | Call | Choice


def _inside(node: Node, least: int) -> str:
    """The text of a node, in parentheses where it binds less than `least`."""
    if isinstance(node, Choice):
        binding = 0
    elif isinstance(node, Call):
        binding = _BINDING.get(node.name, _TIGHT)
    else:
        binding = _TIGHT
    return str(node) if binding >= least else f"({node})"


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right under one."""
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, Choice):
        return node.left, node.right, node.then, node.other
    return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and all under it."""
    yield node
    for child in children(node):
        yield from walk(child)


@dataclass(frozen=True)
class Expression:
    """A tree with its text. `str` gives a text that `parse` reads as the same tree."""

    root: Node

    def __str__(self) -> str:
        return str(self.root)

    @property
    def size(self) -> int:
        """Its number of nodes."""
        return sum(1 for _ in walk(self.root))

    @property
    def names(self) -> frozenset[str]:
        """The signals that it reads."""
        return frozenset(node.name for node in walk(self.root) if isinstance(node, Name))

    def compute(self, signals: Mapping[str, Array]) -> Array:
        """Its values [n] from signals [n], each a finite number.

        Raises:
            InputError: a value is not finite (a division by zero, the root of a negative number).
        """
        values = self._raw(signals)
        if not np.isfinite(values).all():
            raise InputError(f"The expression '{self}' gives a value that is no finite number.")
        return values

    def bounded(self, signals: Mapping[str, Array]) -> Array:
        """As `compute`, within ±10⁶ and with 0 for what is no number; raises nothing."""
        values = np.nan_to_num(self._raw(signals), nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
        return np.clip(values, -_LARGEST, _LARGEST)

    def _raw(self, signals: Mapping[str, Array]) -> Array:
        count = max((len(one) for one in signals.values()), default=1)
        with np.errstate(all="ignore"):
            computed = _compute(self.root, signals)
        return np.array(np.broadcast_to(computed, (count,)), np.float64)


def _compute(node: Node, signals: Mapping[str, Array]) -> Any:
    if isinstance(node, Constant):
        return np.float64(node.value)
    if isinstance(node, Name):
        return np.asarray(signals[node.name], np.float64)
    if isinstance(node, Choice):
        holds = _COMPARE[node.sign](_compute(node.left, signals), _compute(node.right, signals))
        return np.where(holds, _compute(node.then, signals), _compute(node.other, signals))
    arguments = [_compute(one, signals) for one in node.arguments]
    if node.name in OPERATORS:
        return OPERATORS[node.name](*arguments)
    return FUNCTIONS[node.name][1](*arguments)


def parse(text: str, names: Collection[str], most: int = MOST_NODES) -> Expression:
    """The expression of a text over the signals `names`, of at most so many nodes.

    Raises:
        InputError: it is no expression of this language; the sentence says what in it is not.
    """
    if len(text) > _MOST_CHARACTERS:
        raise InputError(
            f"An expression has at most {_MOST_CHARACTERS} characters; this one has {len(text)}."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"'{_short(text)}' is no expression: {error}.") from error
    found = Expression(_node(tree.body, frozenset(names)))
    if found.size > most:
        raise InputError(f"An expression has at most {most} nodes; this one has {found.size}.")
    return found


def _node(tree: ast.expr, names: frozenset[str], depth: int = 0) -> Node:
    if depth > MOST_NODES:
        raise InputError(f"An expression is nested at most {MOST_NODES} deep.")

    def inner(one: ast.expr) -> Node:
        return _node(one, names, depth + 1)

    if isinstance(tree, ast.Constant):
        return _constant(tree.value)
    if isinstance(tree, ast.Name):
        if tree.id not in names:
            known = ", ".join(sorted(names))
            raise InputError(f"An expression does not know '{tree.id}'; it knows {known}.")
        return Name(tree.id)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        return _signed(inner(tree.operand), isinstance(tree.op, ast.USub))
    if isinstance(tree, ast.BinOp) and type(tree.op) in _SIGNS:
        return Call(_SIGNS[type(tree.op)], (inner(tree.left), inner(tree.right)))
    if isinstance(tree, ast.IfExp):
        return _choice(tree, inner)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
        return _call(tree.func.id, tree.args, inner)
    raise InputError(
        f"An expression may not hold '{_short(ast.unparse(tree))}': numbers, signals, + - * /, "
        f"a if b > c else d, and {', '.join(FUNCTIONS)} are known."
    )


def _constant(value: object) -> Constant:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"An expression holds numbers only, not {_short(repr(value))}.")
    number = float(value) if abs(value) <= _LARGEST else math.inf
    if not math.isfinite(number):
        raise InputError(
            f"A number of an expression lies within ±{_LARGEST:g}, got {_short(str(value))}."
        )
    return Constant(number)


def _signed(node: Node, negative: bool) -> Node:
    if not negative:
        return node
    if isinstance(node, Constant):
        return Constant(-node.value)
    return Call("-", (Constant(0.0), node))


def _choice(tree: ast.IfExp, inner: Callable[[ast.expr], Node]) -> Choice:
    test = tree.test
    single = isinstance(test, ast.Compare) and len(test.ops) == 1
    if not isinstance(test, ast.Compare) or not single or type(test.ops[0]) not in _COMPARISONS:
        raise InputError("A choice has the form 'a if b > c else d', with one of < <= > >=.")
    sign = _COMPARISONS[type(test.ops[0])]
    return Choice(
        inner(test.left), sign, inner(test.comparators[0]), inner(tree.body), inner(tree.orelse)
    )


def _call(name: str, arguments: list[ast.expr], inner: Callable[[ast.expr], Node]) -> Call:
    if name not in FUNCTIONS:
        raise InputError(
            f"An expression does not know the function '{name}'; it knows {', '.join(FUNCTIONS)}."
        )
    count = FUNCTIONS[name][0]
    if len(arguments) != count or any(isinstance(one, ast.Starred) for one in arguments):
        raise InputError(f"{name} takes {count} argument{'s' if count > 1 else ''}.")
    return Call(name, tuple(inner(one) for one in arguments))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
