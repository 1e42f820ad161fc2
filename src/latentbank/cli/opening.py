"""Opening a bank to write: an existing one as it was made, or a new one.

Knows what a command may change; nothing about documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbank.backbone.hub import check_model
from latentbank.cli.common import (
    complete_overrides,
    notice,
    parse_size,
    quiet_libraries,
    share_processor,
)
from latentbank.errors import BankError, FingerprintError, InputError

if TYPE_CHECKING:
    from latentbank.model import MemoryModel

__all__ = ["open_for_writing"]


def open_for_writing(
    bank: str,
    chosen: dict[str, Any],
    options: dict[str, Any],
    budget: str | None,
    kept: dict[str, str],
) -> MemoryModel:
    """The model with its bank, an existing or a new one."""
    budget_bytes = None if budget is None else parse_size(budget)
    given = {name: value for name, value in chosen.items() if value is not None}
    quiet_libraries()
    check_model(given.get("backbone", ""))
    if Path(bank).exists():
        _check_existing(bank, given, options, budget_bytes, kept)
        share_processor()
        from latentbank.model import MemoryModel

        return MemoryModel.open(bank, progress=notice, quick=True, **given)
    if not Path(bank).absolute().parent.is_dir():
        raise BankError(f"The folder {Path(bank).parent} does not exist; create it first.")
    share_processor()
    from latentbank.adapter import DEFAULT_BACKBONE, method_for
    from latentbank.methods import DEFAULT_METHOD
    from latentbank.model import MemoryModel

    model = given.get("backbone", DEFAULT_BACKBONE)
    adapter = method_for(given.get("adapter", DEFAULT_METHOD), model)
    overrides = complete_overrides(adapter, model, options)
    return MemoryModel.from_pretrained(
        bank=bank, overrides=overrides, budget_bytes=budget_bytes, progress=notice, quick=True,
        **{**given, "adapter": adapter, **kept},
    )  # fmt: skip


def _check_existing(
    bank: str,
    given: dict[str, Any],
    options: dict[str, Any],
    budget_bytes: int | None,
    kept: dict[str, str],
) -> None:
    """Refuses what cannot be changed in an existing bank, before a model is loaded."""
    from latentbank.bank import MemoryBank

    with MemoryBank.open(bank, read_only=True) as opened:
        config = opened.get_meta("config") or {}
        stored = opened.get_meta("overrides") or {}
        wrote, backbone = opened.get_meta("adapter"), opened.get_meta("backbone")
        wanted, limit = given.get("adapter"), opened.budget_bytes
        fingerprint, settings = opened.fingerprint, opened.settings
    from latentbank.adapter import packaged_adapters
    from latentbank.config import merged, normalised
    from latentbank.method import METHODS

    same = {wrote, fingerprint.method, f"{fingerprint.method}-{backbone}"}
    if wanted not in same and (wanted in packaged_adapters() or wanted in METHODS):
        raise FingerprintError(
            f"The bank {bank} was written with {wrote!r} (method {fingerprint.method!r}), not "
            f"with {wanted!r}; leave --method and --adapter out, or name another bank."
        )
    if wanted == fingerprint.method and wrote is not None:
        given["adapter"] = wrote  # the method's name is enough to agree with a bank
    cls = METHODS.get(fingerprint.method).Config
    full = merged(normalised(cls, config), normalised(cls, stored))
    for name, value in normalised(cls, options).items():
        if merged(full, {name: value}) != full:
            raise InputError(
                f"The bank {bank} was written with {name}={full.get(name)!r}; "
                f"leave --option {name} out, or name another bank."
            )
    if budget_bytes is not None and budget_bytes != limit:
        now = "no budget" if limit is None else f"a budget of {limit} bytes"
        raise InputError(
            f"The bank {bank} was made with {now}; --budget is for a new bank. Change it with: "
            f"latentbank rebudget {bank} SIZE"
        )
    for name, value in kept.items():
        if getattr(settings, name) != value:
            raise InputError(
                f"The bank {bank} was made with {name} {getattr(settings, name)!r}; --{name} is "
                "for a new bank."
            )
