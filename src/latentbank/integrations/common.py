"""What the integrations share: a model from a bank's file, and texts found in it.

Knows banks; knows no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.model import MemoryModel

__all__ = ["Passage", "missing", "opened", "passages"]


@dataclass(frozen=True)
class Passage:
    """A text of a bank that fits a question; `score` in [0, 1]."""

    id: str
    text: str
    score: float
    source: str | None
    time: str | None
    metadata: Mapping[str, Any]


def opened(bank: str | Path | MemoryModel, **options: Any) -> MemoryModel:
    """The model of a bank: one that is there already, or a file's, which is made where it is new.

    `options` as for `MemoryModel.from_pretrained`, such as `budget_bytes`.
    """
    from latentbank.model import MemoryModel

    if isinstance(bank, MemoryModel):
        return bank
    if Path(bank).exists():
        options.pop("budget_bytes", None)
        return MemoryModel.open(bank, quick=True, **options)
    return MemoryModel.from_pretrained(bank=bank, quick=True, **options)


def passages(model: MemoryModel, question: str, top: int) -> list[Passage]:
    """The texts that fit a question, best first. Raises InputError: the method has no index."""
    found = []
    for id, score in model.search(question, top) if question.strip() else ():
        entry = model.bank.get(id)
        if entry is not None:
            kept = (entry.source, entry.time, entry.metadata)
            found.append(Passage(id, model.text(id), round(score, 4), *kept))
    return found


def missing(library: str, extra: str) -> InputError:
    """The error of an integration without its framework."""
    return InputError(
        f"This integration needs {library}, which is not installed; install it with: "
        f"pip install {extra}"
    )
