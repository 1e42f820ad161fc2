"""Sketches: a text as hashes of its words, and documents found by words and keys together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentbank.errors import BankError, InputError
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.lexical import LexicalIndex
from latentbank.parts.retrieval.sketch import (
    COSINE_WEIGHT,
    FUSED_CANDIDATES,
    SKETCH_REPEATS,
    FusedIndex,
    SketchIndex,
    join_sketch,
    sketches,
    split_sketch,
)
from tiny import DOCUMENTS, QUESTIONS

IDS = [d.id for d in DOCUMENTS]
TEXTS = [d.text for d in DOCUMENTS]
WORDS = st.lists(st.sampled_from(["comet", "tea", "harbour", "bees", "program"]), max_size=9)


def one(text: str) -> bytes:
    return sketches([text])[0]


def axis(*places: int, width: int = 8) -> Tensor:
    """Unit keys [N, width], each along one axis."""
    return torch.eye(width)[list(places)]


def fused(texts: list[str], keys: Tensor, names: list[str] | None = None) -> FusedIndex:
    made = FusedIndex(keys.shape[1])
    names = names or [str(i) for i in range(len(texts))]
    made.add(names, sketches(texts), DenseKeys.encode(keys))
    return made


# ---- what a sketch keeps


@settings(deadline=None, max_examples=30)
@given(WORDS, st.randoms())
def test_a_sketch_has_no_order(words: list[str], draw: object) -> None:
    mixed = list(words)
    draw.shuffle(mixed)  # type: ignore[attr-defined]
    assert one(" ".join(words)) == one(" ".join(mixed))


def test_a_sketch_is_two_bytes_for_a_word_and_knows_stems_not_forms() -> None:
    assert [len(s) for s in sketches(["comet", "comet tea", ""])] == [2, 4, 0]
    assert one("The PROGRAMS, programming!") == one("program programmed")
    assert one("comet") != one("tea")


def test_function_words_are_left_out() -> None:
    assert one("The harbour of Oslo, which it is not") == one("harbour Oslo")
    assert one("what is the and THESE") == b""


def test_repeats_are_capped() -> None:
    assert len(one("comet comet")) == 2 * 2
    assert one("comet " * 50) == one("comet " * SKETCH_REPEATS)
    assert len(one("comet " * 50 + "tea")) == 2 * (SKETCH_REPEATS + 1)


def test_many_texts_at_once_are_like_each_alone() -> None:
    assert sketches([*TEXTS, "", *TEXTS]) == [*map(one, TEXTS), b"", *map(one, TEXTS)]
    assert sketches([]) == []


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_any_text_has_a_sketch(text: str) -> None:
    found = one(text.encode(errors="ignore").decode())
    assert len(found) % 2 == 0


def test_other_scripts_and_accents() -> None:
    assert one("Café Zürich") == one("cafe zurich")
    assert one("東京 タワー") != one("京都 タワー")
    assert one("😀 … !") == b""


# ---- payloads


@given(st.binary(max_size=40).filter(lambda b: len(b) % 2 == 0), st.binary(max_size=40))
def test_a_payload_gives_back_what_was_joined(sketch: bytes, body: bytes) -> None:
    assert split_sketch(join_sketch(sketch, body)) == (sketch, body)


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x01\x00", b"\x02\x00abc", b"\xff\xff" * 9])
def test_a_damaged_payload_is_told(payload: bytes) -> None:
    with pytest.raises(BankError, match="cannot hold a sketch"):
        split_sketch(payload)


def test_a_sketch_longer_than_its_length_field_is_refused() -> None:
    join_sketch(bytes(2 * 0xFFFF), b"")
    with pytest.raises(InputError, match=r"at most 65535 words, got 65536"):
        join_sketch(bytes(2 * 0x10000), b"")


# ---- searching


def test_sketches_find_what_the_words_find() -> None:
    words, made = LexicalIndex(), SketchIndex()
    words.add(IDS, [" ".join(map(str, torch.frombuffer(bytearray(one(t)), dtype=torch.uint16)
                                 .tolist())) for t in TEXTS])  # fmt: skip
    made.add(IDS[:2], sketches(TEXTS[:2]))
    made.add(IDS, sketches(TEXTS))  # those that are there already stay as they are
    assert len(made) == len(IDS)
    for i, row in enumerate(made.search(QUESTIONS, 3)):
        assert row[0][0] == IDS[i]
        assert [score for _, score in row] == sorted((s for _, s in row), reverse=True)


def test_sketches_match_as_the_words_do() -> None:
    words, made = LexicalIndex(background=None), SketchIndex()
    words.add(IDS, TEXTS)
    made.add(IDS, sketches(TEXTS))
    asked = [*QUESTIONS, "What does nobody know about the zeppelin?"]
    rows = [IDS] * len(asked)
    for question, found in zip(asked, made.matches(asked, rows), strict=True):
        assert found == pytest.approx(words.matches(question, IDS))


def test_the_score_is_bm25_plus_the_weighted_cosine() -> None:
    keys = torch.nn.functional.normalize(
        torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    made = fused(TEXTS, keys, IDS)
    words, dense = SketchIndex(), DenseKeys(8)
    words.add(IDS, sketches(TEXTS))
    dense.add(IDS, DenseKeys.encode(keys))
    assert len(made) == 5
    for question, key in zip(QUESTIONS, keys.flip(0), strict=True):
        by_word = dict(words.search([question], 5)[0])
        by_key = dict(dense.search(key[None], 5)[0])
        found = made.search([question], key[None], 5)[0]
        assert {name for name, _ in found} == set(IDS)
        assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
        for name, score in found:
            expected = by_word.get(name, 0.0) + COSINE_WEIGHT * by_key[name]
            assert score == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_found_by_word_or_by_key_alone() -> None:
    made = fused(["comet", "tea", "harbour"], axis(0, 1, 2))
    neutral, third = axis(7), axis(2)
    assert made.search(["a comet?"], neutral, 1)[0][0][0] == "0"
    assert made.search(["nothing known"], third, 1)[0][0][0] == "2"
    both = made.search(["comet?", "nothing known"], torch.cat([neutral, third]), 1)
    assert [row[0][0] for row in both] == ["0", "2"], "each question with its own key"


@pytest.mark.parametrize("question", ["", "  ?!", "what is the", "😀"])
def test_a_question_without_words_is_answered_by_keys(question: str) -> None:
    made = fused(["comet", "what is the tea", "harbour"], axis(0, 1, 2))
    asked = torch.nn.functional.normalize(axis(1) + 0.5 * axis(2), dim=1)
    found = made.search([question], asked, 2)[0]
    assert [name for name, _ in found] == ["1", "2"]
    assert found[0][1] == pytest.approx(COSINE_WEIGHT * float(asked[0, 1]), rel=1e-4)


def test_a_candidate_beyond_one_sides_reach_is_scored_by_both() -> None:
    count = 2 * FUSED_CANDIDATES
    slope = torch.linspace(1, 0.9, count)[:, None]
    keys = torch.nn.functional.normalize(axis(0) * slope + axis(1), dim=1)
    made = fused([f"filler{i}" for i in range(count - 1)] + ["comet"], keys)
    last = str(count - 1)  # the farthest key of all, and the only one with the word
    best = made.search(["comet"], axis(0), 1)[0]
    alone = dict(made.search(["unheard"], axis(0), count)[0])
    assert [name for name, _ in best] == [last]
    assert len(alone) == count
    assert min(alone, key=lambda name: alone[name]) == last
    by_word = SketchIndex()
    by_word.add(list(alone), sketches(["comet" if n == last else f"filler{n}" for n in alone]))
    word = by_word.search(["comet"], 1)[0][0][1]
    assert best[0][1] == pytest.approx(word + alone[last], rel=1e-5)
    far = made.search(["filler0"], -axis(0), 1)[0]
    assert [name for name, _ in far] == ["0"], "a key beyond the reach, found by its word"


def test_an_empty_index_finds_nothing() -> None:
    assert FusedIndex(8).search(["comet", ""], axis(0, 1), 3) == [[], []]


def test_documents_that_come_later_are_found() -> None:
    made = fused(["comet"], axis(0))
    made.search(["tea"], axis(1), 2)
    made.add(["tea"], sketches(["tea"]), DenseKeys.encode(axis(1)))
    assert made.search(["tea"], axis(7), 1)[0][0][0] == "tea"
    assert len(made) == 2
