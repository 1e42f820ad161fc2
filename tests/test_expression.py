"""Expressions: what is read, what is refused, and that their text says the same as their tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.errors import InputError
from latentbank.evolve.grammar import Grammar
from latentbank.functions.expression import MOST_NODES, parse

NAMES = ("age", "hits")
SIGNALS = {"age": np.array([0.0, 1.0, 2.0]), "hits": np.array([3.0, 0.0, 8.0])}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("age + hits / 4", [0.75, 1.0, 4.0]),
        ("-age", [0.0, -1.0, -2.0]),
        ("age - (hits - 1)", [-2.0, 2.0, -5.0]),
        ("2 * (age + 1) / 4", [0.5, 1.0, 1.5]),
        ("hits if hits >= 3 else 10 * age", [3.0, 10.0, 8.0]),
        ("max(age, min(hits, 5))", [3.0, 1.0, 5.0]),
        ("mod1(age * 0.75)", [0.0, 0.75, 0.5]),
        ("3", [3.0, 3.0, 3.0]),
    ],
)
def test_an_expression_is_computed_on_arrays(text: str, values: list[float]) -> None:
    np.testing.assert_allclose(parse(text, NAMES).compute(SIGNALS), values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__import__('os').system('true')", "may not hold"),
        ("open('x')", "does not know the function 'open'"),
        ("age ** 2", "may not hold 'age ** 2'"),
        ("age.real", "may not hold"),
        ("[age for age in hits]", "may not hold"),
        ("lambda: 1", "may not hold"),
        ("while True: pass", "is no expression"),
        ("price", "does not know 'price'; it knows age, hits"),
        ("'a'", "numbers only"),
        ("True", "numbers only"),
        ("1e300 * 1e300", "within ±1e+06"),
        ("9" * 1999, "within ±1e+06"),
        ("min(age)", "min takes 2 arguments"),
        ("sqrt(*age)", "sqrt takes 1 argument"),
        ("1 if age else 2", "has the form"),
        ("1 if 0 < age < 2 else 2", "has the form"),
        ("", "is no expression"),
        ("(" * 500 + "age" + ")" * 500, "is no expression"),
        ("-" * 1900 + "age", "nested at most"),
        ("age" + " + age" * MOST_NODES, "at most 64 nodes"),
        ("a" * 3000, "at most 2000 characters"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, NAMES)
    assert said in str(caught.value) and len(str(caught.value)) < 300


def test_a_value_that_is_no_number_is_an_error_or_zero() -> None:
    divided, root = parse("hits / age", NAMES), parse("sqrt(age - 1)", NAMES)
    for expression in (divided, root):
        with pytest.raises(InputError, match="no finite number"):
            expression.compute(SIGNALS)
    np.testing.assert_allclose(divided.bounded(SIGNALS), [1e6, 0.0, 4.0])
    np.testing.assert_allclose(root.bounded(SIGNALS), [0.0, 0.0, 1.0])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_texts_of_random_expressions_are_read_as_the_same_trees(seed: int) -> None:
    draw = np.random.default_rng(seed)
    grammar = Grammar(NAMES, most=24)
    parent = grammar.random(draw)
    child, _ = grammar.mutate(draw, parent)
    crossed, _ = grammar.crossover(draw, parent, child)
    for expression in (parent, child, crossed):
        assert expression.size <= 24 and expression.names
        assert parse(str(expression), NAMES) == expression
        assert np.isfinite(expression.bounded(SIGNALS)).all()
    assert str(child) != str(parent)
