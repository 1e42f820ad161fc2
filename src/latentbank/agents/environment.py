"""Environments in words: BabyAI, and what an agent needs of any other.

BabyAI (Chevalier-Boisvert et al., 2019) comes with minigrid. What the agent sees is put into words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from latentbank.agents.episode import Episode, Step
from latentbank.errors import InputError

__all__ = ["ACTIONS", "BabyAI", "Environment", "Turn"]

ACTIONS = ("left", "right", "forward", "pick up", "drop", "toggle")
_THINGS = {4: "door", 5: "key", 6: "ball", 7: "box"}
_COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
_DOORS = ("open", "closed", "locked")
_AGENT = (3, 6)  # its place in its own view of 7 × 7


@dataclass(frozen=True)
class Turn:
    """What an action led to. `valid`: something changed."""

    observation: str
    done: bool
    success: bool
    valid: bool


class Environment(Protocol):
    """A task in words."""

    category: str

    def reset(self, seed: int) -> tuple[str, str]:
        """(the task, the first observation)."""

    def actions(self) -> list[str]:
        """What may be done now."""

    def step(self, action: str) -> Turn:
        """Carries out one of `actions`."""


class BabyAI:
    """A level of BabyAI by its name, such as `GoToRedBallGrey`.

    Raises:
        InputError: minigrid is not installed, or it has no such level.
    """

    def __init__(self, level: str) -> None:
        try:
            import gymnasium
            import minigrid  # noqa: F401 registers the levels
        except ImportError as error:
            raise InputError("BabyAI needs minigrid: pip install 'latentbank[agents]'.") from error
        self.category = level
        try:
            self._env: Any = gymnasium.make(f"BabyAI-{level}-v0")
        except gymnasium.error.Error as error:
            raise InputError(f"minigrid has no level 'BabyAI-{level}-v0'.") from error
        self._task, self._last = "", ""

    def reset(self, seed: int) -> tuple[str, str]:
        """See `Environment`."""
        seen, _ = self._env.reset(seed=seed)
        self._task = str(seen["mission"])
        self._last = self._words(seen)
        return self._task, self._last

    def actions(self) -> list[str]:
        """See `Environment`."""
        return list(ACTIONS)

    def step(self, action: str) -> Turn:
        """See `Environment`. Raises InputError for another action."""
        if action not in ACTIONS:
            raise InputError(f"BabyAI has no action '{action}'; it has {', '.join(ACTIONS)}.")
        seen, reward, done, cut, _ = self._env.step(ACTIONS.index(action))
        words = self._words(seen)
        valid, self._last = words != self._last, words
        return Turn(words, bool(done or cut), bool(done and reward > 0), valid)

    def demonstration(self, seed: int, most: int = 64) -> Episode:
        """An episode of BabyAI's own bot, which knows the whole grid."""
        import minigrid.utils.baby_ai_bot as bots

        task, seen = self.reset(seed)
        expert: Any = bots
        bot, last, steps, success = expert.BabyAIBot(self._env), None, [], False
        for _ in range(most):
            last = bot.replan(last)
            if int(last) >= len(ACTIONS):
                break
            action = ACTIONS[int(last)]
            turn = self.step(action)
            steps.append(Step(seen, action, turn.valid or turn.success))
            seen, success = turn.observation, turn.success
            if turn.done:
                break
        return Episode(task, self.category, "", tuple(steps), success)

    def _words(self, seen: dict[str, Any]) -> str:
        """One thing, the way ahead, and what is carried.

        The thing is the nearest of those that the task names, else the nearest. More of them would
        make situations that ask for the same action unlike.
        """
        image, (own_x, own_y) = seen["image"], _AGENT
        things = []
        for x in range(image.shape[0]):
            for y in range(image.shape[1]):
                kind, colour, state = (int(one) for one in image[x, y])
                if kind in _THINGS and (x, y) != _AGENT:
                    name = _named(kind, colour, state)
                    wanted = f"{_COLOURS[colour]} {_THINGS[kind]}" in self._task
                    away = abs(x - own_x) + own_y - y
                    things.append((not wanted, away, name, x, y))
        named = [f"{name} {_place(x - own_x, own_y - y)}" for *_, name, x, y in sorted(things)[:1]]
        kind, _, state = (int(one) for one in image[own_x, own_y - 1])
        free = kind == 1 or (kind == 4 and state == 0)
        ahead = "the way ahead is free" if free else f"ahead is a {_THINGS.get(kind, 'wall')}"
        parts = [*named, ahead] if named else ["nothing but floor and walls", ahead]
        carried = self._env.unwrapped.carrying
        if carried is not None:
            parts.append(f"you carry a {carried.color} {carried.type}")
        return ", ".join(parts)


def _named(kind: int, colour: int, state: int) -> str:
    door = f"{_DOORS[state]} " if kind == 4 and state < len(_DOORS) else ""
    return f"a {door}{_COLOURS[colour]} {_THINGS[kind]}"


def _place(right: int, ahead: int) -> str:
    side = "right" if right > 0 else "left"
    if not right:
        return f"{ahead} step{'s' if ahead > 1 else ''} ahead"
    return f"ahead to the {side}" if ahead else f"to the {side}"
