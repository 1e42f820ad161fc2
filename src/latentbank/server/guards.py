"""What stands before every endpoint: size and time of bodies, hosts, headers, log and metrics.

Plain ASGI, so that a client that goes away is noticed at once. A log line holds the route and never
an id, a name or a text. Knows requests; knows no bank.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram

from latentbank.server.failures import Refusal, refusal_of
from latentbank.server.settings import Settings

__all__ = ["Guard", "Measures", "json_bytes", "send_refusal"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = logging.getLogger("latentbank.server")
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1", "testserver"}
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
)
_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Figures for Prometheus: of the server as a whole, never of one tenant."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "latentbank_requests", "Requests by route and status.", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "latentbank_request_seconds", "Seconds until a response was complete.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.first = Histogram(
            "latentbank_first_byte_seconds", "Seconds until a response's first byte.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; half characters are replaced."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


async def send_refusal(refusal: Refusal, send: Send) -> None:
    """Answers a request with an error."""
    body = json_bytes(refusal.body())
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(k.lower().encode(), v.encode()) for k, v in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Guard:
    """Wraps the application."""

    def __init__(self, app: App, settings: Settings, measures: Measures) -> None:
        self._app, self._settings, self._measures = app, settings, measures
        self._limits = settings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        seen: dict[str, Any] = {"status": 0, "first": None, "refusal": None}

        async def sending(message: Message) -> None:
            refusal = seen["refusal"]
            if refusal is not None:  # of the body: what the framework made of it is not sent
                if not seen["status"]:
                    seen["refusal"] = None
                    await send_refusal(refusal, sending)
                    seen["refusal"] = refusal
                return
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                seen["first"] = time.perf_counter() - began
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            self._check_origin(scope)
            body = self._limited(scope, receive, began, seen)
            await self._app(scope, body, sending)
        except Refusal as refusal:
            seen["refusal"] = None
            if not seen["status"]:
                await send_refusal(refusal, sending)
        except Exception as error:
            LOG.exception("request failed: %s", type(error).__name__)
            if not seen["status"]:
                await send_refusal(refusal_of(error), sending)
        finally:
            self._note(scope, seen, time.perf_counter() - began)

    def _note(self, scope: Scope, seen: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "unknown"
        status = str(seen["status"] or 499)  # the client went away first
        self._measures.requests.labels(route, status).inc()
        self._measures.seconds.labels(route).observe(seconds)
        if seen["first"] is not None:
            self._measures.first.labels(route).observe(seen["first"])
        LOG.info(
            "%s",
            json.dumps(
                {
                    "method": scope["method"],
                    "route": route,
                    "status": int(status),
                    "milliseconds": round(1000 * seconds, 1),
                    "tenant": scope.get("state", {}).get("tenant"),
                }
            ),
        )

    def _check_origin(self, scope: Scope) -> None:
        """An open server is for this machine: other names and pages of other hosts are refused."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = urlsplit(f"//{headers.get(b'host', '')}").hostname
        if self._settings.is_open and host not in _LOCAL_HOSTS:
            raise Refusal(403, "wrong_host", "A server without tokens answers to localhost only.")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != headers.get(b"host"):
            raise Refusal(403, "wrong_origin", "Pages of other hosts may not use this server.")

    def _limited(
        self, scope: Scope, receive: Receive, began: float, seen: dict[str, Any]
    ) -> Receive:
        """`receive` that refuses a body that is too large or too slow."""
        most, seconds = self._limits.body_bytes, self._limits.body_seconds
        sentence = f"The body of a request may have {most} bytes."
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > most):
            raise Refusal(413, "body_too_large", sentence)
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            left = seconds - (time.perf_counter() - began)
            try:
                message = await asyncio.wait_for(receive(), max(0.001, left))
            except TimeoutError:
                slow = f"A body must arrive within {seconds:g} s."
                seen["refusal"] = Refusal(408, "body_too_slow", slow)
                raise seen["refusal"] from None
            size += len(message.get("body", b""))
            if size > most:
                seen["refusal"] = Refusal(413, "body_too_large", sentence)
                raise seen["refusal"]
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return limited
