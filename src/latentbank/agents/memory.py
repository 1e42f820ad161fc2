"""Episodes in a bank, and the windows of them that are most like the present situation.

Planning takes the records whose task and category are most alike. Acting takes windows around the
lines that are most like a key: an observation (`search`) or an action (`action`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentbank.agents.episode import KIND, Episode
from latentbank.agents.likeness import Likeness, WordLikeness
from latentbank.capabilities import Retrieving
from latentbank.errors import InputError, unknown
from latentbank.method import WriteReport
from latentbank.model import MemoryModel

__all__ = ["EpisodeMemory", "Window"]

Scores = npt.NDArray[np.float64]

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


@dataclass(frozen=True)
class _Lines:
    """The lines of all episodes one after another: `texts[text_of[i]]` is line i.

    `starts` [n] are the first lines of the n episodes.
    """

    texts: tuple[str, ...]
    text_of: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, episodes: Iterable[Episode], kind: str) -> _Lines:
        """The observations (`search`) or the actions of episodes."""
        number: dict[str, int] = {}
        places: list[int] = []
        starts: list[int] = []
        for episode in episodes:
            starts.append(len(places))
            for step in episode.steps:
                text = step.observation if kind == "search" else step.action
                places.append(number.setdefault(text, len(number)))
        return cls(tuple(number), np.array(places), np.array(starts))


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
        self._ids: list[str] = []
        self._read: dict[str, Episode] = {}
        self._table: dict[str, _Lines] = {}
        self._looked_up: dict[tuple[object, ...], list[Window]] = {}
        self._used: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self.episodes())

    def add(self, episodes: Sequence[Episode]) -> WriteReport:
        """Writes successes; those without success are left out."""
        return self.model.write([one.document() for one in episodes if one.success])

    def episodes(self) -> Mapping[str, Episode]:
        """Id → episode, for every entry of the bank that is one."""
        ids = list(self.model.bank.ids())
        if ids != self._ids:
            self._read = {id: self._read[id] for id in ids if id in self._read}
            for id in ids:
                if id not in self._read and (episode := self._parse(id)) is not None:
                    self._read[id] = episode
            self._ids = ids
            self._table.clear()
            self._looked_up.clear()
        return self._read

    def _parse(self, id: str) -> Episode | None:
        entry = self.model.bank.get(id)
        if entry is None or entry.metadata.get("kind", KIND) != KIND:
            return None
        assert isinstance(self.model.method, Retrieving)
        try:
            episode = Episode.parse(self.model.method.text(id), whole=False)
        except InputError:
            return None  # another document, or all of its steps faded
        return episode if episode.steps else None

    @property
    def used(self) -> Sequence[str]:
        """Ids of what was retrieved since the last `reward`, each once."""
        return list(self._used)

    # ---- retrieval

    def plans(self, task: str, category: str, count: int = _PLANNING) -> list[tuple[str, Episode]]:
        """The `count` records with the largest cos(task) + cos(category), best first."""
        known = self.episodes()
        if not known:
            return []
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
        before: int | None = None,
        after: int | None = None,
    ) -> list[Window]:
        """The best windows for a key, best first.

        `kind`: `search` compares the key with observations (8 best, ± 10 lines), `action` with
        actions (4 best, ± 20). A window's score is the cosine of its best line plus those of task,
        category and, where there is one, plan. `before` and `after` are other numbers of lines.
        """
        if kind not in _BEST:
            raise unknown("kind of key", kind, _BEST)
        best = _BEST[kind] if best is None else best
        lines = (
            _AROUND[kind] if before is None else before,
            (_AROUND[kind] if after is None else after),
        )
        known = self.episodes()
        asked = (key, kind, task, category, plan, best, lines)
        if asked not in self._looked_up:
            scores = self._record_scores(known, task, category, plan)
            self._looked_up[asked] = self._search(known, scores, key, kind, best, lines)
        found = self._looked_up[asked]
        self._used.update(dict.fromkeys(one.id for one in found))
        return found

    def _search(
        self,
        known: Mapping[str, Episode],
        scores: Scores,
        key: str,
        kind: str,
        best: int,
        lines: tuple[int, int],
    ) -> list[Window]:
        if not known:
            return []
        if kind not in self._table:
            self._table[kind] = _Lines.of(known.values(), kind)
        table = self._table[kind]
        cosines = self._likeness.cosines(key, table.texts)[table.text_of]
        total = np.maximum.reduceat(cosines, table.starts) + scores
        found, items = [], list(known.items())
        for number in np.argsort(-total, kind="stable")[:best]:
            id, episode = items[number]
            start = int(table.starts[number])
            at = int(cosines[start : start + len(episode.steps)].argmax())
            middle, (before, after) = 2 * at + (kind == "action"), lines
            part = _lines(episode)[max(0, middle - before) : middle + after + 1]
            found.append(Window(id, episode, tuple(part), float(total[number])))
        return found

    def _record_scores(
        self, known: Mapping[str, Episode], task: str, category: str, plan: str = ""
    ) -> Scores:
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
