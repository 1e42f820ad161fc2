"""The index over many keys: what it finds beside the flat search, as the set grows and shrinks."""

import sys

import pytest
import torch
from torch import Tensor

from latentbank.parts.retrieval import dense, key_index
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.key_index import load_faiss

WIDTH = 64
LARGE = 20_000


def clustered(count: int, seed: int = 0) -> Tensor:
    """Unit keys [count, WIDTH] around one centre for every fifty, cosine about 0.86 with it."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(count // 50, WIDTH, generator=draw))
    noise = torch.randn(count, WIDTH, generator=draw) * 0.6 / WIDTH**0.5
    chosen = centres[torch.randint(len(centres), (count,), generator=draw)]
    return torch.nn.functional.normalize(chosen + noise)


def near(keys: Tensor, count: int, seed: int = 1) -> Tensor:
    """Questions [count, WIDTH] as far from a key as keys are from their centres."""
    draw = torch.Generator().manual_seed(seed)
    chosen = keys[torch.randint(len(keys), (count,), generator=draw)]
    noise = torch.randn(count, WIDTH, generator=draw) * 0.6 / WIDTH**0.5
    return torch.nn.functional.normalize(chosen + noise)


def filled(keys: Tensor, first: int = 0) -> DenseKeys:
    made = DenseKeys(WIDTH)
    made.add([str(first + n) for n in range(len(keys))], DenseKeys.encode(keys))
    return made


def names(found: list[list[tuple[str, float]]]) -> list[set[str]]:
    return [{name for name, _ in row} for row in found]


def recall(keys: DenseKeys, asked: Tensor, top: int = 8) -> float:
    """The share of the flat search's documents that the search finds."""
    pairs = zip(names(keys.search(asked, top)), names(keys._search_all(asked, top)), strict=True)
    return sum(len(one & other) for one, other in pairs) / (top * len(asked))


@pytest.fixture(scope="module")
def keys() -> Tensor:
    return clustered(LARGE)


def test_the_library_is_there() -> None:
    assert load_faiss() is not None, "the extra dev brings faiss-cpu"


def test_the_index_finds_what_the_flat_search_finds(keys: Tensor) -> None:
    made, asked = filled(keys), near(keys, 200)
    assert recall(made, asked) >= 0.95
    assert made._index is not None and len(made._index) == LARGE
    assert made._matrix is not None  # of the flat search; the index itself needs none
    assert made._index.size_bytes < LARGE * (WIDTH / 4 + 8) * 1.35
    flat = {name: score for name, score in made._search_all(asked[:1], LARGE)[0]}
    for name, score in made.search(asked[:1], 8)[0]:
        assert score == pytest.approx(flat[name], abs=1e-5)


def test_few_documents_are_searched_flat(keys: Tensor) -> None:
    made = filled(keys[: dense.INDEX_FROM - 1])
    made.search(keys[:1], 8)
    assert made._index is None
    made.add(["one more"], DenseKeys.encode(keys[-1:]))
    assert made.search(keys[-1:], 1)[0][0][0] == "one more"
    assert made._index is not None


def test_one_set_of_keys_gives_one_answer(keys: Tensor) -> None:
    asked = near(keys, 50)
    assert filled(keys).search(asked, 8) == filled(keys).search(asked, 8)
    made = filled(keys)
    together = made.search(asked, 8)
    for one, row in zip(asked, together, strict=True):
        alone = made.search(one[None], 8)[0]
        assert [name for name, _ in alone] == [name for name, _ in row]


def test_documents_come_and_go(keys: Tensor) -> None:
    made = filled(keys)
    made.search(keys[:1], 8)
    index = made._index
    more = clustered(2000, seed=5)
    made.add([f"new{n}" for n in range(2000)], DenseKeys.encode(more))
    assert [row[0][0] for row in made.search(more[:50], 1)] == [f"new{n}" for n in range(50)]
    assert made._index is index and len(made._index) == LARGE + 2000
    gone = [*(str(n) for n in range(500)), *(f"new{n}" for n in range(100)), "unknown"]
    made.remove(gone)  # few: their rows stay, unseen
    assert len(made) == LARGE + 1400 and made._dead
    asked = torch.cat([keys[:100], more[:100]])
    assert not set().union(*names(made.search(asked, 8))) & set(gone)
    assert recall(made, asked) >= 0.95
    made.remove([str(n) for n in range(500, 4000)])  # many: rows are freed
    assert not made._dead and len(made) == LARGE - 2100
    assert made._index is index and len(made._index) == len(made)
    asked = torch.cat([near(keys[4000:], 100), more[100:200]])
    assert recall(made, asked) >= 0.95
    made.add([str(n) for n in range(4000)], DenseKeys.encode(keys[:4000]))
    made.remove(["7"])  # before the index has seen it
    found = made.search(keys[:4000], 1)
    assert [row[0][0] for n, row in enumerate(found) if n != 7] == [
        str(n) for n in range(4000) if n != 7
    ]
    assert made._index is index and len(made._index) == len(made)


def test_removing_a_whole_neighbourhood_leaves_the_next_best(keys: Tensor) -> None:
    made, asked = filled(keys), keys[:1]
    nearest = [name for name, _ in made._search_all(asked, 208)[0]]
    made.search(asked, 8)
    made.remove(nearest[:200])
    found = made.search(asked, 8)[0]
    assert len(found) == 8 and not set(nearest[:200]) & {name for name, _ in found}
    assert {name for name, _ in found} & set(nearest[200:])


def test_an_index_that_most_have_left_is_made_anew(keys: Tensor) -> None:
    made = filled(torch.cat([keys, clustered(5 * LARGE, seed=3)]))
    made.search(keys[:1], 8)
    index = made._index
    made.remove([str(n) for n in range(LARGE, 6 * LARGE)])
    assert recall(made, near(keys, 100)) >= 0.95
    assert made._index is not index and made._index is not None and len(made._index) == LARGE


def test_an_index_that_is_outgrown_is_made_anew(keys: Tensor) -> None:
    made = filled(keys)
    made.search(keys[:1], 8)
    index = made._index
    more = clustered(LARGE // 2 + 1, seed=7)
    made.add([f"new{n}" for n in range(LARGE // 2 + 1)], DenseKeys.encode(more))
    assert recall(made, near(more, 100)) >= 0.95
    assert made._index is not index


def test_more_documents_than_the_lists_hold_are_still_given(keys: Tensor) -> None:
    made = filled(keys)
    found = made.search(keys[:2], LARGE + 5)
    assert [len(row) for row in found] == [LARGE, LARGE]


def test_keys_of_zeros_and_odd_widths_do_no_harm() -> None:
    rows = torch.nn.functional.normalize(torch.randn(LARGE, 7))
    made = DenseKeys(7)
    made.add([str(n) for n in range(LARGE)], DenseKeys.encode(rows))
    made.add(["zero"], [bytes(7)])
    assert len(made.search(torch.zeros(1, 7), 3)[0]) == 3
    assert made.search(rows[5:6], 8)[0][0][1] > 0.98


def test_without_the_library_the_search_is_flat(
    keys: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, made = near(keys, 20), filled(keys)
    exact = made._search_all(asked, 8)
    monkeypatch.setitem(sys.modules, "faiss", None)
    key_index.load_faiss.cache_clear()
    try:
        assert load_faiss() is None
        assert made.search(asked, 8) == exact and made._index is None
    finally:
        key_index.load_faiss.cache_clear()
