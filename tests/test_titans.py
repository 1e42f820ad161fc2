"""The method with a neural memory: its state in the bank, what it refuses, surprise on screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import BankError, BudgetError, InputError, UnknownNameError
from latentbank.methods.titans import Titans, TitansConfig, TitansWords
from latentbank.model import MemoryModel, bank_fingerprint
from latentbank.parts.batch import Batch
from latentbank.parts.neural_memory.pointing import pointing_loss
from latentbank.parts.neural_memory.words import WordMemory
from latentbank.parts.online.salient import answer_starts
from test_cli import run
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def made(backbone: Backbone, **config: Any) -> Titans:
    method = build_method("titans", backbone, config, preset="tiny")
    assert isinstance(method, Titans)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return method


def test_the_bank_holds_weights_and_momentum_in_float32(backbone: Backbone) -> None:
    method = made(backbone)
    fresh_bank(method)
    method.write(DOCUMENTS)
    state = method.memory_state()
    assert {name.split(".")[0] for name in state} == {
        "weights", "momentum", "clipped", "skipped", "seen",
    }  # fmt: skip
    assert state["weights.0"].dtype == torch.float32
    tokens = sum(backbone.count_tokens([d.text for d in DOCUMENTS]))
    assert int(state["seen"]) == tokens == method.telemetry()["memory_tokens"]


def test_a_document_that_was_read_surprises_less(backbone: Backbone) -> None:
    method = made(
        backbone, memory={"heads": 2, "head_dim": 8, "depth": 1, "momentum": False, "max_step": 2.0}
    )
    method.memory.reset()
    fresh_bank(method)
    method.prepare(DOCUMENTS)
    text = DOCUMENTS[0].text
    before = [value for _, value in method.surprise(text)]
    for number in range(4):
        method.write([Document(text, id=str(number))])
    told = method.surprise(text)
    assert "".join(token for token, _ in told) == text
    assert sum(value for _, value in told) < 0.95 * sum(before)
    assert method.surprise(text) == told, "looking learns nothing"


@pytest.mark.parametrize("transport", ["hook", "states"])
def test_both_transports_read_and_train(backbone: Backbone, transport: str) -> None:
    method = made(backbone, transport=transport)
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    method.loss(batch).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.trainable().values())
    model = MemoryModel(method)
    assert model.ask(QUESTIONS[0]).text == model.ask(QUESTIONS[0]).text
    plain = model.ask_many(list(QUESTIONS))
    model.write(DOCUMENTS)
    assert [a.text for a in model.ask_many(list(QUESTIONS))] != [a.text for a in plain]


def test_texts_count_in_the_loss_by_their_weights(backbone: Backbone) -> None:
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    plain, again = (made(backbone, retell=w, recall=2 * w).loss(batch) for w in (0.0, 0.5))
    assert set(plain.parts) == {"answer", "surprise"}
    expected = plain.total.item() + 0.5 * again.parts["retold"] + again.parts["recall"]
    assert again.total.item() == pytest.approx(expected, rel=1e-5)
    for name in ("retell", "recall", "point", "answer_weight"):
        with pytest.raises(InputError, match=name):
            TitansConfig(**{name: -1.0})
    with pytest.raises(InputError, match="answer_weight"):
        TitansConfig(answer_weight=0.0)


def test_what_came_next_is_recalled_better_after_training_on_states_alone(
    backbone: Backbone,
) -> None:
    method = made(backbone, answer_weight=0.0, recall=1.0)
    method.prepare(DOCUMENTS)
    assert all(name.startswith("network.memory") for name in method.trainable())
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    optimiser = torch.optim.Adam(method.trainable().values(), 1e-2)
    losses = []
    for _ in range(30):
        loss = method.loss(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(loss.parts["recall"])
    assert losses[-1] < losses[0] - 0.3


def test_questions_learn_to_find_the_keys_of_their_answers(backbone: Backbone) -> None:
    method = made(backbone, answer_weight=0.0, point=1.0)
    method.prepare(DOCUMENTS)
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    optimiser = torch.optim.Adam(method.trainable().values(), 1e-2)
    found = []
    for _ in range(40):
        loss = method.loss(batch)
        assert set(loss.parts) == {"point", "found"}
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        found.append((loss.parts["point"], loss.parts["found"]))
    assert found[-1][0] < found[0][0] - 1 and found[-1][1] == 1
    starts = answer_starts(backbone, DOCUMENTS[1].text, ANSWERS[1])
    states = [method._states([d.text])[0] for d in DOCUMENTS[:2]]
    keys = torch.cat([method.memory.keys(one)[0] for one in states])
    assert torch.allclose(keys.norm(dim=-1), torch.ones(len(keys)))
    best = (method.asked([QUESTIONS[1]]) @ keys.T).argmax(-1).item()
    assert best - states[0].shape[1] in starts


def test_an_answer_starts_wherever_the_text_has_it(backbone: Backbone) -> None:
    text, answer = "Mill 12 and Mill 12, then 123.", "Mill 12"
    ids = backbone.encode([text])[0][1:]
    starts = answer_starts(backbone, text, answer)
    assert len(starts) == 2 and starts[0] == 0
    assert backbone.tokenizer.decode(ids[starts[1] :]).strip().startswith(answer)
    assert answer_starts(backbone, text, "Lane") == answer_starts(backbone, text, "") == []


def test_the_right_keys_are_all_that_are_named() -> None:
    keys = torch.eye(4)
    queries = torch.tensor([[1.0, 0, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])
    loss, share = pointing_loss(queries, keys, [[0], [1, 3], []], 2.0)
    first = -torch.log_softmax(2 * queries[0], -1)[0]
    second = -torch.log_softmax(2 * queries[1], -1)[[1, 3]].logsumexp(-1)
    assert loss.item() == pytest.approx(float((first + second) / 2)) and share == 0.5
    assert pointing_loss(queries, keys, [[], [], []]) == (0.0, 0.0)


def test_a_memory_may_speak_to_a_later_layer(backbone: Backbone) -> None:
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    here, same, later = (made(backbone, speak=s, scale=0.5) for s in (-1, 1, 2))
    assert here.loss(batch).total.item() == pytest.approx(same.loss(batch).total.item())
    assert here.loss(batch).total.item() != pytest.approx(later.loss(batch).total.item())
    later.loss(batch).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in later.trainable().values())
    model = MemoryModel(later)
    plain = model.ask_many(list(QUESTIONS))
    model.write(DOCUMENTS)
    assert [a.text for a in model.ask_many(list(QUESTIONS))] != [a.text for a in plain]
    with pytest.raises(InputError, match="speak must not be below layer 2"):
        TitansConfig(layer=2, speak=1)


def test_a_failed_write_leaves_the_memory_as_it_was(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = made(backbone)
    bank = fresh_bank(method)
    method.write(DOCUMENTS[:2])
    before = method.memory_state()
    monkeypatch.setattr(MemoryBank, "append", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method.write(DOCUMENTS[2:])
    after = method.memory_state()
    assert all(torch.equal(after[k], v) for k, v in before.items()) and len(bank) == 2


def test_a_bank_with_a_state_of_other_shapes_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    method = made(backbone)
    path = tmp_path / "a.bank"
    with MemoryBank.create(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(DOCUMENTS)
        other = made(backbone, memory={"heads": 2, "head_dim": 4, "chunk": 16})
        with pytest.raises(BankError, match=r"\(1, 2, 8, 8\).*\(1, 2, 4, 4\)"):
            other.bind(bank)


def test_a_budget_below_the_state_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    method = made(backbone, memory={"heads": 8, "head_dim": 32})
    with MemoryBank.create(
        tmp_path / "a.bank", bank_fingerprint(method), budget_bytes=20_000
    ) as bank:
        method.bind(bank)
        with pytest.raises(BudgetError):
            method.write(DOCUMENTS)
        assert not len(bank) and method.telemetry()["memory_tokens"] == 0


def test_states_that_are_not_finite_are_counted(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = made(backbone)
    fresh_bank(method)
    features = Titans.features

    def broken(self: Titans, texts: Any) -> Any:
        states, mask = features(self, texts)
        states[0, 5] = float("nan")
        return states, mask

    monkeypatch.setattr(Titans, "features", broken)
    method.write(DOCUMENTS[:1])
    assert method.telemetry()["memory_skipped"] == 2, "once in each head"
    assert all(v.isfinite().all() for v in method.memory_state().values())


def test_settings_that_cannot_be_are_refused(backbone: Backbone) -> None:
    with pytest.raises(UnknownNameError, match="hook"):
        TitansConfig(transport="prompt")
    with pytest.raises(InputError, match="3 layers"):
        made(backbone, layer=3)
    with pytest.raises(InputError, match="no tokens"):
        made(backbone).surprise("")


def test_inspect_shows_the_surprise_of_a_document(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from latentbank.adapter import save_adapter

    folder = str(backbones.folder("llama"))
    save_adapter(tmp_path / "adapter", made(backbones.fresh("llama")))
    text = tmp_path / "note.txt"
    text.write_text(DOCUMENTS[1].text)
    named = ["--backbone", folder]
    done = run("write", str(text), "--bank", "m.bank", "--adapter", "adapter", *named)
    assert done.exit_code == 0, done.output
    shown = run("inspect", "m.bank", "--surprise", str(text), "--json")
    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.stdout)["surprise"]
    assert "".join(row["token"] for row in rows) == DOCUMENTS[1].text
    assert all(row["value"] > 0 for row in rows)
    plain = run("inspect", "m.bank", "--surprise", str(text))
    assert "largest" in plain.output and f"{len(rows)} tokens" in plain.output
    done = run("write", str(text), "--bank", "n.bank", "--method", "rag", *named)
    refused = run("inspect", "n.bank", "--surprise", str(text))
    assert refused.exit_code != 0 and "measures no surprise" in refused.output


WORDS: dict[str, Any] = {"keys": "words", "layer": 0, "window": 5}


def test_a_memory_of_words_learns_to_answer_and_keeps_its_size(backbone: Backbone) -> None:
    method = build_method("titans", backbone, {**WORDS, "point": 1.0, "crowd": 6}, preset="tiny")
    assert isinstance(method, TitansWords)
    method.prepare(DOCUMENTS)
    batch = Batch(DOCUMENTS[:2], QUESTIONS[:2], ANSWERS[:2], (0, 1))
    trained = method.trainable()
    assert {name.split(".")[1] for name in trained} == {"memory", "voice"}
    optimiser = torch.optim.Adam(trained.values(), 1e-2)
    parts = []
    for _ in range(60):
        loss = method.loss(batch)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        parts.append(loss.parts)
    assert parts[-1]["point"] < parts[0]["point"] - 1 and parts[-1]["found"] == 1.0
    assert parts[-1]["answer"] < parts[0]["answer"] - 0.5
    assert method._crowd is not None
    method.train(False)
    model = MemoryModel(method)
    plain = [answer.text for answer in model.ask_many(list(QUESTIONS[:2]))]
    model.write(DOCUMENTS[:2])
    size = sum(len(data) for data in method.state_bytes().values())
    together = [answer.text for answer in model.ask_many(list(QUESTIONS[:2]))]
    assert together != plain
    assert together == [model.ask(question).text for question in QUESTIONS[:2]]
    assert together == [model.ask_many(list(QUESTIONS[:2])[::-1])[1 - at].text for at in (0, 1)]
    model.write(DOCUMENTS[2:])
    assert sum(len(data) for data in method.state_bytes().values()) == size
    told = method.surprise(DOCUMENTS[0].text)
    assert "".join(token for token, _ in told) == DOCUMENTS[0].text
    assert set(method.telemetry()) == {"memory_tokens", "memory_skipped"}


def test_texts_apart_make_the_matrix_of_texts_together(backbone: Backbone) -> None:
    first, second = (build_method("titans", backbone, WORDS, preset="tiny") for _ in range(2))
    second.network.load_state_dict(first.network.state_dict())
    for method, parts in ((first, [DOCUMENTS]), (second, [DOCUMENTS[:1], DOCUMENTS[1:]])):
        fresh_bank(method)
        for part in parts:
            method.write(part)
    one, other = (method.memory_state()["weights.0"] for method in (first, second))
    assert one.any() and torch.allclose(one, other, atol=1e-5)
    again = build_method("titans", backbone, WORDS, preset="tiny")
    again.load_memory_state(first.memory_state())
    assert torch.equal(again.memory_state()["weights.0"], one)
    with pytest.raises(BankError, match=r"\(1, 1, 3, 3\).*\(1, 1, \d+, \d+\)"):
        again.load_memory_state({**first.memory_state(), "weights.0": torch.zeros(1, 1, 3, 3)})


def test_a_key_is_made_of_the_words_around_its_token() -> None:
    memory = WordMemory(16, window=5)
    text = torch.randn(1, 20, 16)
    changed = text.clone()
    changed[:, 10] = torch.randn(16)
    moved = (memory.keys(text) - memory.keys(changed)).norm(dim=-1)[0] > 1e-6
    assert torch.nonzero(moved).flatten().tolist() == [8, 9, 10, 11, 12]
    question = text[:, 4:9]
    query = memory.queries(memory.bags(question, torch.ones(1, 5).bool()), torch.zeros(1, 1, 16))
    assert (memory.keys(text)[0] @ query[0, 0]).argmax() in range(4, 9), "words find themselves"
    spoilt = text.clone()
    spoilt[0, 3, 2] = torch.nan
    state = memory(spoilt, memory.start(1)).state
    assert int(state.skipped) == 1 and all(one.isfinite().all() for one in state.weights)
    with pytest.raises(InputError, match=r"\[batch, tokens, 16\], got \[1, 2, 3\]"):
        memory(torch.zeros(1, 2, 3), memory.start(1))
    with pytest.raises(InputError, match="keys='words' needs layer=0"):
        TitansConfig(keys="words", layer=1)
    with pytest.raises(InputError, match="recall=0"):
        TitansConfig(keys="words", recall=1.0)
    with pytest.raises(UnknownNameError, match="kind of keys"):
        TitansConfig(keys="letters")
