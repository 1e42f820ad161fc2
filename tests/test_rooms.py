"""The rooms of the package: a module imports only from rooms below its own, also for types.

Read from the real imports of every file, those under `TYPE_CHECKING` and inside functions included.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "latentbank"

# From the ground up. A room is a module or a folder; those of one line may import each other's
# modules in one direction only, see the test of circles.
ROOMS = (
    ("errors",),
    ("registry", "config", "sizes"),
    ("functions",),
    ("documents",),
    ("backbone",),
    ("codec",),
    ("bank",),
    ("parts",),
    ("method",),
    ("capabilities", "learning"),
    ("methods",),
    ("adapter",),
    ("answering", "following", "arguments", "upsert"),
    ("model",),
    ("upkeep",),
    ("evaluate",),
    ("training",),
    ("bench",),
    ("evolve", "agents"),
    ("integrations", "server"),
    ("cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
MOST_MODULES = 12


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            head, _, rest = name.partition(".")
            if head == "latentbank" and rest:
                found.add(rest if rest in MODULES else rest.rpartition(".")[0])
    return {name for name in found if name}


IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_only_from_below(module: str) -> None:
    own = LEVEL[room_of(module)]
    above = sorted(name for name in IMPORTS[module] if LEVEL[room_of(name)] > own)
    assert not above, f"{module} imports from rooms above its own: {', '.join(above)}"


def test_there_are_no_circles() -> None:
    waiting = {name: found - {name} for name, found in IMPORTS.items() if name}
    while ready := [name for name, found in waiting.items() if not found & waiting.keys()]:
        for name in ready:
            del waiting[name]
    circle = {name: sorted(found & waiting.keys()) for name, found in waiting.items()}
    assert not circle, f"modules import each other: {circle}"


def test_no_folder_is_crowded() -> None:
    sizes = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    free = {
        SOURCE / "cli",
        SOURCE / "methods",
        SOURCE / "bench" / "tasks",
    }  # one file for each
    crowded = {str(folder): n for folder, n in sizes.items() if n > MOST_MODULES}
    assert not {k: n for k, n in crowded.items() if Path(k) not in free}


def test_no_method_is_named_outside_its_room() -> None:
    """Generic code finds what a method can do by capability, never by name or type."""
    stems = {path.stem for path in (SOURCE / "methods").glob("*.py") if path.stem != "__init__"}
    wrong = []
    for module, path in MODULES.items():
        if room_of(module) == "methods" or module == "cli.demo":
            continue
        wrong += [f"{module} imports {name}" for name in IMPORTS[module] if "methods." in name]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in stems - {"none"}:
                wrong.append(f"{module}, line {node.lineno}: {node.value!r}")
    assert not wrong, "\n".join(wrong)


def test_private_members_of_the_bank_stay_in_its_room() -> None:
    wrong = []
    for module, path in MODULES.items():
        if room_of(module) == "bank":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            private = isinstance(node, ast.Attribute) and node.attr.startswith("_")
            if private and not node.attr.startswith("__"):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name in ("bank", "store", "_bank"):
                    wrong.append(f"{module}, line {node.lineno}: {name}.{node.attr}")
    assert not wrong, "\n".join(wrong)


def test_the_public_names_are_those_that_are_exported() -> None:
    import latentbank

    assert set(latentbank._PLACES) | {"__version__"} == set(latentbank.__all__)
    for name in latentbank.__all__:
        assert getattr(latentbank, name) is not None
