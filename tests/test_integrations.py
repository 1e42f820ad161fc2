"""The integrations, each with its own framework; one that is not installed is skipped."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.model import MemoryModel
from server_world import FACTS
from tiny import Backbones


@pytest.fixture
def model(backbones: Backbones) -> MemoryModel:
    made = MemoryModel(build_method("strata", backbones.fresh("llama"), preset="tiny"))
    made.write([Document(text, id, source=f"{id}.txt") for id, text in FACTS.items()])
    return made


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("langchain", "langchain_core"),
        ("langgraph", "langgraph"),
        ("llama_index", "llama_index"),
        ("llm_plugin", "llm"),
    ],
)
def test_a_framework_that_is_missing_is_named(
    module: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"latentbank.integrations.{module}", raising=False)
    with pytest.raises(InputError, match="is not installed; install it with: pip install"):
        importlib.import_module(f"latentbank.integrations.{module}")


def test_langchain(model: MemoryModel) -> None:
    pytest.importorskip("langchain_core")
    from latentbank.integrations.langchain import BankRetriever

    (found,) = BankRetriever(bank=model, k=1).invoke("Who wrote the first program?")
    assert found.page_content == FACTS["ada"] and found.metadata["source"] == "ada.txt"


def test_langgraph(model: MemoryModel, backbones: Backbones) -> None:
    pytest.importorskip("langgraph.store.base")
    from latentbank.integrations.langgraph import BankStore

    made = MemoryModel(build_method("strata", backbones.fresh("llama"), preset="tiny"))
    store = BankStore(made)
    store.put(("users", "ada"), "likes", {"text": "Ada likes green tea.", "strength": 3})
    store.put(("users", "ada"), "lives", {"text": "Ada lives in Oslo.", "strength": 1})
    store.put(("users", "eve"), "likes", {"text": "Eve likes black tea.", "strength": 2})
    item = store.get(("users", "ada"), "likes")
    assert item is not None and item.value == {"text": "Ada likes green tea.", "strength": 3}
    assert store.get(("users",), "likes") is None
    found = store.search(("users", "ada"), query="Which tea does she like?")
    assert found[0].key == "likes" and found[0].score and found[0].score > 0
    assert [one.key for one in store.search(("users",), filter={"strength": {"$gt": 1}})] == [
        "likes",
        "likes",
    ]
    assert [one.key for one in store.search(("users", "ada"), limit=1, offset=1)] == ["likes"]
    store.put(("users", "ada"), "likes", {"text": "Ada likes coffee.", "strength": 9})
    changed = store.get(("users", "ada"), "likes")
    assert changed is not None and changed.value["strength"] == 9
    assert changed.created_at == item.created_at < changed.updated_at
    assert store.list_namespaces(prefix=("users",)) == [("users", "ada"), ("users", "eve")]
    assert store.list_namespaces(max_depth=1) == [("users",)]
    assert store.list_namespaces(suffix=("eve",)) == [("users", "eve")]
    store.delete(("users", "ada"), "likes")
    assert store.get(("users", "ada"), "likes") is None
    assert asyncio.run(store.aget(("users", "eve"), "likes")).value["strength"] == 2  # type: ignore[union-attr]


def test_llama_index(backbones: Backbones) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.base.llms.types import ChatMessage

    from latentbank.integrations.llama_index import BankMemoryBlock

    made = MemoryModel(build_method("strata", backbones.fresh("llama"), preset="tiny"))
    block = BankMemoryBlock(bank=made, k=1)

    async def run() -> str:
        said = [ChatMessage(role="user", content=text) for text in FACTS.values()]
        await block.aput(said, from_short_term_memory=True, session_id="s")
        return await block.aget([ChatMessage(role="user", content="How many kinds of tea?")])

    assert asyncio.run(run()) == f"user: {FACTS['tea']}"
    assert asyncio.run(block.aget([])) == ""


def test_openai_agents(tmp_path: Path) -> None:
    from latentbank.integrations.openai_agents import BankSession

    items: list[Any] = [{"role": "user", "content": f"Message {i}."} for i in range(12)]

    async def run() -> None:
        session = BankSession("ada", tmp_path / "agents.bank", "64KiB")
        other = BankSession("ada2", tmp_path / "agents.bank")
        await session.add_items(items[:7])
        await session.add_items(items[7:])
        await other.add_items(items[:1])
        assert await session.get_items() == items
        assert await session.get_items(3) == items[-3:]
        assert await session.pop_item() == items[-1]
        await session.clear_session()
        assert await session.get_items() == [] and await session.pop_item() is None
        assert await other.get_items() == items[:1]
        session.close()
        other.close()
        again = BankSession("ada2", tmp_path / "agents.bank")
        assert await again.get_items() == items[:1]
        again.close()

    asyncio.run(run())
    with pytest.raises(InputError):
        BankSession("a#1", tmp_path / "b.bank")


def test_openai_agents_knows_it_as_a_session(tmp_path: Path) -> None:
    memory = pytest.importorskip("agents.memory")
    from latentbank.integrations.openai_agents import BankSession

    session = BankSession("ada", tmp_path / "agents.bank")
    assert isinstance(session, memory.Session)
    session.close()


def test_llm(backbones: Backbones, tmp_path: Path) -> None:
    llm = pytest.importorskip("llm")
    from latentbank.integrations.llm_plugin import BankModel

    bank, folder = tmp_path / "notes.bank", str(backbones.folder("llama"))
    with MemoryModel.from_pretrained("strata", bank, folder, dtype="float32") as made:
        made.write([Document(text, id) for id, text in FACTS.items()])
    plugin = BankModel()
    response = plugin.prompt("Who wrote the first program?", bank=str(bank), style="short")
    response.text()
    assert response.response_json["sources"] == ["ada"]
    with pytest.raises(llm.ModelError, match="Name a bank"):
        plugin.prompt("Who?").text()


class Hub:
    """Stands for the hub: a folder for each repository."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create_repo(self, repository: str, **_: Any) -> None:
        (self.root / repository).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, repo_id: str, folder_path: str, **_: Any) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"hub/{repo_id}"

    def snapshot_download(self, repository: str, **_: Any) -> str:
        return str(self.root / repository)


def test_the_hub(backbones: Backbones, tmp_path: Path) -> None:
    from latentbank.integrations.hub import pull, push

    folder, hub = str(backbones.folder("llama")), Hub(tmp_path / "hub")
    with MemoryModel.from_pretrained(
        "strata", tmp_path / "a.bank", folder, dtype="float32"
    ) as made:
        made.write([Document(text, id) for id, text in FACTS.items()])
        assert push(made, "ada/notes", with_bank=True, api=hub) == "hub/ada/notes"
        push(made, "ada/adapter", api=hub)
        answer = made.ask("Who wrote the first program?")
    assert not (hub.root / "ada/adapter/memory.bank").exists()
    copy = tmp_path / "copy.bank"
    with pull("ada/notes", copy, backbone=folder, dtype="float32", api=hub) as pulled:
        again = pulled.ask("Who wrote the first program?")
        assert (again.text, again.documents) == (answer.text, answer.documents)
        pulled.write("The copy can be written.")
    with pull("ada/notes", backbone=folder, dtype="float32", api=hub) as pulled:
        assert sorted(pulled.bank.ids()) == sorted(FACTS) and pulled.bank.read_only
    with pytest.raises(InputError, match="exists already"):
        pull("ada/notes", copy, backbone=folder, dtype="float32", api=hub)
