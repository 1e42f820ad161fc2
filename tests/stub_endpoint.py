"""An OpenAI-compatible server in this process that does what a test asks of it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Stub:
    """What the server does, and the requests that it got.

    Attributes:
        answer: what the model says, by the messages.
        logprobs: whether answers come with log-probabilities.
        echoes: whether `/completions` gives log-probabilities of its prompt.
        failures: statuses of the next answers, before those that are good.
        body: this text instead of an answer.
        wait: seconds before an answer.
        breaks: a stream ends in the middle.
    """

    answer: Callable[[list[dict[str, str]]], str] = lambda messages: "seventeen kinds"
    logprobs: bool = False
    echoes: bool = False
    failures: list[int] = field(default_factory=list)
    body: str | None = None
    wait: float = 0.0
    breaks: bool = False
    requests: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The chat requests."""
        return [body for path, body, _ in self.requests if path.endswith("/chat/completions")]


def scored(prompt: str) -> dict[str, Any]:
    """Log-probabilities of a prompt's words: likely are those that stood before."""
    head = prompt.rpartition("\n\n")[0].lower()
    offsets, scores = [], []
    for match in re.finditer(r"\S+\s*", prompt):
        word = match[0].strip(" ?.\n").lower()
        offsets.append(match.start())
        scores.append(-1.0 if word in head else -5.0)
    scores[0] = None  # type: ignore[call-overload]
    return {"text_offset": offsets, "token_logprobs": scores}


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        stub = self.stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.requests.append((self.path, body, self.headers.get("Authorization")))
        time.sleep(stub.wait)
        if stub.failures:
            error = {"error": {"message": "try later", "type": "server_error"}}
            self._send(stub.failures.pop(0), json.dumps(error))
        elif self.path.endswith("/completions") and not self.path.endswith("/chat/completions"):
            if stub.echoes:
                self._send(200, json.dumps({"choices": [{"logprobs": scored(body["prompt"])}]}))
            else:
                self._send(400, json.dumps({"error": {"message": "no echo"}}))
        elif stub.body is not None:
            self._send(200, stub.body)
        elif body.get("stream"):
            self._stream(stub.answer(body["messages"]))
        else:
            self._send(200, json.dumps(self._whole(stub.answer(body["messages"]))))

    def _whole(self, text: str) -> dict[str, Any]:
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if self.stub.logprobs:
            choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5}]}
        return {"choices": [{**choice, "finish_reason": "stop"}]}

    def _stream(self, text: str) -> None:
        pieces = [{"content": piece} for piece in re.findall(r"\S+\s*|\s+", text)]
        lines = [{"choices": [{"delta": piece, "finish_reason": None}]} for piece in pieces]
        if not self.stub.breaks:
            lines.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        data = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
        self._send(200, data if self.stub.breaks else f"{data}data: [DONE]\n\n")

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client has gone
            return


@contextmanager
def serving() -> Iterator[Stub]:
    """The server, for the length of the block."""
    stub = Stub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
