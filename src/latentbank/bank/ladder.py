"""The ladder that documents go down as the budget tightens, and its steps.

Knows level names, their order and functions from entries to smaller entries; nothing about what a
payload means, about pages or files. A method builds a ladder and hands its `fade` to the bank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from latentbank.bank.entry import Entry
from latentbank.errors import InputError

__all__ = ["VERBATIM", "Fade", "Ladder", "Step"]

Fade = Callable[[Entry], Entry | None]

VERBATIM = "verbatim"  # the level of a text that is kept as it is


@dataclass(frozen=True)
class Step:
    """One step down: `lower` turns an entry of level `source` into one of level `target`.

    Attributes:
        source, target: names of levels.
        lower: may return None if the entry has nothing to keep at `target`. The ladder then tries
            the next step below.
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
