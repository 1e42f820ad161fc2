"""Chunks of a text with headings: each lies in one section and says which."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.documents.document import Document, chunk
from latentbank.documents.outline import Section, marked, nested
from latentbank.documents.readers.formats.markdown import markdown_outline


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def body(word: str, count: int = 30) -> str:
    return " ".join(f"{word}{n}." for n in range(count))


def markdown(text: str, **fields: object) -> Document:
    return Document(text, "guide", metadata=fields, outline=markdown_outline(text))  # type: ignore[arg-type]


def test_a_chunk_begins_with_the_headings_above_it() -> None:
    text = f"# Ship\n\n{body('sea')}\n\n## Crew\n\n{body('man', 90)}\n\n## Food\n\n{body('rye')}\n"
    chunks = chunk(markdown(text, title="Log"), words, 40)
    assert [one.metadata.get("heading") for one in chunks] == [
        "Ship", "Ship › Crew", "Ship › Crew", "Ship › Crew", "Ship › Food",
    ]  # fmt: skip
    assert chunks[0].text.startswith("Log\n\n# Ship\n\nsea0.")
    assert chunks[1].text.startswith("Log › Ship\n\n## Crew\n\nman0.")
    assert chunks[2].text.startswith("Log › Ship › Crew\n\nman")
    assert all(words([one.text])[0] <= 40 for one in chunks)
    assert [one.id for one in chunks] == [f"guide#{n}" for n in range(5)]


def test_a_document_that_fits_is_one_entry() -> None:
    document = markdown("# Ship\n\nIt sails.\n")
    assert [one.text for one in chunk(document, words, 40)] == ["# Ship\n\nIt sails."]
    assert "heading" not in chunk(document, words, 40)[0].metadata


def test_small_neighbours_share_a_chunk_and_parents_part_them() -> None:
    small = "".join(f"## S{n}\n\n{body('x', 3)}\n\n" for n in range(6))
    text = f"# One\n\n{small}# Two\n\n{body('y', 50)}"
    found = [one.metadata["heading"] for one in chunk(markdown(text), words, 60)]
    assert found == ["One", "One", "One › S5", "Two"]


def test_a_place_is_told_and_not_written_into_the_text() -> None:
    first, second = body("a", 30), body("b", 30)
    outline = (Section(0, (), "page 1"), Section(len(first) + 2, (), "page 2"))
    chunks = chunk(Document(f"{first}\n\n{second}", outline=outline), words, 30)
    assert [one.metadata["place"] for one in chunks] == ["page 1", "page 2"]
    assert [one.text for one in chunks] == [first, second]


def test_headings_that_are_too_long_are_left_out() -> None:
    heading = " ".join(["long"] * 30)
    text = f"# {heading}\n\n## Short\n\n{body('x', 100)}"
    chunks = chunk(markdown(text), words, 40)
    assert any(one.text.startswith("Short\n\n") for one in chunks)
    assert all(words([one.text])[0] <= 40 for one in chunks)


def test_levels_make_paths() -> None:
    levels = [(0, 2, "a"), (1, 3, "b"), (2, 3, "c"), (3, 1, "d"), (4, 4, "  e\nf ")]
    assert [section.path for section in nested(levels)] == [
        ("a",), ("a", "b"), ("a", "c"), ("d",), ("d", "e f"),
    ]  # fmt: skip
    text, outline = marked("x\n\0001\0One\n\0002\0\n\0002\0Two\ny")
    assert text == "x\nOne\n\nTwo\ny"
    assert outline == (Section(2, ("One",)), Section(7, ("One", "Two")))


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("# A\n\ntext\n\nB\n---\n\n```\n# no\n```\n", ["A", "B"]),
        ("- # in a list\n\n> # quoted\n\n### *C* [link](x) `d_e`\n", ["C link d_e"]),
        ("\r\n# A #\r\n\r\n## snake_case\r\n", ["A", "snake_case"]),
        ("#no\n\n####### no\n\n    # code\n", []),
    ],
)
def test_headings_of_markdown(text: str, headings: list[str]) -> None:
    outline = markdown_outline(text)
    assert [section.path[-1] for section in outline] == headings
    assert all(text[section.start :].lstrip("\r\n").startswith(("#", "B")) for section in outline)


headings = st.tuples(st.integers(1, 4), st.text("ab ", min_size=1, max_size=12), st.integers(0, 40))


@settings(max_examples=150, deadline=None)
@given(st.lists(headings, max_size=12), st.integers(6, 30))
def test_no_word_of_a_text_is_lost(parts: list[tuple[int, str, int]], limit: int) -> None:
    text = "start\n\n" + "\n\n".join(
        f"{'#' * level} {title}\n\n" + " ".join(f"w{at}x{n}" for n in range(count))
        for at, (level, title, count) in enumerate(parts)
    )
    chunks = chunk(markdown(text, title="T"), words, limit)
    assert all(words([one.text])[0] <= limit for one in chunks)
    said = [word for one in chunks for word in one.text.split() if word.startswith("w")]
    assert said == [word for word in text.split() if word.startswith("w")]
