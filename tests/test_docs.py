"""README and docs/: links, generated parts, command lines and code that the pages show."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced code of `page` in one of `languages` ("" is a fence without a language)."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for language, code in found if language in languages]


def slugs(page: Path) -> set[str]:
    """Anchors of the headings of a markdown page, as both GitHub and MkDocs make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for name, place in re.findall(r"\]\((?!http)([^)#\s]*)(#[^)]+)?\)", text):
        target = page.parent / name if name else page
        assert target.exists(), f"{title(page)} links to {name}, which does not exist"
        if target.suffix == ".svg":
            assert ET.parse(target).getroot().get("viewBox"), name
        if place:
            assert place[1:] in slugs(target), f"{title(page)}: no heading for {name}{place}"


def test_the_readme_is_short_and_names_the_first_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "make demo" in text and "make test" in text


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_generated_blocks_are_closed_and_filled(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"^<!-- results:(\S+) -->$", text, re.MULTILINE)
    assert len(names) == len(set(names)) == len(re.findall(r"^<!-- /results:", text, re.MULTILINE))
    for name in names:
        _, after = text.split(f"<!-- results:{name} -->")
        inside, end, _ = after.partition(f"<!-- /results:{name} -->")
        assert end and inside.strip(), f"{title(page)}: run python scripts/make_tables.py"


@pytest.mark.parametrize("name", ["cli.md", "settings.md"])
def test_the_generated_reference_is_up_to_date(name: str) -> None:
    script = runpy.run_path(str(ROOT / "scripts/make_reference.py"))
    written = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert written == script["PAGES"][name](), "run: python scripts/make_reference.py"
    assert "|  |" not in written, "a field or an option has no help text"


def test_the_table_of_claims_is_that_of_the_methods() -> None:
    from latentbank.method import CLAIMS, METHODS

    text = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE))
    assert set(rows) == set(CLAIMS)
    for claim, names in rows.items():
        expected = [name for name, method in METHODS.items().items() if claim in method.claims]
        assert re.findall(r"`(\w+)`", names) == expected, claim


def command_lines(page: Path) -> list[list[str]]:
    """The words of every `latentbank …` line in the page's shell blocks."""
    found = []
    for code in blocks(page, "", "sh", "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            command = re.match(r"(?:[^#]*\| )?latentbank (.*)", line)
            if command and "..." not in line:
                found.append(shlex.split(command[1].split("  #")[0], comments=True))
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "LOG.md"], ids=title)
def test_command_lines_use_commands_and_options_that_exist(page: Path) -> None:
    import typer.main

    from latentbank.cli import app

    root: Any = typer.main.get_command(app)
    for words in command_lines(page):
        command, rest = root, words
        while hasattr(command, "commands") and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        if hasattr(command, "commands") and "run" in command.commands:
            command = command.commands["run"]
        assert command is not root or rest[0].startswith("-"), f"{title(page)}: {words}"
        known = {"--help", *(o for p in command.params for o in [*p.opts, *p.secondary_opts])}
        used = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{title(page)}: latentbank {' '.join(words)}: {used - known}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=title)
def test_python_blocks_parse_and_their_imports_exist(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latentbank"):
                module = __import__(node.module, fromlist=["x"])
                for name in node.names:
                    assert hasattr(module, name.name), f"{title(page)}: {node.module}.{name.name}"


def test_the_bank_page_shows_code_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown: dict[str, Any] = {}
    exec(blocks(DOCS / "bank.md", "python")[0], shown)
    assert "doc-1" in str(shown["receipt"])
    assert (tmp_path / "my.bank").exists()


@pytest.mark.real_model
def test_the_readme_shows_code_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks(ROOT / "README.md", "python")[0], {})
    assert capsys.readouterr().out.startswith("Mara Venn ")


def test_the_workflow_runs_targets_that_exist() -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make check", "make test", "make docs"} <= set(run)
    assert {line.removeprefix("make ") for line in run} <= targets
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


class Html(HTMLParser):
    """Ids of a page, its links, and what a browser would load for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.ids |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        loads = {"script": "src", "img": "src", "iframe": "src", "link": "href"}.get(tag)
        if loads in found and found.get("rel") != "canonical":
            self.loads.append(found[str(loads)])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built the way `make docs` builds it."""
    pytest.importorskip("material", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings_handlers.python")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_site_has_no_dead_link_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: Html(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) >= 20
    for path, html in pages.items():
        for address in html.loads:
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
        for address in [*html.links, *html.loads]:
            if urlsplit(address).scheme or address.startswith(("//", "javascript")):
                continue
            name, place = urldefrag(unquote(address))
            target = (path.parent / name).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {address}"
            if place and target in pages:
                assert place in pages[target].ids, f"{path.name}: {address}"


def test_the_python_reference_shows_signatures_and_docstrings(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="latentbank.MemoryModel.ask"' in text or "MemoryModel.ask" in text
    assert "The answer to one question" in text


@pytest.mark.long
@pytest.mark.real_model
def test_the_tutorial_works_from_beginning_to_end(tmp_path: Path) -> None:
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    _, _, page = page.partition("## 2.")  # the first part installs
    outputs = []
    for language, code in BLOCK.findall(page):
        runs = re.match(r"latentbank (write|ask|inspect|delete|verify) |mkdir ", code)
        if language == "python" or runs:
            command = [sys.executable, "-c", code] if language else ["bash", "-e", "-c", code]
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"
            outputs.append(done.stdout)
    assert len(outputs) >= 7
    said = "\n".join(outputs)
    for words in ("Wrote 4 documents", "7:40\n> ", "Not in memory.", "no damage", "ten"):
        assert words in said, f"{words!r} is not in\n{said}"
