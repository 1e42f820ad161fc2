"""The banks of all tenants: which there are, which are open, and the threads that answer from them.

A tenant's bank is the file DATA/TENANT/NAME.bank. A name is looked up among the tenant's own files
only, so a bank of another tenant is as unknown as one that does not exist. Knows no HTTP.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentbank.answering import Answer
from latentbank.answering.chat import ChatAnswer
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.bank.words.folder import remove_index
from latentbank.errors import BankError, LatentbankError
from latentbank.server.failures import Refusal
from latentbank.server.hosting.bank import HostedBank
from latentbank.server.hosting.engine import Engine, ServedModel
from latentbank.server.hosting.questions import Asker
from latentbank.server.settings import LOCAL, Settings, Tenant

__all__ = ["Banks", "PlainBank"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TAILS = ("", "-wal", "-shm", "-journal")


class PlainBank:
    """No bank: the backbone answers closed book."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._model: ServedModel | None = None

    def reader(self) -> ServedModel:
        """The backbone with its adapter and an empty bank."""
        if self._model is None:
            self._model = self._engine.plain()
        return self._model

    def note_answer(self, answer: Answer | ChatAnswer) -> None:
        """Does nothing."""


class Banks:
    """Finds, makes, opens and removes banks."""

    def __init__(self, settings: Settings, loaded: Backbone | None = None) -> None:
        self.settings = settings
        self.engine = Engine(settings, loaded)
        self.plain = PlainBank(self.engine)
        self.started = time.monotonic()
        self._data = Path(settings.data).absolute()
        self._mounted = {name: Path(file).absolute() for name, file in settings.mounted}
        self._open: dict[Path, HostedBank] = {}
        self._askers: dict[str, Asker] = {}
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._removing: set[Path] = set()
        self._closed = False

    # ---- the threads that answer

    def asker(self, bank: HostedBank | None = None) -> Asker:
        """The thread that answers from a bank's backbone, or from the settings' own."""
        spec = self.engine.backbone_name if bank is None else bank.backbone
        view = self.engine.views(spec)[0]
        with self._lock:
            if spec not in self._askers:
                self._askers[spec] = Asker(view, self.settings.limits)
            return self._askers[spec]

    def askers(self) -> list[Asker]:
        """Those that run."""
        with self._lock:
            return list(self._askers.values())

    # ---- finding

    def names(self, tenant: Tenant) -> list[str]:
        """The names of a tenant's banks."""
        folder = self._folder(tenant)
        found = [path.name.removesuffix(".bank") for path in folder.glob("*.bank")]
        found = [name for name in found if _NAME.fullmatch(name)]
        if tenant.name == LOCAL:
            found += [name for name, path in self._mounted.items() if path.exists()]
        return sorted({*found})

    def exists(self, tenant: Tenant, name: str) -> bool:
        """Whether a tenant has a bank of that name."""
        return _NAME.fullmatch(name) is not None and self._path(tenant, name).is_file()

    @contextmanager
    def lease(self, tenant: Tenant, name: str) -> Iterator[HostedBank]:
        """A bank for the length of the block; it stays open meanwhile.

        Raises:
            Refusal: 404 for whatever is not one of the tenant's banks.
        """
        bank = self.take(tenant, name)
        try:
            yield bank
        finally:
            self.give_back(bank)

    def take(self, tenant: Tenant, name: str) -> HostedBank:
        """As `lease`, until `give_back`."""
        if not self.exists(tenant, name):
            raise Refusal(404, "bank_not_found", f"There is no bank {name[:64]!r}.")
        path = self._path(tenant, name)
        with self._lock:
            if self._closed:
                raise Refusal(503, "stopping", "The server is stopping.")
            if path in self._removing:
                raise Refusal(404, "bank_not_found", f"There is no bank {name[:64]!r}.")
            bank = self._open.get(path)
            if bank is None:
                limits = self.settings.limits
                bank = HostedBank(name, path, self.engine, limits.waiting_writes)
                self._open[path] = bank
            bank.leases += 1
            bank.used = time.monotonic()
            idle = self._surplus()
        for one in idle:
            self._close(one)
        return bank

    def give_back(self, bank: HostedBank) -> None:
        """Ends a `take`."""
        with self._lock:
            bank.leases -= 1

    def _surplus(self) -> list[HostedBank]:
        """Takes the banks that nobody uses out of the open ones while there are too many."""
        idle = sorted((one for one in self._open.values() if not one.leases), key=lambda b: b.used)
        surplus = idle[: max(0, len(self._open) - self.settings.limits.open_banks)]
        for one in surplus:
            del self._open[one.path]
        return surplus

    # ---- making and removing

    def create(
        self, tenant: Tenant, name: str, adapter: str | None, budget_bytes: int | None, **kept: str
    ) -> None:
        """Makes an empty bank; `kept`: `ledger` and `policy`.

        Raises:
            Refusal: 400 for a name that cannot be used, 409 for one that is taken, 403 where the
                tenant may have no more banks or bytes.
        """
        if not _NAME.fullmatch(name) or name == Path(self.engine.backbone_name).name:
            raise Refusal(
                400,
                "invalid_name",
                "A bank's name has up to 64 letters, digits and . _ -, begins with a letter or "
                "digit, and is not the model's name.",
                "name",
            )
        with self._changing:
            path = self._folder(tenant) / f"{name}.bank"
            if self.exists(tenant, name):
                raise Refusal(409, "bank_exists", f"There is a bank {name!r} already.")
            self._check_quota(tenant, budget_bytes)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.engine.create(path, adapter, budget_bytes, **kept)

    def _check_quota(self, tenant: Tenant, budget_bytes: int | None) -> None:
        names = self.names(tenant)
        if len(names) >= tenant.banks:
            raise Refusal(403, "too_many_banks", f"You may have {tenant.banks} banks.")
        if not tenant.budget_bytes:
            return
        left = tenant.budget_bytes
        for other in names:
            with (
                suppress(BankError),
                MemoryBank.open(self._path(tenant, other), None, True) as bank,
            ):
                left -= bank.budget_bytes or bank.file_bytes()
        if budget_bytes is None or budget_bytes > left:
            raise Refusal(
                403,
                "budget_exceeded",
                f"Name a budget of at most {max(0, left)} bytes, which your other banks leave.",
                "budget",
            )

    def remove(self, tenant: Tenant, name: str) -> None:
        """Deletes a bank with all files beside it.

        Raises:
            Refusal: 404; 403 for a bank that was mounted; 409 while it is in use.
        """
        with self._changing:
            if not self.exists(tenant, name):
                raise Refusal(404, "bank_not_found", f"There is no bank {name[:64]!r}.")
            path = self._path(tenant, name)
            if path in self._mounted.values():
                raise Refusal(403, "mounted", "A bank named at the server's start is not deleted.")
            with self._lock:
                bank = self._open.get(path)
                if bank is not None and bank.leases:
                    raise Refusal(409, "bank_in_use", f"The bank {name!r} is in use; try again.")
                self._open.pop(path, None)
                self._removing.add(path)
            bank = bank or HostedBank(name, path, self.engine, 1)
            try:
                try:
                    bank.claim().result()  # only who may write may remove
                finally:
                    self._close(bank)
                remove_index(path)
                for tail in _TAILS:
                    path.with_name(path.name + tail).unlink(missing_ok=True)
                path.with_name(f".{path.name}.writer").unlink(missing_ok=True)
            finally:
                with self._lock:
                    self._removing.discard(path)

    def _close(self, bank: HostedBank) -> None:
        """Closes a bank; its reader closes between two batches."""
        with suppress(LatentbankError):
            bank.close()

    def close(self) -> None:
        """Ends what runs within the settings' time, then closes every bank."""
        with self._lock:
            self._closed = True
            askers, banks = list(self._askers.values()), list(self._open.values())
        for asker in askers:
            asker.close(self.settings.stop_seconds)
        for bank in banks:
            self._close(bank)

    # ---- places

    def _folder(self, tenant: Tenant) -> Path:
        return self._data / tenant.name

    def _path(self, tenant: Tenant, name: str) -> Path:
        if tenant.name == LOCAL and name in self._mounted:
            return self._mounted[name]
        return self._folder(tenant) / f"{name}.bank"
