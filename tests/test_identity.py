"""Identity: documents, chunks and the entry ids that tell them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.documents.identity import content_hash, entry_id, find_entries, group, split
from latentbank.errors import InputError

ids = st.one_of(st.text(min_size=1, max_size=12), st.text(alphabet="a#01", min_size=1, max_size=8))
chunks = st.one_of(st.none(), st.integers(0, 12))


@pytest.mark.parametrize(
    ("document", "chunk", "entry"),
    [
        ("guide", None, "guide"),
        ("guide", 3, "guide#3"),
        ("guide#1", None, "guide##1"),
        ("guide#1", 3, "guide##1#3"),
        ("a#b", None, "a#b"),
        ("a#b", 0, "a#b#0"),
        ("a#", 3, "a###3"),
        ("guide##1", None, "guide####1"),
        ("#007", None, "#007"),
    ],
)
def test_entry_ids(document: str, chunk: int | None, entry: str) -> None:
    assert entry_id(document, chunk) == entry
    assert split(entry) == (document, chunk)


@given(ids, chunks)
def test_an_entry_id_gives_back_document_and_chunk(document: str, chunk: int | None) -> None:
    assert split(entry_id(document, chunk)) == (document, chunk)


@given(ids, chunks, ids, chunks)
def test_no_two_share_an_entry_id(
    one: str, first: int | None, two: str, second: int | None
) -> None:
    same = (one, first) == (two, second)
    assert (entry_id(one, first) == entry_id(two, second)) == same


@given(st.text(alphabet="a#01", min_size=1, max_size=8))
def test_any_stored_id_can_be_split(entry: str) -> None:
    document, chunk = split(entry)
    assert document or chunk is not None


def test_chunks_of_older_banks_stay_chunks() -> None:
    assert split("guide#0") == ("guide", 0)
    assert split("issue#12#0") == ("issue#12", 0)


def test_chunk_numbers_start_at_zero() -> None:
    with pytest.raises(InputError, match="at least 0, got -1"):
        entry_id("guide", -1)


def test_entries_by_document() -> None:
    held = ["guide#10", "guide#2", "guide##1", "other", "guide#0"]
    assert group(held) == {
        "guide": ["guide#0", "guide#2", "guide#10"], "guide#1": ["guide##1"], "other": ["other"]
    }  # fmt: skip


def test_a_document_is_found_with_its_chunks_and_nothing_else() -> None:
    held = [entry_id("guide", 0), entry_id("guide", 1), entry_id("guide#1"), entry_id("issue#12"),
            entry_id("issue#13"), entry_id("issue")]  # fmt: skip
    assert find_entries(held, ["guide"]) == (["guide#0", "guide#1"], [])
    assert find_entries(held, ["guide#1"]) == (["guide##1"], [])
    assert find_entries(held, ["issue"]) == (["issue"], [])
    assert find_entries(held, ["issue#12", "issue#14"]) == (["issue##12"], ["issue#14"])
    assert find_entries(held, ["guide#0"]) == (["guide#0"], [])  # one chunk, by its entry id


def test_documents_of_older_banks_are_found_by_their_id() -> None:
    held = ["issue#12", "issue#13"]  # written before ids were escaped
    assert find_entries(held, ["issue#12"]) == (["issue#12"], [])


def test_the_hash_of_a_text_is_that_of_its_normal_form() -> None:
    assert content_hash(" Cafe\u0301\r\nopen ") == content_hash("Caf\u00e9\nopen")
    assert content_hash("abc") == "d8bb14d833d59559"  # BLAKE2b-64 of b"abc"
    with pytest.raises(InputError, match="a lone surrogate at character 1"):
        content_hash("a\ud83d")
