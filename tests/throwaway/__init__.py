"""Three methods that prove the contract: one file each, and no other file is edited for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from latentbank.method import METHODS


@contextmanager
def registered() -> Iterator[None]:
    """The three methods are known inside the block; other tests never meet them."""
    from throwaway.gradient import ScratchGradient
    from throwaway.recurrent import ScratchRecurrent
    from throwaway.triples import ScratchTriples

    classes = (ScratchGradient, ScratchRecurrent, ScratchTriples)
    for cls in classes:
        METHODS.register(cls.name)(cls)
    try:
        yield
    finally:
        for cls in classes:
            METHODS.forget(cls.name)
