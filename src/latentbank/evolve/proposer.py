"""An OpenAI-compatible endpoint that proposes changes of an expression.

What it answers is parsed like every other expression. An endpoint that is down or answers nonsense
is asked again, and then the search makes the mutation itself; both are counted.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

from latentbank.errors import InputError
from latentbank.evolve.objective import Objective
from latentbank.evolve.population import Program
from latentbank.functions.expression import FUNCTIONS, Expression, parse

__all__ = ["Proposer"]

_FENCE = re.compile(r"```(?:\w+)?\s*(.+?)```", re.DOTALL)


class Proposer:
    """Asks `url`/chat/completions. After `patience` failures in a row it is not asked any more.

    `counts` tells how many answers were taken, refused or missing.
    """

    def __init__(
        self,
        url: str,
        model: str = "default",
        key: str = "",
        tries: int = 2,
        timeout: float = 30.0,
        patience: int = 3,
    ) -> None:
        if not re.match(r"https?://", url):
            raise InputError(
                f"--llm takes a URL that begins with http:// or https://, got '{url}'."
            )
        self.url, self.model = url.rstrip("/"), model
        self._key, self._tries, self._timeout, self._patience = key, tries, timeout, patience
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
                answer = self._ask(_request(objective, parent, other, complaint))
                child = parse(_expression_in(answer), objective.names)
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
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

    def _ask(self, text: str) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}]}
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            f"{self.url}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self._timeout) as reply:
            found: Any = json.load(reply)
        return str(found["choices"][0]["message"]["content"])


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
        raise ValueError("an empty answer")
    return kept[-1].strip("`")
