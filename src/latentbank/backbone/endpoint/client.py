"""A client of an OpenAI-compatible server: chat completions, streams, and likelihoods of texts.

Every failure is an `EndpointError` with one sentence. Knows HTTP and JSON; knows no memory.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from latentbank.errors import EndpointError

__all__ = ["Client", "Said"]

SECONDS = 120.0  # without an answer, or without the next piece of one
TRIES = 3
PAUSE = 0.5  # seconds before the second try; twice as long before the third
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_SHOWN = 120  # characters of a server's answer in a sentence


@dataclass(frozen=True)
class Said:
    """What a server answered: the text so far, and its tokens' mean log-probability if it told."""

    text: str
    mean_logprob: float | None = None
    finished: bool = True

    @property
    def confidence(self) -> float | None:
        """The mean probability of its tokens, where the server told."""
        return None if self.mean_logprob is None else math.exp(self.mean_logprob)


class Client:
    """Speaks to the server at `url`, such as http://localhost:11434/v1, of the model `model`.

    The key comes from OPENAI_API_KEY, if it is set. `seconds` is the longest wait for an answer or
    for its next piece; LATENTBANK_ENDPOINT_SECONDS sets it, too.
    """

    def __init__(self, url: str, model: str, seconds: float | None = None) -> None:
        self.url, self.model = url.rstrip("/"), model
        self.seconds = seconds or _seconds()
        self._likelihoods = True  # until the server shows that it has none

    def chat(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Said:
        """The answer to a conversation, greedy.

        Raises:
            EndpointError: the server is down, slow or refuses, or answers nonsense.
        """
        found = self._json("/chat/completions", self._asked(messages, max_tokens))
        try:
            choice = found["choices"][0]
            text = choice["message"]["content"] or ""
            if not isinstance(text, str):
                raise TypeError("content is no text")
        except (KeyError, IndexError, TypeError) as error:
            raise self._nonsense(json.dumps(found)) from error
        cut = choice.get("finish_reason") == "length"
        return Said(_spoken(text), _mean(choice.get("logprobs")), not cut)

    def stream(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Iterator[Said]:
        """The same as it grows; the last one is whole.

        Raises:
            EndpointError: as for `chat`; also when the stream breaks off.
        """
        asked = {**self._asked(messages, max_tokens), "stream": True}
        text, scores, ended, cut = "", list[float](), False, False
        with self._open("/chat/completions", asked) as answer:
            for line in self._lines(answer):
                if not line.startswith("data:"):
                    if line.startswith("{"):  # a server that does not stream answers at once
                        raise self._nonsense(line)
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    ended = True
                    break
                try:
                    choices = json.loads(data)["choices"]
                    choice = choices[0] if choices else {}
                    piece = (choice.get("delta") or {}).get("content") or ""
                    text += piece
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise self._nonsense(data) from error
                scores += _scores(choice.get("logprobs"))
                reason = choice.get("finish_reason")
                ended, cut = ended or reason is not None, cut or reason == "length"
                if piece:
                    yield Said(_spoken(text, grows=True), None, False)
        if not ended:
            raise EndpointError(f"The endpoint {self.url} broke off in the middle of its answer.")
        yield Said(_spoken(text), sum(scores) / len(scores) if scores else None, not cut)

    def likelihoods(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float] | None:
        """The log-likelihoods [N] in nats of `texts` [N], each behind its prompt.

        None where the server does not give log-probabilities of a prompt; it is asked once.
        """
        if not self._likelihoods:
            return None
        scores = []
        for prompt, text in zip(prompts, texts, strict=True):
            score = self._likelihood(prompt, text)
            if score is None:
                self._likelihoods = False
                return None
            scores.append(score)
        return scores

    def _likelihood(self, prompt: str, text: str) -> float | None:
        asked = {
            "model": self.model, "prompt": prompt + text, "max_tokens": 1, "temperature": 0,
            "echo": True, "logprobs": 1,
        }  # fmt: skip
        try:
            told = self._json("/completions", asked, tries=1)["choices"][0]["logprobs"]
            offsets, scores = told["text_offset"], told["token_logprobs"]
            whole = len(prompt) + len(text)
            known = [
                float(score)
                for at, score in zip(offsets, scores, strict=True)
                if len(prompt) <= at < whole and score is not None
            ]
        except (EndpointError, KeyError, IndexError, TypeError, ValueError):
            return None
        return sum(known) if known else None

    # ---- requests

    def _asked(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [dict(one) for one in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": True,
        }

    def _json(self, path: str, asked: Mapping[str, Any], tries: int = TRIES) -> dict[str, Any]:
        with self._open(path, asked, tries) as answer:
            data = b"\n".join(line.encode() for line in self._lines(answer))
        try:
            found = json.loads(data)
        except ValueError as error:
            raise self._nonsense(data.decode(errors="replace")) from error
        if not isinstance(found, dict):
            raise self._nonsense(data.decode(errors="replace"))
        return found

    @contextmanager
    def _open(self, path: str, asked: Mapping[str, Any], tries: int = TRIES) -> Iterator[Any]:
        """The server's answer to a request; tries again where it may have been busy."""
        request = urllib.request.Request(
            self.url + path, json.dumps(dict(asked)).encode(), {"Content-Type": "application/json"}
        )
        key = os.environ.get("OPENAI_API_KEY")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        for number in range(1, tries + 1):
            try:
                answer = urllib.request.urlopen(request, timeout=self.seconds)
                break
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or number == tries:
                    raise self._refused(error) from error
            except TimeoutError as error:
                raise self._slow() from error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(getattr(error, "reason", None), TimeoutError):
                    raise self._slow() from error
                if number == tries:
                    raise self._down(error) from error
            time.sleep(PAUSE * 2 ** (number - 1))
        with answer:
            yield answer

    def _lines(self, answer: Any) -> Iterator[str]:
        try:
            for line in answer:
                yield line.decode("utf-8", errors="replace").rstrip("\r\n")
        except TimeoutError as error:
            raise self._slow() from error
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(
                f"The endpoint {self.url} broke off in the middle of its answer."
            ) from error

    # ---- sentences

    def _down(self, error: Exception) -> EndpointError:
        reason = getattr(error, "reason", None) or error
        said = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        return EndpointError(
            f"The endpoint {self.url} cannot be reached ({said}); is the server running, and is "
            "the address right?"
        )

    def _slow(self) -> EndpointError:
        return EndpointError(
            f"The endpoint {self.url} did not answer within {self.seconds:g} seconds; set "
            "LATENTBANK_ENDPOINT_SECONDS to wait longer."
        )

    def _refused(self, error: urllib.error.HTTPError) -> EndpointError:
        try:
            said = error.read().decode("utf-8", errors="replace")
        except OSError:
            said = ""
        hints = {
            401: "; set OPENAI_API_KEY",
            403: "; check OPENAI_API_KEY",
            404: f"; check the address and the model's name {self.model!r}",
        }
        return EndpointError(
            f"The endpoint {self.url} answered with status {error.code}"
            f"{hints.get(error.code, '')}: {_short(_message(said))}"
        )

    def _nonsense(self, said: str) -> EndpointError:
        return EndpointError(
            f"The endpoint {self.url} answered with something that is no chat completion: "
            f"{_short(_message(said)) or 'nothing'}"
        )


def _seconds() -> float:
    try:
        given = float(os.environ.get("LATENTBANK_ENDPOINT_SECONDS", SECONDS))
    except ValueError:
        return SECONDS
    return given if given > 0 else SECONDS


def _spoken(text: str, grows: bool = False) -> str:
    """An answer without what a reasoning model thought before it."""
    head = text.lstrip()
    if head.startswith("<think>"):
        _, ended, rest = head.partition("</think>")
        return rest.strip() if ended else ""
    return "" if grows and "<think>".startswith(head) else text.strip()


def _mean(logprobs: Any) -> float | None:
    scores = _scores(logprobs)
    return sum(scores) / len(scores) if scores else None


def _scores(logprobs: Any) -> list[float]:
    """Log-probabilities of an answer's tokens; none where the server's form is not known."""
    try:
        return [float(one["logprob"]) for one in (logprobs or {}).get("content") or ()]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _message(said: str) -> str:
    """The message in a server's error, else all that it said."""
    try:
        found = json.loads(said)
    except ValueError:
        return said
    if isinstance(found, dict):
        inner = found.get("error", found)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(message, str):
            return message
    return said


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
