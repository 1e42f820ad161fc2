"""The web page in a real browser: chat with citations, documents, receipt, tabs by keyboard.

Needs playwright and Debian's chromium; skipped where they are not installed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server_world import FACTS, running, settings_of
from tiny import Backbones

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
STATIC = Path(__file__).parent.parent / "src/latentbank/server/static"


def test_the_page_names_no_other_server() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]+", text), file.name


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, backbones: Backbones) -> Iterator[str]:
    with running(settings_of(tmp_path_factory.mktemp("page"), backbones), backbones) as (at, _):
        httpx.post(f"{at}/v1/banks", json={"name": "facts", "budget": "1MiB"}).raise_for_status()
        for id, text in FACTS.items():
            row = {"id": id, "text": text, "source": f"{id}.txt"}
            httpx.post(f"{at}/v1/banks/facts/documents", json=row).raise_for_status()
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_person_asks_looks_writes_and_deletes(
    address: str, browser: Any, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 760}, color_scheme=scheme)
    page.set_default_timeout(20_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((address, "blob:")) else faults.append(asked.url)
        ),
    )
    page.goto(address)
    page.wait_for_selector("#rows tr", state="attached")

    page.keyboard.press("Tab")  # the link past the header
    page.keyboard.press("Enter")
    page.focus("#question")
    page.keyboard.type("Who wrote the first program?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".cites button")
    page.click(".cites button")
    page.wait_for_selector("#dialog .text")
    assert FACTS["ada"] in page.inner_text("#dialog-body")
    page.keyboard.press("Escape")

    page.focus("[role=tab]:visible")
    while page.evaluate("document.activeElement.id") != "tab-documents":
        page.keyboard.press("ArrowRight")
    page.click("#adding summary")
    page.fill("#text", f"The ferry of {width} leaves at noon.")
    page.fill("#source", "ferry.txt")
    page.click("#paste button[type=submit]")
    page.get_by_text("1 text written").wait_for()
    page.fill("#words", "ferry")
    page.keyboard.press("Enter")
    page.get_by_text("1 document with “ferry”").wait_for()
    page.click("#rows button.danger")
    page.wait_for_selector("#dialog[open]")
    page.click("#dialog-buttons button.danger")
    page.wait_for_selector("#dialog-body dl")
    assert "yes, nothing of it remains" in page.inner_text("#dialog-body")
    page.keyboard.press("Escape")

    page.click("#tab-bank")
    page.get_by_text("facts: 4 documents").wait_for()
    assert "verbatim" in page.inner_text("#legend") and "deleted" in page.inner_text("#events")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not faults
    page.close()
