"""The scores against hand-made cases, the bootstrap against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.errors import InputError
from latentbank.evaluate import metrics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Denver Broncos!", "denver broncos"),
        ("an apple, a day", "apple day"),
        ("theatre", "theatre"),  # an article inside a word stays
        ("U.S.A.", "usa"),
        ("24\u201310", "24\u201310"),  # the en dash is not ASCII punctuation
        ("The", ""),
        ("\tA\nb", "b"),
    ],
)
def test_normalize_answer_follows_squad(text: str, expected: str) -> None:
    assert metrics.normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "em", "f1"),
    [
        ("the Denver Broncos.", ["Denver Broncos"], 1.0, 1.0),
        ("Broncos", ["Carolina Panthers", "Denver Broncos"], 0.0, 2 / 3),
        ("broncos", ["Denver Broncos", "The Broncos"], 1.0, 1.0),
        ("in the year 1998", ["1998"], 0.0, 0.5),
        ("new new york", ["new york"], 0.0, 0.8),  # a repeated token counts once
        ("Paris", ["London"], 0.0, 0.0),
        ("", ["London"], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        ("London", [""], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
    ],
)
def test_exact_match_and_f1(prediction: str, references: list[str], em: float, f1: float) -> None:
    assert metrics.exact_match(prediction, references) == em
    assert metrics.f1(prediction, references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("1998", ["1"], 1.0),  # why it is not called exact match
        ("1", ["1998"], 0.0),
        ("Denver Broncos won", ["the Denver Broncos", "Denver"], 1.0),
        ("the Denver Broncos", ["the Denver Broncos", "Denver"], 0.0),  # only the shortest counts
        ("denver", ["Denver"], 0.0),
        ("  Denver", [" Denver "], 1.0),
        ("Den", ["Denver"], 0.0),
        ("", [""], 1.0),
        ("x", ["", "xy"], 0.0),
    ],
)
def test_prefix_match(prediction: str, references: list[str], expected: float) -> None:
    assert metrics.prefix_match(prediction, references) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("It was in 1998, I think", ["1998"], 1.0),
        ("19985", ["1998"], 0.0),
        ("the new York Times", ["New York"], 1.0),
        ("york new", ["New York"], 0.0),
        ("London or Paris", ["Rome", "Paris"], 1.0),
        ("London", [""], 0.0),
        ("", [""], 1.0),
    ],
)
def test_contains_answer(prediction: str, references: list[str], expected: float) -> None:
    assert metrics.contains_answer(prediction, references) == expected


@pytest.mark.parametrize("references", [[], "Paris"])
def test_references_must_be_a_list(references: list[str]) -> None:
    for score in (metrics.exact_match, metrics.f1, metrics.prefix_match, metrics.contains_answer):
        with pytest.raises(InputError, match="References"):
            score("Paris", references)


@given(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_scores_are_ordered(prediction: str, references: list[str]) -> None:
    em, f1 = metrics.exact_match(prediction, references), metrics.f1(prediction, references)
    assert em <= f1 <= 1.0
    assert em <= metrics.contains_answer(prediction, references)


def test_paired_bootstrap_sees_a_difference_and_its_absence() -> None:
    random = np.random.default_rng(1)
    b = random.random(500)
    clear = metrics.paired_bootstrap(b + 0.1 + 0.01 * random.standard_normal(500), b)
    assert clear.low <= clear.difference <= clear.high
    assert clear.difference == pytest.approx(0.1, abs=0.01)
    assert 0 < clear.p_value < 0.001
    noise = metrics.paired_bootstrap(b + 0.1 * random.standard_normal(500), b)
    assert noise.low < 0 < noise.high
    assert noise.p_value > 0.05


def test_paired_bootstrap_matches_the_normal_interval() -> None:
    scores = np.random.default_rng(2).normal(0.3, 1.0, size=2_000)
    result = metrics.paired_bootstrap(scores, np.zeros(2_000), samples=4_000)
    half = 1.96 * float(scores.std()) / math.sqrt(2_000)
    assert result.low == pytest.approx(float(scores.mean()) - half, abs=0.005)
    assert result.high == pytest.approx(float(scores.mean()) + half, abs=0.005)


def test_paired_bootstrap_of_equal_systems() -> None:
    result = metrics.paired_bootstrap([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert result == metrics.BootstrapResult(0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_is_antisymmetric_and_seeded() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.0, 1.0]
    forward, backward = (
        metrics.paired_bootstrap(a, b, seed=3),
        metrics.paired_bootstrap(b, a, seed=3),
    )
    assert forward.difference == -backward.difference
    assert forward.low == pytest.approx(-backward.high)
    assert forward.p_value == pytest.approx(backward.p_value)
    assert forward == metrics.paired_bootstrap(a, b, seed=3)


def test_blocks_do_not_change_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    assert metrics._resampled_means(np.arange(3.0), samples=11, seed=0).shape == (11,)


def test_mean_interval() -> None:
    interval = metrics.mean_interval([0.0, 1.0] * 200, seed=5)
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.451, abs=0.01)
    assert interval.high == pytest.approx(0.549, abs=0.01)
    assert metrics.mean_interval([2.0, 2.0]) == metrics.Interval(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [([], [], "non-empty"), ([1.0], [1.0, 2.0], "1 and 2"), ([float("nan")], [1.0], "finite")],
)
def test_paired_bootstrap_refuses_bad_scores(a: list[float], b: list[float], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        metrics.paired_bootstrap(a, b)


def test_bootstrap_refuses_no_samples() -> None:
    with pytest.raises(InputError, match="at least 1"):
        metrics.mean_interval([1.0], samples=0)
