"""Adapters and banks on the Hugging Face hub: push and pull of a folder.

Needs the network when it is called, and nothing beyond the package's own dependencies.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.adapter import save_adapter
from latentbank.bank import MemoryBank
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.model import MemoryModel

__all__ = ["pull", "push", "save_for_hub"]

_BANK, _CARD = "memory.bank", "README.md"


def save_for_hub(model: MemoryModel, folder: str | Path, with_bank: bool = True) -> Path:
    """Writes adapter, model card and, with `with_bank`, a snapshot of the bank into a folder.

    A bank holds the texts of its documents: whoever may read the repository reads them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _BANK).exists():
        raise InputError(f"{folder} holds a bank already; name an empty folder.")
    save_adapter(folder, model.method)
    documents = 0
    if with_bank:
        model.bank.snapshot(folder / _BANK)
        documents = len(model.bank)
    (folder / _CARD).write_text(_card(model, documents), encoding="utf-8")
    return folder


def push(
    model: MemoryModel,
    repository: str,
    *,
    with_bank: bool = False,
    private: bool = True,
    token: str | None = None,
    api: Any = None,
) -> str:
    """Uploads an adapter, and with `with_bank` its bank, to the hub; returns the address.

    `api`: a `huggingface_hub.HfApi`; another endpoint, or a stand-in of a test.
    """
    from huggingface_hub import HfApi

    api = api or HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_for_hub(model, folder, with_bank)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload from latentbank"
        )
    return str(done)


def pull(
    repository: str,
    bank: str | Path | None = None,
    *,
    backbone: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    api: Any = None,
    **options: Any,
) -> MemoryModel:
    """The model of a repository; its bank is copied to `bank`, where a file of its own is wanted.

    Only safetensors, JSON and SQLite are read. `options` as for `MemoryModel.from_pretrained`.

    Raises:
        InputError: `bank` exists already.
        AdapterError, FingerprintError: the repository fits another backbone.
    """
    from huggingface_hub import HfApi

    from latentbank.model import MemoryModel

    api = api or HfApi(token=token)
    folder = Path(
        api.snapshot_download(
            repository, revision=revision, allow_patterns=["*.json", "*.safetensors", _BANK]
        )
    )
    held = folder / _BANK
    if held.exists() and bank is not None:
        if Path(bank).exists():
            raise InputError(f"{bank} exists already; name another file for the bank.")
        with MemoryBank.open(held, read_only=True) as source:
            source.snapshot(bank)
    elif held.exists():
        return MemoryModel.from_pretrained(str(folder), held, backbone, read_only=True, **options)
    return MemoryModel.from_pretrained(str(folder), bank, backbone, **options)


def _card(model: MemoryModel, documents: int) -> str:
    said = {"method": model.method.name, "backbone": model.backbone.name, "documents": documents}
    return (
        "---\nlibrary_name: latentbank\ntags: [latentbank, memory]\n---\n\n"
        f"# An adapter of latentbank\n\n```json\n{json.dumps(said, indent=1)}\n```\n\n"
        "```python\nfrom latentbank.integrations.hub import pull\n\nmodel = pull(REPOSITORY)\n```\n"
    )
