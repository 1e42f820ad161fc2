"""A model of the hub where the hub cannot be reached: one sentence, at once."""

from __future__ import annotations

import socket
import time

import pytest

from latentbank.backbone import loading
from latentbank.errors import InputError


def test_a_model_that_was_not_downloaded_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def refused(address: object, timeout: float) -> None:
        asked.append((address, timeout))
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"'no/such-model' was not downloaded yet"):
        loading.load_pretrained("no/such-model", loading.torch.float32)
    assert asked == [(("huggingface.co", 443), 2.0)]
    assert time.perf_counter() - began < 30  # a client that tries again takes longer


def test_offline_by_choice_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match="the hub cannot be reached"):
        loading.load_pretrained("no/such-model", loading.torch.float32)
