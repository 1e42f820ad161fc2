"""Features: the backbone's states at a layer, and their cache on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder, FeatureCache
from latentbank.errors import InputError
from latentbank.parts.amortised.t5 import T5Texts
from tiny import DOCUMENTS, Backbones

TEXTS = [d.text for d in DOCUMENTS]


def counted(encoder: BackboneEncoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the encoder runs through the backbone from now on."""
    seen: list[str] = []
    plain = encoder._compute

    def compute(texts: list[str]) -> tuple[Tensor, Tensor]:
        seen.extend(texts)
        return plain(texts)

    monkeypatch.setattr(encoder, "_compute", compute)
    return seen


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_features_are_the_states_that_enter_the_layer(backbones: Backbones, name: str) -> None:
    backbone = backbones.shared(name)
    states, mask = BackboneEncoder(backbone, 2).features(TEXTS)
    assert mask.sum(1).tolist() == [1 + len(t.encode()) for t in TEXTS], "start token and bytes"
    assert not states.requires_grad
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([[backbone.start_id, *backbone.encode([text], start=False)[0]]])
        with torch.no_grad():
            expected = backbone.model(ids, output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(states[i, mask[i]], expected, rtol=1e-4, atol=1e-4)


def test_the_cache_gives_the_same_values_within_half_precision(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones.shared("llama")
    plain, mask = BackboneEncoder(backbone, 1).features(TEXTS)
    encoder = BackboneEncoder(backbone, 1, tmp_path)
    seen = counted(encoder, monkeypatch)
    for _ in range(2):  # filling, then reading
        states, cached_mask = encoder.features(TEXTS)
        assert torch.equal(mask, cached_mask)
        torch.testing.assert_close(states[mask], plain[mask], rtol=1e-3, atol=1e-3)
        assert states.dtype == torch.float32
    assert seen == TEXTS, "each text ran once"
    encoder.features([TEXTS[3], "something new", TEXTS[0]])
    assert seen == [*TEXTS, "something new"]


def test_two_runs_and_two_layers_share_a_folder(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones.shared("llama")
    first, mask = BackboneEncoder(backbone, 1, tmp_path).features(TEXTS)
    again = BackboneEncoder(backbone, 1, tmp_path)
    seen = counted(again, monkeypatch)
    assert torch.equal(again.features(TEXTS)[0], first)
    assert seen == []
    other = BackboneEncoder(backbone, 2, tmp_path)
    seen = counted(other, monkeypatch)
    assert not torch.allclose(other.features(TEXTS)[0][mask], first[mask], atol=1e-2)
    assert seen == TEXTS
    stranger = BackboneEncoder(backbones.shared("qwen3"), 1, tmp_path)
    seen = counted(stranger, monkeypatch)
    stranger.features(TEXTS)
    assert seen == TEXTS, "another backbone's features are not taken"


@pytest.mark.parametrize("torn", ["index", "data"])
def test_a_killed_run_costs_only_its_last_text(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    backbone = backbones.shared("llama")
    expected, mask = BackboneEncoder(backbone, 1, tmp_path).features(TEXTS)
    file = next(tmp_path.glob("*.jsonl" if torn == "index" else "*.f16"))
    file.write_bytes(file.read_bytes()[:-9])
    second = BackboneEncoder(backbone, 1, tmp_path)
    seen = counted(second, monkeypatch)
    assert torch.equal(second.features(TEXTS)[0][mask], expected[mask])
    assert seen == TEXTS[-1:]
    third = BackboneEncoder(backbone, 1, tmp_path)
    seen = counted(third, monkeypatch)
    assert torch.equal(third.features(TEXTS)[0][mask], expected[mask])
    assert seen == [], "what was lost has been stored again"


def test_data_lost_under_the_index_is_never_mistaken_for_later_data(tmp_path: Path) -> None:
    FeatureCache(tmp_path, 2).put("lost", np.ones((3, 2), np.float16))
    next(tmp_path.glob("*.f16")).write_bytes(b"")
    FeatureCache(tmp_path, 2).put("later", np.zeros((9, 2), np.float16))
    assert FeatureCache(tmp_path, 2).get("lost") is None
    FeatureCache(tmp_path, 2).put("lost", np.ones((3, 2), np.float16))
    found = FeatureCache(tmp_path, 2).get("lost")
    assert found is not None
    assert found.eq(1).all()


def test_features_beyond_half_precision_are_kept_whole(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones.shared("llama")
    encoder = BackboneEncoder(backbone, 1, tmp_path)
    plain = backbone.states
    monkeypatch.setattr(backbone, "states", lambda *a: plain(*a) * 1e6)
    expected, mask = encoder._compute(TEXTS[:2])
    for _ in range(2):
        states, _ = encoder.features(TEXTS[:2])
        torch.testing.assert_close(states[mask], expected[mask])


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 3)
    rows = {f"text {i}": np.full((i + 1, 3), i, np.float16) for i in range(4)}
    for key, row in rows.items():
        cache.put(key, row)
    for store in (cache, FeatureCache(tmp_path, 3)):
        for key, row in rows.items():
            found = store.get(key)
            assert found is not None
            assert np.array_equal(found.numpy(), row)
        assert store.get("unknown") is None
    cache.put("inf", np.full((1, 3), np.inf, np.float16))
    assert cache.get("inf") is None
    assert FeatureCache(tmp_path, 4).get("text 1") is None, "another width, another file"


def test_a_t5_folder_encodes_and_a_missing_one_is_refused(
    backbones: Backbones, tmp_path: Path
) -> None:
    texts = T5Texts(str(backbones.t5()), 32, 3, max_tokens=20)
    ids, mask = texts.encode(TEXTS, torch.device("cpu"))
    assert ids.shape == (5, 20)
    assert mask.dtype == torch.bool
    latents = texts.build()(ids, mask)
    assert latents.shape == (5, 3, 32)
    with pytest.raises(InputError, match="could not be loaded"):
        T5Texts(str(tmp_path / "nothing"), 32, 3)
