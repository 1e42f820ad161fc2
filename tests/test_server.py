"""The server: banks and documents, tenants, limits, bad input, two servers, a full disk."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from latentbank.answering import Answer, AnswerStream
from latentbank.bank import MemoryBank
from latentbank.errors import InputError, UnknownNameError
from latentbank.server.app import create_app
from latentbank.server.guards import LOG
from latentbank.server.hosting import questions
from latentbank.server.hosting.engine import ServedBackbone
from latentbank.server.hosting.questions import Asker, Pace, Question
from latentbank.server.settings import Limits, hash_token, load_settings
from latentbank.server.tenants import Rate
from server_world import ADA, EVE, FACTS, MODEL, running, settings_of, two_tenants
from test_disk_full import disk_of
from tiny import Backbones

ASKED = {"messages": [{"role": "user", "content": "Who wrote the first program?"}], "max_tokens": 8}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def error_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, backbones: Backbones) -> Iterator[TestClient]:
    settings = settings_of(
        tmp_path_factory.mktemp("server"),
        backbones,
        limits=Limits(body_bytes=200_000, document_bytes=20_000, batch_documents=8),
    )
    with TestClient(create_app(settings, backbones.fresh(MODEL))) as made:
        yield made


@pytest.fixture
def bank(client: TestClient) -> Iterator[str]:
    """A bank with four documents."""
    client.post("/v1/banks", json={"name": "facts", "budget": "256KiB"}).raise_for_status()
    rows = [
        {"id": id, "text": text, "source": f"{id}.txt", "time": f"2024-0{n}-01"}
        for n, (id, text) in enumerate(FACTS.items(), start=1)
    ]
    client.post("/v1/banks/facts/documents/batch", json={"documents": rows}).raise_for_status()
    yield "/v1/banks/facts"
    client.delete("/v1/banks/facts").raise_for_status()


# ---- banks and documents


def test_a_write_is_idempotent_and_says_what_it_did(client: TestClient, bank: str) -> None:
    text = {"text": "A text without an id."}
    first = client.post(f"{bank}/documents", json=text)
    again = client.post(f"{bank}/documents", json=text)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["documents"][0]["id"] == again.json()["documents"][0]["id"]
    assert (first.json()["stored"], again.json()["stored"]) == (1, 0)
    new = client.post(f"{bank}/documents", json={"id": "ada", "text": "Another text."}).json()
    assert new["replaced"] == 1 and new["documents"] == [{"id": "ada", "known": True}]
    assert client.get(f"{bank}/documents/ada").json()["text"] == "Another text."


def test_documents_are_listed_newest_first_in_pages_and_searched(
    client: TestClient, bank: str
) -> None:
    ids, before = [], None
    while True:
        query: dict[str, Any] = {"limit": 3, **({} if before is None else {"before": before})}
        page = client.get(f"{bank}/documents", params=query).json()
        ids += [one["id"] for one in page["data"]]
        before = page["next"]
        if before is None:
            break
    assert ids == [*FACTS][::-1] and page["count"] == 4
    found = client.get(f"{bank}/documents", params={"q": "HARBOUR"}).json()
    assert [one["id"] for one in found["data"]] == ["oslo"]
    found = client.get(f"{bank}/documents", params={"source": "tea.txt"}).json()
    assert [one["id"] for one in found["data"]] == ["tea"]
    assert error_of(client.get(f"{bank}/documents/nobody")) == (404, "document_not_found")


def test_deletes_by_id_source_and_time_have_receipts(client: TestClient, bank: str) -> None:
    receipt = client.delete(f"{bank}/documents/ada").json()
    assert receipt["documents"] == ["ada"] and receipt["exact"]
    assert receipt["before"] != receipt["after"]
    some = client.post(f"{bank}/documents/delete", json={"source": "oslo.txt"}).json()
    assert some["documents"] == ["oslo"]
    some = client.post(f"{bank}/documents/delete", json={"since": "2024-04-01"}).json()
    assert some["documents"] == ["bees"]
    assert error_of(client.delete(f"{bank}/documents/ada")) == (404, "document_not_found")
    assert error_of(client.post(f"{bank}/documents/delete", json={})) == (400, "invalid_value")
    events = client.get(f"{bank}/events").json()["data"]
    assert "ada" not in json.dumps(events), "a deleted document's id stays in the events"


def test_a_full_bank_says_what_faded(client: TestClient) -> None:
    client.post("/v1/banks", json={"name": "small", "budget": "24KiB"}).raise_for_status()
    faded: list[str] = []
    for number in range(40):
        text = " ".join(f"Word{number}x{i} stands here." for i in range(60))
        body = {"documents": [{"id": f"d{number}", "text": text}]}
        report = client.post("/v1/banks/small/documents/batch", json=body).json()
        faded += report["faded"] + report["forgotten"]
    assert faded and {one[0] for one in faded} == {"d"}
    stats = client.get("/v1/banks/small").json()
    assert stats["bytes"] <= stats["budget_bytes"] == 24 * 1024
    assert sum(level["documents"] for level in stats["levels"].values()) == stats["documents"]
    kinds = {one["kind"] for one in client.get("/v1/banks/small/events").json()["data"]}
    assert {"added", "forgotten"} <= kinds or {"added", "faded"} <= kinds
    client.delete("/v1/banks/small").raise_for_status()


def test_a_snapshot_opens_as_a_bank(client: TestClient, bank: str, tmp_path: Path) -> None:
    (tmp_path / "copy.bank").write_bytes(client.get(f"{bank}/snapshot").content)
    with MemoryBank.open(tmp_path / "copy.bank", read_only=True) as copy:
        assert sorted(copy.ids()) == sorted(FACTS)
    assert client.post(f"{bank}/verify").json()["ok"]


def test_a_long_document_is_one_with_chunks(client: TestClient, bank: str) -> None:
    text = "\n\n".join(f"Paragraph {i} speaks of the number {i}." for i in range(120))
    client.post(f"{bank}/documents", json={"id": "long", "text": text}).raise_for_status()
    kept = client.get(f"{bank}/documents/long").json()
    assert kept["chunks"] > 1 and kept["text"].split() == text.split()
    assert client.delete(f"{bank}/documents/long").json()["documents"] == ["long"]


# ---- reading beside writing


def test_a_question_does_not_wait_for_a_write(client: TestClient, bank: str) -> None:
    hosted = next(iter(client.app.state.service.banks._open.values()))  # type: ignore[attr-defined]
    client.post(f"{bank}/documents", json={"text": "Opens the writer."}).raise_for_status()
    client.post("/v1/chat/completions", json={"model": "facts", **ASKED}).raise_for_status()
    with ThreadPoolExecutor(1) as pool, hosted._writer.backbone.exclusive():
        write = pool.submit(client.post, f"{bank}/documents", json={"text": "Waits for the lock."})
        answer = client.post("/v1/chat/completions", json={"model": "facts", **ASKED})
        assert answer.status_code == 200 and not write.done()
    assert write.result().status_code == 201


def test_writes_at_once_are_all_kept(client: TestClient, bank: str) -> None:
    def write(number: int) -> int:
        return client.post(f"{bank}/documents", json={"text": f"Fact {number}."}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(24))) == {201}
    assert client.get(bank).json()["documents"] == 28


# ---- tenants


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, backbones: Backbones) -> Iterator[TestClient]:
    settings = settings_of(
        tmp_path_factory.mktemp("tenants"),
        backbones,
        tenants=two_tenants(banks=3, budget_bytes=1_000_000),
        metrics_token=hash_token("operator"),
    )
    with TestClient(create_app(settings, backbones.fresh(MODEL))) as made:
        body = {"name": "notes", "budget": 300_000}
        made.post("/v1/banks", json=body, headers=bearer(ADA)).raise_for_status()
        document = {"id": "secret", "text": "The vault opens with 4711."}
        made.post(
            "/v1/banks/notes/documents", json=document, headers=bearer(ADA)
        ).raise_for_status()
        yield made


CALLS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/banks/{}", None),
    ("DELETE", "/v1/banks/{}", None),
    ("GET", "/v1/banks/{}/documents", None),
    ("GET", "/v1/banks/{}/documents/secret", None),
    ("DELETE", "/v1/banks/{}/documents/secret", None),
    ("POST", "/v1/banks/{}/documents", {"text": "x"}),
    ("POST", "/v1/banks/{}/documents/delete", {"ids": ["secret"]}),
    ("GET", "/v1/banks/{}/events", None),
    ("POST", "/v1/banks/{}/verify", None),
    ("GET", "/v1/banks/{}/snapshot", None),
    ("GET", "/v1/models/{}", None),
    ("POST", "/v1/vector_stores/{}/search", {"query": "vault"}),
    ("POST", "/v1/chat/completions", {"model": "{}", **ASKED}),
    ("POST", "/v1/completions", {"model": "{}", "prompt": "vault?"}),
    ("POST", "/v1/responses", {"model": "{}", "input": "vault?"}),
)


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_bank_of_another_tenant_is_as_unknown_as_none(
    shared: TestClient, method: str, path: str, body: Any
) -> None:
    def call(name: str, headers: dict[str, str]) -> Any:
        given = json.loads(json.dumps(body).replace("{}", name)) if body else None
        return shared.request(method, path.format(name), json=given, headers=headers)

    theirs, nobodys = call("notes", bearer(EVE)), call("nobody", bearer(EVE))
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.text.replace("notes", "nobody") == nobodys.text
    unknown, none = call("notes", bearer("wrong")), call("notes", {})
    assert unknown.status_code == none.status_code == 401
    assert unknown.text == none.text


def test_a_tenant_sees_its_own_banks_and_the_operator_sums(shared: TestClient) -> None:
    assert shared.get("/v1/banks", headers=bearer(EVE)).json()["data"] == []
    assert [one["name"] for one in shared.get("/v1/banks", headers=bearer(ADA)).json()["data"]] == [
        "notes"
    ]
    assert error_of(shared.get("/metrics", headers=bearer(ADA)))[0] == 401
    text = shared.get("/metrics", headers=bearer("operator")).text
    assert "latentbank_requests_total" in text and "notes" not in text and "ada" not in text


def test_a_tenant_has_so_many_banks_and_bytes(shared: TestClient) -> None:
    def create(name: str, budget: Any) -> Any:
        return shared.post("/v1/banks", json={"name": name, "budget": budget}, headers=bearer(ADA))

    assert error_of(create("notes", 50_000)) == (409, "bank_exists")
    assert error_of(create("large", 800_000)) == (403, "budget_exceeded")
    assert error_of(create("endless", None)) == (403, "budget_exceeded")
    assert create("b", 300_000).status_code == 201 and create("c", 300_000).status_code == 201
    assert error_of(create("d", 50_000)) == (403, "too_many_banks")


def test_rates_hold_for_one_tenant_and_no_jump_of_the_clock_matters(
    tmp_path: Path, backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(
        tmp_path, backbones, tenants=two_tenants(writes_per_minute=30, questions_per_minute=6)
    )
    with TestClient(create_app(settings, backbones.fresh(MODEL))) as made:
        for token in (ADA, EVE):
            made.post("/v1/banks", json={"name": "n"}, headers=bearer(token)).raise_for_status()
        ask = {"model": "n", **ASKED}
        assert made.post("/v1/chat/completions", json=ask, headers=bearer(ADA)).status_code == 200
        monkeypatch.setattr(time, "time", lambda: 4e9)  # the system's clock jumps
        refused = made.post("/v1/chat/completions", json=ask, headers=bearer(ADA))
        assert error_of(refused) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert made.post("/v1/chat/completions", json=ask, headers=bearer(EVE)).status_code == 200


def test_a_bucket_fills_with_time() -> None:
    now = [0.0]
    rate = Rate(60, lambda: now[0])
    assert [rate.take() for _ in range(11)] == [0.0] * 10 + [1.0]
    now[0] = 1.0
    assert rate.take() == 0.0 and rate.take() > 0
    assert Rate(0).take(10**9) == 0.0


# ---- bad input


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/banks", b"{", 400),
        ("/v1/banks", b"[" * 50_000, 400),
        ("/v1/banks", b'{"name": 3}', 400),
        ("/v1/banks", b'{"name": "a", "extra": 1}', 400),
        ("/v1/banks", b'{"name": "../etc"}', 400),
        ("/v1/banks", b'{"name": "a", "budget": "12 parsecs"}', 400),
        ("/v1/banks", b'{"name": "a", "budget": 100}', 400),
        ("/v1/banks", b'{"name": "a", "budget": -64227221133}', 400),
        ("/v1/banks", b'{"name": "a", "budget": 1000000000000000000000}', 400),
        ("/v1/banks", b'{"name": "a", "budget": 1e400}', 400),
        ("/v1/banks", b'{"name": "a", "method": "/etc/passwd"}', 400),
        ("/v1/banks/facts/documents", b'{"text": "\\ud800"}', 400),
        ("/v1/banks/facts/documents", b'{"text": "x", "metadata": {"a": NaN}}', 400),
        ("/v1/banks/facts/documents", b'{"text": "x", "time": "the day after"}', 400),
        ("/v1/banks/facts/documents", b'{"text": " \\n "}', 400),
        ("/v1/banks/facts/documents", b'{"text": "' + b"x" * 30_000 + b'"}', 413),
        ("/v1/banks/facts/documents", b'{"text": "' + b"x" * 300_000 + b'"}', 413),
        (
            "/v1/banks/facts/documents/batch",
            b'{"documents": [' + b",".join([b'{"text": "x"}'] * 9) + b"]}",
            413,
        ),
        ("/v1/banks/facts/documents/delete", b'{"where": ["nonsense"]}', 400),
        ("/v1/banks/nobody/documents", b'{"text": "x"}', 404),
        ("/v1/banks/%00/documents", b'{"text": "x"}', 404),
        ("/v1/nothing", b"{}", 404),
    ],
)
def test_bad_bodies_are_refused_in_one_sentence(
    client: TestClient, bank: str, path: str, content: bytes, status: int
) -> None:
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    sentence = response.json()["error"]["message"]
    assert sentence and len(sentence) < 500 and "\n" not in sentence
    assert client.get(bank).json()["documents"] == 4


def test_a_document_over_the_bank_is_refused_and_nothing_is_kept(client: TestClient) -> None:
    client.post("/v1/banks", json={"name": "tight", "budget": "16KiB"}).raise_for_status()
    body = {"text": "x" * 15, "metadata": {"notes": "y" * 19_000}}
    response = client.post("/v1/banks/tight/documents", json=body)
    assert error_of(response) == (413, "budget_too_small")
    assert client.get("/v1/banks/tight").json()["documents"] == 0
    client.delete("/v1/banks/tight").raise_for_status()


def test_only_this_machine_and_no_other_page_uses_an_open_server(client: TestClient) -> None:
    wrong = client.get("/v1/banks", headers={"host": "evil.example"})
    assert error_of(wrong) == (403, "wrong_host")
    wrong = client.get("/v1/banks", headers={"origin": "http://evil.example"})
    assert error_of(wrong) == (403, "wrong_origin")
    asked = client.options("/v1/banks", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in {k.lower() for k in asked.headers}


def test_the_log_has_routes_and_no_texts(
    client: TestClient, bank: str, caplog: pytest.LogCaptureFixture
) -> None:
    LOG.propagate = True
    with caplog.at_level("INFO", "latentbank.server"):
        body = {"id": "x1", "text": "A secret text."}
        client.post(f"{bank}/documents", json=body).raise_for_status()
        client.get(f"{bank}/documents/x1").raise_for_status()
    lines = [json.loads(record.message) for record in caplog.records]
    assert {"/v1/banks/{bank}/documents", "/v1/banks/{bank}/documents/{id:path}"} <= {
        line["route"] for line in lines
    }
    assert "secret" not in caplog.text and "x1" not in caplog.text


def test_a_slow_body_and_a_full_queue(tmp_path: Path, backbones: Backbones) -> None:
    limits = Limits(body_seconds=0.3, waiting_questions=2)
    with running(settings_of(tmp_path, backbones, limits=limits), backbones) as (address, app):
        httpx.post(f"{address}/v1/banks", json={"name": "n"}).raise_for_status()
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(
                b"POST /v1/banks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert b" 408 " in slow.recv(200)
        ask = {"model": "n", **ASKED}
        httpx.post(f"{address}/v1/chat/completions", json=ask).raise_for_status()
        (asker,) = app.state.service.banks.askers()
        with ThreadPoolExecutor(6) as pool, asker._view.exclusive():
            waiting = [
                pool.submit(httpx.post, f"{address}/v1/chat/completions", json=ask, timeout=60)
                for _ in range(6)
            ]
            began = time.monotonic()
            while sum(one.done() for one in waiting) < 2 and time.monotonic() - began < 20:
                time.sleep(0.01)
        codes = sorted(one.result().status_code for one in waiting)
        waits = [int(w) for one in waiting if (w := one.result().headers.get("retry-after"))]
        assert len(waits) == codes.count(429) and all(1 <= wait <= 30 for wait in waits)
        # two may wait, and the batch that was begun before holds none, one or two others
        assert codes in [[200] * taken + [429] * (6 - taken) for taken in (2, 3, 4)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", {"input": []}),
        ("responses", {"input": [], "instructions": "Be brief."}),
        ("responses", {"input": ""}),
        ("responses", {"input": [{"role": "user", "content": []}]}),
        ("chat/completions", {"messages": []}),
        ("chat/completions", {"messages": [{"role": "user", "content": ""}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": []}]}),
        ("completions", {"prompt": ""}),
        ("completions", {"prompt": []}),
    ],
)
def test_nothing_to_answer_is_refused(client: TestClient, path: str, body: dict[str, Any]) -> None:
    reply = client.post(f"/v1/{path}", json={"model": MODEL, **body})
    assert reply.status_code in (400, 422), reply.text
    assert reply.json()["error"]["message"]


def test_refused_questions_are_given_times_one_after_another(backbones: Backbones) -> None:
    asker = Asker(ServedBackbone.of(backbones.fresh(MODEL)), Limits())
    for _ in range(3):
        asker.pace.note(2, 8.0)  # four seconds a question
    assert asker.pace.each == pytest.approx(4.0)
    assert [asker._appointment(0.0) for _ in range(3)] == [4, 8, 12]
    assert [asker._appointment(0.0) for _ in range(6)] == [16, 20, 24, 28, 30, 30]
    asker._promised = 0.0  # all of them came
    assert asker._appointment(10.5) == 15
    asker.close(1)


def test_two_servers_on_one_bank(tmp_path: Path, backbones: Backbones) -> None:
    settings = settings_of(tmp_path, backbones)
    one, two = (TestClient(create_app(settings, backbones.fresh(MODEL))) for _ in "ab")
    with two:
        with one:
            one.post("/v1/banks", json={"name": "n"}).raise_for_status()
            document = {"text": "Written by the first."}
            one.post("/v1/banks/n/documents", json=document).raise_for_status()
            refused = two.post("/v1/banks/n/documents", json={"text": "Written by the second."})
            assert error_of(refused) == (503, "second_writer")
            assert error_of(two.delete("/v1/banks/n")) == (503, "second_writer")
            assert two.get("/v1/banks/n").json()["documents"] == 1
            body = {"model": "n", **ASKED}
            assert two.post("/v1/chat/completions", json=body).status_code == 200
        again = two.post("/v1/banks/n/documents", json={"text": "Written by the second."})
        assert again.status_code == 201  # the first server has stopped


def test_a_full_disk_refuses_writes_while_reads_go_on(client: TestClient, bank: str) -> None:
    client.post("/v1/chat/completions", json={"model": "facts", **ASKED}).raise_for_status()
    row = {"text": " ".join(f"w{number**3:x}" for number in range(1600))}
    with disk_of(4096):
        response = client.post(f"{bank}/documents", json=row)
        assert error_of(response) == (503, "disk_full") and "/" not in response.text
        answer = client.post("/v1/chat/completions", json={"model": "facts", **ASKED})
        assert answer.status_code == 200
        assert client.get(f"{bank}/documents").json()["count"] == 4
    assert client.post(f"{bank}/documents", json=row).status_code == 201


def test_banks_beyond_the_limit_close_and_open_again(tmp_path: Path, backbones: Backbones) -> None:
    settings = settings_of(tmp_path, backbones, limits=Limits(open_banks=2))
    backbone = backbones.fresh(MODEL)
    with TestClient(create_app(settings, backbone)) as made:
        for _ in range(2):
            for number in range(4):
                name = f"n{number}"
                made.post("/v1/banks", json={"name": name})
                row = {"text": f"The number is {number}."}
                made.post(f"/v1/banks/{name}/documents", json=row).raise_for_status()
                ask = {"model": name, **ASKED}
                made.post("/v1/chat/completions", json=ask).raise_for_status()
        assert all(made.get(f"/v1/banks/n{i}").json()["documents"] == 1 for i in range(4))
        reading, writing = made.app.state.service.banks.engine.views()  # type: ignore[attr-defined]
        assert len(reading.updates) <= 6 and len(writing.updates) <= 6


# ---- settings


def test_settings_come_from_file_environment_and_command(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    digest = hash_token("t")
    file.write_text(
        f'[server]\nport = 1\ndata = "d"\n[limits]\ntogether = 4\nbody_bytes = "1MiB"\n'
        f'[tenants.ada]\ntokens = ["{digest}"]\nbudget = "2MiB"\n'
    )
    environment = {"LATENTBANK_SERVE_PORT": "2", "LATENTBANK_SERVE_LIMITS_TOGETHER": "5"}
    made = load_settings(file, {"quality": "fast", "host": None}, environment)
    assert (made.port, made.data, made.quality, made.host) == (2, "d", "fast", "127.0.0.1")
    assert (made.limits.together, made.limits.body_bytes) == (5, 1 << 20)
    assert made.tenants[0].budget_bytes == 2 << 20 and not made.is_open


@pytest.mark.parametrize(
    ("text", "environment", "error"),
    [
        ("[server]\nprot = 1\n", {}, UnknownNameError),
        ("[server]\nport = 'x'\n", {}, InputError),
        ("port = ", {}, InputError),
        ("[tenants.ada]\ntokens = ['plain']\n", {}, InputError),
        ("[tenants.Ada]\n", {}, InputError),
        ("[server]\nhost = '0.0.0.0'\n", {}, InputError),
        ("", {"LATENTBANK_SERVE_PORT": "many"}, InputError),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, text: str, environment: dict[str, str], error: type[Exception]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(error):
        load_settings(file, None, environment)


def test_a_pace_learns_what_a_batch_takes() -> None:
    pace = Pace()
    assert pace.seconds(16) == 0.0
    for size in (1, 2, 4, 8, 16, 1, 3, 9):
        pace.note(size, 0.2 + 0.05 * size)
    assert pace.seconds(1) == pytest.approx(0.25) and pace.seconds(16) == pytest.approx(1.0)


class _Model:
    """Answers at once; the first answer waits for `begin`."""

    def __init__(self) -> None:
        self.backbone, self.begin = self, threading.Event()

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [1] * len(texts)

    def reader(self) -> _Model:
        return self

    def note_answer(self, answer: Answer) -> None:
        pass

    def stream(self, text: str, *options: Any) -> AnswerStream:
        def growing() -> Generator[Answer, None, None]:
            self.begin.wait(30)
            yield Answer(text, (), 1.0, 0.0, 0.0)

        return AnswerStream(growing())

    def ask_many(self, texts: list[str], *options: Any) -> list[Answer]:
        return [Answer(text, (), 1.0, 0.0, 0.0) for text in texts]


def test_those_who_asked_together_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "check_questions", lambda *given: None)
    monkeypatch.setattr(questions, "_GATHER", 20.0)
    monkeypatch.setattr(questions, "_LONGEST", 20.0)
    model = _Model()
    view = SimpleNamespace(
        stop=None, until=lambda stop: nullcontext(), take_threads=lambda count: None
    )
    asker = Asker(view, Limits(together=3))  # type: ignore[arg-type]

    def ask(text: str) -> Any:
        turns = (("user", text),)
        one = Question(model, turns, "short", None, True, "fast", math.inf)  # type: ignore[arg-type]
        asker.submit(one)
        return one.future

    try:
        first = ask("first")
        while asker.waiting:
            time.sleep(0.01)
        together = [ask(f"a{i}") for i in range(3)]
        model.begin.set()
        assert [one.result(30).answer.text for one in [first, *together]][1:] == ["a0", "a1", "a2"]
        again = []
        for i in range(3):  # one after the other
            again.append(ask(f"b{i}"))
            time.sleep(0.05)
        assert [one.result(30).answer.text for one in again] == ["b0", "b1", "b2"]
        assert asker.batches == {1: 1, 3: 2}
    finally:
        asker.close(5)
