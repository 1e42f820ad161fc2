"""Times: every spelling as one instant, ordered and compared in UTC."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.documents.time import Instant, Precision, parse_time, time_key
from latentbank.errors import InputError

moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@st.composite
def instants(draw: st.DrawFn) -> Instant:
    whole = parse_time(draw(moments))
    text = str(Instant(whole.start, Precision.INSTANT))
    ends = {Precision.YEAR: 4, Precision.MONTH: 7, Precision.DAY: 10, Precision.HOUR: 13,
            Precision.MINUTE: 16, Precision.SECOND: 19, Precision.INSTANT: 26}  # fmt: skip
    precision = draw(st.sampled_from(Precision))
    zone = "+00:00" if precision > Precision.DAY else ""
    return parse_time(text[: ends[precision]] + zone)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1969-07-20", "1969-07-20"),
        ("2024", "2024"),
        (2024, "2024"),
        (2024.0, "2024"),
        ("0476", "0476"),
        ("2024-05", "2024-05"),
        ("20240501", "2024-05-01"),
        ("2024-W18-3", "2024-05-01"),
        ("2024-122", "2024-05-01"),
        ("1714608000", "2024-05-02T00:00:00+00:00"),
        (1714608000, "2024-05-02T00:00:00+00:00"),
        ("1714608000.25", "2024-05-02T00:00:00.250000+00:00"),
        (1714608000123, "2024-05-02T00:00:00.123000+00:00"),
        ("1714608000123456789", "2024-05-02T00:00:00.123456+00:00"),
        (Decimal(1714608000), "2024-05-02T00:00:00+00:00"),
        (-14182940, "1969-07-20T20:17:40+00:00"),
        ("-14182940", "1969-07-20T20:17:40+00:00"),
        ("2024-05-01T23:30:00-05:00", "2024-05-02T04:30:00+00:00"),
        ("2024-05-02T01:00:00+09:00", "2024-05-01T16:00:00+00:00"),
        ("2024-05-01T20:00:00Z", "2024-05-01T20:00:00+00:00"),
        ("2024-05-01t20:00z", "2024-05-01T20:00+00:00"),
        ("2024-05-01 20:00:00.5", "2024-05-01T20:00:00.500000+00:00"),
        ("2024-05-01 23:30:00 -0500", "2024-05-02T04:30:00+00:00"),
        ("20240501T2330-05", "2024-05-02T04:30+00:00"),
        ("2024-05-01T23+05:30", "2024-05-01T17:30+00:00"),
        ("Wed, 01 May 2024 23:30:00 -0500", "2024-05-02T04:30:00+00:00"),
        ("Wed, 01 May 2024 23:30:00 GMT", "2024-05-01T23:30:00+00:00"),
        ("Wed, 01 May 2024 23:30 EST", "2024-05-02T04:30+00:00"),
        ("Wed May  1 23:30:00 2024 -0500", "2024-05-02T04:30:00+00:00"),
        ("Wed May 01 2024 23:30:00 GMT-0500 (CDT)", "2024-05-02T04:30:00+00:00"),
        ("2024-05-01 13:56 UTC+3", "2024-05-01T10:56+00:00"),
        ("1:56 pm on 8 May, 2023", "2023-05-08T13:56+00:00"),
        ("May 8th, 2023", "2023-05-08"),
        ("8 May 2023 at 1 pm", "2023-05-08T13+00:00"),
        ("2023/05/20 (Sat) 02:21", "2023-05-20T02:21+00:00"),
        ("May 2023", "2023-05"),
        ("31/12/1999", "1999-12-31"),
        ("12/31/1999", "1999-12-31"),
        ("5/31/24, 1:56 PM", "2024-05-31T13:56+00:00"),
        ("01/01/2024", "2024-01-01"),
        (date(1969, 7, 20), "1969-07-20"),
        (datetime(2024, 5, 1, 12, 30), "2024-05-01T12:30:00+00:00"),
        (datetime(2024, 5, 1, tzinfo=timezone(timedelta(hours=9))), "2024-04-30T15:00:00+00:00"),
    ],
)
def test_spellings(given: object, expected: str) -> None:
    assert str(parse_time(given)) == expected


@pytest.mark.parametrize(
    "value",
    ["", "  ", "soon", "yesterday", "8 May", "13:56", "Monday", "Monday 2023", "12:00 2023", "12",
     0, "0", 5, -5, 123456, "99999999", "2024-13-01", "2023-02-29", "2024-05-01T25:00", "0000",
     "20 May 2023 at noon", True, None, float("nan"), float("inf"), 10**21, b"2024", ["2024"],
     "2024-05-01T10:00:00+99:00", "0001-01-01T00:00:00+05:00", "9" * 200, "1e9", "٢٠٢٤-99"],
)  # fmt: skip
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="Expected a time such as 2024-05-01"):
        parse_time(value)


def test_day_or_month_first() -> None:
    for text in ("01/02/2024", "1.2.2024", "01-02-2024", "1/2/24", "1/2/2024 13:56"):
        with pytest.raises(InputError, match=r"dayfirst.* 2024-02-01 or 2024-01-02"):
            parse_time(text)
        assert str(parse_time(text, dayfirst=True)).startswith("2024-02-01")
        assert str(parse_time(text, dayfirst=False)).startswith("2024-01-02")
    with pytest.raises(InputError, match="no month 31; it is read day first"):
        parse_time("12/31/1999", dayfirst=True)
    with pytest.raises(InputError, match="no month 31; it is read month first"):
        parse_time("31/12/1999", dayfirst=False)
    assert (
        str(parse_time("31/12/69")) == "1969-12-31" and str(parse_time("31/12/68")) == "2068-12-31"
    )


def test_a_zone_name_with_several_meanings_is_refused() -> None:
    with pytest.raises(InputError, match=r"zone 'IST' is not known .* such as \+02:00"):
        parse_time("1 May 2024 13:56 IST")


def test_the_zone_of_this_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert str(parse_time("1 May 2024 13:56 EST")) == "2024-05-01T18:56+00:00"
        assert str(parse_time("1 May 2024 13:56")) == "2024-05-01T13:56+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(instants(), instants())
def test_the_text_form_sorts_as_the_instants_do(one: Instant, two: Instant) -> None:
    assert (str(one) < str(two)) == (one < two)
    assert parse_time(str(one)) == one


@given(instants(), instants())
def test_comparisons_of_spans(one: Instant, two: Instant) -> None:
    assert one.start < one.end
    assert not (one.before(two) and one.since(two))
    assert one.before(two) == two.after(one)
    assert one.within(one) and not one.before(one)
    if one.within(two):
        assert one.since(two) and one.known_at(two)
    if one.before(two):
        assert one < two and one.known_at(two)


def test_a_year_is_a_span() -> None:
    year, may, day = parse_time("2024"), parse_time("2024-05"), parse_time("2024-05-01")
    assert day.within(may) and may.within(year) and not year.within(may)
    assert not year.before(may) and not year.since(may) and year.known_at(may)
    assert parse_time("2023").before(year) and parse_time("2025-01-01").after(year)
    assert year < parse_time("2024-01") < may < day  # one start: the coarser first
    assert parse_time("9999").end == datetime.max.replace(tzinfo=UTC)


def test_keys_of_stored_times() -> None:
    assert time_key("2024-05-02T01:00:00+09:00") < time_key("2024-05-01T20:00:00Z")
    assert time_key(None) == time_key("") == time_key("t") == time_key("01/02/2024") == ""


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        parse_time(text)
    except InputError as error:
        assert str(error)


@given(st.lists(st.sampled_from(
    ["May", "8", "2023", "1:56", "pm", "on", ",", "/", "-", "T", "+05:00", "UTC", "(", ")", "."]
), max_size=8).map(" ".join))  # fmt: skip
def test_any_words_of_a_time_are_one_or_refused(text: str) -> None:
    try:
        parse_time(text)
    except InputError as error:
        assert str(error)
