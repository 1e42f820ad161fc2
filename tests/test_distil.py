"""Context distillation: the data that a model makes of texts, and training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentbank.errors import InputError
from latentbank.evaluate import distil
from latentbank.evaluate.distil import (
    REQUESTS,
    Teacher,
    distilled,
    keep_distilled,
    read_distilled,
)
from test_any_model import backbone_of
from tiny import Backbones
from tiny_cli import World, make_world, refuse, succeed

TEXT = "The lamp number {} of the tower was lit by Ada Finn in {}. Its brass shines."


@pytest.fixture(scope="module")
def world(backbones: Any) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(TEXT.format(i, 1900 + i))
    return folder


def says(self: Teacher, text: str, request: str, sentences: int | None = None) -> str:
    """A teacher that knows what it speaks of."""
    if request == distil.ASK:
        return "Who lit the lamp of the tower? Ada."
    if request.endswith(distil.SENTENCE):
        return "Ada Finn lit the lamp."
    return {REQUESTS[0]: "A lamp was lit. It shines.", REQUESTS[1]: REQUESTS[1]}.get(request, "")


def test_the_teacher_has_the_text_in_its_prompt(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(backbones, "llama", "chat")
    teacher, prompts = Teacher(backbone, 8), []
    plain = teacher._reader.stream
    monkeypatch.setattr(
        teacher._reader,
        "stream",
        lambda prompt, *rest: prompts.append(prompt) or plain(prompt, *rest),
    )
    teacher.says("The lamp is brass.", REQUESTS[0], 2)
    teacher.says("The lamp is brass.", REQUESTS[1], 1)
    text = backbone.tokenizer.decode(prompts[0].ids)
    assert text.startswith(f"<s>user: The lamp is brass.\n\n{REQUESTS[0]}")
    assert len(teacher._reader._read) == 1  # both read the text from the cache


def test_what_says_nothing_is_left_out(
    backbones: Backbones, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Teacher, "says", says)
    done: list[int] = []
    made = distilled(notes, backbones.fresh("llama"), 0, lambda at, total: done.append(at))
    assert done == list(range(12)) and len(made.documents) == 12
    own = [one for one in made.questions if one.document == 3]
    asked = {one.text: one.answers for one in own}
    assert asked["Who lit the lamp of the tower?"] == ("Ada Finn lit the lamp.",)
    assert asked[REQUESTS[0]] == ("A lamp was lit. It shines.",)
    assert REQUESTS[1] not in asked and REQUESTS[2] not in asked  # an echo, and nothing
    short = [one.answers[0] for one in own if True]
    assert any(answer in ("1903", "Ada Finn") for answer in short)


def test_the_data_of_a_run_is_kept(backbones: Backbones, notes: Path, tmp_path: Path) -> None:
    made = distil.corpus_dataset(notes, 2, 0)
    assert read_distilled(tmp_path, "x") is None
    keep_distilled(tmp_path, "x", made)
    again = read_distilled(tmp_path, "x")
    assert again is not None and again.hash == made.hash
    assert read_distilled(tmp_path, "y") is None
    (tmp_path / "distil.json").write_text('{"about": "x"}')
    with pytest.raises(InputError, match="delete it"):
        read_distilled(tmp_path, "x")


def test_a_tiny_model_is_trained_on_what_it_said(
    world: World, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    command = (
        "train", "--method", "strata", "--backbone", world.backbone, "--preset", "tiny",
        "--distil", str(notes), "--out", str(out), "--steps", "2", "--dtype", "float32",
        "--documents-per-step", "2", "--questions-per-document", "2", "--json",
    )  # fmt: skip
    monkeypatch.setattr(Teacher, "says", says)
    result = json.loads(succeed(*command).stdout)
    assert result["step"] == 2 and (out / "distil.json").exists()
    config = json.loads((out / "adapter" / "config.json").read_text())
    assert config["training"]["data"]["name"].startswith("notes distilled")
    monkeypatch.setattr(Teacher, "says", None)  # an earlier call's data is taken
    assert json.loads(succeed(*command).stdout)["step"] == 2
    assert "leave --data" in refuse(*command, "--data", str(notes))
    (notes / "12.txt").write_text("A new lamp was lit by Bea Finn in 1950.")
    with pytest.raises(AssertionError, match="not callable"):  # another corpus is asked about anew
        succeed(*command)
