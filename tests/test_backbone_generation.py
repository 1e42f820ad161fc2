"""Decoding: greedy and beams against transformers' own, over memories, batches and padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from latentbank.backbone.generate import DecodingConfig, PromptRun, generate
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError
from tiny import NAMES, Backbones, random_ids

ROWS = [[1, *random_ids(1, n, seed=n)[0].tolist()] for n in (12, 5, 9)]


@pytest.fixture(params=NAMES)
def backbone(
    request: pytest.FixtureRequest, backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> Backbone:
    """Decodes to the token ids themselves, so that equal text means equal tokens."""
    found = backbones.shared(request.param)
    monkeypatch.setattr(found.tokenizer, "decode", lambda ids, **_: " ".join(map(str, ids)))
    return found


def tokens(text: str) -> list[int]:
    return [int(token) for token in text.split()]


def memories(backbone: Backbone, batch: int) -> KVMemory:
    """Another random memory for each row, of unlike length, entering at layer 1."""
    draw = torch.Generator().manual_seed(3)
    states = 3 * torch.randn(batch, 6, backbone.geometry.width, generator=draw)
    mask = torch.arange(6)[None] < torch.tensor([6, 3, 5])[:batch, None]
    return backbone.fill(states, mask, 1)


def hugging_face(backbone: Backbone, row: list[int], **options: Any) -> tuple[list[int], float]:
    """(new tokens up to the end, mean log-probability of them and the end) of `model.generate`."""
    ids = torch.tensor([row])
    out = backbone.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, **options
    )
    new = out[0, len(row) :].tolist()
    if backbone.end_id in new:
        new = new[: new.index(backbone.end_id) + 1]
    return [t for t in new if t != backbone.end_id], mean_log(backbone, row, new)


@torch.no_grad()
def mean_log(backbone: Backbone, row: list[int], new: list[int]) -> float:
    logits = backbone.model(torch.tensor([row + new])).logits[0, len(row) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[range(len(new)), new].mean())


def test_greedy_equals_transformers(backbone: Backbone) -> None:
    found = generate(backbone, ROWS, DecodingConfig(max_new_tokens=12))
    for row, answer in zip(ROWS, found, strict=True):
        expected, mean = hugging_face(backbone, row, max_new_tokens=12)
        assert tokens(answer.text) == expected
        assert answer.confidence == pytest.approx(float(torch.tensor(mean).exp()), rel=1e-3)
        assert answer.first_token_seconds > 0


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_are_at_least_as_good_as_transformers(backbone: Backbone, beams: int) -> None:
    found = generate(backbone, ROWS, DecodingConfig(max_new_tokens=8, beams=beams))
    for row, answer in zip(ROWS, found, strict=True):
        expected, mean = hugging_face(
            backbone, row, max_new_tokens=8, num_beams=beams, length_penalty=1.0
        )
        own = float(torch.tensor(answer.confidence).log())
        assert own >= mean - 1e-4
        if tokens(answer.text) != expected:  # another hypothesis: then a better one
            assert own > mean


def test_beams_equal_transformers_where_nothing_ends(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an end token both are the same search."""
    plain = backbone.logits

    def endless(hidden: Tensor) -> Tensor:
        scores = plain(hidden)
        scores[..., backbone.end_id] = -torch.inf
        return scores

    monkeypatch.setattr(backbone, "logits", endless)
    for row in ROWS:
        answer = generate(backbone, [row], DecodingConfig(max_new_tokens=6, beams=4))[0]
        expected, _ = hugging_face(
            backbone, row, max_new_tokens=6, num_beams=4, suppress_tokens=[backbone.end_id]
        )
        assert tokens(answer.text) == expected


@pytest.mark.parametrize(
    "config",
    [
        DecodingConfig(max_new_tokens=7),
        DecodingConfig(max_new_tokens=7, beams=4),
        DecodingConfig(max_new_tokens=7, beams=6, groups=3, diversity=2.0),
    ],
    ids=["greedy", "beams", "groups"],
)
def test_a_batch_with_its_memories_equals_single_rows(
    backbone: Backbone, config: DecodingConfig
) -> None:
    """Beams must carry the memory of their own row along."""
    memory = memories(backbone, 3)
    with backbone.with_memory(memory):
        together = generate(backbone, ROWS, config)
    plain = generate(backbone, ROWS, config)
    assert [a.text for a in together] != [a.text for a in plain]
    for i, row in enumerate(ROWS):
        with backbone.with_memory(memory.rows(torch.tensor([i]))):
            alone = generate(backbone, [row], config)[0]
        assert alone.text == together[i].text
        assert alone.confidence == pytest.approx(together[i].confidence, rel=1e-3)


def test_one_group_without_diversity_is_plain_beam_search(backbone: Backbone) -> None:
    one = generate(backbone, ROWS, DecodingConfig(beams=3, diversity=5.0))
    assert one == [
        type(a)(a.text, a.confidence, b.first_token_seconds, a.finished)
        for a, b in zip(generate(backbone, ROWS, DecodingConfig(beams=3)), one, strict=True)
    ]


def test_generation_leaves_an_attached_memory_as_it_was(backbone: Backbone) -> None:
    memory = memories(backbone, 3)
    copies = [k.clone() for k in memory.keys]
    config = DecodingConfig(max_new_tokens=4, beams=2)
    with backbone.with_memory(memory):
        first = [a.text for a in generate(backbone, ROWS, config)]
        assert [a.text for a in generate(backbone, ROWS, config)] == first
    assert all(torch.equal(k, c) for k, c in zip(memory.keys, copies, strict=True))
    assert memory.keys[0].shape[2] == 6


def test_an_answer_stops_at_the_end_token(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([40, 41, backbone.end_id, 43, 44])

    def scripted(hidden: Tensor) -> Tensor:
        scores = torch.zeros(*hidden.shape[:-1], 259)
        scores[..., next(steps)] = 30.0
        return scores

    monkeypatch.setattr(backbone, "logits", scripted)
    answer = generate(backbone, [ROWS[0]], DecodingConfig(max_new_tokens=5))[0]
    assert tokens(answer.text) == [40, 41]
    assert next(steps) == 43, "nothing is run after the end"


def test_what_does_not_fit_is_refused(backbones: Backbones) -> None:
    backbone = backbones.shared("gpt2")
    with pytest.raises(InputError, match="512 positions"):
        generate(backbone, [[5] * 500], DecodingConfig(max_new_tokens=16))
    states = torch.randn(1, 20, 32)
    memory = backbone.fill(states, torch.ones(1, 20).bool(), 0)
    with backbone.with_memory(memory), pytest.raises(InputError, match="512 positions"):
        generate(backbone, [[5] * 490], DecodingConfig(max_new_tokens=16))
    assert generate(backbone, []) == []


def test_decoding_settings_are_checked() -> None:
    with pytest.raises(InputError, match="max_new_tokens"):
        DecodingConfig(max_new_tokens=0)
    with pytest.raises(InputError, match="groups must divide beams"):
        DecodingConfig(beams=5, groups=2)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("remembers", [False, True])
def test_prompts_are_as_likely_as_an_answer_of_their_tokens(
    backbone: Backbone, beams: int, remembers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentbank.backbone.text_run._SCORED_AT_ONCE", 4)
    counts = [11, 2, 0]
    heads = [row[: len(row) - count] for row, count in zip(ROWS, counts, strict=True)]
    tails = [row[len(row) - count :] for row, count in zip(ROWS, counts, strict=True)]
    with torch.no_grad(), backbone.with_memory(memories(backbone, 3) if remembers else None):
        wanted = (-backbone.answer_loss(heads, tails)[0]).tolist()
        config = DecodingConfig(max_new_tokens=4, beams=beams)
        run = PromptRun(backbone, ROWS, config, scored=counts)
        assert run.likelihoods() == pytest.approx(wanted, abs=1e-3)
        every = generate(backbone, ROWS, config)
        kept = [2, 1] if remembers else [1]
        some = run.answers(kept)
        assert PromptRun(backbone, ROWS, config).answers([]) == []
    assert [one.text for one in some] == [every[at].text for at in kept]
    for one, at in zip(some, kept, strict=True):
        assert one.confidence == pytest.approx(every[at].confidence, rel=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_quoted_answers_are_the_same_in_fewer_steps(
    backbone: Backbone,
    batch: int,
    remembers: bool,
    contrast: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, config, steps = ROWS[:batch], DecodingConfig(max_new_tokens=9), [0]
    through = Backbone.logits

    def counted(self: Backbone, hidden: Tensor) -> Tensor:
        steps[0] += 1
        return through(self, hidden)

    monkeypatch.setattr(Backbone, "logits", counted)
    with backbone.with_memory(memories(backbone, batch) if remembers else None):
        plain, slow = generate(backbone, rows, config, contrast), steps[0]
        said = [tokens(one.text) for one in plain]
        for text in (
            [[7, *row, 9] for row in said],
            [[*row[:4], 11, 12, *row[2:6], 13] for row in said],
            [[] for _ in said],
            [[backbone.end_id, *row[:2], backbone.end_id, *row] for row in said],
        ):
            steps[0] = 0
            found = generate(backbone, rows, config, contrast, text)
            assert [one.text for one in found] == [one.text for one in plain]
            for one, other in zip(found, plain, strict=True):
                assert one.confidence == pytest.approx(other.confidence, rel=1e-4)
            if text[0][:1] == [7]:
                assert steps[0] < slow
            assert steps[0] <= slow


def test_a_run_repeated_over_a_memory_is_a_run_over_it(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, config = [3, 2, 4], DecodingConfig(max_new_tokens=5)
    alone = PromptRun(backbone, ROWS, config, scored=counts, split=1)
    rows = [2, 0, 2]
    with backbone.with_memory(memories(backbone, 3)):
        fresh = PromptRun(backbone, [ROWS[i] for i in rows], config, 0.0, [4, 3, 4])
        layers = []
        through = Backbone.run

        def seen(self: Backbone, first: int, last: int, *rest: Any) -> Tensor:
            layers.append(first)
            return through(self, first, last, *rest)

        monkeypatch.setattr(Backbone, "run", seen)
        again = alone.repeat(rows)
        assert layers == [1], "the layers below are not run"
        monkeypatch.undo()
        assert again.likelihoods() == pytest.approx(fresh.likelihoods(), abs=1e-3)
        assert again.likelihoods()[0] != pytest.approx(alone.likelihoods()[2], abs=1e-3)
        found, wanted = again.answers(), fresh.answers()
    assert [one.text for one in found] == [one.text for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4)
    plain = generate(backbone, ROWS, config)
    assert [one.text for one in alone.answers()] == [one.text for one in plain], "as it was"


def test_a_run_over_a_memory_repeated_without_it_is_a_run_without(backbone: Backbone) -> None:
    counts, config = [3, 2, 4], DecodingConfig(max_new_tokens=5)
    with backbone.with_memory(memories(backbone, 3)):
        over = PromptRun(backbone, ROWS, config, scored=counts)
    fresh = PromptRun(backbone, [ROWS[2], ROWS[0]], config, scored=[4, 3])
    again = over.repeat([2, 0])
    assert again.likelihoods() == pytest.approx(fresh.likelihoods(), abs=1e-3)
    assert again.likelihoods([1]) == pytest.approx(fresh.likelihoods()[1:], abs=1e-3)
    assert again.likelihoods() != pytest.approx(over.likelihoods([2, 0]), abs=1e-3)
    found, wanted = again.answers(), fresh.answers()
    assert [one.text for one in found] == [one.text for one in wanted]


def test_what_cannot_be_repeated(backbones: Backbones) -> None:
    backbone = backbones.shared("gpt2")
    whole = PromptRun(backbone, ROWS)
    with pytest.raises(ValueError, match="not split"):
        whole.repeat([0])
    with pytest.raises(ValueError, match="without contrast"):
        PromptRun(backbone, ROWS, contrast=0.5).repeat([0])
    with backbone.with_memory(memories(backbone, 3)), pytest.raises(ValueError, match="not split"):
        whole.repeat([0, 1, 2])
    split = PromptRun(backbone, ROWS, DecodingConfig(max_new_tokens=2), split=1)
    split.answers()
    with pytest.raises(ValueError, match="once"):
        split.answers([0])
    with backbone.with_memory(memories(backbone, 3)), pytest.raises(ValueError, match="fed twice"):
        split.repeat([0, 1, 2])
