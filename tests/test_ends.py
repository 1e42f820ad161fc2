"""Ends: a text is cut behind a sentence or a word, never inside a character."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from latentbank.documents.ends import clip, finish, whole_characters

KOREAN = "안녕하세요 서울입니다"
HINDI = "नमस्ते दुनिया क्षत्रिय"


def test_a_text_that_fits_is_unchanged() -> None:
    assert clip("One two. ", 9) == "One two. "


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("The bus leaves at nine. It returns at ten.", 30, "The bus leaves at nine."),
        ("Yes. It returns at ten in the evening", 20, "Yes. It returns at"),
        ("one two three", 8, "one two"),
        ("one two three", 7, "one two"),
        ("one two three", 6, "one"),
        ("unbreakable", 5, "unbre"),
        ("这是中文文本。北京是首都", 9, "这是中文文本。"),
        (KOREAN, 7, "안녕하세요"),
        ("e\u0301e\u0301", 3, "e\u0301"),
        ("👍🏽👍🏽", 3, "👍🏽"),
        ("👨‍👩‍👧 family", 2, ""),
    ],
)
def test_clip(text: str, limit: int, expected: str) -> None:
    assert clip(text, limit) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Seoul is the capital. It has ten mil", "Seoul is the capital."),
        ("He said “yes.” ", "He said “yes.”"),
        ("the red house on the hi", "the red house on the"),
        ("the red house ", "the red house"),
        ("Lisbon", "Lisbon"),
        (KOREAN + "\ufffd", "안녕하세요"),
        (HINDI + "\ufffd\ufffd", "नमस्ते दुनिया"),
        ("北京\ufffd", "北京"),
        ("\ufffd", ""),
        ("", ""),
    ],
)
def test_finish(text: str, expected: str) -> None:
    assert finish(text) == expected


def test_half_characters() -> None:
    assert whole_characters("a\ufffd\ufffd") == "a"
    assert whole_characters("a\ud83d") == "a"
    assert whole_characters("a\ufffdb") == "a\ufffdb"


scripts = st.text(alphabet=HINDI + KOREAN + "e\u0301👨\u200d👩🏽.", max_size=60)


@given(st.one_of(st.text(max_size=60), scripts), st.integers(0, 60))
def test_no_character_is_cut(text: str, limit: int) -> None:
    cut = clip(text, limit)
    assert len(cut) <= limit or cut == text
    whole = whole_characters(text)
    assert text.startswith(cut)
    ends = {0, len(whole), len(text)}
    at = 0
    for character in regex.findall(r"\X", text):
        at += len(character)
        ends.add(at)
    assert len(cut) in ends


@given(st.text(max_size=60))
def test_finish_takes_from_the_end_only(text: str) -> None:
    assert text.startswith(finish(text))
