"""The ladder that documents sink down as the budget tightens, and the registry of its steps.

Knows level names, their order and functions from bytes to fewer bytes; nothing about what a
payload means, about pages or files. A method builds its ladder from steps and hands `fade` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentbank.bank.entry import Entry
from latentbank.errors import BankError, InputError

__all__ = [
    "FORGOTTEN",
    "GIST",
    "MASS",
    "VERBATIM",
    "Fade",
    "Ladder",
    "Step",
    "mass_counts",
    "mass_sum",
    "to_mass",
    "trace",
]

Fade = Callable[[Entry], Entry | None]

VERBATIM, GIST, MASS, FORGOTTEN = "verbatim", "gist", "mass", "forgotten"
MAX_CODE = 1 << 16


def trace(levels: int) -> str:
    """The name of a trace of so many residual levels: "trace8"."""
    return f"trace{levels}"


@dataclass(frozen=True)
class Step:
    """One step down: `lower` turns an entry of level `source` into one of level `target`.

    `lossless`: whether all that the entry holds can be had from the lower one. `lower` may return
    None where the entry has nothing to keep at `target`; the ladder then tries the next step below.
    """

    source: str
    target: str
    lower: Fade
    lossless: bool = False


class Ladder:
    """Levels from the top to the last one, with a step between each two neighbours.

    A level may be missing from an entry's way: where a step returns None the next lower level is
    tried from the same entry if there is a step for it. Below the last level a document is
    forgotten.
    """

    def __init__(self, levels: Sequence[str], steps: Iterable[Step] = ()) -> None:
        """`levels` from the top down; raises `InputError` for a level named twice."""
        if len(set(levels)) != len(levels):
            raise InputError(f"A ladder names each level once, got {', '.join(levels)}.")
        self.levels = tuple(levels)
        self._steps: dict[str, list[Step]] = {}
        for step in steps:
            self.register(step)

    def register(self, step: Step) -> None:
        """Add a step; it must lead down. A later one from and to the same levels replaces it."""
        for name in (step.source, step.target):
            if name not in self.levels:
                raise InputError(
                    f"{name!r} is no level of the ladder {' → '.join(self.levels)}; add it first."
                )
        if self.depth(step.target) <= self.depth(step.source):
            raise InputError(f"A step leads down, got {step.source!r} to {step.target!r}.")
        kept = [s for s in self._steps.get(step.source, []) if s.target != step.target]
        self._steps[step.source] = sorted([*kept, step], key=lambda s: self.depth(s.target))

    def depth(self, level: str) -> int:
        """How many levels lie above; raises `InputError` for a level that is not on the ladder."""
        if level not in self.levels:
            raise InputError(f"{level!r} is no level of the ladder {' → '.join(self.levels)}.")
        return self.levels.index(level)

    @property
    def lossless(self) -> tuple[str, ...]:
        """The levels whose next step loses nothing."""
        return tuple(
            level for level in self.levels if (s := self._steps.get(level)) and s[0].lossless
        )

    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None: forgotten. An unknown level is forgotten."""
        for step in self._steps.get(entry.level, []):
            lowered = step.lower(entry)
            if lowered is not None:
                if lowered.id != entry.id or lowered.level != step.target:
                    raise InputError(
                        f"The step {step.source!r} to {step.target!r} gave an entry of level "
                        f"{lowered.level!r}, or of another document."
                    )
                return lowered
        return None


def to_mass(entry: Entry, codes: Sequence[int]) -> Entry:
    """An entry whose codes are only counted from now on: its payload carries them, as uint16, into
    the bank, which adds them to its blob `mass` and keeps the id alone.
    """
    payload = np.asarray(codes, "<u2").tobytes()
    return replace(entry, level=MASS, payload=payload, key=b"")


def mass_counts(blob: bytes | None, payloads: Iterable[bytes]) -> bytes:
    """The histogram `blob` (uint32 [K], None: empty) with the codes of `payloads` added.

    It grows to the largest code. Raises `BankError` if a count or the bytes cannot be.
    """
    counts = _histogram(blob)
    for payload in payloads:
        if len(payload) % 2:
            raise BankError(f"A document's codes are damaged: {len(payload)} bytes are no codes.")
        added = np.bincount(np.frombuffer(payload, "<u2"), minlength=len(counts))
        counts = np.pad(counts, (0, len(added) - len(counts))) + added
    return _packed(counts)


def mass_sum(blob: bytes | None, other: bytes) -> bytes:
    """The sum of two histograms."""
    counts, added = _histogram(blob), _histogram(other)
    size = max(len(counts), len(added))
    return _packed(np.pad(counts, (0, size - len(counts))) + np.pad(added, (0, size - len(added))))


def _histogram(blob: bytes | None) -> npt.NDArray[np.int64]:
    held = b"" if blob is None else blob
    if len(held) % 4 or len(held) > 4 * MAX_CODE:
        raise BankError(f"The bank's histogram is damaged: it has {len(held)} bytes.")
    return np.frombuffer(held, "<u4").astype(np.int64)


def _packed(counts: npt.NDArray[np.int64]) -> bytes:
    if len(counts) and counts.max() >= 1 << 32:
        raise BankError("The bank's histogram is full: a code was counted 2^32 times.")
    return counts.astype("<u4").tobytes()
