"""Files that ship inside the package and serve every bank."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def packaged_dictionary() -> bytes:
    """The zstd dictionary for English prose, trained on SQuAD's `train` split (CC BY-SA 4.0)."""
    return resources.files("latentbank").joinpath("assets/english.zdict").read_bytes()
