"""Numbers too small for full precision, and why some loops must not meet them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Rounds denormal numbers to 0 in this thread, and restores what was set before.

    Sharp attention leaves shares below 1e-38, which many CPUs multiply ten times slower.
    """
    before = _flushing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushing() -> bool:
    """Whether half of the least normal float32 is 0 here."""
    least = torch.full((1,), torch.finfo(torch.float32).tiny)
    return float(least * 0.5) == 0
