"""The bound on what a bank of counts can hold, and the code length that is measured beside it."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest

from measure_histogram import bound_bits, code_bits, fitted_bits


def test_the_bound_counts_all_histograms() -> None:
    histograms = set(combinations_with_replacement(range(4), 5))  # 5 codes over 4 codewords
    assert 2 ** bound_bits(5, 4) == pytest.approx(len(histograms))


def test_all_documents_of_the_papers_test_share_457_bytes() -> None:
    assert bound_bits(1665 * 16, 512) / 8 == pytest.approx(456.66, abs=0.01)


def test_the_flat_prior_codes_every_histogram_at_the_bound() -> None:
    for counts in ([5, 0, 0, 0], [2, 1, 1, 1]):
        assert code_bits(np.array(counts), 1.0) == pytest.approx(bound_bits(5, 4))
    even = np.full(64, 50)
    assert fitted_bits(even) < 0.9 * bound_bits(64 * 50, 64)
