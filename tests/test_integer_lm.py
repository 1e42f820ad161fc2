"""A model in whole numbers: near the float model, and equal to the bit however it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.adapter import build_method
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import Entry, MemoryBank
from latentbank.codec import rans
from latentbank.codec.packaged import token_codec
from latentbank.codec.predicted.exact_tables import angles, exponentials, sigmoids
from latentbank.codec.predicted.integer_lm import (
    _LONGEST,
    IntegerLM,
    _eight_bits,
    _Linear,
    integer_lm,
)
from latentbank.codec.predicted.predictions import TokenPredictions
from latentbank.codec.token_counts import TokenCounts, count_tokens
from latentbank.codec.token_text import TokenTextCodec
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError
from latentbank.model import bank_fingerprint
from latentbank.parts.retrieval import stored
from latentbank.parts.text_levels import TextLevels
from tiny import Backbones

TOTAL = rans.TOTAL - 1
WORDS = ("mill", "quay", "ford", "lock", "weir", "pier", "dock", "wharf", "lane", "yard", "gate")
IDS = torch.from_numpy(np.random.default_rng(0).integers(3, 250, (5, 60)))


@pytest.fixture
def llama(backbones: Backbones) -> Backbone:
    return backbones.shared("llama")


@pytest.fixture
def model(llama: Backbone) -> IntegerLM:
    return integer_lm(llama)


def masses(model: IntegerLM, ids: torch.Tensor) -> torch.Tensor:
    """Masses [B, T, V] of one pass over all of the tokens."""
    states = model.feed(ids, model.cache())
    return model.masses(states.flatten(0, 1), TOTAL).view(*ids.shape, -1)


# ---- the model


def test_its_probabilities_are_near_those_of_the_float_model(
    llama: Backbone, model: IntegerLM
) -> None:
    with torch.no_grad():
        wanted = torch.log_softmax(llama.model(IDS).logits.float(), -1)
    found = (masses(model, IDS) / TOTAL).log()
    assert (found.exp().sum(-1) <= 1).all()
    loss = (wanted.exp() * (wanted - found)).sum(-1)  # KL divergence, in nats
    assert loss.mean() < 2e-3 and loss.max() < 2e-2
    assert wanted.std(-1).mean() > 0.2, "a flat distribution would be near anything"


def test_masses_are_whole_and_keep_to_their_total(model: IntegerLM) -> None:
    found = masses(model, IDS)
    assert torch.equal(found, found.round()) and found.min() >= 1
    assert found.sum(-1).max() <= TOTAL


def test_one_token_at_a_time_and_any_batch_give_the_same_numbers(model: IntegerLM) -> None:
    wanted = masses(model, IDS)
    for rows in ([0], [3, 1], [4, 0, 2, 1]):
        cache, found = model.cache(), []
        for at in range(IDS.shape[1]):
            states = model.feed(IDS[rows, at : at + 1], cache)[:, 0]
            found.append(model.masses(states, TOTAL))
        assert torch.equal(torch.stack(found, 1), wanted[rows])


@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_loops_say_what_tensors_say(
    llama: Backbone, model: IntegerLM, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert model._steps is not None
    plain = IntegerLM(llama)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "latentbank.codec.predicted.steps", None)
        assert plain._steps is None  # as where numba is not installed
    caches = model.cache(), plain.cache()
    for ids in IDS[:, :40].unbind(1):
        states = [one.feed(ids[:, None], c) for one, c in zip((model, plain), caches, strict=True)]
        assert torch.equal(*states)
        told = [one.masses(states[0][:, 0], TOTAL) for one in (model, plain)]
        assert torch.equal(*told)


@pytest.mark.parametrize("inputs", [7, 1040, 1041, 2500])
def test_long_sums_are_compiled_part_by_part(inputs: int) -> None:
    steps = pytest.importorskip("latentbank.codec.predicted.steps", exc_type=ImportError)
    draw = torch.Generator().manual_seed(inputs)
    weight, states = (torch.randn(n, inputs, generator=draw) for n in (33, 3))
    weight[0], states[0] = 1.0, 1.0  # the largest sum
    whole, scale = _eight_bits(weight)
    found = np.empty((3, 33), np.float32)
    room = np.empty((3, inputs), np.int8)
    steps._product(whole.numpy(), scale.numpy(), states.numpy(), room, _LONGEST, found)
    assert torch.equal(torch.from_numpy(found), _Linear(whole, scale)(states))


def test_texts_that_go_on_alone_are_not_disturbed(model: IntegerLM) -> None:
    cache = model.cache()
    model.feed(IDS[:, :40], cache)
    cache.keep(torch.tensor([1, 3]))
    states = model.feed(IDS[[1, 3], 40:], cache)
    found = model.masses(states.flatten(0, 1), TOTAL)
    assert torch.equal(found, masses(model, IDS)[[1, 3], 40:].flatten(0, 1))


def test_threads_dtype_and_adapters_do_not_matter(backbones: Backbones, model: IntegerLM) -> None:
    wanted, threads = masses(model, IDS), torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(masses(model, IDS), wanted)
    finally:
        torch.set_num_threads(threads)
    other = backbones.fresh("llama")
    strata = build_method("strata", other, {}, preset="tiny", seed=0)
    assert strata.lora is not None
    for weight in strata.lora.parameters.values():
        torch.nn.init.ones_(weight)
    with Conditioning((strata.lora,)).attach(other):
        assert torch.equal(masses(IntegerLM(other), IDS), wanted)
    other.model.to(torch.bfloat16)
    assert torch.equal(masses(IntegerLM(other), IDS), wanted)


def test_more_tokens_than_the_context_are_refused(model: IntegerLM) -> None:
    cache = model.cache()
    model.feed(torch.zeros(1, model.context, dtype=torch.long), cache)
    with pytest.raises(InputError, match=f"at most {model.context} tokens"):
        model.feed(torch.zeros(1, 1, dtype=torch.long), cache)


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma3"])
def test_other_models_are_refused(backbones: Backbones, family: str) -> None:
    with pytest.raises(InputError, match=r"needs a plain Llama model.* use packed or verbatim"):
        IntegerLM(backbones.shared(family))


def test_float16_is_refused(backbones: Backbones) -> None:
    with pytest.raises(InputError, match="loaded in float16"):
        IntegerLM(backbones.shared("llama", "float16"))


def test_the_tables() -> None:
    steps = np.arange(len(exponentials()) - 1)
    wanted = np.exp(-steps / 256) * 2**30
    np.testing.assert_allclose(exponentials()[:-1], wanted, atol=0.5 + 1e-6)
    gates = (np.arange(len(sigmoids())) - len(sigmoids()) // 2) / 512
    np.testing.assert_allclose(sigmoids(), 1 / (1 + np.exp(-gates)), atol=2**-24)
    cosine, sine = angles(10_000.0, 16)
    wanted = np.arange(512)[:, None] * 10_000.0 ** (-np.arange(8) / 8)
    np.testing.assert_allclose(cosine, np.cos(wanted), atol=2**-20)
    np.testing.assert_allclose(sine, np.sin(wanted), atol=2**-20)


# ---- the codec


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_texts_round_trip_however_they_are_batched(backbones: Backbones, texts: list[str]) -> None:
    codec = TextLevels(backbones.shared("llama")).predictor
    together = codec.encode_all(texts)
    assert codec.decode_all(together) == texts
    assert [codec.encode(text) for text in texts] == together
    assert [codec.decode(data) for data in reversed(together)] == texts[::-1]


def test_texts_longer_than_the_context_round_trip(model: IntegerLM) -> None:
    draw = np.random.default_rng(1)
    rows = [draw.integers(3, 250, n).tolist() for n in (model.context + 40, 7, model.context, 0)]
    predictions = TokenPredictions(model, 0)
    assert predictions.decode(predictions.encode(rows)) == rows


def test_the_leading_part_of_a_text_is_coded_without_the_model(
    model: IntegerLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = np.random.default_rng(2).integers(3, 250, model.context + 40).tolist()
    parts = [text[:n] for n in (model.context + 3, 60, 16)]
    other = [*text[:16], text[16] + 1, *text[17:40]]
    alone = [TokenPredictions(model, 0).encode([row])[0] for row in (*parts, other, parts[0])]
    asked: list[int] = []
    feed = IntegerLM.feed
    monkeypatch.setattr(
        IntegerLM, "feed", lambda self, ids, cache: asked.append(1) or feed(self, ids, cache)
    )
    predictions = TokenPredictions(model, 0)
    predictions.encode([text])
    assert predictions.encode(parts) == alone[:3] and len(asked) == 2, "two windows of the whole"
    assert predictions.encode([other, parts[0]]) == alone[3:] and len(asked) == 5
    monkeypatch.setattr("latentbank.codec.predicted.predictions._KNOWN_TOKENS", 100)
    assert predictions.encode([text, parts[1]]) == predictions.encode([text, parts[1]])
    assert predictions._known_tokens <= 100


def test_a_likely_token_takes_fewer_bytes(model: IntegerLM) -> None:
    """Greedy text of the model itself against random tokens."""
    cache, last, said = model.cache(), torch.tensor([[0]]), []
    for _ in range(100):
        last = model.masses(model.feed(last, cache)[:, 0], TOTAL).argmax(-1, keepdim=True)
        said.append(int(last))
    likely, random = TokenPredictions(model, 0).encode([said, IDS[:2].flatten().tolist()[:100]])
    assert len(likely) < 0.9 * len(random)


@settings(max_examples=12, deadline=None)
@given(st.binary(min_size=1, max_size=12))
def test_damaged_bytes_are_refused_or_decode_to_some_text(
    backbones: Backbones, data: bytes
) -> None:
    codec = TextLevels(backbones.shared("llama")).predictor
    with suppress(BankError):
        assert isinstance(codec.decode(data), str)


def test_full_banks_go_on_to_predictions(backbones: Backbones) -> None:
    """With a model that knows the text by heart in place of the random one."""
    text = "One two three four five. Six seven eight nine. Ten eleven twelve thirteen."
    backbone = backbones.shared("llama")
    tables = count_tokens(backbone.encode([text] * 9, start=False), 259)
    levels = TextLevels(backbone, lm=True)
    levels.predictor = token_codec(backbone, TokenCounts(tables))
    entry: Entry | None = Entry("a", "verbatim", levels.encode([text], "verbatim")[0])
    seen = []
    while entry is not None:
        levels._recent.clear()  # what lies in the entry, and not what is remembered of it
        seen.append((entry.level, levels.decode([entry])[0]))
        entry = levels.fade(entry)
    assert seen == [("verbatim", text), ("lm", text), ("lm50", "One two three four five.")]


@pytest.mark.parametrize("name", ["rag", "strata"])
def test_methods_keep_texts_by_predictions(backbones: Backbones, name: str) -> None:
    names = ("mill", "quay", "ford")
    documents = [Document(f"The {name} is number {i}.") for i, name in enumerate(names)]
    method = build_method(name, backbones.fresh("llama"), {"entry": "lm"}, preset="tiny", seed=0)
    with MemoryBank.create(":memory:", bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(documents)
        assert {entry.level for entry in bank.entries()} == {"lm"}
        method.texts._recent.clear()
        method.bind(bank)
        assert method.text(documents[1].id) == documents[1].text
        sources = method.read(["Which number is the quay?"]).sources
        assert sources[0][0][0] == documents[1].id


@pytest.mark.parametrize("name", ["rag", "strata"])
def test_a_bank_of_predicted_texts_is_found_in_without_decoding_them(
    backbones: Backbones, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "SLOW_FROM", 4)
    documents = [Document(f"The {n} is number {i}.") for i, n in enumerate(WORDS)]
    backbone = backbones.fresh("llama")
    method = build_method(name, backbone, {"entry": "lm"}, preset="tiny", seed=0)
    path = tmp_path / "b"
    with MemoryBank.create(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        for document in documents:
            method.write([document])
    decoded: list[str] = []
    decode = TokenTextCodec.decode_all

    def watched(codec: TokenTextCodec, payloads: Sequence[bytes]) -> list[str]:
        decoded.extend(found := decode(codec, payloads))
        return found

    monkeypatch.setattr(TokenTextCodec, "decode_all", watched)
    again = build_method(name, backbone, {"entry": "lm"}, preset="tiny", seed=0)
    with MemoryBank.open(path) as bank:
        again.bind(bank)
        assert again.retriever.stored and not decoded
        [[(first, _), *_]] = again.retriever.rank(["Where is the quay?"], 1)
        assert first == documents[1].id
        assert set(decoded) <= {documents[1].text}


@pytest.mark.real_model
def test_smollm2_codes_the_same_bytes_in_another_process_with_other_threads() -> None:
    text = (
        "The Normans were the people who in the 10th and 11th centuries gave their name to "
        "Normandy, a region in France."
    )
    code = (
        "import sys, torch;"
        "from latentbank.backbone.model import load_backbone;"
        "from latentbank.parts.text_levels import TextLevels;"
        "codec = TextLevels(load_backbone('smollm2-135m', dtype='float32')).predictor;"
        "say = lambda: codec.encode_all([sys.argv[1], 'Another text.'])[0].hex();"
        "print(*[torch.set_num_threads(n) or say() for n in (1, 2)])"
    )
    here = TextLevels(load_backbone("smollm2-135m"))
    data = here.predictor.encode(text)
    assert len(data) < 0.8 * len(here.encode([text], "packed")[0])
    quick = TextLevels(load_backbone("smollm2-135m", quick=True))  # as the command line loads it
    assert quick.predictor.encode(text) == data and quick.predictor.decode(data) == text
    assert here.predictor.decode_all([data, data]) == [text, text]
    told = subprocess.run(
        [sys.executable, "-c", code, text],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert told.stdout.split() == [data.hex(), data.hex()]
