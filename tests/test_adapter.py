"""Adapters: config changes reach into groups, and the packaged ones still fit their methods."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import (
    build_method,
    load_adapter,
    load_state_of,
    packaged_adapters,
    read_config,
    save_adapter,
)
from latentbank.backbone.model import Backbone
from latentbank.config import merged
from latentbank.errors import InputError, LatentbankError, UnknownNameError
from tiny import Backbones, model


@pytest.fixture
def saved(backbones: Backbones, tmp_path: Path) -> Path:
    config = {"lora": {"rank": 2, "layer": 1, "dropout": 0.5}, "codebook": {"codes": 16}}
    save_adapter(
        tmp_path, build_method("mbc", backbones.fresh("llama"), config, preset="tiny", seed=0)
    )
    return tmp_path


def test_a_change_to_a_group_leaves_its_other_fields(backbones: Backbones, saved: Path) -> None:
    changes = {"lora": {"dropout": 0.1}, "codebook": {"reset_below": 0.5}, "adapt": "online"}
    config: Any = load_adapter(saved, backbones.fresh("llama"), changes).config
    assert (config.lora.rank, config.lora.layer, config.lora.dropout) == (2, 1, 0.1)
    assert config.lora.targets == "kv"
    assert (config.codebook.codes, config.codebook.reset_below) == (16, 0.5)
    assert config.adapt == "online"
    assert read_config(saved)["config"]["lora"]["dropout"] == 0.5


def test_a_change_of_shapes_is_refused_in_a_sentence(backbones: Backbones, saved: Path) -> None:
    for changes in ({"codebook": {"codes": 8}}, {"lora": {"rank": 4}}):
        with pytest.raises(LatentbankError, match=r"adapter .*(another shape|no low-rank matrix)"):
            load_adapter(saved, backbones.fresh("llama"), changes)
    with pytest.raises(UnknownNameError, match=r"'ranks'.*rank"):
        load_adapter(saved, backbones.fresh("llama"), {"lora": {"ranks": 4}})


def test_a_preset_is_changed_group_by_group(backbones: Backbones) -> None:
    values = {"lora": {"dropout": 0.3}}
    config: Any = build_method("mbc", backbones.fresh("llama"), values, preset="tiny").config
    assert (config.lora.rank, config.lora.layer, config.lora.dropout) == (4, 1, 0.3)


def test_merging_makes_a_new_mapping() -> None:
    base = {"a": 1, "group": {"x": 1, "deep": {"y": 2}}}
    found = merged(base, {"group": {"deep": {"y": 3}}, "b": {"z": 1}})
    assert found == {"a": 1, "group": {"x": 1, "deep": {"y": 3}}, "b": {"z": 1}}
    assert base == {"a": 1, "group": {"x": 1, "deep": {"y": 2}}}
    assert merged(base, {"group": 5})["group"] == 5
    assert merged(base, {}) == base


@pytest.mark.parametrize("name", packaged_adapters())
def test_packaged_adapters_name_the_parameters_of_their_methods(
    backbones: Backbones, name: str
) -> None:
    """On a tiny backbone the shapes differ, the names of what the method trains do not."""
    folder = packaged_adapters()[name]
    stored = read_config(folder)
    place = [
        field
        for field in ("encoder_layer", "inject_from", "weigher_layer")
        if field in stored["config"]
    ]
    low_rank = [field for field in ("lora", "closed_lora", "change") if field in stored["config"]]
    changes = {**dict.fromkeys(place, 1), **{field: {"layer": 1} for field in low_rank}}
    if "layers" in stored["config"]:  # a list of them
        changes["layers"] = list(range(len(stored["config"]["layers"])))
    values = merged(stored["config"], changes)
    backbone = backbones.fresh("llama")
    if "first_layer" in stored["config"]:  # its parameters are named after layers
        backbone = Backbone(model("llama", layers=30), backbone.tokenizer, backbone.name)
    method = build_method(stored["method"], backbone, values)
    stored_names, own_names = (
        sorted(re.sub(r"layers\.\d+", "layers.N", key) for key in state if "network." in key)
        for state in (load_state_of(folder), method.state())
    )
    assert stored_names == own_names


def test_an_adapter_without_low_rank_weights(backbones: Backbones, saved: Path) -> None:
    method = load_adapter(saved, backbones.fresh("llama"), {"lora": {"rank": 0}})
    assert method.lora is None
    assert all(torch.isfinite(value).all() for value in method.state().values())


def test_a_group_is_no_value(backbones: Backbones, saved: Path) -> None:
    with pytest.raises(InputError, match="lora is a group"):
        load_adapter(saved, backbones.fresh("llama"), {"lora": 4})
