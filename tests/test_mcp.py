"""The MCP server as the SDK's own client sees it: in memory, over HTTP and over standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from latentbank.server.mcp import build_mcp, mount
from latentbank.server.service import Service
from server_world import ADA, EVE, FACTS, MODEL, running, settings_of, two_tenants
from tiny import Backbones
from tiny_cli import START, environment

Steps = Callable[[Client], Coroutine[Any, Any, None]]


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or {}


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return result.content[0].text  # type: ignore[union-attr]


def in_memory(tmp_path: Path, backbones: Backbones, steps: Steps) -> None:
    async def run() -> None:
        service = Service(settings_of(tmp_path, backbones), backbones.fresh(MODEL))
        async with Client(build_mcp(service)) as client:
            await steps(client)
        await service.close()

    asyncio.run(run())


def test_an_agent_remembers_recalls_answers_and_forgets(
    tmp_path: Path, backbones: Backbones
) -> None:
    async def steps(client: Client) -> None:
        assert "Nothing has been remembered" in await refused(client, "recall", query="tea")
        ids = {}
        for name, text in FACTS.items():
            made = await call(client, "remember", text=text, source=f"{name}/1.txt")
            ids[name] = made["id"]
            assert made["bank"] == "memory" and not made["known"]
        assert (await call(client, "remember", text=FACTS["tea"]))["known"]
        found = await call(client, "recall", query="Who wrote the first program?", limit=2)
        assert found["documents"][0]["text"] == FACTS["ada"]
        said = await call(client, "answer", question="Who wrote the first program?")
        assert said["citations"][0]["id"] == ids["ada"] and said["from_memory"]
        read = await client.read_resource(said["citations"][0]["uri"])
        assert read.contents[0].text == FACTS["ada"]  # type: ignore[union-attr]
        listed = await client.read_resource("latentbank://memory")
        assert ids["bees"] in listed.contents[0].text  # type: ignore[union-attr]
        assert (await call(client, "stats"))["documents"] == 4
        receipt = await call(client, "forget", ids=[ids["ada"]])
        assert receipt["deleted"] == [ids["ada"]] and receipt["exact"]
        assert not (await call(client, "forget", ids=[ids["ada"]]))["deleted"]
        found = await call(client, "recall", query="Who wrote the first program?")
        assert ids["ada"] not in [one["id"] for one in found["documents"]]
        assert (await call(client, "forget", source="tea/1.txt"))["deleted"] == [ids["tea"]]
        assert "Name ids" in await refused(client, "forget")
        assert "no bank" in await refused(client, "stats", bank="nobody")
        assert "Unknown style" in await refused(client, "answer", question="?", style="loud")

    in_memory(tmp_path, backbones, steps)


def test_the_tools_have_the_right_hints(tmp_path: Path, backbones: Backbones) -> None:
    async def steps(client: Client) -> None:
        tools = {one.name: one.annotations for one in (await client.list_tools()).tools}
        assert set(tools) == {"remember", "recall", "answer", "forget", "stats"}
        assert all(tools[name].read_only_hint for name in ("recall", "answer", "stats"))
        remember, forget = tools["remember"], tools["forget"]
        assert not remember.read_only_hint and not remember.destructive_hint
        assert remember.idempotent_hint and forget.idempotent_hint and forget.destructive_hint
        templates = (await client.list_resource_templates()).resource_templates
        assert {one.uri_template for one in templates} == {
            "latentbank://{bank}",
            "latentbank://{bank}/{id}",
        }

    in_memory(tmp_path, backbones, steps)


def test_over_http_the_token_names_the_tenant(tmp_path: Path, backbones: Backbones) -> None:
    settings = settings_of(tmp_path, backbones, tenants=two_tenants())
    with running(settings, backbones, mount) as (address, _):

        async def run(token: str, steps: Steps) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx_client(headers) as http:
                transport = streamable_http_client(f"{address}/mcp", http_client=http)
                async with Client(transport) as client:
                    await steps(client)

        async def writes(client: Client) -> None:
            assert (await call(client, "remember", text=FACTS["ada"]))["bank"] == "memory"

        async def looks(client: Client) -> None:
            assert "Nothing has been remembered" in await refused(client, "recall", query="Ada")
            theirs = await refused(client, "recall", query="Ada", bank="memory")
            nobodys = await refused(client, "recall", query="Ada", bank="nobody")
            assert theirs.replace("memory", "nobody") == nobodys

        asyncio.run(run(ADA, writes))
        asyncio.run(run(EVE, looks))
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert httpx.post(f"{address}/mcp", json=body).status_code == 401


def httpx_client(headers: dict[str, str]) -> Any:
    from mcp.client import streamable_http

    return streamable_http.httpx2.AsyncClient(headers=headers)


def test_over_standard_input(tmp_path: Path, backbones: Backbones) -> None:
    """With the configuration of the README, the tiny model added."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if '{"mcpServers"' in line)
    said = json.loads(line[line.index("{") : line.rindex("}") + 1])["mcpServers"]["memory"]
    assert said["command"] == "latentbank"
    bank = tmp_path / "notes.bank"
    arguments = [*said["args"], "--backbone", str(backbones.folder(MODEL))]
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", START, *arguments, "--dtype", "float32", "--data", str(tmp_path)],
        env=environment(),
        cwd=tmp_path,
    )

    async def run() -> None:
        async with Client(stdio_client(server)) as client:
            assert (await call(client, "remember", text=FACTS["tea"]))["bank"] == "notes"
            found = await call(client, "recall", query="How many kinds of tea?")
            assert found["documents"][0]["text"] == FACTS["tea"]

    asyncio.run(run())
    assert bank.exists()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from tiny_cli import refuse

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    assert "pip install 'latentbank[mcp]'" in refuse("mcp")
    assert "pip install 'latentbank[serve]'" in refuse("serve")
