"""How the processor is used: one thread at a time on a backbone, and denormal numbers as 0.

Knows threads, processes and number formats; knows no model. A memory is attached to the backbone
itself, so two answers at once would read each other's memory.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch

__all__ = ["Exclusive", "flushed_denormals", "quickest_threads"]


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flushes denormal numbers to 0 in this thread; restores the earlier setting afterwards.

    Sharp attention gives shares below 1e-38. Many CPUs multiply such numbers ten times slower.
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


def quickest_threads(work: Callable[[], object], rounds: int = 3) -> int:
    """With how many threads of torch `work` is quickest here.

    It tries 1, 2, 4 … up to the number that torch uses now. More threads have to save a tenth: the
    products of a short question gain less than it costs to wake a thread.
    """
    most, count = torch.get_num_threads(), 1
    best, least = 1, float("inf")
    while count <= most:
        torch.set_num_threads(count)
        work()
        took = min(_seconds(work) for _ in range(rounds))
        if took < 0.9 * least:
            best, least = count, took
        count *= 2
    torch.set_num_threads(most)
    return best


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Exclusive:
    """A lock that the thread which holds it may take again, and that a fork sets free.

    OpenMP's threads do not survive a fork, and the first parallel loop of the child would wait for
    them without end. So a forked process computes with one thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _MADE.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Sets the lock free: the thread that held it stayed in the parent."""
        self._lock = threading.RLock()


_MADE: weakref.WeakSet[Exclusive] = weakref.WeakSet()


def _after_fork() -> None:
    if not len(_MADE):
        return
    torch.set_num_threads(1)
    for one in list(_MADE):
        one.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
