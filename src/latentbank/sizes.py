"""Sizes in bytes as people write them: "8MiB", "500kB", "4096".

Knows texts and numbers; knows no bank and no terminal.
"""

import re

from latentbank.errors import InputError

__all__ = ["parse_size", "size_bytes"]

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30,
}  # fmt: skip

_MOST = 2**63


def parse_size(text: str) -> int:
    """Bytes of a size such as "8MiB", "500kB", "1.5G" or "4096" (K, M, G are powers of 1024).

    Raises InputError if it is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise InputError(f"{text!r} is not a size; expected a number and B, KiB, MiB or GiB: 8MiB.")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if not 1 <= size < _MOST:
        raise InputError(f"The size {text!r} must be at least 1 byte and below 8 EiB.")
    return int(size)


def size_bytes(size: int | str | None) -> int | None:
    """A size given as a number of bytes or as a text; None stays None (no limit).

    Raises InputError for what is no size, a negative number, or one of 8 EiB and more.
    """
    if size is None:
        return size
    if isinstance(size, int) and not isinstance(size, bool):
        if not 0 <= size < _MOST:
            raise InputError(f"A size is at least 0 bytes and below 8 EiB, got {size}.")
        return size
    if not isinstance(size, str):
        raise InputError(f"A size is a number of bytes or a text such as '8MiB', got {size!r}.")
    return parse_size(size)
