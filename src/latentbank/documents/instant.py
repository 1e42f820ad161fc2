"""`Instant`: a span of time in UTC that knows its precision.

Knows calendars; nothing about how people write times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

__all__ = ["Instant", "Precision"]


class Precision(IntEnum):
    """How much of a time is known, coarsest first; `INSTANT` is one microsecond."""

    YEAR = 0
    MONTH = 1
    DAY = 2
    HOUR = 3
    MINUTE = 4
    SECOND = 5
    INSTANT = 6


_FORMATS = (
    "{0.year:04d}",
    "{0.year:04d}-{0.month:02d}",
    "{0.year:04d}-{0.month:02d}-{0.day:02d}",
    "{0.year:04d}-{0.month:02d}-{0.day:02d}T{0.hour:02d}+00:00",
    "{0.year:04d}-{0.month:02d}-{0.day:02d}T{0.hour:02d}:{0.minute:02d}+00:00",
    "{0.year:04d}-{0.month:02d}-{0.day:02d}T{0.hour:02d}:{0.minute:02d}:{0.second:02d}+00:00",
    "{0.year:04d}-{0.month:02d}-{0.day:02d}T{0.hour:02d}:{0.minute:02d}:{0.second:02d}"
    ".{0.microsecond:06d}+00:00",
)


@dataclass(frozen=True, order=True)
class Instant:
    """A time in UTC with its precision: a span from `start` (inclusive) to `end` (exclusive).

    Instants sort by their start; of two with one start, the coarser comes first. Their text form
    sorts in the same order. `before`, `since`, `after` and `within` look at the whole span, so a
    document of the year 2024 is neither before nor since May 2024.

    Attributes:
        start: the first moment, in UTC. Years 1 to 9999.
        precision: how long the span is.
    """

    start: datetime
    precision: Precision

    def __str__(self) -> str:
        """Canonical: `2024`, `2024-05`, `2024-05-01`, `2024-05-01T13:56+00:00`."""
        return _FORMATS[self.precision].format(self.start)

    @property
    def end(self) -> datetime:
        """The first moment after the span; the last one that there is, for the year 9999."""
        try:
            return _next(self.start, self.precision)
        except (ValueError, OverflowError):
            return datetime.max.replace(tzinfo=UTC)

    def before(self, other: Instant) -> bool:
        """Whether the whole span ends before `other` starts."""
        return self.end <= other.start

    def since(self, other: Instant) -> bool:
        """Whether the span starts when `other` starts, or later."""
        return self.start >= other.start

    def after(self, other: Instant) -> bool:
        """Whether the span starts after `other` has ended."""
        return self.start >= other.end

    def within(self, other: Instant) -> bool:
        """Whether the whole span lies in that of `other`: 2024-05-01 lies in 2024."""
        return self.start >= other.start and self.end <= other.end

    def known_at(self, moment: Instant) -> bool:
        """Whether it had begun by the end of `moment`: what an answer "as of" it may use."""
        return self.start < moment.end


def _next(start: datetime, precision: Precision) -> datetime:
    if precision is Precision.YEAR:
        return start.replace(year=start.year + 1)
    if precision is Precision.MONTH:
        december = start.month == 12
        return start.replace(year=start.year + december, month=1 if december else start.month + 1)
    steps = {
        Precision.DAY: timedelta(days=1),
        Precision.HOUR: timedelta(hours=1),
        Precision.MINUTE: timedelta(minutes=1),
        Precision.SECOND: timedelta(seconds=1),
        Precision.INSTANT: timedelta(microseconds=1),
    }
    return start + steps[precision]
