"""Documents: their values, ids and versions, and chunking."""

import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.documents.document import Document, chunk
from latentbank.documents.identity import content_hash
from latentbank.errors import InputError

TOKEN = re.compile(r"\s?\w{1,6}|[^\w\s]|\s")


def count_tokens(texts: Sequence[str]) -> list[int]:
    """A stand-in for a subword tokenizer: words of up to six letters, with a space before."""
    return [len(TOKEN.findall(text)) for text in texts]


def visible(text: str) -> str:
    return "".join(text.split())


# ------------------------------------------------------------------------------- documents


def test_the_id_is_the_hash_of_the_normalised_text() -> None:
    document = Document("Caf\u00e9\nis open")
    assert re.fullmatch("[0-9a-f]{16}", document.id)
    assert document.id == content_hash("  Cafe\u0301\r\nis open\n")
    assert document.id != content_hash("Cafe\nis open")
    assert content_hash("abc") == "d8bb14d833d59559"  # BLAKE2b-64 of b"abc"
    assert Document("abc", id="mine").id == "mine"


def test_documents_are_frozen_values() -> None:
    first, second = Document("a", metadata={"k": [1]}), Document("a", metadata={"k": [1]})
    assert first == second
    assert len({first, second}) == 1
    with pytest.raises(FrozenInstanceError):
        first.text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": " \n"}, "empty"),
        ({"text": 3}, "must be a string, got int"),
        ({"text": "a\ud800"}, "surrogate at character 1"),
        ({"text": "a", "id": ""}, "1 to 1024 bytes"),
        ({"text": "a", "time": 5}, "Expected a time such as .* got 5"),
        ({"text": "a", "metadata": {"k": {1}}}, "must be JSON"),
        ({"text": "a", "metadata": {1: 2}}, "string keys"),
    ],
)
def test_wrong_documents_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Document(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    ["2024-05-01T23:30:00-05:00", "Wed, 01 May 2024 23:30:00 -0500", 1714624200, "1714624200000"],
)
def test_times_are_kept_in_one_form(given: str | int) -> None:
    assert Document("a", time=given).time == "2024-05-02T04:30:00+00:00"
    assert Document("a", time=datetime(2024, 5, 2, 4, 30, tzinfo=UTC)) == Document("a", time=given)


def test_a_version_is_told_by_text_time_and_metadata() -> None:
    first = Document("Tea is served.", id="k", time="2024", source="a", metadata={"p": 1, "q": 2})
    same = Document("Tea is served.\n", "k", "2024", "b", {"q": 2, "p": 1})
    assert re.fullmatch("[0-9a-f]{8}", first.version) and same.version == first.version
    others = [
        replace(first, text="Coffee is served."), replace(first, time="2025"),
        replace(first, metadata={}),
    ]  # fmt: skip
    assert len({first.version, *(other.version for other in others)}) == 4


def test_a_document_without_an_id_of_its_own_has_one_version() -> None:
    assert (
        Document("Tea.", time="2024").version == Document("Tea.", id=content_hash("Tea.")).version
    )
    assert Document("Tea.").version == ""


# -------------------------------------------------------------------------------- chunking

pieces = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["A sentence. ", "\n\n", "word ", "longword" * 30, " \n \n", "!?", "你好。世界"]
    ),
)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(pieces, max_size=40).map("".join), limit=st.integers(1, 40))
def test_chunks_fit_and_keep_everything(text: str, limit: int) -> None:
    if not text.strip():
        return
    document = Document(text, time="2024", source="s", metadata={"k": 1})
    chunks = chunk(document, count_tokens, limit)
    assert max(count_tokens([part.text for part in chunks])) <= limit
    assert visible("".join(part.text for part in chunks)) == visible(text)
    assert all((p.time, p.source, p.metadata) == ("2024", "s", {"k": 1}) for p in chunks)
    expected = [f"{document.id}#{i}" for i in range(len(chunks))]
    assert [part.id for part in chunks] == ([document.id] if len(chunks) == 1 else expected)


def test_a_document_that_fits_is_unchanged() -> None:
    document = Document("Short. Text.\n\nTwo paragraphs.")
    assert chunk(document, count_tokens, 100) == [document]


def test_chunks_end_at_the_best_boundary() -> None:
    one, two = "one two three four five.", "six seven eight."
    assert [part.text for part in chunk(Document(f"{one}\n\n{two}"), count_tokens, 7)] == [one, two]
    parts = [part.text for part in chunk(Document(f"{one} {two} {one}"), count_tokens, 7)]
    assert parts == [one, two, one]
    words = chunk(Document("alpha beta gamma delta " * 50), count_tokens, 8)
    assert {word for part in words for word in part.text.split()} == {
        "alpha",
        "beta",
        "gamma",
        "delta",
    }


def test_chunks_are_well_filled() -> None:
    text = " ".join(f"Sentence number {i} has about ten small words in it." for i in range(2000))
    chunks = chunk(Document(text), count_tokens, 128)
    total = count_tokens([text])[0]
    assert len(chunks) < 1.25 * total / 128


@pytest.mark.parametrize(
    "text",
    [
        "word and " * 222_222,
        "x" * 2_000_000,
        "." * 2_000_000,
        "No. Yes! " * 222_222,
        "a" + " " * 2_000_000 + "b",
    ],
    ids=["words", "one word", "dots", "sentences", "spaces"],
)
def test_two_megabytes_in_one_line(text: str) -> None:
    counted = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal counted
        counted += sum(map(len, texts))
        return count_tokens(texts)

    chunks = chunk(Document(text), count, 256)
    assert counted < 5 * len(text)  # linear: every character is counted a few times
    assert visible("".join(part.text for part in chunks)) == visible(text)


def test_impossible_chunk_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"):
        chunk(Document("abc"), count_tokens, 0)
    with pytest.raises(InputError, match="too small: the single character 'a' takes 2 tokens"):
        chunk(Document("abc"), lambda texts: [2 * len(text) for text in texts], 1)
    with pytest.raises(InputError, match="one count per string"):
        chunk(Document("abc"), lambda texts: [], 1)


def test_chunks_have_ids_of_their_own() -> None:
    text = "one two three four five. " * 20
    ids = [part.id for part in chunk(Document(text, id="guide#1"), count_tokens, 20)]
    assert ids[:2] == ["guide##1#0", "guide##1#1"]
    assert [part.id for part in chunk(Document("one", id="guide#1"), count_tokens, 20)] == [
        "guide##1"
    ]
    longest = chunk(Document(text, id="#" * 1023 + "1"), count_tokens, 20)
    assert len({part.id for part in longest}) == len(longest)


def test_chunks_have_the_version_of_the_whole_text() -> None:
    document = Document("one two three four five. " * 20, id="guide")
    assert document.version
    parts = chunk(document, count_tokens, 20)
    assert len(parts) > 1
    assert {part.version for part in parts} == {document.version}
