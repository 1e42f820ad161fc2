"""A model behind an OpenAI-compatible server, and everything such a server may do wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentbank.adapter import untrained
from latentbank.backbone.endpoint import EndpointBackbone
from latentbank.backbone.endpoint.client import Client, _spoken
from latentbank.backbone.model import load_backbone
from latentbank.errors import EndpointError, InputError
from latentbank.model import MemoryModel
from stub_endpoint import Stub, serving
from tiny import DOCUMENTS, QUESTIONS
from tiny_cli import refuse, succeed

TEA = "How many kinds of tea?"
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr("latentbank.backbone.endpoint.client.PAUSE", 0.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as found:
        yield found


def opened(stub: Stub, bank: Path | None = None) -> MemoryModel:
    model = MemoryModel.from_pretrained(bank=bank, backbone=f"openai:{stub.url}#tiny")
    model.write(DOCUMENTS)
    return model


# ---- what it gives


def test_the_passage_is_in_the_prompt(stub: Stub) -> None:
    with opened(stub) as model:
        answer = model.ask(TEA)
    assert answer.text == "seventeen kinds" and answer.documents == ((DOCUMENTS[2].id, 1.0),)
    assert answer.from_memory and 0 < answer.confidence <= 1
    [asked] = stub.asked
    assert asked["model"] == "tiny" and asked["temperature"] == 0 and asked["max_tokens"] == 48
    assert asked["messages"][-1]["content"] == (
        f"{DOCUMENTS[2].text}\n\n{TEA}\nAnswer in a few words."
    )


def test_confidence_is_the_servers_where_it_tells(stub: Stub) -> None:
    with opened(stub) as model:
        sure = model.ask(TEA).confidence
        stub.logprobs = True
        assert model.ask(TEA).confidence == pytest.approx(sure * 0.6065, abs=1e-3)


def test_documents_are_reranked_by_likelihood_where_the_server_tells(stub: Stub) -> None:
    question = "Who wrote the first tea program of Oslo?"
    with opened(stub) as model:
        by_words = model.ask(question).documents[0][0]
        echoed = [path for path, _, _ in stub.requests if not path.endswith("/chat/completions")]
        assert len(echoed) == 1  # it refused once, and is not asked again
        model.ask(question)
        assert len([path for path, _, _ in stub.requests if "chat" not in path]) == 1
    stub.echoes = True
    with opened(stub) as model:
        retriever = model.method.retriever  # type: ignore[attr-defined]
        retriever.rank = lambda questions, top: [[(DOCUMENTS[i].id, 1.0) for i in (2, 1, 0)]]
        assert model.ask(question).documents == ((DOCUMENTS[0].id, 1.0),)
    assert by_words


def test_an_answer_comes_piece_by_piece(stub: Stub) -> None:
    stub.answer = lambda messages: "<think>Tea?</think>\nThere are 17 kinds of tea in Zürich."
    with opened(stub) as model:
        stream = model.stream(TEA)
        pieces = list(stream)
        assert len(pieces) > 3 and "".join(pieces) == "There are 17 kinds of tea in Zürich."
        assert stream.answer is not None and stream.answer.from_memory
        chat = model.chat(TEA)
        assert chat.text == "There are 17 kinds of tea in Zürich. [1]"
        assert chat.citations[0].cited
        assert model.chat(TEA, style="sentence").text == "There are 17 kinds of tea in Zürich."


def test_a_conversation_goes_whole_and_trimmed(stub: Stub) -> None:
    rows = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who is Ada Lovelace?"},
        {"role": "assistant", "content": "A mathematician. [1]"},
        {"role": "user", "content": "What did she write?"},
    ]
    with opened(stub) as model:
        model.chat(rows)
        sent = stub.asked[-1]["messages"]
        assert [row["role"] for row in sent] == ["system", "user", "assistant", "user"]
        assert sent[2]["content"] == "A mathematician."
        assert sent[3]["content"].startswith(DOCUMENTS[0].text)
        long = [*rows[:1], {"role": "user", "content": "x" * 20000}, *rows[2:]]
        answer = model.chat(long)
        assert answer.trimmed == 2
        assert [row["role"] for row in stub.asked[-1]["messages"]] == ["system", "user"]


def test_a_bank_reopens_at_another_address(stub: Stub, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    opened(stub, bank).close()
    with serving() as other, MemoryModel.open(bank, backbone=f"openai:{other.url}#tiny") as model:
        assert model.ask(TEA).from_memory and other.asked
        model.delete([DOCUMENTS[2].id])
        assert not model.ask(TEA).from_memory


def test_the_commands_use_a_server(stub: Stub, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(DOCUMENTS[2].text)
    bank, spec = str(tmp_path / "a.bank"), f"openai:{stub.url}#tiny"
    succeed("write", str(notes), "--bank", bank, "--backbone", spec)
    row = json.loads(succeed("ask", TEA, "--bank", bank, "--json").stdout)
    assert row["answer"] == "seventeen kinds" and row["from_memory"]
    assert json.loads(succeed("chat", bank, "--json", input=f"{TEA}\n").stdout)["documents"]
    stub.body = "<html>Welcome to nginx</html>"
    assert "no chat completion: <html>" in refuse("ask", TEA, "--bank", bank)
    other = refuse("write", str(notes), "--bank", str(tmp_path / "b"), "--backbone", "openai:x")
    assert "openai:URL#MODEL" in other


# ---- what goes wrong


def test_a_busy_server_is_asked_again(stub: Stub) -> None:
    stub.failures = [503, 429]
    assert Client(stub.url, "m").chat(USER, 8).text == "seventeen kinds"
    stub.failures = [500, 500, 500]
    with pytest.raises(EndpointError, match="status 500: try later"):
        Client(stub.url, "m").chat(USER, 8)
    assert len(stub.requests) == 6


@pytest.mark.parametrize(("status", "hint"), [(401, "set OPENAI_API_KEY"), (404, "name 'm'")])
def test_a_refusal_says_what_to_do(stub: Stub, status: int, hint: str) -> None:
    stub.failures = [status]
    with pytest.raises(EndpointError, match=hint):
        Client(stub.url, "m").chat(USER, 8)
    assert len(stub.requests) == 1


def test_the_key_is_sent(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Client(stub.url, "m").chat(USER, 8)
    assert stub.requests[0][2] == "Bearer secret"


def test_a_slow_server(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.wait = 0.5
    monkeypatch.setenv("LATENTBANK_ENDPOINT_SECONDS", "0.1")
    for ask in (Client(stub.url, "m").chat, lambda *a: list(Client(stub.url, "m").stream(*a))):
        with pytest.raises(EndpointError, match=r"did not answer within 0\.1 seconds"):
            ask(USER, 8)
    monkeypatch.setenv("LATENTBANK_ENDPOINT_SECONDS", "soon")
    assert Client(stub.url, "m").seconds == 120


def test_a_server_that_is_down(stub: Stub) -> None:
    gone = stub.url.rsplit(":", 1)[0] + ":1/v1"
    with pytest.raises(EndpointError, match="cannot be reached"):
        Client(gone, "m").chat(USER, 8)
    with pytest.raises(EndpointError, match="cannot be reached"):
        list(Client("http://host.invalid/v1", "m").stream(USER, 8))


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", "null", "hello", '{"choices": []}', '{"choices": [{"message": {}}]}',
     '{"choices": [{"message": {"content": 7}}]}', '{"choices": 3}', '{"error": "overloaded"}'],
)  # fmt: skip
def test_nonsense_is_called_so(stub: Stub, body: str) -> None:
    stub.body = body
    with pytest.raises(EndpointError, match="no chat completion"):
        Client(stub.url, "m").chat(USER, 8)
    with pytest.raises(EndpointError):
        list(Client(stub.url, "m").stream(USER, 8))


def test_a_stream_that_breaks_off(stub: Stub) -> None:
    stub.breaks = True
    with pytest.raises(EndpointError, match="broke off"):
        list(Client(stub.url, "m").stream(USER, 8))


def test_thoughts_are_not_the_answer() -> None:
    assert _spoken("<think>hm</think> Yes.") == "Yes."
    assert _spoken("<think>hm", grows=True) == _spoken("<thi", grows=True) == ""
    assert _spoken("<b>", grows=True) == "<b>"


def test_what_needs_the_model_itself_is_refused(stub: Stub) -> None:
    spec = f"openai:{stub.url}#tiny"
    with pytest.raises(InputError, match=r"use one of: .*rag"):
        untrained("mac", EndpointBackbone(spec))
    with pytest.raises(InputError, match="is a server"):
        load_backbone(spec)
    for bad in ("openai:", "openai:localhost#m", "openai:http://x/v1", "openai:ftp://x#m"):
        with pytest.raises(InputError, match="openai:URL#MODEL"):
            EndpointBackbone(bad)
    with pytest.raises(InputError, match="does not fit into the 4096"):
        opened(stub).ask("x" * 60000)
    assert QUESTIONS
