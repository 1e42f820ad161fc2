"""CONTRIBUTING.md's worked example, followed to the letter in a copy of the source tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGET = "src/latentbank/methods/toy.py"


def fenced(after: str, language: str = "") -> str:
    """The first fenced block of a language behind the words `after`."""
    found = re.search(rf"^```{language}\n(.*?)^```", TEXT.split(after)[1], re.DOTALL | re.MULTILINE)
    assert found, f"CONTRIBUTING.md has no code behind {after!r}"
    return found[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """src/ as links to the real files, and the example in its place."""
    root = tmp_path_factory.mktemp("tree")
    package = ROOT / "src" / "latentbank"
    methods = root / "src" / "latentbank" / "methods"
    methods.mkdir(parents=True)
    for folder in (package, package / "methods"):
        for item in folder.iterdir():
            if item.name not in ("methods", "__pycache__"):
                (root / "src" / item.relative_to(ROOT / "src")).symlink_to(item)
    (root / TARGET).write_text(fenced(f"`{TARGET}`", "python"), encoding="utf-8")
    return root


def run(command: str, tree: Path) -> str:
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
    }
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
    return done.stdout


def commands() -> list[str]:
    return fenced("**2.**").strip().splitlines()


def test_the_example_appears_among_the_methods(tree: Path) -> None:
    listed, _ = commands()
    assert listed == "latentbank models"
    rows = [line.split() for line in run(listed, tree).splitlines() if line.split()]
    assert "toy" in [row[0] for row in rows]


def test_the_example_passes_the_contract_suite(tree: Path) -> None:
    _, suite = commands()
    assert suite.endswith("-k toy -q")
    suite = suite.replace("-k toy", "-k 'toy and not gpt2 and not gemma3'")
    summary = run(f"{suite} -p no:cacheprovider", tree).splitlines()[-1]
    passed = re.search(r"(\d+) passed", summary)
    assert passed and int(passed[1]) >= 10 and "failed" not in summary, summary


def test_the_example_is_clean(tree: Path) -> None:
    run(f"{sys.executable} -m ruff check --config pyproject.toml {tree / TARGET}", tree)
    run(f"{sys.executable} -m ruff format --check --config pyproject.toml {tree / TARGET}", tree)


def test_the_table_of_optional_parts_names_what_is_there() -> None:
    from latentbank import capabilities
    from latentbank.method import Method

    rows = re.findall(r"^\| `([A-Z]\w+)` \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE)
    kinds = {
        name: value
        for name, value in vars(capabilities).items()
        if isinstance(value, type) and issubclass(value, Method) and value is not Method
    }
    assert {name for name, _ in rows} == set(kinds)
    for name, members in rows:
        own = kinds[name].__abstractmethods__ - Method.__abstractmethods__
        assert own <= set(re.findall(r"`(\w+)`", members)), name
