"""Conditions: a small language over id, time, source and metadata."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.documents.conditions import parse_conditions
from latentbank.errors import InputError

DOCUMENT = {
    "id": "issue#12",
    "time": "2024-05-01T04:30:00+00:00",
    "source": "notes/2024/a.md",
    "metadata": {
        "year": "2020", "pages": 12, "lang": "de", "draft": True, "title": "Fish and chips",
        "tags": ["red", "2"], "author": {"name": "Ada", "born": 1815}, "id": "inner",
        "published": "2023-05-07", "none": None, "price": "1.50", "a.b": 1,
    },
}  # fmt: skip


def holds(text: str, **changes: Any) -> bool:
    return parse_conditions(text).holds(**{**DOCUMENT, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "year=2020", "year=2020.0", "year='2020'", "year<2021", "year>=2020", "pages=12",
        "pages>9", "pages!=13", "price=1.5", "price<2", "lang=de", "lang!=en", "LANG!=de",
        "draft=true", "draft=True", "draft!=false", "title='Fish and chips'",
        'title="Fish and chips" and year=2020', "title=Fish and chips and year=2020",
        "title~CHIPS", "title!~salad", "tags=red", "tags=2", "tags~ed", "author.name=Ada",
        "author.born<1900", "author~ada", "id=issue#12", "metadata.id=inner", "none=null",
        "missing=null", "missing!=7", "a.b=1", "published<2024", "published>=2023-05-07",
        "time<2024-05-02", "time=2024", "time=2024-05", "time=2024-05-01", "since 2024-05-01",
        "before 2024-05-01T05:00Z", "time>=2024-05-01T13:30+09:00", "time<1714608000",
        "since 2024-01-01 and before 2025", "time!=2023",
        "time!=null", "as-of 2024-05", "as-of 2024-05-01T05:00Z", "as-of 2030",
        "source~NOTES",
        "source=notes/2024/a.md", "source=./notes/2024/../2024/a.md", "source=notes/",
        "source~2024 AND lang=de", " year = 2020 ", "year >= 2020 and year <= 2020",
    ],
)  # fmt: skip
def test_what_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "year=2021", "year>2020", 'year="2020.0"', "pages=1", "pages<9", "lang=DE", "draft=false",
        "title~salad", "tags=blue", "author.name=Bob", "id=issue", "id=issue#1", "missing=7",
        "missing<7", "none=0", "lang<5", "lang<2024-01-01", "time<2024-05-01",
        "time>2024-05-01", "since 2024-05-01T05:00Z", "before 2024-05-01T04:30Z", "time=2023",
        "time=null",
        "as-of 2024-04", "as-of 2024-05-01T04:00Z", "source=a.md",
        "source=notes", "source=note/", "source!~notes",
        "year=2020 and lang=en",
    ],
)  # fmt: skip
def test_what_does_not_hold(text: str) -> None:
    assert not holds(text)


def test_times_are_compared_as_instants() -> None:
    assert not holds("before 2000-01-01", time="2024-05-01T23:30:00-05:00")
    assert not holds("before 2000-01-01", time="1714608000")
    assert holds("before 2000-01-01", time="1969-07-20")
    assert not holds("before 2000-01-01", time="01/02/2024")  # of an older bank
    assert not holds("before 2000-01-01", time=None) and not holds("since 2000", time=None)
    assert not holds("before 2024-05", time="2024") and not holds("since 2024-05", time="2024")


def test_conditions_given_together_all_hold() -> None:
    both = parse_conditions(["year=2020", "lang=en"])
    assert str(both) == "year=2020 and lang=en"
    assert not both.holds(**DOCUMENT)
    assert (parse_conditions("year=2020") & parse_conditions("lang=de")).holds(**DOCUMENT)
    assert not parse_conditions([]) and parse_conditions([]).holds(**DOCUMENT)


def test_a_value_may_hold_the_word_and() -> None:
    assert holds("title=Fish and chips") and holds("title~and chips and lang=de")
    assert not holds("year=2020 and lang")  # no condition behind it, so part of the value


def test_day_first() -> None:
    with pytest.raises(InputError, match="dayfirst"):
        parse_conditions("time<01/02/2024")
    assert parse_conditions("time<01/06/2024", dayfirst=True).holds(**DOCUMENT)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Expected a condition such as year=2020"),
        ("year", "Expected a condition .* got 'year'"),
        ("=2020", "Expected a condition .* got '=2020'"),
        ("year=", 'has no value behind year=; write ""'),
        ('title="a" or lang=de', "Expected 'and' behind .* got ' or lang=de'"),
        ("time<soon", "Expected a time such as"),
        ("since", "Expected a condition"),
        ("since yesterday", "Expected a time such as"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_conditions(text)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        found = parse_conditions(text)
    except InputError:
        return
    assert found.holds(**DOCUMENT) in (True, False)
    assert parse_conditions(str(found)).holds(**DOCUMENT) == found.holds(**DOCUMENT)


values = st.one_of(st.text(min_size=1, max_size=12), st.integers(), st.booleans())


@given(values)
def test_a_quoted_text_meets_itself(value: object) -> None:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    assert parse_conditions(f'k="{text}"').holds("i", None, None, {"k": str(value)})


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_numbers_are_compared_by_value(one: int, two: int) -> None:
    for found in (one, str(one)):
        for sign, expected in (("<", one < two), ("=", one == two), (">=", one >= two)):
            assert (
                parse_conditions(f"k{sign}{two}").holds("i", None, None, {"k": found}) is expected
            )
