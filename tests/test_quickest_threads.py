"""How many threads torch computes with: as many as the work gains by."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from latentbank.backbone.processor import quickest_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 0.004, 2: 0.008, 4: 0.016}, 1),  # waking them costs more than they save
        ({1: 0.016, 2: 0.008, 4: 0.0078}, 2),  # two more save less than a tenth
        ({1: 0.024, 2: 0.012, 4: 0.006}, 4),
    ],
)
def test_the_quickest_number_is_taken(seconds: dict[int, float], best: int) -> None:
    assert quickest_threads(lambda: time.sleep(seconds[torch.get_num_threads()])) == best
    assert torch.get_num_threads() == 4


def test_real_work_is_timed() -> None:
    a = torch.randn(64, 64)
    assert quickest_threads(lambda: a @ a) in (1, 2, 4)
