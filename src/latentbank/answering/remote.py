"""Answers of a model behind a server: the text in the prompt, the documents reranked where it can.

Where the server gives log-probabilities of a prompt, the document that makes the question likeliest
is read (query likelihood; Ponte and Croft, 1998). Elsewhere the best one by retrieval is. Knows
methods that read texts, and the client.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from latentbank.answering.reading import Answer
from latentbank.backbone.endpoint import Client, EndpointBackbone, Said
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.prompts import IN_SHORT
from latentbank.capabilities import Retrieving
from latentbank.method import Method

__all__ = ["answer_remotely", "client_of", "stream_remotely"]

CANDIDATES = 4  # documents that are reranked
_ASKED = "Question: "


def client_of(method: Method) -> Client | None:
    """The client of a method's server; None where the model is loaded."""
    backbone = method.backbone
    return backbone.client if isinstance(backbone, EndpointBackbone) else None


def answer_remotely(
    client: Client,
    method: Method,
    questions: Sequence[str],
    documents: Sequence[str] | None,
    decoding: DecodingConfig | None,
    memory: bool,
) -> list[Answer]:
    """Answers to questions [B], one after the other; `documents` [B] as for `answer_batch`.

    Raises:
        EndpointError: the server is down, slow or refuses, or answers nonsense.
    """
    answers = []
    for place, question in enumerate(questions):
        given = None if documents is None else documents[place]
        base, messages = _prepared(client, method, question, given, memory)
        began = time.perf_counter()
        said = client.chat(messages, _limit(decoding))
        answers.append(_said(base, said, time.perf_counter() - began))
    return answers


def stream_remotely(
    client: Client, method: Method, question: str, decoding: DecodingConfig | None, memory: bool
) -> Iterator[Answer]:
    """The answer to one question as it grows; see `answer_remotely`."""
    began = time.perf_counter()
    base, messages = _prepared(client, method, question, None, memory)
    for said in client.stream(messages, _limit(decoding)):
        yield _said(base, said, time.perf_counter() - began)


def _limit(decoding: DecodingConfig | None) -> int:
    return (decoding or DecodingConfig()).max_new_tokens


def _said(base: Answer, said: Said, seconds: float) -> Answer:
    sure = 1.0 if said.confidence is None else said.confidence
    return replace(
        base,
        text=said.text,
        confidence=base.confidence * sure,
        seconds=seconds,
        first_token_seconds=base.first_token_seconds or seconds,
    )


def _prepared(
    client: Client, method: Method, question: str, document: str | None, memory: bool
) -> tuple[Answer, list[dict[str, str]]]:
    """(what is known of the answer before it, messages)."""
    documents: tuple[tuple[str, float], ...] = ()
    support, text = 1.0, ""
    if memory and isinstance(method, Retrieving):
        if document is not None:
            documents = ((document, 1.0),)
        else:
            documents, support = _chosen(client, method, question)
        text = "\n\n".join(method.text(id) for id, _ in documents)
    asked = f"{question.strip()}\n{IN_SHORT}"
    content = f"{text}\n\n{asked}" if text else asked
    base = Answer("", documents, support, 0.0, 0.0, bool(documents))
    return base, [{"role": "user", "content": content}]


def _chosen(
    client: Client, method: Retrieving, question: str
) -> tuple[tuple[tuple[str, float], ...], float]:
    """(documents to read with their shares, how well the best one fits)."""
    retriever = method.retriever
    together = retriever.config.together
    ranking = retriever.rank([question], max(CANDIDATES, together))[0]
    matches = retriever.matches([question], [[id for id, _ in ranking]])[0]
    support = max(matches, default=0.0)
    if not ranking or support < retriever.config.least_match:
        return (), support
    ids = [id for id, _ in ranking]
    if len(ids) > 1:
        prompts = [f"{method.text(id)}\n\n{_ASKED}" for id in ids]
        likely = client.likelihoods(prompts, [question.strip()] * len(ids))
        if likely is not None:
            top = max(ranking[0][1], 1e-9)
            prior = [2 * math.log(max(score, 1e-6) / top) for _, score in ranking]
            scores = [a + b for a, b in zip(prior, likely, strict=True)]
            order = sorted(range(len(ids)), key=lambda i: -scores[i])
            ids, matches = [ids[i] for i in order], [matches[i] for i in order]
            support = matches[0]
    kept = ids[:together]
    return tuple((id, 1.0 / len(kept)) for id in kept), support
