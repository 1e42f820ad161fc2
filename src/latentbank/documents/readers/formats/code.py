"""Source code: a file as one text, with an outline of its definitions.

Python by its own parser, other languages by tree-sitter. Knows source code; nothing about
documents.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from importlib import import_module
from itertools import accumulate
from pathlib import PurePath
from typing import Any, BinaryIO

from latentbank.documents.outline import Section
from latentbank.documents.readers.rows import Found, Note, ReadOptions, text_row
from latentbank.documents.readers.text import read_text

__all__ = ["CODE_SUFFIXES", "code_rows"]

_PYTHON = (".py", ".pyi")
# suffix → (module of its grammar, name of the language in it)
_GRAMMARS = {
    ".js": ("javascript", "language"), ".jsx": ("javascript", "language"),
    ".mjs": ("javascript", "language"), ".cjs": ("javascript", "language"),
    ".ts": ("typescript", "language_typescript"), ".tsx": ("typescript", "language_tsx"),
    ".java": ("java", "language"), ".c": ("c", "language"), ".h": ("cpp", "language"),
    ".cc": ("cpp", "language"), ".cpp": ("cpp", "language"), ".cxx": ("cpp", "language"),
    ".hpp": ("cpp", "language"), ".hh": ("cpp", "language"), ".go": ("go", "language"),
    ".rs": ("rust", "language"),
}  # fmt: skip
_PLAIN = (
    ".cs", ".jl", ".kt", ".lua", ".php", ".pl", ".r", ".rb", ".scala", ".sh", ".sql", ".swift",
)  # fmt: skip
CODE_SUFFIXES = (*_PYTHON, *_GRAMMARS, *_PLAIN)

_Definition = tuple[int, int, tuple[str, ...]]  # start, end, and names from the outermost
_ENDINGS = ("_definition", "_declaration", "_item", "_declarator", "_specifier", "_spec")
_VALUES = ("arrow_function", "function_expression", "function", "class")
_WORDS = (
    "function", "method", "class", "interface", "enum", "struct", "trait", "mod_", "namespace",
    "type_", "constructor", "record", "union", "annotation_type", "macro",
)  # fmt: skip
_LINE_END = re.compile(r"\r\n|\r|\n")  # as Python's parser counts lines
_WRAPPERS = (
    "export_statement", "lexical_declaration", "variable_declaration", "type_declaration",
    "template_declaration",
)  # fmt: skip
_DEEPEST = 40  # levels of the syntax tree that may hold definitions


def code_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The file as one row, whose title is the file's name."""
    text, notes = read_text(file, path, options)
    yield from notes
    name = PurePath(path)
    suffix = next((s.lower() for s in reversed(name.suffixes) if s.lower() != ".gz"), "")
    outline: tuple[Section, ...] = ()
    try:
        if suffix in _PYTHON:
            outline = _outline(text, _python(text))
        elif suffix in _GRAMMARS:
            outline = _outline(text, _by_grammar(text, *_GRAMMARS[suffix]))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        yield Note("plain", path, f"read without definitions{place}: {reason}")
    except ImportError as error:
        said = f"read without definitions: {error.name} is not installed"
        yield Note("plain", path, f"{said}: pip install 'latentbank[files]'")
    yield text_row(path, text, options, outline, title=name.name if outline else "")


def _outline(text: str, definitions: Iterator[_Definition]) -> tuple[Section, ...]:
    """Sections of definitions; behind the last one of a class stands what belongs to the class."""
    sections: list[Section] = []
    open_: list[_Definition] = []

    def close(start: int) -> None:
        while open_ and open_[-1][1] <= start:
            end = open_.pop()[1]
            sections.append(Section(end, open_[-1][2] if open_ else ()))

    for definition in definitions:
        close(definition[0])
        sections.append(Section(definition[0], definition[2]))
        open_.append(definition)
    close(len(text))
    return tuple(sections)


def _python(text: str) -> Iterator[_Definition]:
    """Classes and functions, those inside of classes too; decorators belong to them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings, which are not our business
        tree = ast.parse(text)
    starts = [0, *(match.end() for match in _LINE_END.finditer(text)), len(text)]

    def inside(body: list[ast.stmt], names: tuple[str, ...]) -> Iterator[_Definition]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                end = starts[node.end_lineno or node.lineno]
                path = (*names, node.name)
                yield starts[first - 1], end, path
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, path)

    yield from inside(tree.body, ())


def _by_grammar(text: str, grammar: str, language: str) -> Iterator[_Definition]:
    from tree_sitter import Language, Parser

    module = import_module(f"tree_sitter_{grammar}")
    data = text.encode()
    tree = Parser(Language(getattr(module, language)())).parse(data)
    characters = _Characters(text)
    yield from _named(tree.root_node, (), characters)


class _Characters:
    """Offsets in UTF-8 as offsets in characters."""

    def __init__(self, text: str) -> None:
        self._ascii = text.isascii()
        lines = [] if self._ascii else text.split("\n")
        self._lines = lines
        self._chars = list(accumulate((len(line) + 1 for line in lines), initial=0))
        self._bytes = list(accumulate((len(line.encode()) + 1 for line in lines), initial=0))

    def at(self, offset: int) -> int:
        """The character that begins at a byte."""
        if self._ascii:
            return offset
        line = min(bisect_right(self._bytes, offset) - 1, len(self._lines) - 1)
        rest = self._lines[line].encode()[: offset - self._bytes[line]]
        return self._chars[line] + len(rest.decode(errors="ignore"))


def _named(
    node: Any,
    names: tuple[str, ...],
    characters: _Characters,
    depth: int = 0,
    outer: int | None = None,
) -> Iterator[_Definition]:
    """The definitions below a node of the syntax tree, outside of functions' bodies.

    `outer`: where a statement begins that belongs to the first definition, such as `export`.
    """
    if depth > _DEEPEST:
        return
    for child in node.named_children:
        name = _name(child)
        path = (*names, name) if name else names
        begin = child.start_byte if outer is None else outer
        if name:
            yield characters.at(begin), characters.at(child.end_byte), path
            outer = None
        if not name or ("function" not in child.type and "method" not in child.type):
            inside = begin if not name and child.type in _WRAPPERS else None
            yield from _named(child, path, characters, depth + 1, inside)


def _name(node: Any) -> str:
    """The name that a node defines; "" if it defines nothing that is worth a section."""
    kind: str = node.type
    if kind == "impl_item":
        of = node.child_by_field_name("type")
        return of.text.decode() if of is not None else ""
    if not kind.endswith(_ENDINGS):
        return ""
    if kind.endswith("_declarator"):  # const name = () => {…}
        value = node.child_by_field_name("value")
        if value is None or value.type not in _VALUES:
            return ""
    elif not any(word in kind for word in _WORDS):
        return ""
    if kind.endswith("_specifier") and node.child_by_field_name("body") is None:
        return ""  # struct point p;
    found = node.child_by_field_name("name")
    if found is None and kind == "function_definition":  # C: int *name(…) {…}
        found = node.child_by_field_name("declarator")
        while found is not None and (inner := found.child_by_field_name("declarator")) is not None:
            found = inner
    return "" if found is None else found.text.decode(errors="replace")
