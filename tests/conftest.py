"""Fixtures that every test of the core shares: tiny random backbones, and a cache of its own.

Nothing here touches the network or the user's cache.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# a shell starts background jobs with Ctrl-C ignored, and what tests start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measurements and features go to a folder that dies with the session."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LATENTBANK_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """`Backbones`: by name, shared or fresh. Imported here, so that other tests stay light."""
    import torch

    from tiny import Backbones

    torch.set_num_threads(1)
    return Backbones(tmp_path_factory.mktemp("backbones"))
