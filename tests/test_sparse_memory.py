"""Sparse memory: product keys, choice of slots, steps on a few rows, deltas in the bank."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from latentbank.adapter import build_method, save_adapter
from latentbank.backbone.layers import feed_forward_modules
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import BankError, FingerprintError, InputError, StepWarning
from latentbank.method import Method
from latentbank.methods.sparse_memory import SparseMemoryConfig
from latentbank.model import MemoryModel, bank_fingerprint
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.product_keys import table as tables
from latentbank.parts.product_keys.layer import MemoryLayer, ProductKeys
from latentbank.parts.product_keys.selection import Background, choose_slots
from latentbank.parts.product_keys.sparse_delta import SparseDelta
from latentbank.parts.product_keys.table import ValueTable
from memory_folder import memory_path  # noqa: F401
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank, random_ids
from tiny_cli import succeed


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def made(backbone: Backbone, **config: Any) -> Any:
    method = build_method("sparse_memory", backbone, config, preset="tiny")
    method.train(False)  # type: ignore[attr-defined]
    return method


def written(backbone: Backbone, documents: Any = DOCUMENTS, **config: Any) -> Any:
    method = made(backbone, **config)
    fresh_bank(method)
    method.write(documents)
    return method


@torch.no_grad()
def text_losses(method: Method) -> Tensor:
    """Mean next-token loss of each document under what the method reads."""
    ids = document_ids(method.backbone, [d.text for d in DOCUMENTS], 256)
    with method.read(["x"]).attach(method.backbone):
        losses, mask = next_token_losses(method.backbone, ids)
    return losses.sum(1) / mask.sum(1)


# ---- the layer


def test_product_keys_find_the_best_of_all_pairs() -> None:
    torch.manual_seed(0)
    keys = ProductKeys(width=12, side=9, heads=3, key_width=8, top=4)
    states = torch.randn(7, 12)
    slots, weights = keys(states)
    query = nn.functional.layer_norm(keys.query(states).view(7, 3, 2, 4), (4,))
    first, second = (torch.einsum("thd,hsd->ths", query[:, :, i], keys.keys[:, i]) for i in (0, 1))
    every = (first[..., :, None] + second[..., None, :]).flatten(2)  # (7, 3, 81)
    best = every.topk(4, dim=-1)
    assert torch.equal(slots.sort(-1).values, best.indices.sort(-1).values)
    torch.testing.assert_close(weights, best.values.softmax(-1))


def test_the_layer_is_the_equation() -> None:
    torch.manual_seed(1)
    layer = MemoryLayer(width=10, value_width=6, side=5, heads=2, key_width=8, top=3)
    table, states = torch.randn(25, 6), torch.randn(2, 4, 10)
    found = layer(states, lambda used, slots: table[used])
    states = nn.functional.layer_norm(states, (10,))
    slots, weights = layer.finder(states.flatten(0, 1))
    mixed = (weights[..., None] * table[slots]).sum((1, 2)).view(2, 4, 6)
    gate = nn.functional.silu(layer.gate(states))
    torch.testing.assert_close(found, layer.out(mixed * gate))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma3"])
@torch.no_grad()
def test_before_training_the_logits_are_bit_identical(name: str, backbones: Backbones) -> None:
    backbone = backbones.fresh(name)
    ids = random_ids(2, 12)
    plain = backbone.model(ids).logits
    method = made(backbone)
    fresh_bank(method)
    with method.read(["x"]).attach(backbone):
        assert torch.equal(backbone.model(ids).logits, plain)
    method.table.weight.normal_()
    with method.read(["x"]).attach(backbone):
        assert not torch.equal(backbone.model(ids).logits, plain), "the layers are attached"
    assert torch.equal(backbone.model(ids).logits, plain)


def test_a_backbone_without_feed_forward_part_is_refused(backbone: Backbone) -> None:
    del backbone.decoder.layers[1].mlp
    with pytest.raises(InputError, match=r"no feed-forward part .*Llama, Qwen, Gemma"):
        made(backbone)
    with pytest.raises(InputError, match="Llama"):
        feed_forward_modules(backbone.decoder)


def test_measured_queries_spread_over_the_slots(backbone: Backbone) -> None:
    """States with a large common mean find few slots, until their queries are measured."""
    torch.manual_seed(0)
    keys = ProductKeys(width=12, side=16, heads=2, key_width=8, top=2)
    states = torch.randn(200, 12) + 20 * torch.randn(12)
    few = len(keys(states)[0].unique())
    keys.measure(states)
    assert len(keys(states)[0].unique()) > 2 * few
    method = made(backbone)
    method.prepare(DOCUMENTS)
    assert all(layer.finder.centre.any() for layer in method.network["layers"].values())


# ---- choosing slots


def test_tfidf_is_the_papers_score() -> None:
    used = torch.tensor([3, 5, 8, 9])
    counts, seen = torch.tensor([10, 4, 4, 1]), torch.tensor([99, 0, 50, 0])
    score = [c / 19 * math.log(101 / (b + 1)) for c, b in zip(counts, seen.tolist(), strict=True)]
    best = sorted(range(4), key=lambda i: -score[i])[:2]
    assert sorted(used[best].tolist()) == choose_slots(used, counts, seen, 100, 2).tolist()
    assert choose_slots(used, counts, seen, 100, 2, "tf").tolist() == [3, 5]
    assert choose_slots(used, counts, seen, 100, 2, "all").tolist() == [3, 5, 8, 9]
    drawn = {tuple(choose_slots(used, counts, seen, 100, 2, "random", seed=s)) for s in range(9)}
    assert len(drawn) > 1
    with pytest.raises(InputError, match="tfidf, tf, all, random"):
        choose_slots(used, counts, seen, 100, 2, "best")


def test_more_slots_than_were_accessed_are_all_of_them() -> None:
    used, counts = torch.tensor([1, 7]), torch.tensor([2, 1])
    assert choose_slots(used, counts, counts, 5, 1_000_000).tolist() == [1, 7]


def test_a_full_delta_changes_only_rows_that_it_has() -> None:
    used, counts = torch.arange(6), torch.tensor([9, 8, 7, 6, 5, 4])
    known = torch.tensor([False, False, True, False, True, False])
    none = torch.zeros(6)
    assert choose_slots(used, counts, none, 9, 6, known=known, room=0).tolist() == [2, 4]
    assert choose_slots(used, counts, none, 9, 6, known=known, room=1).tolist() == [0, 2, 4]


def test_the_background_is_that_of_the_last_batches() -> None:
    counts, batches = torch.zeros(9, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    background = Background(counts, batches, most=2)
    for used in ([1, 2], [2, 3], [3, 4]):
        background.add(torch.tensor(used))
    assert counts.tolist() == [0, 0, 1, 2, 1, 0, 0, 0, 0] and int(batches) == 2
    again = Background(counts.clone(), batches.clone(), most=2)
    again.load_state(background.state())
    for one in (background, again):
        one.add(torch.tensor([8]))
        assert one.counts.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 1]


# ---- the delta


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-8, 8, width=16)), max_size=40))
def test_a_sparse_delta_is_a_sum_of_rows(changes: list[tuple[int, float]]) -> None:
    dense, sparse = torch.zeros(31, 2), SparseDelta(2)
    for row, value in changes:
        dense[row] += value
        sparse.add(torch.tensor([row]), torch.full((1, 2), value))
    table = torch.randn(31, 2)
    rows = torch.arange(31)
    torch.testing.assert_close(sparse.added_to(table, rows), table + dense)
    assert sparse.index.tolist() == sorted({row for row, _ in changes})
    back = SparseDelta.of(sparse.tensors("float32"), "float32", 2, 31)
    assert torch.equal(back.index, sparse.index) and torch.equal(back.values, sparse.values)


def test_deltas_merge_by_sum_or_mean() -> None:
    one = SparseDelta(1, torch.tensor([1, 4]), torch.tensor([[2.0], [3.0]]))
    two = SparseDelta(1, torch.tensor([4, 6]), torch.tensor([[5.0], [7.0]]))
    assert SparseDelta.merged([one, two], 1).values.flatten().tolist() == [2, 8, 7]
    assert SparseDelta.merged([one, two], 1, mean=True).values.flatten().tolist() == [2, 4, 7]


def test_a_damaged_delta_is_refused() -> None:
    good = SparseDelta(2, torch.tensor([1, 4]), torch.ones(2, 2)).tensors("float32")
    for rows, slots in (([4, 1], 9), ([1], 9), ([1, 1], 9), ([1, 4], 4), ([-1, 4], 9)):
        with pytest.raises(BankError):
            SparseDelta.of({**good, "rows": torch.tensor(rows)}, "float32", 2, slots)


# ---- learning


def test_a_step_is_sgd_on_the_chosen_rows_alone(backbone: Backbone) -> None:
    method = made(backbone, t=5)
    fresh_bank(method)
    method.table.weight.data.normal_(0, 0.1)
    ids = document_ids(backbone, [DOCUMENTS[0].text], 256)
    with method.closed_book().attach(backbone):
        losses, mask = next_token_losses(backbone, ids)
    (slope,) = torch.autograd.grad(losses.sum() / mask.sum(), method.table.weight)
    before = {k: v.clone() for k, v in method.state().items()}
    delta = SparseDelta(method.value_width)
    chosen = method.step(ids, delta)
    assert len(chosen) == 5 and torch.equal(delta.index, chosen)
    torch.testing.assert_close(delta.values, -method.config.rate * slope[chosen])
    assert all(torch.equal(v, before[k]) for k, v in method.state().items())


def test_documents_are_learned_and_others_stay(backbone: Backbone) -> None:
    method = made(backbone, steps=6)
    fresh_bank(method)
    before = text_losses(method)
    method.write(DOCUMENTS[:1])
    assert float(before[0] - text_losses(method)[0]) > 0.05
    assert 0 < method.telemetry()["changed_rows"] <= 6 * method.config.t


def test_a_step_without_finite_loss_is_skipped_and_told(backbone: Backbone) -> None:
    method = made(backbone, steps=3)
    fresh_bank(method)
    state = method.learned()
    weight = backbone.model.model.embed_tokens.weight
    kept = weight.data.clone()
    weight.data.fill_(torch.nan)
    with pytest.warns(StepWarning, match="3 of the steps on 1 documents"):
        method.write(DOCUMENTS[:1])
    weight.data.copy_(kept)
    assert method.telemetry()["skipped_steps"] == 3
    assert all(torch.equal(v, state[k]) for k, v in method.learned().items())
    assert len(method.bank) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.write(DOCUMENTS[1:2])
    method.bind(method.bank)
    assert method.telemetry()["steps"] == 6 and method.telemetry()["skipped_steps"] == 3, (
        "the bank keeps the count"
    )


def test_a_rate_that_overflows_is_skipped(backbone: Backbone) -> None:
    method = made(backbone, rate=float("inf"))
    fresh_bank(method)
    with pytest.warns(StepWarning):
        method.write(DOCUMENTS[:1])
    assert torch.isfinite(text_losses(method)).all()


def test_the_state_of_a_bank_with_a_budget_stops_growing(backbone: Backbone) -> None:
    method = made(backbone, t=64, steps=4)
    bank = MemoryBank.create(":memory:", bank_fingerprint(method), budget_bytes=24_576)
    method.bind(bank)
    for number in range(8):
        method.write([Document(f"{number} {document.text}") for document in DOCUMENTS])
        assert bank.footprint().total <= 24_576
    rows = method.telemetry()["changed_rows"]
    assert 0 < rows <= 24_576 // 5 // 36 and bank.footprint().state >= 36 * rows


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_a_bank_goes_on_where_it_was(codec: str, backbone: Backbone, tmp_path: Path) -> None:
    one, two = (made(backbone, codec=codec) for _ in range(2))
    fresh_bank(one)
    one.write(DOCUMENTS)
    with MemoryBank.create(tmp_path / "b", bank_fingerprint(two)) as bank:
        two.bind(bank)
        two.write(DOCUMENTS[:2])
    with MemoryBank.open(tmp_path / "b") as bank:
        two.bind(bank)
        two.write(DOCUMENTS[2:])
        state = two.learned()
        assert all(torch.equal(v, state[k]) for k, v in one.learned().items())


# ---- sources


def sourced(source: str, number: int) -> Document:
    return Document(f"Note {number} of {source}: {DOCUMENTS[number].text}", source=source)


def test_a_source_kept_apart_deletes_exactly(backbone: Backbone) -> None:
    ours = [sourced("a", i) for i in range(3)]
    theirs = [sourced("b", i) for i in range(2)]
    method = written(backbone, [ours[0], theirs[0], ours[1], theirs[1], ours[2]], apart=True)
    alone = written(backbone, theirs, apart=True)
    receipt = method.delete([ours[0].id])
    assert not receipt.exact and receipt.remains
    receipt = method.delete([d.id for d in ours])
    assert receipt.exact and not receipt.remains and len(receipt.deleted) == 2
    kept = alone.learned()
    assert all(torch.equal(v, kept[k]) for k, v in method.learned().items())
    assert torch.equal(text_losses(method), text_losses(alone))
    together = written(backbone, ours)
    assert not together.delete([d.id for d in ours]).exact


def test_sources_are_switched(backbone: Backbone) -> None:
    both = [sourced("a", 0), sourced("b", 1)]
    alone = text_losses(written(backbone, both[:1], apart=True))
    switched = written(backbone, both, apart=True, active="a")
    assert torch.equal(text_losses(switched), alone)
    assert not torch.equal(text_losses(written(backbone, both, apart=True)), alone)


# ---- tables


def test_a_table_that_does_not_fit_is_refused_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"takes 1,200 bytes, and 1,000 bytes of memory are free"):
        ValueTable(30, 10)
    monkeypatch.undo()
    free = tables.available_bytes()
    if free is not None:
        with pytest.raises(InputError, match="table_file"):
            ValueTable(10 * free, 10)
    with pytest.raises(InputError, match="free; take fewer slots or another disk"):
        ValueTable(1 << 60, 10, str(tmp_path / "table"))
    assert not (tmp_path / "table").exists()


def test_a_table_may_live_in_a_file(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "table.f32"
    method, plain = made(backbone, table_file=str(path)), made(backbone)
    for one in (method, plain):
        one.table.weight.data[7] = 3.0
        fresh_bank(one)
        one.write(DOCUMENTS)
    assert path.stat().st_size == 4 * method.slots * method.value_width
    assert torch.equal(text_losses(method), text_losses(plain))
    again = ValueTable(method.slots, method.value_width, str(path))
    assert bool((again.weight[7] == 3).all()) and not again.weight[8].any()
    with pytest.raises(InputError, match="bytes; a table of"):
        ValueTable(5, 2, str(path))


def test_a_bank_of_other_weights_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    method = made(backbone)
    with MemoryBank.create(tmp_path / "b", bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(DOCUMENTS)
    method.table.weight.data[3] = 1.0
    with pytest.raises(FingerprintError):
        MemoryBank.open(tmp_path / "b", bank_fingerprint(method))
    with (
        MemoryBank.open(tmp_path / "b") as bank,
        pytest.raises(BankError, match=r"do not fit|belongs to another|no whole number"),
    ):
        made(backbone, value_width=12).bind(bank)


def test_bad_settings_are_refused(backbone: Backbone) -> None:
    for config, words in (
        ({"select": "best"}, "tfidf"), ({"layers": [9]}, "below the backbone's 3"),
        ({"layers": []}, "at least one"), ({"t": 0}, "t must"), ({"combine": "max"}, "sum, mean"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            made(backbone, **config)


# ---- the warm-up, and a kill


def test_a_resumed_warm_up_is_the_same(backbones: Backbones, tmp_path: Path) -> None:
    from latentbank.evaluate.data import QADataset, Question
    from latentbank.training import TrainConfig, Trainer

    asked = zip(QUESTIONS, ANSWERS, strict=True)
    questions = tuple(Question(f"q{i}", q, (a,), i) for i, (q, a) in enumerate(asked))
    data = QADataset("tiny", tuple(DOCUMENTS), questions)
    config = TrainConfig(steps=6, documents_per_step=2, questions_per_document=1, warmup=1)
    states = []
    for name, stops in (("whole", [6]), ("parts", [3, 6])):
        for stop in stops:
            method = made(backbones.fresh("llama"))
            Trainer(method, data, None, config, tmp_path / name).run(until=stop)
        states.append(method.state())
    one, two = states
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert one["network.table.weight"].any() and int(one["network.table.batches"]) == 4


def test_a_blank_table_is_never_trained_and_takes_nothing(
    backbones: Backbones, tmp_path: Path
) -> None:
    method = made(backbones.fresh("llama"), blank=True, side=1024)
    assert "network.table.weight" not in method.state()
    assert all(name.startswith("lora.") for name in method.trainable())
    fresh_bank(method)
    plain = text_losses(method)
    before = {k: v.clone() for k, v in method.state().items()}
    method.write(DOCUMENTS)
    assert text_losses(method).mean() < plain.mean(), "it learns all the same"
    assert all(torch.equal(v, before[k]) for k, v in method.state().items())
    with pytest.raises(InputError, match="blank"):
        SparseMemoryConfig(blank=True, table_file=str(tmp_path / "table"))


WRITER = """
    import os, sys
    sys.path[:0] = {path!r}
    from pathlib import Path
    from latentbank import Document, MemoryModel
    from latentbank.methods import sparse_memory
    step, seen = sparse_memory.SparseMemory.step, []
    def slow(*args, **kwargs):
        seen.append(1)
        if len(seen) == 2 * {batch} + 2:  # in the middle of a document after the second write
            print("ready", flush=True)
            sys.stdin.read()
        return step(*args, **kwargs)
    sparse_memory.SparseMemory.step = slow
    model = MemoryModel.from_pretrained({adapter!r}, bank={bank!r}, backbone={backbone!r})
    model.write([Document(f"Number {{i}} is {{i * 7}}.", id=f"d{{i}}") for i in range(30)])
"""


def test_a_kill_inside_a_document_leaves_the_last_durable_one(
    backbones: Backbones, tmp_path: Path
) -> None:
    folder, bank = backbones.folder("llama"), tmp_path / "b"
    method = made(backbones.shared("llama"))
    save_adapter(tmp_path / "adapter", method)
    code = textwrap.dedent(WRITER).format(
        path=sys.path, adapter=str(tmp_path / "adapter"), bank=str(bank),
        backbone=str(folder), batch=method.write_batch * method.config.steps // 2,
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with MemoryModel.from_pretrained(
        str(tmp_path / "adapter"), bank=bank, backbone=str(folder)
    ) as model:
        assert sorted(model.bank.ids()) == sorted(f"d{i}" for i in range(method.write_batch))
        alone: Any = made(model.backbone)
        fresh_bank(alone)
        alone.write([Document(f"Number {i} is {i * 7}.", id=f"d{i}") for i in range(4)])
        kept = alone.learned()
        found: Any = model.method
        assert all(torch.equal(v, kept[k]) for k, v in found.learned().items())
        assert model.write([Document("Another one.")]).stored == 1


def test_a_bank_is_written_and_asked_from_the_command_line(
    backbones: Backbones, tmp_path: Path
) -> None:
    folder, bank, note = backbones.folder("llama"), tmp_path / "b.bank", tmp_path / "note.txt"
    save_adapter(tmp_path / "adapter", made(backbones.fresh("llama")))
    note.write_text("Ada wrote it in 1843.")
    start = ("--adapter", str(tmp_path / "adapter"), "--backbone", str(folder))
    succeed("write", str(note), "--bank", str(bank), *start, "--dtype", "float32")
    answers = [
        json.loads(succeed("ask", "Who wrote it?", "--bank", str(bank), "--json").stdout)
        for _ in range(2)
    ]
    assert answers[0]["answer"] == answers[1]["answer"]
    told = json.loads(succeed("inspect", str(bank), "--json").stdout)
    assert told["method"] == "sparse_memory" and told["documents"] == 1
    assert told["bytes"]["state"] > 100
    delete = ("delete", "--bank", str(bank), "--source", str(note), "--json")
    assert "stay" in succeed(*delete).stdout
