"""The examples run as they are, on a tiny model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from latentbank.adapter import build_method, save_adapter
from latentbank.backbone.model import load_backbone
from tiny import Backbones

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_company_table_is_answered_with_sources(
    backbones: Backbones, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = EXAMPLES / "company_kb.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    backbone = load_backbone(str(backbones.folder("llama")), dtype="float32")
    save_adapter(tmp_path / "kblam", build_method("kblam", backbone, preset="tiny"))
    example = runpy.run_path(str(path))
    said = example["main"](adapter=str(tmp_path / "kblam"), backbone=str(backbones.folder("llama")))
    out = capsys.readouterr().out
    assert len(said) == len(example["QUESTIONS"]) + 1
    for question in example["QUESTIONS"]:
        assert question in out
    assert "The price of Kestrel valve is 4718 euros  [price list]" in out
    assert "11 of 12 facts are left" in out
