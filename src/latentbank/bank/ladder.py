"""The ladder that documents go down as the budget tightens, and its steps.

Knows level names, their order and functions from entries to smaller entries; nothing about what a
payload means, about pages or files. A method builds a ladder and hands its `fade` to the bank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from latentbank.bank.entry import Entry
from latentbank.errors import InputError

__all__ = ["VERBATIM", "Fade", "Fades", "Ladder", "Step", "fade_all"]

Fade = Callable[[Entry], Entry | None]
FadeAll = Callable[[Sequence[Entry]], list[Entry | None]]


@dataclass(frozen=True)
class Fades:
    """A `Fade` that takes many entries at once, where that is faster: one call does them all."""

    all: FadeAll

    def __call__(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None."""
        return self.all([entry])[0]


def fade_all(fade: Fade, entries: Sequence[Entry]) -> list[Entry | None]:
    """Each entry one level down, or None; in one call where `fade` is `Fades`."""
    return fade.all(entries) if isinstance(fade, Fades) else [fade(entry) for entry in entries]


VERBATIM = "verbatim"  # the level of a text that is kept as it is


@dataclass(frozen=True)
class Step:
    """One step down: `lower` turns an entry of level `source` into one of level `target`.

    Attributes:
        source, target: names of levels.
        lower: may return None if the entry has nothing to keep at `target`. The ladder then tries
            the next step below. `Fades` where many at once are faster.
        lossless: whether the lower entry holds all that the upper one does.
    """

    source: str
    target: str
    lower: Fade
    lossless: bool = False


class Ladder:
    """Levels from the top to the last one, with steps between them.

    Below the last level a document is forgotten.
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
        """Add a step. It replaces an earlier one between the same levels.

        Raises `InputError` if a level is not on the ladder or the step does not lead down.
        """
        if self.depth(step.target) <= self.depth(step.source):
            raise InputError(f"A step leads down, got {step.source!r} to {step.target!r}.")
        kept = [s for s in self._steps.get(step.source, []) if s.target != step.target]
        self._steps[step.source] = sorted([*kept, step], key=lambda s: self.depth(s.target))

    def depth(self, level: str) -> int:
        """How many levels lie above; raises `InputError` for a level that is not on the ladder."""
        if level not in self.levels:
            raise InputError(
                f"{level!r} is no level of the ladder {' → '.join(self.levels)}; add it first."
            )
        return self.levels.index(level)

    @property
    def lossless(self) -> tuple[str, ...]:
        """The levels whose next step loses nothing."""
        return tuple(
            level for level in self.levels if (s := self._steps.get(level)) and s[0].lossless
        )

    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, or None: forgotten. An unknown level is forgotten.

        Raises `InputError` if a step gives another document or another level than it names.
        """
        return self.fade_all([entry])[0]

    def fade_all(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """As `fade`, for many entries: each step is asked once for all that it may take."""
        lowered: list[Entry | None] = [None] * len(entries)
        for level in dict.fromkeys(entry.level for entry in entries):
            waiting = [at for at, entry in enumerate(entries) if entry.level == level]
            for step in self._steps.get(level, []):
                found = fade_all(step.lower, [entries[at] for at in waiting])
                for at, lower in zip(waiting, found, strict=True):
                    if lower is not None:
                        _check(step, entries[at], lower)
                        lowered[at] = lower
                waiting = [at for at in waiting if lowered[at] is None]
                if not waiting:
                    break
        return lowered


def _check(step: Step, entry: Entry, lower: Entry) -> None:
    if lower.id != entry.id or lower.level != step.target:
        raise InputError(
            f"The step {step.source!r} to {step.target!r} gave an entry of level "
            f"{lower.level!r}, or of another document."
        )
