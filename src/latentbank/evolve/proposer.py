"""An OpenAI-compatible endpoint that proposes changes of an expression.

What it answers is parsed like every other expression. An endpoint that is down or answers nonsense
is asked again, and then the search makes the mutation itself; both are counted.
"""

from __future__ import annotations

import re
from collections import Counter

from latentbank.backbone.endpoint.client import Client
from latentbank.errors import EndpointError, InputError
from latentbank.evolve.objective import Objective
from latentbank.evolve.population import Program
from latentbank.functions.expression import FUNCTIONS, Expression, parse

__all__ = ["Proposer"]

_TOKENS = 200  # of an answer
_FENCE = re.compile(r"```(?:\w+)?\s*(.+?)```", re.DOTALL)


class Proposer:
    """Asks a chat model. After `patience` failures in a row it is not asked any more.

    `counts` tells how many answers were taken, refused or missing.
    """

    def __init__(self, client: Client, tries: int = 2, patience: int = 3) -> None:
        self._client, self._tries, self._patience = client, tries, patience
        self._failures = 0
        self._reason = ""
        self.counts: Counter[str] = Counter()

    def propose(self, objective: Objective, parent: Program, other: Program) -> Expression | None:
        """A child of `parent`; None where none could be had, and the search makes one itself."""
        if self._failures >= self._patience:
            self.counts["not asked"] += 1
            return None
        complaint = ""
        for _ in range(self._tries):
            try:
                asked = _request(objective, parent, other, complaint)
                said = self._client.chat([{"role": "user", "content": asked}], _TOKENS)
                child = parse(_expression_in(said.text), objective.names)
            except EndpointError as error:
                complaint = ""
                self.counts["no answer"] += 1
                self._reason = str(error)
            except InputError as error:
                complaint = str(error)
                self.counts["refused"] += 1
            else:
                self._failures = 0
                self.counts["taken"] += 1
                return child
        self._failures += 1
        return None

    def told(self) -> str:
        """What became of its answers, with the last reason for a missing one."""
        parts = [f"{number} {name}" for name, number in sorted(self.counts.items())]
        reason = f" ({self._reason})" if self._reason else ""
        return (", ".join(parts) or "never asked") + reason


def _request(objective: Objective, parent: Program, other: Program, complaint: str) -> str:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in parent.figures.items())
    lines = [
        f"Improve an expression that is used as a {objective.target}. Higher scores are better.",
        f"Signals: {', '.join(objective.names)}. Operators: + - * / and 'a if b > c else d'. "
        f"Functions: {', '.join(FUNCTIONS)}. Numbers lie within ±1e6. No other Python.",
        f"Expression: {parent.text}",
        f"Its figures: {figures}.",
        f"Another good one (score {other.score:.4f}): {other.text}",
        "Answer with one changed expression on one line and nothing else.",
    ]
    if complaint:
        lines.append(f"Your last answer was refused: {complaint}")
    return "\n".join(lines)


def _expression_in(answer: str) -> str:
    """The last line that is not empty, of the fenced block if there is one."""
    fenced = _FENCE.search(answer)
    lines = [line.strip() for line in (fenced[1] if fenced else answer).splitlines()]
    kept = [line for line in lines if line]
    if not kept:
        raise InputError("The answer was empty.")
    return kept[-1].strip("`")
