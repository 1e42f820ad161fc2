"""An agent in BabyAI that remembers: success with and without a memory of episodes.

Run: pip install 'latentbank[agents]' && python examples/agent_memory.py
"""

from __future__ import annotations

import sys

from latentbank import MemoryModel
from latentbank.agents.actor import LikelihoodActor
from latentbank.agents.environment import BabyAI
from latentbank.agents.memory import EpisodeMemory
from latentbank.agents.trials import Rules, run_trials


def main(tasks: int = 4, shown: int = 30, steps: int = 20) -> None:
    """Attempts the same tasks without memory, then with one of `shown` episodes."""
    world = BabyAI("GoToRedBallGrey")
    model = MemoryModel.from_pretrained("rag", budget_bytes=200_000)
    actor, rules = LikelihoodActor(model.backbone), Rules(steps)
    chosen = [(world, seed) for seed in range(tasks)]

    alone = run_trials(chosen, actor, None, rules, trials=1)
    print(f"without memory: {sum(alone.best()):.0f} of {tasks} tasks")

    memory = EpisodeMemory(model)
    memory.add([world.demonstration(seed) for seed in range(100, 100 + shown)])
    print(f"the memory holds {len(memory)} episodes in {model.bank.footprint().total:,} bytes")
    seen = world.reset(0)[1]
    for window in memory.windows(seen, "search", "go to the red ball", world.category, best=1):
        print("most like the first situation:", *window.lines, sep="\n  ")

    helped = run_trials(chosen, actor, memory, rules, trials=1)
    print(f"with memory: {sum(helped.best()):.0f} of {tasks} tasks")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
