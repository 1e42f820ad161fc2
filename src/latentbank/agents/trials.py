"""Trials: a task is attempted, its success is remembered, and it is attempted again.

The protocol is RAP's: trial t uses the memory of trial t - 1, and a task counts as solved if any
trial solved it. Knows actors, environments and memories through their interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latentbank.agents.actor import Actor, Prompt
from latentbank.agents.environment import Environment
from latentbank.agents.episode import Episode, Step
from latentbank.agents.memory import EpisodeMemory, Window
from latentbank.errors import InputError

__all__ = ["Attempt", "Rules", "Trials", "attempt", "run_trials"]


@dataclass(frozen=True)
class Rules:
    """How a task is attempted.

    `steps`: at most so many. `key`: what windows are looked up by, the present observation
    (`search`) or the last action (`action`). `windows`, each with the lines `before` and `after`
    the one that was found, stand in the prompt, and the last `recent` steps. The plan is that of
    the best of `plans` records.
    """

    steps: int = 50
    key: str = "search"
    windows: int = 8
    before: int = 0
    after: int = 1
    plans: int = 1
    recent: int = 0

    def __post_init__(self) -> None:
        counts = (self.windows, self.before, self.after, self.plans, self.recent)
        if self.steps < 1 or min(counts) < 0:
            raise InputError("steps are at least 1, and the other numbers of rules not below 0")


@dataclass(frozen=True)
class Attempt:
    """One attempt, as an episode, and how many steps it took."""

    episode: Episode
    steps: int


@dataclass
class Trials:
    """For each trial: 1 for every task that is solved by then, else 0."""

    by_trial: list[list[float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def best(self) -> list[float]:
        """1 for each task that a trial solved."""
        return list(self.by_trial[-1])


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
                last,
                kind,
                task,
                environment.category,
                plan,
                rules.windows,
                rules.before,
                rules.after,
            )
        recent = steps[max(0, len(steps) - rules.recent) :]
        action = actor.choose(prompt_of(task, plan, windows, recent, seen), environment.actions())
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
    task: str, plan: str, windows: Sequence[Window], recent: Sequence[Step], seen: str
) -> Prompt:
    """What the actor reads: the windows and the present situation."""
    lines = [f"Task: {task}", *([f"Plan: {plan}"] if plan else [])]
    for step in recent:
        lines += [f"Observation: {step.observation}", f"Action: {step.action}"]
    lines += [f"Observation: {seen}", "Action:"]
    shown = ("\n".join([f"Task: {one.episode.task}", *one.lines]) for one in windows)
    return Prompt("\n".join(lines), tuple(shown))


def run_trials(
    environments: Sequence[tuple[Environment, int]],
    actor: Actor,
    memory: EpisodeMemory | None,
    rules: Rules,
    trials: int = 3,
    told: Callable[[int, int, bool], None] = lambda trial, task, success: None,
) -> Trials:
    """Attempts in each of `trials` every task that is not solved yet.

    Successes enter the memory after the trial.

    Raises:
        InputError: no task, or no trial.
    """
    if not environments or trials < 1:
        raise InputError("There must be a task and a trial.")
    result = Trials()
    row = [0.0] * len(environments)
    for trial in range(trials):
        learned = []
        for number, (environment, seed) in enumerate(environments):
            if row[number]:
                continue
            made = attempt(environment, seed, actor, memory, rules)
            row[number] = float(made.episode.success)
            result.steps.append(made.steps)
            told(trial, number, made.episode.success)
            if made.episode.success:
                learned.append(made.episode)
        result.by_trial.append(list(row))
        if memory is not None:
            memory.add(learned)
    return result
