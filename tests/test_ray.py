"""Ray on this machine with two workers: the same bank and the same answers as one process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from latentbank.answering.chat import ChatAnswer
from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import MemoryBank
from latentbank.bank.admin.join import diff_banks
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError
from latentbank.model import MemoryModel
from latentbank.parts.retrieval.lexical import LexicalIndex, SharedWords
from latentbank.server import sharded
from latentbank.server.sharded import Door, Found, Part, Reader, parts_of

PLACES = ("harbour", "mill", "chapel", "orchard", "quarry", "library")
DOCUMENTS = [
    Document(
        f"The keeper of the {place} in street {n} is number {1000 + 7 * n}.",
        f"{place}-{n}",
        f"20{10 + n % 10}-01-01",
        "town.txt",
        {"n": n},
    )
    for n in range(24)
    for place in PLACES
]
POOLED = {"entry": "pooled", "segments": 4, "inject_from": 1, "prompt": "plain"}
QUESTIONS = [f"Who is the keeper of the {PLACES[n % 6]} in street {n}?" for n in range(0, 24, 5)]


def own_part(folder: Path, tiny: str, documents: list[Document], name: str) -> str:
    path = folder / f"{name}.bank"
    with MemoryModel.from_pretrained("strata", path, tiny, dtype="float32", quick=True) as model:
        model.write(documents)
    return str(path)


def alone(model: MemoryModel, question: str) -> ChatAnswer:
    """The answer of one process."""
    decoding = DecodingConfig(max_new_tokens=6, whole_words=True)
    return model.chat(question, style="short", decoding=decoding, read_documents=1, quality="fast")


@pytest.fixture(scope="module")
def tiny(backbones: Any) -> str:
    return str(backbones.folder("llama"))


# ---- without Ray: what the parts and the reader do


class Handle:
    """A part in this process, called as Ray calls one."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.find = self

    async def remote(self, query: str) -> Found:
        return self._part.find(query)


def test_documents_of_parts_are_answered_as_those_of_one_bank(tmp_path: Path, tiny: str) -> None:
    whole = own_part(tmp_path, tiny, DOCUMENTS, "whole")
    parts = [
        own_part(tmp_path, tiny, DOCUMENTS[:100], "one"),
        own_part(tmp_path, tiny, DOCUMENTS[100:], "two"),
    ]
    reader = Reader(parts[0], [Handle(Part(part)) for part in parts])
    with MemoryModel.open(whole, quick=True) as model:
        for question in QUESTIONS:
            reply = asyncio.run(reader.answer([("user", question)], "short", 6, "fast"))
            answer = alone(model, question)
            assert reply.text == answer.text
            assert reply.citations == answer.citations
            assert reply.answered.answer.confidence == pytest.approx(answer.confidence, rel=1e-3)


def test_the_door_speaks_as_openai_does(tmp_path: Path, tiny: str) -> None:
    part = own_part(tmp_path, tiny, DOCUMENTS, "town")
    answer = Reader(part, [Handle(Part(part))]).answer
    reader = SimpleNamespace(answer=SimpleNamespace(remote=answer))
    door = Door(reader, "town", "short", "fast")

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await (await door(Request(scope, receive)))(scope, receive, send)

    client = TestClient(serve)
    assert client.get("/v1/models").json()["data"][0]["id"] == "town"
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/v1/banks").status_code == 404
    body = {"model": "town", "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    said = client.post("/v1/chat/completions", json=body).json()
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["message"]["annotations"]
    assert said["latentbank"]["citations"][0]["source"] == "town.txt"
    for wrong, status in (
        ({"model": "other"}, 404),
        ({"stream": True}, 400),
        ({"style": "loud"}, 400),
        ({"messages": []}, 400),
        ({"messages": [{"role": "user", "content": "  "}]}, 400),
    ):
        reply = client.post("/v1/chat/completions", json={**body, **wrong})
        assert reply.status_code == status and reply.json()["error"]["message"], wrong
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400
    assert client.post("/v1/chat/completions", content=b" " * (9 << 20)).status_code == 413


def test_a_reader_starts_anew_before_its_bank_grows_large(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "_KEPT", 40)
    part = own_part(tmp_path, tiny, DOCUMENTS, "whole")
    reader = Reader(part, [Handle(Part(part))])
    for question in QUESTIONS:
        reply = asyncio.run(reader.answer([("user", question)], "short", 4, "fast"))
        assert len(reader._model.bank) <= 40
        assert reply.citations[0].id in {document.id for document in DOCUMENTS}


def test_a_word_is_as_rare_as_in_the_whole_collection() -> None:
    whole, some = LexicalIndex(), SharedWords()
    texts = {f"d{n}": f"the mill {'harbour' if n % 3 else 'quarry'} {n}" for n in range(30)}
    whole.add(list(texts), list(texts.values()))
    some.add(["d0", "d1"], [texts["d0"], texts["d1"]])
    question = "Where are mill and quarry?"
    some.tell(len(whole), whole.counts(question))
    assert whole.counts(question) == {"mill": 30, "quarry": 10}
    assert some.weights(question) == whole.weights(question)


def test_parts_are_files_or_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "corpus.bank.parts"
    folder.mkdir()
    with pytest.raises(InputError, match="no bank"):
        parts_of([folder])
    for name in ("000001.bank", "000000.bank", "000000.bank-wal"):
        (folder / name).touch()
    name, files = parts_of([folder])
    assert name == "corpus" and [Path(one).name for one in files] == ["000000.bank", "000001.bank"]
    with pytest.raises(InputError, match=r"gone\.bank"):
        parts_of([folder / "000000.bank", tmp_path / "gone.bank"])


def test_the_command_needs_ray_for_parts(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from latentbank.cli import app

    (tmp_path / "a.txt").write_text("A note.")
    words = ["ingest", str(tmp_path / "a.txt"), "--bank", str(tmp_path / "a.bank"), "--keep-parts"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "--ray" in result.output
    assert not (tmp_path / "a.bank").exists()


# ---- with Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray.data")
    pytest.importorskip("ray.serve")
    from latentbank.integrations.ray_ingest import start_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else other work on this machine goes first
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "300")
        ray = start_ray(2)
        yield ray
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("entry", ["verbatim", "pooled"])
def test_two_workers_write_what_one_process_writes(
    cluster: Any, tmp_path: Path, tiny: str, entry: str
) -> None:
    from latentbank.integrations.ray_ingest import ingest

    options: dict[str, Any] = {
        "adapter": "strata",
        "backbone": tiny,
        "dtype": "float32",
        "overrides": {} if entry == "verbatim" else POOLED,
    }
    documents = DOCUMENTS * 2  # each one twice: the second is a duplicate
    done = ingest(documents, tmp_path / "two.bank", 2, **options)
    assert done.banks == (str(tmp_path / "two.bank"),)
    assert done.documents == 288
    with MemoryModel.from_pretrained(bank=tmp_path / "one.bank", quick=True, **options) as model:
        model.write(documents)
    with (
        MemoryBank.open(tmp_path / "one.bank", read_only=True) as one,
        MemoryBank.open(tmp_path / "two.bank", read_only=True) as two,
    ):
        found = diff_banks(one, two)
        assert not found.only_first and not found.only_second and not found.changed
        assert list(one.ids()) == list(two.ids()) and len(one) == 144
        assert not two.verify().damage
    assert not (tmp_path / "two.bank.parts").exists()
    with pytest.raises(BankError, match="already"):
        ingest(documents, tmp_path / "two.bank", 2, **options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parts_that_are_kept_are_served(cluster: Any, tmp_path: Path, tiny: str) -> None:
    from latentbank.integrations.ray_ingest import ingest

    options: dict[str, Any] = {"adapter": "strata", "backbone": tiny, "dtype": "float32"}
    kept = ingest(
        DOCUMENTS, tmp_path / "town.bank", 2, part_documents=100, keep_parts=True, **options
    )
    assert len(kept.banks) == 2 and kept.entries == 144
    again = ingest(
        DOCUMENTS, tmp_path / "town.bank", 2, part_documents=100, keep_parts=True, **options
    )
    assert again.entries == 0 and again.duplicates == 144  # an ingest that is run again goes on
    whole = own_part(tmp_path, tiny, DOCUMENTS, "whole")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replies: list[httpx.Response] = []

    def asked() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "town"
            for content in QUESTIONS:
                body = {
                    "model": "town",
                    "messages": [{"role": "user", "content": content}],
                    "style": "short",
                    "max_tokens": 6,
                }
                replies.append(client.post("/v1/chat/completions", json=body))
            for wrong in ({"model": "other"}, {"stream": True}, {"style": "loud"}):
                replies.append(client.post("/v1/chat/completions", json={**body, **wrong}))

    sharded.serve_parts(
        [str(tmp_path / "town.bank.parts")],
        "127.0.0.1",
        port,
        1,
        lambda address: None,
        address="auto",
        until=asked,
    )
    statuses = [reply.status_code for reply in replies]
    assert statuses == [200] * len(QUESTIONS) + [404, 400, 400], [r.text for r in replies]
    with MemoryModel.open(whole, quick=True) as model:
        for question, reply in zip(QUESTIONS, replies, strict=False):
            answer = alone(model, question)
            message = json.loads(reply.text)["choices"][0]["message"]
            assert message["content"] == answer.text
            assert message["annotations"]
