"""Knowledge bases with a question about each triple, as question-answer data.

`kb:COUNT[:SEED]` is synthetic, with entities that training never sees. `kb-properties:COUNT[:SEED]`
has held-out properties, too, and `kb-wordings:COUNT[:SEED]` held-out wordings. `kb:FILE` is a file
of triples, of PopQA (Mallen et al. 2023) or of DART (Nan et al. 2021). A question's id ends with
the class of its value. Knows files and triples; knows no model.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from latentbank.documents.facts import Triple
from latentbank.documents.identity import content_hash
from latentbank.documents.readers import ReadOptions, read_documents
from latentbank.errors import InputError, unknown
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.kb.world import World, value_class, wording

__all__ = ["REAL", "SPECS", "class_of", "load_knowledge", "real_triples", "synthetic_knowledge"]

SPECS = ("kb:", "kb-properties:", "kb-wordings:")
"""How the names of such data begin."""
REAL = "real"
"""The class of values that are not synthetic."""
SPLITS = ("train", "test")
_HELD_OUT = 4  # one entity of so many is in the split `test`


def class_of(question: Question) -> str | None:
    """The class of the value that a question of such data asks for; None for any other."""
    head, _, name = question.id.partition("/")[0].rpartition("-")
    return name if head.startswith("kb-") else None


def load_knowledge(spec: str, split: str | None = None) -> QADataset:
    """The data of `kb:…`, `kb-properties:…` or `kb-wordings:…`.

    `split`, for files: `test` holds a quarter of the entities, `train` the others; None: all.

    Raises:
        InputError: no such file, no triple in it, or another form of spec.
    """
    head, _, rest = spec.partition(":")
    numbers = rest.split(":")
    if all(number.isdigit() for number in numbers):
        if len(numbers) > 2 or split is not None:
            raise InputError(f"expected {head}:COUNT or {head}:COUNT:SEED without a split: {spec}")
        count, seed = map(int, [*numbers, "0"][:2])
        return synthetic_knowledge(count, seed, head == "kb-properties", head == "kb-wordings")
    if head != "kb":
        raise InputError(f"expected {head}:COUNT or {head}:COUNT:SEED, got {spec!r}")
    if split not in (None, *SPLITS):
        raise unknown("split", split, SPLITS)
    path = Path(rest)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected kb:COUNT or a file of triples.")
    found = _rows(path)
    rows = [(triple, asked) for triple, *asked in found if split in (None, _split(triple))]
    name = f"kb-{path.stem}" + (f":{split}" if split else "")
    return _dataset(name, [t for t, _ in rows], [asked for _, asked in rows])


def synthetic_knowledge(
    count: int, seed: int = 0, held_properties: bool = False, held_wordings: bool = False
) -> QADataset:
    """`count` triples of held-out entities, drawn from a seed, and a question about each.

    `held_properties` and `held_wordings`: those that training never sees.

    Raises InputError if `count` is below 1.
    """
    if count < 1:
        raise InputError(f"A knowledge base needs at least 1 triple, got {count}.")
    world = World(seed + 1_000, held_entities=True, held_properties=held_properties)
    triples = world.triples(count)
    name = f"kb{'-properties' * held_properties}{'-wordings' * held_wordings}-{count}-{seed}"
    return _dataset(name, triples, [[] for _ in triples], seed, held_wordings)


def real_triples(path: Path, split: str | None = None) -> list[Triple]:
    """The triples of a file; see `load_knowledge`."""
    return [triple for triple, *_ in _rows(path) if split in (None, _split(triple))]


def _dataset(
    name: str, triples: list[Triple], asked: list[list[Any]], seed: int = 0, held: bool = False
) -> QADataset:
    """A question about each triple; `asked`: its wording and answers where they are known."""
    draw = random.Random(f"{name}/{seed}")
    questions = []
    for i, (triple, own) in enumerate(zip(triples, asked, strict=True)):
        text, answers = own or (
            wording(draw, "single", triple.property, triple.entity, held=held), (triple.value,),
        )  # fmt: skip
        questions.append(Question(f"kb-{i}-{_class(triple)}", text, tuple(answers), i))
    return QADataset(name, tuple(triples), tuple(questions))


def _class(triple: Triple) -> str:
    try:
        return value_class(triple.property)
    except InputError:
        return REAL


def _split(triple: Triple) -> str:
    return "train" if int(content_hash(triple.entity), 16) % _HELD_OUT else "test"


def _rows(path: Path) -> list[Any]:
    """(triple,) or (triple, question, answers) of each row; the first value of a key counts."""
    if path.suffix == ".json":
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not readable JSON: {error}.") from error
        first = rows[0] if isinstance(rows, list) and rows else None
        if isinstance(first, Mapping) and "tripleset" in first:
            return _unique(_dart(rows))
        if isinstance(first, Mapping) and "possible_answers" in first:
            return _unique(_popqa(rows))
    found = read_documents([path], options=ReadOptions(triples=True))
    return _unique((cast("Triple", one),) for one in found)


def _unique(rows: Iterable[Any]) -> list[Any]:
    kept: dict[str, Any] = {}
    for row in rows:
        kept.setdefault(row[0].id, row)
    if not kept:
        raise InputError("The data holds no triple.")
    return list(kept.values())


def _dart(rows: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    for row in rows:
        for entity, property, value in row["tripleset"]:
            parts = (_plain(entity), _words(property), _plain(value))
            if all(parts) and not property.startswith("["):  # [TABLECONTEXT] names no entity
                yield (Triple(*parts),)


def _popqa(rows: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    for row in rows:
        answers = (row["obj"], *json.loads(row["possible_answers"]))
        yield Triple(row["subj"], row["prop"], row["obj"]), row["question"], answers


def _plain(text: str) -> str:
    return text.replace("_", " ").strip().strip('"').strip()


def _words(name: str) -> str:
    """ "OPERATING_ORGANISATION" and "birthPlace" as words."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")
    return " ".join(apart.split()).lower()
