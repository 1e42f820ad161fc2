"""A folder in memory for tests that write banks: no test then waits for the disk.

What a killed process leaves is the same there: the system keeps the file's pages, on disk or not.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SHARED_MEMORY = Path("/dev/shm")
_LEAST_FREE_BYTES = 1 << 30


def memory_folder() -> str | None:
    """The system's folder in memory, or None if there is none with a gigabyte free."""
    if not _SHARED_MEMORY.is_dir() or shutil.disk_usage(_SHARED_MEMORY).free < _LEAST_FREE_BYTES:
        return None
    return str(_SHARED_MEMORY)


@contextmanager
def new_folder() -> Iterator[Path]:
    """An empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="latentbank-test-", dir=memory_folder()) as folder:
        yield Path(folder)


@pytest.fixture(name="tmp_path")
def memory_path() -> Iterator[Path]:
    """`tmp_path`, in memory where the system can."""
    with new_folder() as folder:
        yield folder
