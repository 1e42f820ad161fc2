"""The server as OpenAI's own client sees it, unchanged, over a real connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from latentbank.model import MemoryModel
from server_world import FACTS, MODEL, running, settings_of
from tiny import Backbones


class World:
    def __init__(self, address: str, app: Any) -> None:
        self.address, self.app = address, app
        self.openai = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        self.http = httpx.Client(base_url=address, timeout=60)

    def chat(self, text: str, **options: Any) -> Any:
        messages: Any = [{"role": "user", "content": text}]
        return self.openai.chat.completions.create(
            **{"model": "facts", "messages": messages, "max_tokens": 24, **options}
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, backbones: Backbones) -> Iterator[World]:
    settings = settings_of(tmp_path_factory.mktemp("server"), backbones)
    with running(settings, backbones) as (address, app):
        made = World(address, app)
        made.http.post("/v1/banks", json={"name": "facts", "budget": "1MiB"}).raise_for_status()
        rows = [{"id": id, "text": text, "source": f"{id}.txt"} for id, text in FACTS.items()]
        made.http.post("/v1/banks/facts/documents/batch", json={"documents": rows})
        yield made


def test_models_are_the_banks_and_the_plain_model(world: World) -> None:
    assert [one.id for one in world.openai.models.list()] == ["facts", MODEL]
    assert world.openai.models.retrieve("facts").owned_by == "latentbank"
    with pytest.raises(openai.NotFoundError):
        world.openai.models.retrieve("nobody")


def test_a_chat_is_answered_with_citations(world: World) -> None:
    answer = world.chat("Who wrote the first program?")
    message = answer.choices[0].message
    assert message.role == "assistant" and message.content
    (cited,) = message.annotations
    assert cited.url_citation.title == "ada.txt"
    opened = world.http.get(cited.url_citation.url).json()
    assert opened["text"] == FACTS["ada"] and opened["id"] == "ada"
    assert answer.latentbank["citations"][0]["id"] == "ada"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_a_stream_has_the_text_of_the_whole_answer(world: World, quality: str) -> None:
    extra = {"quality": quality}
    whole = world.chat("Who wrote the first program?", extra_body=extra)
    chunks = list(
        world.chat(
            "Who wrote the first program?",
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra,
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].latentbank["citations"][0]["id"] == "ada"
    assert chunks[-1].usage == whole.usage
    if quality == "fast":
        assert sum(bool(c.choices[0].delta.content) for c in chunks) > 1


@pytest.mark.parametrize("style", ["chat", "sentence", "short"])
def test_a_conversation_has_numbered_sources(world: World, style: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who wrote the first program?"},
        {"role": "assistant", "content": "Ada Lovelace [1]."},
        {"role": "user", "content": [{"type": "text", "text": "And when did she write it?"}]},
    ]
    options = {"messages": messages, "extra_body": {"style": style}}
    whole = world.chat("", **options)
    cited = whole.latentbank["citations"]
    assert cited[0]["id"] == "ada" and cited[0]["number"] == 1 and cited[0]["snippet"]
    chunks = world.chat("", stream=True, **options)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    for one in whole.choices[0].message.annotations:
        place = one.url_citation
        assert 0 <= place.start_index <= place.end_index <= len(text)


def test_a_stop_text_ends_the_answer(world: World) -> None:
    whole = world.chat("What do bees tell the hive?").choices[0].message.content
    stop = whole[2:5]
    cut = world.chat("What do bees tell the hive?", stop=[stop]).choices[0].message.content
    assert cut == whole[: whole.index(stop)]
    chunks = world.chat(
        "What do bees tell the hive?", stop=stop, stream=True, extra_body={"quality": "fast"}
    )
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert stop not in streamed


def test_the_bank_may_stand_in_the_extra_body(world: World) -> None:
    by_model = world.chat("How many kinds of tea?")
    by_body = world.chat("How many kinds of tea?", model=MODEL, extra_body={"bank": "facts"})
    assert by_body.choices[0].message.content == by_model.choices[0].message.content
    plain = world.chat("How many kinds of tea?", model=MODEL)
    assert not plain.latentbank["citations"] and not plain.latentbank["from_memory"]


def test_completions_of_several_prompts(world: World) -> None:
    questions = ["Who wrote the first program?", "How many kinds of tea?"]
    both = world.openai.completions.create(model="facts", prompt=questions, max_tokens=16)
    one = world.openai.completions.create(model="facts", prompt=questions[1], max_tokens=16)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert all(choice.text for choice in both.choices)
    stream = world.openai.completions.create(
        model="facts", prompt=questions[1], max_tokens=16, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == one.choices[0].text


def test_responses(world: World) -> None:
    made = world.openai.responses.create(
        model="facts",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "How many teas?"}]}],
        max_output_tokens=16,
    )
    assert made.status == "completed" and made.output_text
    assert made.output[0].content[0].annotations[0].file_id == "tea"  # type: ignore[union-attr]
    with world.openai.responses.stream(
        model="facts", input="How many teas?", max_output_tokens=16
    ) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == made.output_text
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_vector_store_search(world: World) -> None:
    page = world.openai.vector_stores.search("facts", query="Where did the harbour freeze?")
    assert page.data[0].file_id == "oslo" and page.data[0].content[0].text == FACTS["oslo"]
    assert 0 < page.data[0].score <= 1
    with pytest.raises(openai.NotFoundError):
        world.openai.vector_stores.search("nobody", query="x")


def test_what_was_just_written_is_found_and_what_was_deleted_is_not(world: World) -> None:
    for number in range(5):
        text = f"The zeppelin {number}z lands in Quimper on day {number}."
        id = world.http.post("/v1/banks/facts/documents", json={"text": text}).json()
        name = id["documents"][0]["id"]
        answer = world.chat(f"Where does the zeppelin {number}z land?")
        assert [one["id"] for one in answer.latentbank["citations"]] == [name]
        receipt = world.http.delete(f"/v1/banks/facts/documents/{name}").json()
        assert receipt["exact"] and receipt["documents"] == [name]
        answer = world.chat(f"Where does the zeppelin {number}z land?")
        assert name not in [one["id"] for one in answer.latentbank["citations"]]


@pytest.mark.parametrize("style", ["short", "sentence"])
def test_concurrent_questions_share_batches_and_each_has_its_own_answer(
    world: World, style: str
) -> None:
    questions = [f"{text} Tell me {i}." for i in range(4) for text in FACTS.values()]
    (asker,) = world.app.state.service.banks.askers()
    before, body = dict(asker.batches), {"style": style}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: world.chat(text, extra_body=body), questions))
    assert [one.latentbank["citations"][0]["id"] for one in answers] == [*FACTS] * 4
    larger = sum(asker.batches.get(k, 0) - before.get(k, 0) for k in asker.batches if k > 1)
    assert larger >= 1, asker.batches


def test_a_client_that_goes_away_stops_the_generation(world: World) -> None:
    body = {
        "model": "facts",
        "stream": True,
        "quality": "fast",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": "Who wrote the first program?"}],
    }
    (asker,) = world.app.state.service.banks.askers()
    with world.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        for _ in range(4):
            next(lines)
    began = time.monotonic()
    while asker.is_busy and time.monotonic() - began < 5:
        time.sleep(0.01)
    assert time.monotonic() - began < 2
    with pytest.raises(httpx.ReadTimeout):
        world.http.post("/v1/chat/completions", json={**body, "stream": False}, timeout=0.15)
    began = time.monotonic()
    while asker.is_busy and time.monotonic() - began < 5:
        time.sleep(0.01)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "too_many_tokens"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_value"),
        ({"n": 2}, openai.BadRequestError, "invalid_value"),
        ({"messages": []}, openai.BadRequestError, "invalid_value"),
        ({"messages": [{"role": "user", "content": "  "}]}, openai.BadRequestError, None),
        ({"extra_body": {"quality": "superb"}}, openai.BadRequestError, "invalid_value"),
        ({"stream": True, "model": "nobody"}, openai.NotFoundError, "model_not_found"),
    ],
)
def test_wrong_questions_have_an_error_of_openai(
    world: World, options: dict[str, Any], error: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(error) as raised:
        world.chat("Who?", **options)
    assert raised.value.body["message"]  # type: ignore[index]
    assert code is None or raised.value.code == code


def test_the_readme_shows_code_that_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbones: Backbones
) -> None:
    """As written, but for the port, the bank's name and the tiny model's file."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\nimport openai", 1)[1].split("```", 1)[0]
    pytest.importorskip("langchain_core")
    monkeypatch.chdir(tmp_path)
    folder = str(backbones.folder(MODEL))
    with MemoryModel.from_pretrained("strata", "notes.bank", folder, dtype="float32") as model:
        model.write("Mara Venn repairs the lighthouse.")
    world.http.post("/v1/banks", json={"name": "notes"}).raise_for_status()
    world.http.post("/v1/banks/notes/documents", json={"text": "Mara Venn repairs it."})
    printed: list[str] = []
    code = f"import openai{code}".replace("http://127.0.0.1:8000", world.address)
    exec(code, {"print": printed.append})
    assert len(printed) == 2 and printed[1] == "Mara Venn repairs the lighthouse."
    world.http.delete("/v1/banks/notes").raise_for_status()


@pytest.mark.real_model
def test_a_real_model_answers_from_what_was_written(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from latentbank.backbone.model import load_backbone
    from latentbank.server.app import create_app
    from latentbank.server.settings import Settings, Tenant

    settings = Settings(data=str(tmp_path), tenants=(Tenant("local"),))
    with TestClient(create_app(settings, load_backbone("smollm2-135m", quick=True))) as client:
        client.post("/v1/banks", json={"name": "notes", "budget": "1MiB"}).raise_for_status()
        for text in (*FACTS.values(), "Mara Venn repairs the lighthouse every spring."):
            client.post("/v1/banks/notes/documents", json={"text": text}).raise_for_status()
        body = {
            "model": "notes",
            "messages": [{"role": "user", "content": "Who repairs the lighthouse?"}],
        }
        answer = client.post("/v1/chat/completions", json=body).json()
        assert "Mara Venn" in answer["choices"][0]["message"]["content"]
        closed = client.post("/v1/chat/completions", json={**body, "model": "smollm2-135m"}).json()
        assert "Mara Venn" not in closed["choices"][0]["message"]["content"]


def test_another_bank_uses_the_server_as_its_reader(world: World) -> None:
    """`--backbone openai:URL#MODEL` against our own server."""
    from latentbank.model import MemoryModel
    from tiny import DOCUMENTS

    spec = f"openai:{world.address}/v1#{MODEL}"
    with MemoryModel.from_pretrained(backbone=spec) as reader:
        reader.write(DOCUMENTS)
        answer = reader.ask("How many kinds of tea?")
        assert answer.documents[0][0] == DOCUMENTS[2].id and 0 <= answer.confidence <= 1
        stream = reader.chat("Tell me about the tea", stream=True)
        assert "".join(stream) == stream.answer.text and stream.answer.from_memory
