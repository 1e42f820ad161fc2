"""Rows of RDF files, N-Triples and Turtle, by rdflib.

Knows graphs; nothing about documents. A name is the graph's label, or the last part of the address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote

from latentbank.documents.readers.rows import Found, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["rdf_rows"]

_FORMATS = {".nt": "nt", ".ttl": "turtle"}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def rdf_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """One row for each statement, sorted, with entity, property, value and a sentence as text.

    Labels name things and are no rows of their own. Blank nodes are left out.
    """
    try:
        import rdflib
    except ImportError as error:
        raise InputError(
            f"{path}: reading RDF needs rdflib: pip install 'latentbank[kb]'."
        ) from error
    suffix = next((s for s in _FORMATS if path.lower().removesuffix(".gz").endswith(s)), ".ttl")
    graph = rdflib.Graph()
    try:
        graph.parse(data=file.read(), format=_FORMATS[suffix])
    except Exception as error:  # rdflib raises a class of its own for each format
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not readable {_FORMATS[suffix]}: {reason}.") from error
    label = rdflib.RDFS.label
    statements = [
        (subject, property, value)
        for subject, property, value in graph
        if property != label and isinstance(subject, rdflib.URIRef)
        and not isinstance(value, rdflib.BNode)
    ]  # fmt: skip
    for number, (subject, property, value) in enumerate(sorted(statements), start=1):
        entity, named = _name(graph, subject, label), _name(graph, property, label)
        held = str(value) if isinstance(value, rdflib.Literal) else _name(graph, value, label)
        fields = {"text": f"The {named} of {entity} is {held}"}
        yield Row(
            f"{path}, statement {number}",
            {**fields, "entity": entity, "property": named, "value": held},
        )


def _name(graph: Any, node: Any, label: Any) -> str:
    """The label of a node, else the last part of its address as words."""
    known = sorted(
        graph.objects(node, label), key=lambda one: (one.language not in (None, "en"), one)
    )
    if known:
        return str(known[0])
    last = re.split(r"[/#]", str(node).rstrip("/#"))[-1]
    return _CAMEL.sub(" ", unquote(last).replace("_", " ")).strip() or str(node)
