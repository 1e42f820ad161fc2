"""Which documents are read: BM25 over words, and dense keys of eight bits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentbank.parts.retrieval.candidates import supported
from latentbank.parts.retrieval.dense import DenseKeys, DenseSelector
from latentbank.parts.retrieval.lexical import LexicalIndex
from tiny import DOCUMENTS, QUESTIONS


def index() -> LexicalIndex:
    made = LexicalIndex()
    made.add([d.id for d in DOCUMENTS], [d.text for d in DOCUMENTS])
    return made


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


# ---- words


def test_each_question_finds_its_document() -> None:
    words = index()
    for document, question in zip(DOCUMENTS, QUESTIONS, strict=True):
        assert words.search(question, 3)[0][0] == document.id


def test_scores_follow_bm25() -> None:
    """k1 1.2 and b 0.75 with the idf of SQLite's FTS5, by hand."""
    words = LexicalIndex(background=None)
    texts = ["red red apple", "green pear tree leaf", "blue plum", "red fish pond house", "sky"]
    words.add([str(i) for i in range(5)], texts)
    found = dict(words.search("red", 5))
    assert set(found) == {"0", "3"}
    mean, idf = sum(len(t.split()) for t in texts) / 5, math.log((5 - 2 + 0.5) / (2 + 0.5))
    for name, times, length in (("0", 2, 3), ("3", 1, 4)):
        expected = idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))
        assert found[name] == pytest.approx(expected, rel=1e-4)


def test_stems_accents_and_case_do_not_matter() -> None:
    words = index()
    assert words.search("PROGRAMS writing", 1)[0][0] == DOCUMENTS[0].id
    assert words.search("cafe zurich", 1)[0][0] == DOCUMENTS[2].id


def test_removed_documents_are_found_no_more_and_change_no_score() -> None:
    words, small = index(), LexicalIndex()
    words.remove([DOCUMENTS[1].id, "unknown"])
    kept = [d for i, d in enumerate(DOCUMENTS) if i != 1]
    small.add([d.id for d in kept], [d.text for d in kept])
    assert len(words) == len(small) == 4
    for question in QUESTIONS:
        assert words.search(question, 5) == small.search(question, 5)
    words.add([DOCUMENTS[1].id], [DOCUMENTS[1].text])
    assert words.search(QUESTIONS[1], 1)[0][0] == DOCUMENTS[1].id


def test_an_id_is_indexed_once() -> None:
    words = index()
    words.add([DOCUMENTS[0].id, "new", "new"], ["other words", "one text", "two texts"])
    assert len(words) == 6
    assert words.search("other", 3) == []
    assert words.search("two", 3) == []


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_no_question_breaks_the_query_language(question: str) -> None:
    found = index().search(question, 2)
    assert len(found) <= 2
    assert all(math.isfinite(score) for _, score in found)


@pytest.mark.parametrize("question", ['NEAR("a" b)', "a AND NOT b*", '"', "col:x", "?!", "", "_"])
def test_operators_are_only_words(question: str) -> None:
    assert isinstance(index().search(question, 2), list)


def test_an_empty_index_finds_nothing() -> None:
    assert LexicalIndex().search("anything", 3) == []


def test_a_match_is_the_share_of_the_words_that_a_document_holds() -> None:
    """Every word of the question weighs log(1 + (N - n + 0.5) / (n + 0.5)), N at least 1,000."""
    words = LexicalIndex(background=None)
    words.add(["a", "b"], ["Mara repairs the lighthouse", "a lighthouse of stone"])
    rare, common = (math.log(1 + (1000 - n + 0.5) / (n + 0.5)) for n in (1, 2))
    unseen = math.log(1 + 1000.5 / 0.5)
    found = words.matches("Who repaired the lighthouse on Oster?", ["a", "b", "gone"])
    total = rare + common + unseen
    assert found == pytest.approx([(rare + common) / total, common / total, 0.0])
    assert words.matches("Who repairs the lighthouse?", ["a"]) == [pytest.approx(1.0)]
    assert words.matches("the of", ["a"]) == [pytest.approx(0.5, abs=0.1)], "only function words"
    assert words.matches("", ["a"]) == words.matches("?!", ["a"]) == [0.0]
    assert words.matches("Who?", []) == []


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_a_match_is_a_share_whatever_is_asked(question: str) -> None:
    assert all(0 <= one <= 1 + 1e-9 for one in index().matches(question, [DOCUMENTS[0].id, "x"]))


def test_what_matches_too_little_is_not_read() -> None:
    chosen = [[("a", 3.0), ("b", 2.0)], [("c", 9.0)], []]
    kept, support = supported(chosen, [[0.2, 0.5], [0.4], []], 0.45)
    assert kept == [chosen[0], [], []]
    assert support == (0.5, 0.4, 0.0)
    assert supported(chosen, [[0.0, 0.0], [0.0], []], 0.0)[0] == chosen


# ---- dense keys


def test_keys_of_eight_bits_rank_like_cosines() -> None:
    stored, asked = unit(60, 32), unit(5, 32, seed=1)
    keys = DenseKeys(32)
    packed = DenseKeys.encode(stored)
    assert {len(row) for row in packed} == {32}
    keys.add([str(i) for i in range(40)], packed[:40])
    keys.add([str(i) for i in range(40, 60)], packed[40:])
    assert len(keys) == 60
    exact = asked @ stored.T
    for i, row in enumerate(keys.search(asked, 4)):
        assert row[0][0] == str(int(exact[i].argmax()))
        assert [score for _, score in row] == sorted((s for _, s in row), reverse=True)
        for name, score in row:
            assert score == pytest.approx(float(exact[i, int(name)]), abs=0.02)


def test_keys_added_after_a_search_are_found() -> None:
    keys, stored = DenseKeys(8), unit(3, 8)
    assert keys.search(stored, 2) == [[], [], []]
    keys.add(["a"], DenseKeys.encode(stored[:1]))
    assert [name for name, _ in keys.search(stored[:1], 5)[0]] == ["a"]
    keys.add(["b", "c"], DenseKeys.encode(stored[1:]))
    assert keys.search(stored[2:], 1)[0][0][0] == "c"
    keys.add([], [])
    assert len(keys) == 3


# ---- the trained selector


@pytest.fixture
def selector() -> DenseSelector:
    torch.manual_seed(0)
    return DenseSelector(12, key_width=8, queue=5)


def test_keys_are_unit_vectors_and_ignore_padding(selector: DenseSelector) -> None:
    states, mask = unit(2, 6, 12), torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    for side in (selector.questions, selector.documents):
        keys = side(states, mask)
        torch.testing.assert_close(keys.norm(dim=1), torch.ones(2))
        junk = states.clone()
        junk[1, 3:] = 1e4
        torch.testing.assert_close(side(junk, mask), keys)
        torch.testing.assert_close(side(states[1:, :3], mask[1:, :3]), keys[1:])


def test_a_text_without_tokens_has_no_key_and_disturbs_no_other(selector: DenseSelector) -> None:
    states, mask = unit(2, 6, 12), torch.tensor([[True] * 6, [False] * 6])
    keys = selector.questions(states, mask)
    assert torch.equal(keys[1], torch.zeros(8))
    torch.testing.assert_close(keys[:1], selector.questions(states[:1], mask[:1]))
    assert torch.equal(selector.questions(states[:, :0], mask[:, :0]), torch.zeros(2, 8))


def test_the_loss_is_a_softmax_over_documents_and_the_queue(selector: DenseSelector) -> None:
    asked, stored, owner = unit(3, 8), unit(2, 8, seed=1), torch.tensor([0, 1, 1])
    scale = selector.log_scale.exp()
    first = selector.loss(asked, stored, owner)
    expected = torch.nn.functional.cross_entropy(asked @ stored.T * scale, owner)
    torch.testing.assert_close(first, expected)
    later = unit(2, 8, seed=2)
    negatives = torch.cat([later, stored])
    torch.testing.assert_close(
        selector.loss(asked, later, owner),
        torch.nn.functional.cross_entropy(asked @ negatives.T * scale, owner),
    )


def test_the_queue_is_bounded_and_rests_in_evaluation(selector: DenseSelector) -> None:
    owner = torch.tensor([0, 1])
    for step in range(4):
        selector.loss(unit(2, 8), unit(2, 8, seed=step), owner)
    assert selector._queue is not None
    assert selector._queue.shape == (5, 8)
    torch.testing.assert_close(selector._queue[:2], unit(2, 8, seed=3))
    before = selector._queue
    selector.eval()
    selector.loss(unit(2, 8), unit(2, 8, seed=9), owner)
    assert selector._queue is before


def test_training_brings_questions_to_their_documents(selector: DenseSelector) -> None:
    states, mask = unit(4, 5, 12), torch.ones(4, 5).bool()
    questions = states + 0.1 * unit(4, 5, 12, seed=1)
    optimizer = torch.optim.Adam(selector.parameters(), 0.05)
    selector.eval()  # without the queue
    owner = torch.arange(4)
    losses = []
    for _ in range(60):
        loss = selector.loss(
            selector.questions(questions, mask), selector.documents(states, mask), owner
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    scores = selector.questions(questions, mask) @ selector.documents(states, mask).T
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
