"""Trials: a task is attempted, its success is remembered, and it is attempted again.

The protocol is RAP's: trial t uses the memory of trial t - 1, and a task counts as solved if any
trial solved it. Knows actors, environments and memories through their interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latentbank.agents.actor import Actor
from latentbank.agents.environment import Environment
from latentbank.agents.episode import Episode, Step
from latentbank.agents.memory import EpisodeMemory, Window
from latentbank.errors import InputError

__all__ = ["Attempt", "Rules", "Trials", "attempt", "run_trials"]


@dataclass(frozen=True)
class Rules:
    """How a task is attempted.

    `steps`: at most so many. `key`: what windows are looked up by, the present observation
    (`search`) or the last action (`action`). `windows` of `around` lines before and after stand in
    the prompt, `plans` records before the first step, and the last `recent` steps.
    """

    steps: int = 50
    key: str = "search"
    windows: int = 4
    around: int = 2
    plans: int = 1
    recent: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.around, self.recent) < 1 or min(self.windows, self.plans) < 0:
            raise InputError(
                "steps, around and recent are at least 1; windows and plans not below 0"
            )


@dataclass(frozen=True)
class Attempt:
    """One attempt, as an episode, and how many steps it took."""

    episode: Episode
    steps: int


@dataclass
class Trials:
    """The success of each task in each trial, 1 or 0."""

    by_trial: list[list[float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def best(self) -> list[float]:
        """1 for each task that a trial solved."""
        return [max(one) for one in zip(*self.by_trial, strict=True)]


def attempt(
    environment: Environment,
    seed: int,
    actor: Actor,
    memory: EpisodeMemory | None,
    rules: Rules,
) -> Attempt:
    """Attempts the task of a seed; what helped a success gets a hit in the memory."""
    task, seen = environment.reset(seed)
    plan = ""
    if memory is not None and rules.plans:
        found = memory.plans(task, environment.category, rules.plans)
        plan = found[0][1].plan if found else ""
    steps: list[Step] = []
    success = False
    for _ in range(rules.steps):
        windows: list[Window] = []
        if memory is not None and rules.windows:
            last = steps[-1].action if steps and rules.key == "action" else seen
            kind = "action" if steps and rules.key == "action" else "search"
            windows = memory.windows(
                last, kind, task, environment.category, plan, rules.windows, rules.around
            )
        action = actor.choose(
            prompt_of(task, plan, windows, steps, seen, rules), environment.actions()
        )
        turn = environment.step(action)
        steps.append(Step(seen, action, turn.valid or turn.success))
        seen, success = turn.observation, turn.success
        if turn.done:
            break
    if memory is not None:
        memory.reward(success)
    episode = Episode(task, environment.category, plan, tuple(steps), success)
    return Attempt(episode, len(steps))


def prompt_of(
    task: str,
    plan: str,
    windows: Sequence[Window],
    steps: Sequence[Step],
    seen: str,
    rules: Rules,
) -> str:
    """What the actor reads: windows, the worst of them first, then the present situation."""
    parts = []
    for window in reversed(windows):
        parts.append("\n".join([f"Task: {window.episode.task}", *window.lines]))
    lines = [f"Task: {task}", *([f"Plan: {plan}"] if plan else [])]
    for step in steps[-rules.recent :]:
        lines += [f"Observation: {step.observation}", f"Action: {step.action}"]
    lines += [f"Observation: {seen}", "Action:"]
    return "\n\n".join([*parts, "\n".join(lines)])


def run_trials(
    environments: Sequence[tuple[Environment, int]],
    actor: Actor,
    memory: EpisodeMemory | None,
    rules: Rules,
    trials: int = 3,
    told: Callable[[int, int, bool], None] = lambda trial, task, success: None,
) -> Trials:
    """Attempts every task in each of `trials`; successes enter the memory after the trial.

    Raises:
        InputError: no task, or no trial.
    """
    if not environments or trials < 1:
        raise InputError("There must be a task and a trial.")
    result = Trials()
    for trial in range(trials):
        row, learned = [], []
        for number, (environment, seed) in enumerate(environments):
            made = attempt(environment, seed, actor, memory, rules)
            row.append(float(made.episode.success))
            result.steps.append(made.steps)
            told(trial, number, made.episode.success)
            if made.episode.success:
                learned.append(made.episode)
        result.by_trial.append(row)
        if memory is not None:
            memory.add(learned)
    return result
