"""Stream metrics against hand-computed values, their definitions, and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.errors import InputError
from latentbank.evaluate import stream_metrics as stream

shares = st.floats(0, 1, allow_subnormal=False)


def test_retention_area_is_the_mean_height() -> None:
    assert stream.retention_area([0, 100, 300], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    # 100 wide at mean 0.7, 300 wide at mean 0.45
    assert stream.retention_area([100, 200, 500], [0.8, 0.6, 0.3]) == pytest.approx(
        (100 * 0.7 + 300 * 0.45) / 400
    )
    assert stream.retention_area([7], [0.25]) == 0.25
    assert stream.retention_area([1, 2], [0.8, 0.4], relative=True) == pytest.approx(0.75)


@given(st.lists(shares, min_size=1, max_size=8), st.floats(0.1, 1e6))
def test_retention_area_lies_within_the_curve_and_ignores_the_unit_of_x(
    y: list[float], unit: float
) -> None:
    x = [float(i * i + i) for i in range(len(y))]
    area = stream.retention_area(x, y)
    assert min(y) - 1e-9 <= area <= max(y) + 1e-9
    assert stream.retention_area([unit * value for value in x], y) == pytest.approx(area)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "non-empty"),
        ([1, 2], [1], "equal length, got 2 and 1"),
        ([1, 1], [1, 1], "strictly increasing"),
        ([2, 1], [1, 1], "strictly increasing"),
        ([1, 2], [1, float("nan")], "finite"),
    ],
)
def test_retention_area_refuses(x: list[float], y: list[float], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        stream.retention_area(x, y)


def test_relative_retention_needs_a_start() -> None:
    with pytest.raises(InputError, match="starts at 0"):
        stream.retention_area([1, 2], [0, 1], relative=True)


def test_backward_transfer_is_lopez_paz_and_ranzato_equation_3() -> None:
    # three parts, the third without a term: R_{3,i} - R_{i,i} is -0.2 and +0.1
    scores = np.array([[0.6, 0.0, 0.0], [0.5, 0.4, 0.0], [0.4, 0.5, 0.9]])  # R[after part, part]
    found = stream.backward_transfer(np.diag(scores)[:-1], scores[-1, :-1])
    assert found == pytest.approx(-0.05)
    assert stream.backward_transfer([1.0], [0.25]) == -0.75
    with pytest.raises(InputError, match="non-empty"):
        stream.backward_transfer([], [])
    with pytest.raises(InputError, match="equal length, got 2 and 3"):
        stream.backward_transfer([1.0, 1.0], [1.0, 1.0, 1.0])


def test_forgetting_counts_from_the_best_earlier_score() -> None:
    assert stream.forgetting([0.6, 0.4], [0.4, 0.5]) == pytest.approx((0.2 - 0.1) / 2)
    history = [[0.5, 0.1], [0.6, 0.4], [0.2, 0.3]]
    assert stream.forgetting(history, [0.4, 0.5]) == pytest.approx((0.2 - 0.1) / 2)
    with pytest.raises(InputError, match="equal length"):
        stream.forgetting(history, [0.4])
    with pytest.raises(InputError, match="non-empty"):
        stream.forgetting([], [])


def test_risk_coverage_by_hand() -> None:
    found = stream.risk_coverage([0.9, 0.8, 0.2, 0.1], [1, 0, 1, 0])
    assert found.coverage == (0.25, 0.5, 0.75, 1.0)
    assert found.risk == pytest.approx((0.0, 1 / 2, 1 / 3, 1 / 2))
    assert found.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_risk_coverage_bounds() -> None:
    perfect = stream.risk_coverage([3, 2, 1, 0], [1, 1, 0, 0])
    worst = stream.risk_coverage([0, 1, 2, 3], [1, 1, 0, 0])
    tied = stream.risk_coverage([1, 1, 1, 1], [1, 1, 0, 0])
    assert perfect.area < tied.area < worst.area
    assert tied.risk == pytest.approx((0.5,) * 4)  # confidence that says nothing: flat
    assert stream.risk_coverage([5, 1], [1, 1]).area == 0


@given(st.lists(st.tuples(st.integers(0, 3), shares), min_size=1, max_size=6), st.randoms())
def test_risk_coverage_of_ties_is_the_mean_over_their_orders(
    answers: list[tuple[int, float]], random: object
) -> None:
    areas = []
    for order in itertools.permutations(range(len(answers))):
        ranked = sorted(order, key=lambda i: -answers[i][0])  # stable: ties keep the permutation
        loss = np.array([1 - answers[i][1] for i in ranked])
        areas.append((np.cumsum(loss) / np.arange(1, len(loss) + 1)).mean())
    found = stream.risk_coverage([a for a, _ in answers], [b for _, b in answers])
    assert found.area == pytest.approx(float(np.mean(areas)))
    assert found.risk[-1] == pytest.approx(1 - np.mean([b for _, b in answers]))


def test_risk_coverage_refuses() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        stream.risk_coverage([1, 2], [0, 100])
    with pytest.raises(InputError, match="equal length"):
        stream.risk_coverage([1, 2], [0])


def test_accuracy_at_false_answer_rate_by_hand() -> None:
    confidence = [0.9, 0.7, 0.5, 0.3, 0.8, 0.6, 0.4, 0.2]
    correct = [1, 1, 0, 1, 0, 0, 0, 0]
    answerable = [True] * 4 + [False] * 4
    rates = (0.0, 0.25, 0.5, 0.74, 0.75, 1.0)
    found = stream.accuracy_at_false_answer_rate(confidence, correct, answerable, rates)
    # thresholds 0.8, 0.6, 0.4, 0.4, 0.2, none
    assert found == (0.25, 0.5, 0.5, 0.5, 0.75, 0.75)


def test_a_tie_between_the_kinds_is_not_answered() -> None:
    found = stream.accuracy_at_false_answer_rate([1, 1], [1, 0], [True, False], (0.0, 1.0))
    assert found == (0.0, 1.0)


@given(
    st.lists(st.tuples(st.integers(0, 5), shares, st.booleans()), min_size=2, max_size=12),
    st.lists(shares, min_size=1, max_size=4),
)
def test_accuracy_at_false_answer_rate_keeps_its_rate(
    rows: list[tuple[int, float, bool]], rates: list[float]
) -> None:
    confidence, correct, can = ([row[i] for row in rows] for i in range(3))
    if all(can) or not any(can):
        with pytest.raises(InputError, match="answerable questions, got none"):
            stream.accuracy_at_false_answer_rate(confidence, correct, can, rates)
        return
    found = stream.accuracy_at_false_answer_rate(confidence, correct, can, rates)
    others = [c for c, _, a in rows if not a]
    known = [(c, s) for c, s, a in rows if a]
    for rate, accuracy in zip(rates, found, strict=True):
        best = 0.0  # brute force over every threshold that keeps the rate
        for threshold in [*confidence, -1]:
            if sum(c > threshold for c in others) <= rate * len(others) + 1e-9:
                best = max(best, sum(s for c, s in known if c > threshold) / len(known))
        assert accuracy == pytest.approx(best)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_false_answer_rate_is_a_share(rate: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        stream.accuracy_at_false_answer_rate([1, 0], [1, 0], [True, False], [rate])


def test_codebook_health() -> None:
    assert stream.codebook_health([5, 5, 5, 5]) == stream.CodeUsage(pytest.approx(4.0), 0)
    assert stream.codebook_health([9, 0, 0, 0]) == stream.CodeUsage(pytest.approx(1.0), 3)
    assert stream.codebook_health([0, 0]) == stream.CodeUsage(0.0, 2)
    assert stream.codebook_health([100, 100, 1]).dead == 1  # 1 is below a tenth of the mean
    assert stream.codebook_health([100, 100, 1], dead_below=0).dead == 0
    with pytest.raises(InputError, match="negative"):
        stream.codebook_health([1, -1])


def test_codebook_health_agrees_with_the_quantizer() -> None:
    torch = pytest.importorskip("torch")
    from latentbank.codec.quantizer import Codebook, CodebookConfig

    torch.manual_seed(0)
    book = Codebook(4, CodebookConfig(codes=8))
    book.usage.copy_(torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.049, 0.001, 0.0]))
    latents = torch.randn(50, 4)
    theirs = book.health(latents)
    ours = stream.codebook_health(book.usage.numpy(), book.config.reset_below)
    assert ours.perplexity == pytest.approx(theirs.perplexity, rel=1e-5)
    assert ours.dead == theirs.dead == 2
    decoded = book.decode(book.nearest(latents))
    assert stream.relative_residual(latents, decoded) == pytest.approx(theirs.residual, rel=1e-5)


def test_relative_residual() -> None:
    latents = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 6.0]])
    assert stream.relative_residual(latents, latents) == 0
    mean = np.broadcast_to(latents.mean(0), latents.shape)
    assert stream.relative_residual(latents, mean) == pytest.approx(1)
    with pytest.raises(InputError, match="no variance"):
        stream.relative_residual(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match=r"\[N, D\]"):
        stream.relative_residual(latents, latents[:2])


def test_frontier_by_hand() -> None:
    points = [(100, 20.0), (50, 10.0), (200, 15.0), (0, 3.0), (100, 20.0), (50, 9.0), (400, 20.5)]
    assert stream.frontier(points) == (3, 1, 0, 6)
    assert stream.frontier([]) == ()
    with pytest.raises(InputError, match="finite"):
        stream.frontier([(1.0, float("nan"))])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10))
def test_frontier_holds_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    chosen = stream.frontier(points)
    undominated = {
        p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)
    }
    assert {points[i] for i in chosen} == undominated
    assert len(chosen) == len(undominated)
    assert [points[i][0] for i in chosen] == sorted(points[i][0] for i in chosen)


def test_latency() -> None:
    found = stream.latency(range(1, 102))  # 1 … 101 ms
    assert found == stream.Latency(median=51.0, p95=96.0, mean=51.0, count=101)
    assert stream.latency([4.0]) == stream.Latency(4.0, 4.0, 4.0, 1)
    for samples, reason in (([], "non-empty"), ([1.0, -1.0], "negative")):
        with pytest.raises(InputError, match=reason):
            stream.latency(samples)
