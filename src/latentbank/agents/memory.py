"""Episodes in a bank, and the windows of them that are most like the present situation.

Planning takes the records whose task and category are most alike. Acting takes windows around the
lines that are most like a key: an observation (`search`) or an action (`action`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentbank.agents.episode import KIND, Episode
from latentbank.agents.likeness import Likeness, WordLikeness
from latentbank.capabilities import Retrieving
from latentbank.errors import InputError, unknown
from latentbank.method import WriteReport
from latentbank.model import MemoryModel

__all__ = ["EpisodeMemory", "Window"]

_PLANNING = 3  # records
_BEST = {"search": 8, "action": 4}  # windows
_AROUND = {"search": 10, "action": 20}  # lines before and after the best one


@dataclass(frozen=True)
class Window:
    """Lines of an episode around the one that is most like a key, and the score of the whole."""

    id: str
    episode: Episode
    lines: tuple[str, ...]
    score: float


class EpisodeMemory:
    """A memory of successes over a bank of texts.

    `model` must hold texts, as strata and rag do. Its budget bounds the memory; what helped a
    success gets a hit.
    """

    def __init__(self, model: MemoryModel, likeness: Likeness | None = None) -> None:
        if not isinstance(model.method, Retrieving):
            raise InputError(
                "Episodes are kept as text; take a method that reads texts, such as strata or rag."
            )
        self.model, self._likeness = model, likeness or WordLikeness()
        self._read: dict[str, Episode] = {}
        self._used: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self.episodes())

    def add(self, episodes: Sequence[Episode]) -> WriteReport:
        """Writes successes; those without success are left out."""
        return self.model.write([one.document() for one in episodes if one.success])

    def episodes(self) -> dict[str, Episode]:
        """Id → episode, for every entry of the bank that is one."""
        ids = list(self.model.bank.ids())
        self._read = {id: self._read[id] for id in ids if id in self._read}
        for id in ids:
            if id not in self._read and (episode := self._parse(id)) is not None:
                self._read[id] = episode
        return dict(self._read)

    def _parse(self, id: str) -> Episode | None:
        entry = self.model.bank.get(id)
        if entry is None or entry.metadata.get("kind", KIND) != KIND:
            return None
        assert isinstance(self.model.method, Retrieving)
        try:
            return Episode.parse(self.model.method.text(id))
        except InputError:
            return None  # it faded to fewer lines, or is another document

    # ---- retrieval

    def plans(self, task: str, category: str, count: int = _PLANNING) -> list[tuple[str, Episode]]:
        """The `count` records with the largest cos(task) + cos(category), best first."""
        known = self.episodes()
        scores = self._record_scores(known, task, category)
        order = np.argsort(-scores, kind="stable")[:count]
        ids = list(known)
        self._used.update(dict.fromkeys(ids[at] for at in order))
        return [(ids[at], known[ids[at]]) for at in order]

    def windows(
        self,
        key: str,
        kind: str,
        task: str,
        category: str,
        plan: str = "",
        best: int | None = None,
        around: int | None = None,
    ) -> list[Window]:
        """The best windows for a key, best first.

        `kind`: `search` compares the key with observations (8 best, ± 10 lines), `action` with
        actions (4 best, ± 20). A window's score is the cosine of its best line plus those of task,
        category and, where there is one, plan.
        """
        if kind not in _BEST:
            raise unknown("kind of key", kind, _BEST)
        best, around = best or _BEST[kind], around or _AROUND[kind]
        known = self.episodes()
        scores = self._record_scores(known, task, category, plan)
        found = []
        for (id, episode), score in zip(known.items(), scores, strict=True):
            seen = [step.observation if kind == "search" else step.action for step in episode.steps]
            cosines = self._likeness.cosines(key, seen)
            at = int(cosines.argmax())
            lines = _lines(episode)
            middle = 2 * at + (kind == "action")
            part = lines[max(0, middle - around) : middle + around + 1]
            found.append(Window(id, episode, tuple(part), float(cosines[at] + score)))
        found.sort(key=lambda one: -one.score)
        self._used.update(dict.fromkeys(one.id for one in found[:best]))
        return found[:best]

    def _record_scores(
        self, known: dict[str, Episode], task: str, category: str, plan: str = ""
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        records = list(known.values())
        scores = self._likeness.cosines(task, [one.task for one in records])
        scores = scores + self._likeness.cosines(category, [one.category for one in records])
        if plan:
            scores = scores + self._likeness.cosines(plan, [one.plan for one in records])
        return scores

    def reward(self, success: bool) -> None:
        """Ends an episode: what was retrieved in it gets a hit if it was a success."""
        if success:
            self.model.bank.note_hits(self._used)
        self._used = {}


def _lines(episode: Episode) -> list[str]:
    return episode.text().splitlines()[3:]
