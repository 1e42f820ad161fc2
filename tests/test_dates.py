"""Relative dates: what "yesterday" and "last Friday" mean in a text of a known day."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.documents.dates import annotate, relative_dates
from latentbank.documents.time import parse_time

MONDAY = parse_time("2023-05-08")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Cora: I went to the open day yesterday", "7 May 2023"),
        ("We met last Friday.", "5 May 2023"),
        ("We met last Monday.", "1 May 2023"),
        ("See you next Monday!", "15 May 2023"),
        ("See you next Tuesday evening.", "9 May 2023"),
        ("This Thursday we fly.", "11 May 2023"),
        ("It happened two weeks ago.", "24 April 2023"),
        ("It happened 10 days ago.", "28 April 2023"),
        ("a week ago", "1 May 2023"),
        ("two weekends ago", "29 April 2023 to 30 April 2023"),
        ("three months ago", "February 2023"),
        ("A couple of years ago", "2021"),
        ("an old friend, five decades ago", "1973"),
        ("See you tomorrow.", "9 May 2023"),
        ("Tomorrow morning I leave.", "9 May 2023"),
        ("the day before yesterday", "6 May 2023"),
        ("the day after tomorrow", "10 May 2023"),
        ("Last night it rained.", "7 May 2023"),
        ("tonight", "8 May 2023"),
        ("this morning", "8 May 2023"),
        ("last week", "the week of 1 May 2023"),
        ("this week", "the week of 8 May 2023"),
        ("the week before last", "the week of 24 April 2023"),
        ("last weekend", "6 May 2023 to 7 May 2023"),
        ("next month", "June 2023"),
        ("the month before last", "March 2023"),
        ("last year's fair", "2022"),
        ("the year after next", "2025"),
        ("last December", "December 2022"),
        ("last May", "May 2022"),
        ("next March", "March 2024"),
        ("last summer", "summer 2022"),
        ("next summer", "summer 2023"),
        ("last winter", "winter 2022/2023"),
        ("this spring", "spring 2023"),
        ("I will be back in two weeks.", "22 May 2023"),
        ("We'll move in three months", "August 2023"),
        ("two days from now", "10 May 2023"),
    ],
)
def test_phrases(text: str, meaning: str) -> None:
    (found,) = relative_dates(text, MONDAY)
    assert found.meaning == meaning
    assert text[found.start : found.end] == found.phrase
    assert found.first <= found.last


@pytest.mark.parametrize(
    "text",
    [
        "The march of time may be second to none; he sat on a sun chair.",
        "This may be the last one, in the third act.",
        "In 1851 the Great Exhibition opened in Hyde Park on 1 May.",
        "He learned it in two weeks.",
        "We will see. He learned it in two weeks.",
        "The past week was long, and the last day too.",
        "Yesterdays are gone; someday is no day.",
        "",
    ],
)
def test_what_is_no_relative_date(text: str) -> None:
    assert relative_dates(text, MONDAY) == []
    assert annotate(text, MONDAY) == text


def test_the_longest_phrase_counts() -> None:
    text = "The day before yesterday I left, yesterday morning I came, and last Friday night?"
    assert [found.phrase for found in relative_dates(text, MONDAY)] == [
        "The day before yesterday", "yesterday morning", "last Friday night"
    ]  # fmt: skip


def test_annotations() -> None:
    text = "Cora: I went yesterday. Yes, not last week."
    assert annotate(text, "1:56 pm on 8 May, 2023") == (
        "Cora: I went yesterday (7 May 2023). Yes, not last week (the week of 1 May 2023)."
    )
    assert annotate(text, None) == annotate(text, "some time") == text


def test_a_coarse_time_resolves_coarse_phrases_only() -> None:
    text = "Yesterday, last month and last year."
    phrases = [found.phrase for found in relative_dates(text, parse_time("2023-05"))]
    assert phrases == ["last month", "last year"]
    assert annotate(text, "2023") == "Yesterday, last month and last year (2022)."


@pytest.mark.parametrize(
    ("time", "phrase", "meaning"),
    [
        ("2024-02-29", "last year", "2023"),
        ("2024-03-31", "last month", "February 2024"),
        ("2024-01-01", "yesterday", "31 December 2023"),
        ("2024-01-10", "last winter", "winter 2022/2023"),
        ("2024-01-10", "this winter", "winter 2023/2024"),
        ("2023-12-05", "next winter", "winter 2024/2025"),
    ],
)
def test_edges_of_the_calendar(time: str, phrase: str, meaning: str) -> None:
    assert [found.meaning for found in relative_dates(phrase, parse_time(time))] == [meaning]


def test_outside_the_calendar_nothing_is_said() -> None:
    assert annotate("yesterday, 5 years ago", "0001-01-01") == "yesterday, 5 years ago"
    assert annotate("tomorrow, next year", "9999-12-31") == "tomorrow, next year"


words = st.sampled_from(
    ["last", "next", "this", "the", "week", "month", "year", "ago", "two", "999", "yesterday",
     "Friday", "before", "in", "will", "May", "winter", "weekend", "a"]
)  # fmt: skip


@given(st.lists(words, max_size=10).map(" ".join), st.dates())
def test_any_words_on_any_day(text: str, day: object) -> None:
    found = relative_dates(text, parse_time(day))
    assert all(one.end <= two.start for one, two in pairwise(found))
    assert all(text[one.start : one.end] == one.phrase for one in found)
