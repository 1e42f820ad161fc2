"""Needles, changing associations, and the training of language models on token ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latentbank.errors import InputError, UnknownNameError
from latentbank.evaluate.data import load_sample
from latentbank.evaluate.long_context import (
    IGNORED,
    IS,
    KINDS,
    OTHER,
    RECALL,
    REMEMBER,
    VALUE_TOKENS,
    Haystack,
    Vocabulary,
    needle_sample,
    recall_sample,
)
from latentbank.parts.memory_lm import MemoryLM, MemoryLMConfig
from latentbank.training.language import LanguageConfig, LanguageTrainer


@pytest.fixture(scope="module")
def hay() -> Haystack:
    return Haystack.of([d.text for d in load_sample().documents][:40], 128)


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [0.0, 0.37, 1.0])
def test_a_needle_stands_at_its_depth_and_the_question_at_the_end(
    hay: Haystack, kind: str, depth: float
) -> None:
    text, value = needle_sample(hay, kind, 300, depth, draws())
    assert len(text) == 300 and len(value) == VALUE_TOKENS
    (at,) = np.flatnonzero(text == REMEMBER)
    assert at == round(depth * (300 - 3 - 3 - VALUE_TOKENS))
    name = text[at + 1]
    assert text[at : at + 3 + VALUE_TOKENS].tolist() == [REMEMBER, name, IS, *value]
    assert text[-3:].tolist() == [RECALL, name, IS]
    assert (text == RECALL).sum() == 1


def test_the_kinds_differ_in_haystack_and_value(hay: Haystack) -> None:
    first = hay.vocabulary.first_word
    filler = hay.filler("passkey", 240, draws())
    assert np.array_equal(filler[:-12], filler[12:]), "one sentence, again and again"
    text = hay.filler("number", 240, draws())
    assert not np.array_equal(text[:-12], text[12:]) and ((text >= first) | (text == OTHER)).all()
    assert (hay.value("number", draws()) < first).all()
    assert (hay.value("word", draws()) >= first).all()


def test_the_last_write_wins(hay: Haystack) -> None:
    changed = 0
    for seed in range(20):
        ids, labels = recall_sample(hay, "number", 160, 3, draws(seed), updates=0.6)
        assert len(ids) == len(labels) == 160
        current: dict[int, list[int]] = {}
        for at in np.flatnonzero((ids == REMEMBER) | (ids == RECALL)):
            name, value = int(ids[at + 1]), ids[at + 3 : at + 3 + VALUE_TOKENS].tolist()
            told = labels[at + 3 : at + 3 + VALUE_TOKENS].tolist()
            if ids[at] == REMEMBER:
                changed += name in current
                current[name] = value
                assert set(told) == {IGNORED}
            else:
                assert value == told == current[name]
        assert (labels >= 0).sum() == VALUE_TOKENS * (ids == RECALL).sum()
    assert changed > 10


def test_words_go_there_and_back(hay: Haystack) -> None:
    vocabulary = hay.vocabulary
    said = " ".join(vocabulary.words[:5])
    assert vocabulary.decode(vocabulary.encode(said)) == said
    assert vocabulary.encode("xyzzyq").tolist() == [OTHER]
    assert vocabulary.decode([REMEMBER, 4, IS, 30, 39]) == "REMEMBER A IS 0 9"


def test_bad_haystacks_and_samples_are_refused(hay: Haystack) -> None:
    with pytest.raises(InputError, match="no words"):
        Haystack.of(["", " "])
    with pytest.raises(InputError, match="more than"):
        Vocabulary.of(["a"], 10)
    with pytest.raises(UnknownNameError, match="passkey"):
        hay.filler("song", 5, draws())
    with pytest.raises(InputError, match="at least 9 tokens, got 5"):
        needle_sample(hay, "number", 5, 0.5, draws())
    with pytest.raises(InputError, match="26 names"):
        recall_sample(hay, "number", 800, 27, draws())


# ---- training


def trainer(folder: Path, hay: Haystack, steps: int = 6, seed: int = 0) -> LanguageTrainer:
    torch.manual_seed(seed)
    config = MemoryLMConfig(
        "LMM", vocab_size=len(hay.vocabulary), width=16, heads=1, head_dim=16, ffn=16, chunk=16
    )

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [recall_sample(hay, "passkey", 48, 2, draws(100 * step + i)) for i in range(4)]
        ids, labels = (torch.from_numpy(np.stack(one)) for one in zip(*rows, strict=True))
        return ids, labels

    return LanguageTrainer(
        MemoryLM(config), draw, LanguageConfig(steps=steps, warmup=2), folder, "data"
    )


def test_a_resumed_training_ends_where_an_unbroken_one_does(hay: Haystack, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "a", hay)
    assert whole.run()
    stopped = trainer(tmp_path / "b", hay)
    assert not stopped.run(max_seconds=0) and stopped.step == 1
    resumed = trainer(tmp_path / "b", hay, seed=0)
    assert resumed.step == 1 and resumed.run()
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert resumed.tokens == whole.tokens == 6 * 4 * 48


def test_training_lowers_the_loss(hay: Haystack, tmp_path: Path) -> None:
    run = trainer(tmp_path, hay, steps=40)
    losses = [run._one_step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_another_run_is_not_overwritten(hay: Haystack, tmp_path: Path) -> None:
    trainer(tmp_path, hay).run(max_seconds=0)
    with pytest.raises(InputError, match="other settings"):
        trainer(tmp_path, hay, steps=7)


def test_a_loss_that_is_not_finite_stops_the_run(hay: Haystack, tmp_path: Path) -> None:
    run = trainer(tmp_path, hay)
    with torch.no_grad():
        run.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="lower the learning rate"):
        run.run()
