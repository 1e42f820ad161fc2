"""A model of the hub where the hub cannot be reached: one sentence, at once."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from latentbank.backbone import loading
from latentbank.backbone.hub import check_model, on_hub
from latentbank.errors import InputError
from tiny_cli import environment


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


def test_only_names_of_the_hub_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = (
        "smollm2-135m",
        "own/model",
        "./no/folder",
        "~/models/a",
        "other/model.gguf",
        "one",
        "",
    )
    assert not any(map(on_hub, names)) and on_hub("own/other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in names:
        check_model(name)  # says nothing: whoever loads it does


def test_a_name_that_takes_long_to_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("latentbank.backbone.hub._SECONDS", 0.05)
    done = threading.Event()

    def slow(*_: object) -> None:
        done.wait(60)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", slow)
    began = time.perf_counter()
    with pytest.raises(InputError, match="the hub cannot be reached"):
        check_model("no/such-model")
    assert time.perf_counter() - began < 30
    done.set()


def test_the_command_refuses_before_it_imports_torch(tmp_path: Path) -> None:
    """Most of a refusal's time was the import of torch and transformers."""
    (tmp_path / "a.txt").write_text("One.")
    code = (
        "import sys\nfrom latentbank.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)\n"
    )
    given = ("write", "a.txt", "--bank", "a.bank", "--backbone", "no/such-model")
    result = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "was not downloaded yet" in result.stderr and result.stdout == "2 False\n"
    assert not (tmp_path / "a.bank").exists()


# ---- the cache folder


def test_a_cache_that_cannot_be_written_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    (tmp_path / "cache").write_text("a file, so no folder can be made in it")
    monkeypatch.setenv("LATENTBANK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"cannot be written: .*Set LATENTBANK_CACHE"):
        loading.converted_folder(file)
    assert loading.fastest_dtype() in (loading.torch.float32, loading.torch.bfloat16)


def test_a_cache_that_becomes_full_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setenv("LATENTBANK_CACHE", str(tmp_path / "cache"))

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "convert_llama", full)
    with pytest.raises(InputError, match=r"No space left on device\. Set LATENTBANK_CACHE"):
        loading.converted_folder(file)
    assert not list((tmp_path / "cache" / "models").iterdir())
