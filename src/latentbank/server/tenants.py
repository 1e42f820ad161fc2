"""Who asks, and how much they may: tokens, rate limits.

Every unknown token is treated alike. Rates use a clock that never jumps. Knows settings; knows no
bank.
"""

from __future__ import annotations

import hmac
import math
import threading
import time
from collections.abc import Callable, Sequence

from latentbank.server.failures import Refusal
from latentbank.server.settings import Tenant, hash_token

__all__ = ["Rate", "Tenants"]

Clock = Callable[[], float]


class Rate:
    """A token bucket: `per_minute` requests, and a burst of a sixth of it; 0: no limit."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, per_minute / 6)
        self._left, self._clock, self._at = self._most, clock, clock()
        self._lock = threading.Lock()

    def take(self, count: int = 1) -> float:
        """Takes `count`; returns 0, or the seconds until there is one again and takes nothing.

        More than a burst at once is taken when the bucket is full; it is paid back later.
        """
        if not self._per_second:
            return 0.0
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at) * self._per_second)
            self._at = now
            needed = min(count, self._most)
            if self._left < needed:
                return (needed - self._left) / self._per_second
            self._left -= count
            return 0.0


class Tenants:
    """The tenants of a server, by token."""

    def __init__(self, tenants: Sequence[Tenant], clock: Clock = time.monotonic) -> None:
        self.all = tuple(tenants)
        self._open = not any(tenant.tokens for tenant in tenants)
        self._questions = {t.name: Rate(t.questions_per_minute, clock) for t in tenants}
        self._writes = {t.name: Rate(t.writes_per_minute, clock) for t in tenants}

    def of_token(self, token: str | None) -> Tenant:
        """The tenant that a token belongs to; every token is compared, whichever fits.

        Raises:
            Refusal: 401, with the same sentence for no token and for a wrong one.
        """
        if self._open:
            return self.all[0]
        digest = hash_token(token or "")
        found: Tenant | None = None
        for tenant in self.all:
            for known in tenant.tokens:
                if hmac.compare_digest(known, digest):
                    found = tenant
        if found is None or not token:
            raise Refusal(
                401,
                "invalid_api_key",
                "A valid token is needed: Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found

    def asks(self, tenant: Tenant, count: int = 1) -> None:
        """Counts questions. Raises Refusal 429."""
        _check(self._questions[tenant.name].take(count), "questions")

    def writes(self, tenant: Tenant, count: int = 1) -> None:
        """Counts writes. Raises Refusal 429."""
        _check(self._writes[tenant.name].take(count), "writes")


def _check(wait: float, what: str) -> None:
    if wait > 0:
        seconds = max(1, math.ceil(wait))
        raise Refusal(
            429,
            "rate_limit_exceeded",
            f"Too many {what}; try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )
