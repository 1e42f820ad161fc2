"""An episode: a task, its category, a plan, and what was observed and done in turn.

Knows text; knows no bank, no model and no environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentbank.documents.document import Document
from latentbank.errors import InputError

__all__ = ["KIND", "Episode", "Step"]

KIND = "episode"
"""What a document's metadata `kind` says of an episode."""

_TASK, _CATEGORY, _PLAN = "Task: ", "Category: ", "Plan: "
_SEEN, _DONE = "Observation: ", "Action: "


@dataclass(frozen=True)
class Step:
    """What was observed, and the action that was taken then. `valid`: it could be carried out."""

    observation: str
    action: str
    valid: bool = True


@dataclass(frozen=True)
class Episode:
    """One attempt at a task; `category` names tasks of one kind."""

    task: str
    category: str
    plan: str
    steps: tuple[Step, ...]
    success: bool = True

    def kept(self) -> Episode:
        """The episode without steps that could not be carried out."""
        steps = tuple(step for step in self.steps if step.valid)
        return Episode(self.task, self.category, self.plan, steps, self.success)

    def text(self) -> str:
        """Its lines: task, category, plan, then observations and actions in turn."""
        lines = [_TASK + _line(self.task), _CATEGORY + _line(self.category)]
        lines.append(_PLAN + _line(self.plan))
        for step in self.steps:
            lines += [_SEEN + _line(step.observation), _DONE + _line(step.action)]
        return "\n".join(lines)

    def document(self) -> Document:
        """As a document for a bank. Raises InputError for an episode without success or steps."""
        episode = self.kept()
        if not episode.success:
            raise InputError(f"The episode '{self.task}' had no success; a memory keeps successes.")
        if not episode.steps:
            raise InputError(f"The episode '{self.task}' has no step that could be carried out.")
        known: dict[str, Any] = {"kind": KIND, "category": _line(self.category)}
        return Document(episode.text(), metadata=known)

    @classmethod
    def parse(cls, text: str, whole: bool = True) -> Episode:
        """The episode of a text as `text` writes it.

        Unless `whole`, the text may end early, as one does that a full bank cut: an observation
        without its action is left out.

        Raises:
            InputError: the text has other lines.
        """
        lines = text.splitlines()
        heads = (_TASK, _CATEGORY, _PLAN)
        if len(lines) < 3 or not all(map(str.startswith, lines, heads)):
            raise InputError("An episode begins with the lines Task, Category and Plan.")
        task, category, plan = (
            line.removeprefix(head) for line, head in zip(lines, heads, strict=False)
        )
        rest = lines[3:] if whole else lines[3 : 3 + (len(lines) - 3) // 2 * 2]
        return cls(task, category, plan, tuple(_steps(rest)))


def _steps(lines: Sequence[str]) -> list[Step]:
    if len(lines) % 2:
        raise InputError("An episode has an action for each observation.")
    found = []
    for seen, done in zip(lines[::2], lines[1::2], strict=True):
        if not seen.startswith(_SEEN) or not done.startswith(_DONE):
            raise InputError(f"An episode has no line '{seen[:40]}' or '{done[:40]}'.")
        found.append(Step(seen.removeprefix(_SEEN), done.removeprefix(_DONE)))
    return found


def _line(text: str) -> str:
    return " ".join(text.split())
