"""A bank belongs to an adapter and a backbone, whatever dtype they compute in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import (
    _hashed,
    adapter_fingerprint,
    build_method,
    load_adapter,
    packaged_adapters,
    save_adapter,
)
from latentbank.backbone import loading
from latentbank.backbone.model import load_backbone
from latentbank.capabilities import Trained, trained_state
from latentbank.errors import FingerprintError
from latentbank.method import METHODS, NAMED_ONLY
from latentbank.model import MemoryModel, bank_fingerprint
from tiny import DOCUMENTS, NAMES, QUESTIONS, Backbones

DTYPES = ("float32", "bfloat16", "float16")
TRAINED = [name for name in METHODS.names() if issubclass(METHODS.get(name), Trained)]


def moved(method: Trained) -> Trained:
    """The method with other values in all that training changes, as trained weights are."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in method.trainable().values():
            value.add_(torch.randn(value.shape, generator=generator).to(value) * 0.02)
    return method


def adapter(name: str, backbones: Backbones, folder: Path, half: bool) -> str:
    """The folder of an adapter of a tiny method, which never saw another dtype than float32."""
    method = build_method(name, backbones.fresh("llama"), preset="tiny")
    assert isinstance(method, Trained)
    save_adapter(folder / "adapter", moved(method), half=half)
    return str(folder / "adapter")


@pytest.mark.parametrize(("name", "half"), [*((name, False) for name in TRAINED), ("strata", True)])
def test_a_bank_opens_in_every_dtype(
    name: str, half: bool, backbones: Backbones, tmp_path: Path
) -> None:
    made = adapter(name, backbones, tmp_path, half)
    same: dict[str, Any] = {"adapter": made, "backbone": str(backbones.folder("llama"))}
    for wrote, asks in (("float32", "bfloat16"), ("bfloat16", "float32")):
        path = tmp_path / f"{wrote}.bank"
        with MemoryModel.from_pretrained(bank=path, dtype=wrote, quick=True, **same) as model:
            model.write(DOCUMENTS[:2])
            stored = len(model.bank)  # 0 for methods without a memory
        with MemoryModel.from_pretrained(bank=path, dtype=asks, **same) as model:
            assert model.backbone.dtype == getattr(torch, asks)
            assert len(model.bank) == stored
            model.write(DOCUMENTS[2:3])
            assert len(model.bank) == stored * 3 // 2
            if NAMED_ONLY not in model.method.claims:
                model.ask(QUESTIONS[0])


@pytest.mark.parametrize("name", TRAINED)
def test_another_adapter_is_refused_in_every_dtype(
    name: str, backbones: Backbones, tmp_path: Path
) -> None:
    made = adapter(name, backbones, tmp_path, half=True)
    method = build_method(name, backbones.fresh("llama"), preset="tiny")
    assert isinstance(method, Trained)
    save_adapter(tmp_path / "other", method)
    place = str(backbones.folder("llama"))
    path = tmp_path / "a.bank"
    MemoryModel.from_pretrained(made, path, place, dtype="float32", quick=True).close()
    for dtype in DTYPES[:2]:
        with pytest.raises(FingerprintError, match="another adapter"):
            MemoryModel.from_pretrained(
                str(tmp_path / "other"), path, place, dtype=dtype, quick=True
            )


def test_a_method_that_was_never_trained_opens_in_every_dtype(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `latentbank write --method rag --backbone FOLDER` leaves it: its low-rank weights idle."""
    same: dict[str, Any] = {"adapter": "rag", "backbone": str(backbones.folder("llama"))}
    overrides = {"lora": {"rank": 4}}
    for quick in (True, False):
        path, chosen = tmp_path / f"{quick}.bank", iter((torch.bfloat16, torch.float32))
        monkeypatch.setattr(loading, "fastest_dtype", lambda chosen=chosen: next(chosen))
        with MemoryModel.from_pretrained(
            bank=path, overrides=overrides, quick=quick, **same
        ) as model:
            assert model.backbone.dtype == torch.bfloat16
            model.write(DOCUMENTS[:1])
        with MemoryModel.open(path, quick=quick) as model:
            assert model.backbone.dtype == torch.float32
            assert model.ask(QUESTIONS[0]).documents[0][0] == DOCUMENTS[0].id


@pytest.mark.parametrize("name", TRAINED)
def test_a_bank_of_an_earlier_version_opens_where_it_was_written(
    name: str, backbones: Backbones, tmp_path: Path
) -> None:
    made = adapter(name, backbones, tmp_path, half=True)
    place = str(backbones.folder("llama"))
    path = tmp_path / "a.bank"
    with MemoryModel.from_pretrained(made, path, place, dtype="float32", quick=True) as model:
        model.write(DOCUMENTS[:1])
        now = model.bank.fingerprint
        digest = _hashed(model.method, trained_state(model.method))
        session = model.bank.session
        with session.guard():
            session.begin(write=True)
            session.items.put_json("bank", "fingerprint", {**asdict(now), "adapter": digest})
            with session.committing():
                pass
        assert bank_fingerprint(model.method) == now
    with MemoryModel.from_pretrained(made, path, place, dtype="float32", quick=True) as model:
        assert model.bank.fingerprint.adapter == digest


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_is_one_in_every_dtype(name: str, backbones: Backbones) -> None:
    folder = str(backbones.folder(name))
    found = {
        load_backbone(folder, dtype=dtype, quick=quick).fingerprint
        for dtype in DTYPES
        for quick in ((False, True) if name == "llama" else (False,))
    }
    assert len(found) == 1


def test_float16_weights_are_those_of_transformers(backbones: Backbones) -> None:
    folder = str(backbones.folder("gemma3"))
    ours = load_backbone(folder, dtype="float16").model
    theirs, _ = loading.load_pretrained(folder, torch.float16)
    assert ours.dtype == torch.float16
    expected = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert value.dtype == torch.float16 and torch.equal(value, expected[name])


def test_a_packaged_adapter_is_one_in_every_dtype() -> None:
    folder = packaged_adapters()["rag-smollm2-135m"]
    found = set()
    for dtype in DTYPES[:2]:
        backbone = load_backbone("smollm2-135m", dtype=dtype, quick=True)
        found.add(adapter_fingerprint(load_adapter(folder, backbone)))
    assert len(found) == 1
