"""`MemoryModel`: backbone + method + bank as one object, the way most programs use latentbank."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from latentbank.adapter import (
    adapter_fingerprint,
    find_adapter,
    load_adapter,
    packaged_adapters,
    read_config,
    save_adapter,
)
from latentbank.answering import Answer, answer, check_questions
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.loading import PACKAGED
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.bank import BankFingerprint, Footprint, MemoryBank
from latentbank.documents.document import Document, chunk, find_entries
from latentbank.errors import BankError, InputError, UnknownNameError, unknown
from latentbank.method import Method, WriteReport, build_method, merged, methods

DEFAULT_BACKBONE = "smollm2-135m"
DEFAULT_METHOD = "strata"


class MemoryModel:
    """A frozen language model with a memory bank.

    >>> model = MemoryModel.from_pretrained("strata", bank="notes.bank")   # doctest: +SKIP
    >>> model.write([Document("The meeting moved to Thursday.")])          # doctest: +SKIP
    >>> model.ask("When is the meeting?").text                             # doctest: +SKIP
    """

    def __init__(self, method: Method, bank: MemoryBank | None = None) -> None:
        """Binds `bank`, or a fresh one in memory; dropout is switched off.

        Raises:
            FingerprintError: the bank was written by another adapter, backbone or tokenizer.
        """
        self.method = method
        self.backbone = method.backbone
        self.bank = (
            MemoryBank.create(":memory:", bank_fingerprint(method)) if bank is None else bank
        )
        method.train(False)
        method.bind(self.bank)

    @classmethod
    def from_pretrained(
        cls,
        adapter: str = DEFAULT_METHOD,
        bank: str | Path | None = None,
        backbone: str | None = None,
        *,
        dtype: str = "auto",
        device: str = "cpu",
        overrides: Mapping[str, Any] | None = None,
        budget_bytes: int | None = None,
        ledger: str = "full",
        policy: str = "blend",
        read_only: bool = False,
        progress: Callable[[str], None] | None = None,
        quick: bool = False,
    ) -> MemoryModel:
        """Loads an adapter and its backbone, and opens `bank` or creates it.

        `adapter`: a folder, a packaged adapter, or a method's name: then the packaged adapter of
        that method for the backbone, or the untrained method where it has nothing to train.
        `overrides` change the method's config, e.g. `{"entry": "pooled"}` for strata. An existing
        bank brings its own overrides and its own budget; `budget_bytes`, `ledger` and `policy` are
        for a new one, see `MemoryBank.create`. `quick` as for `load_backbone`. A new bank
        records folders as absolute paths, so that it opens from other places too.

        Raises:
            UnknownNameError: unknown adapter, method or model; the known ones are listed.
            AdapterError: damaged, or for another backbone.
            BankError: `read_only` and no bank there, or a damaged one.
            FingerprintError: the bank belongs to another adapter, backbone or tokenizer.
            InputError: an existing bank has another budget.
        """
        path = Path(bank) if bank is not None and str(bank) != ":memory:" else None
        values = dict(overrides or {})
        exists = path is not None and path.exists()
        if path is not None and (exists or read_only):
            with MemoryBank.open(path, read_only=True) as found:
                values = merged(found.get_meta("overrides") or {}, values)
                check_budget(found, budget_bytes)
        method = load_method(adapter, backbone, dtype, device, values, progress, quick)
        with ExitStack() as stack:
            if path is not None and exists:
                opened = MemoryBank.open(path, bank_fingerprint(method), read_only)
            else:
                meta = {
                    "adapter": _place(adapter, {*packaged_adapters(), *methods()}),
                    "backbone": _place(backbone or DEFAULT_BACKBONE, PACKAGED),
                    "overrides": values,
                }
                opened = new_bank(
                    path or ":memory:", method, meta, budget_bytes, ledger=ledger, policy=policy
                )
            stack.callback(opened.close)
            model = cls(method, opened)
            stack.pop_all()
        return model

    @classmethod
    def open(cls, bank: str | Path, **options: Any) -> MemoryModel:
        """Opens an existing bank with the adapter and backbone that it was written with.

        Raises:
            BankError: no bank there, or a damaged one.
        """
        with MemoryBank.open(bank, read_only=True) as found:
            adapter, backbone = found.get_meta("adapter"), found.get_meta("backbone")
        if not isinstance(adapter, str) or not isinstance(backbone, str):
            raise BankError(f"the bank '{bank}' does not name its adapter; pass it yourself")
        options = {"adapter": adapter, "backbone": backbone, **options}
        return cls.from_pretrained(bank=bank, **options)

    # ---- use

    def write(
        self,
        documents: Iterable[Document],
        batch: int = 32,
        on_batch: Callable[[WriteReport], None] | None = None,
    ) -> WriteReport:
        """Writes documents, long ones in chunks; each batch is durable before the next starts.

        `on_batch` is called with the report of each batch.
        """
        total = WriteReport(0, 0, 0.0)
        pieces = self._chunks(documents)
        while part := list(itertools.islice(pieces, batch)):
            report = self.method.write(part)
            total = total + report
            if on_batch is not None:
                on_batch(report)
        return total

    def _chunks(self, documents: Iterable[Document]) -> Iterator[Document]:
        limit = getattr(self.method.config, "chunk_tokens", 512)
        for document in documents:
            if len(document.text.encode()) <= limit:  # a token is at least one byte
                yield document
            else:
                yield from chunk(document, self.backbone.count_tokens, limit)

    def ask(
        self,
        question: str,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
    ) -> Answer:
        """The answer to one question, with the documents that it was read from."""
        return self.ask_many([question], decoding, memory)[0]

    def ask_many(
        self,
        questions: Sequence[str],
        decoding: DecodingConfig | None = None,
        memory: bool = True,
    ) -> list[Answer]:
        """Answers to a batch of questions.

        Raises:
            InputError: a question that is empty or does not fit into the backbone's context.
        """
        check_questions(self.backbone, questions, decoding)
        return answer(self.method, questions, None, decoding, memory)

    def generate(self, prompt: str, decoding: DecodingConfig | None = None) -> str:
        """Continues a prompt with the memory that `prompt` itself selects; no question template."""
        if not prompt.strip():
            raise InputError("The prompt is empty.")
        conditioning = self.method.read([prompt])
        passage = conditioning.passages[0] if conditioning.passages else ""
        ids = self.backbone.encode([f"{passage}\n\n{prompt}" if passage else prompt])
        with conditioning.attach(self.backbone):
            return generate(self.backbone, ids, decoding)[0].text

    def prompt(self, question: str) -> str:
        """The text that the backbone sees for a question, memory aside."""
        passages = self.method.read([question]).passages
        text: str = self.backbone.tokenizer.decode(
            prompt_ids(self.backbone, [question], passages)[0]
        )
        return text

    def delete(self, ids: Sequence[str]) -> int:
        """Removes documents by id, all chunks of long ones; returns how many entries went."""
        return self.method.delete(find_entries(list(self.bank.ids()), ids)[0])

    def footprint(self) -> Footprint:
        """Bytes of the bank by component."""
        return self.method.footprint()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the adapter; the bank is a file of its own."""
        save_adapter(Path(folder), self.method)

    def close(self) -> None:
        """Closes the bank's file."""
        self.bank.close()

    def __enter__(self) -> MemoryModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def new_bank(
    path: str | Path,
    method: Method,
    meta: Mapping[str, Any],
    budget_bytes: int | None = None,
    **options: Any,
) -> MemoryBank:
    """An empty bank for `method` with the metadata that `MemoryModel.open` needs.

    `meta`: `adapter`, `backbone`, `overrides` and whatever else should be kept. `options` go to
    `MemoryBank.create`.
    """
    meta = {"overrides": {}, "config": asdict(method.config), **meta}
    return MemoryBank.create(
        path,
        bank_fingerprint(method),
        budget_bytes=budget_bytes,
        lossless=method.lossless,
        meta=meta,
        **options,
    )


def check_budget(bank: MemoryBank, budget_bytes: int | None) -> None:
    """Raises InputError if `budget_bytes` is given and is not the bank's."""
    limit = bank.budget_bytes
    if budget_bytes is not None and budget_bytes != limit:
        now = "no budget" if limit is None else f"a budget of {limit} bytes"
        raise InputError(
            f"The bank {bank.name} was made with {now}, not {budget_bytes} bytes; "
            "a budget is for a new bank."
        )


def _place(name: str, known: Container[str]) -> str:
    """The absolute path of an adapter's or a model's files; a known name or a hub id as it is."""
    return str(Path(name).resolve()) if name not in known and Path(name).exists() else name


def bank_fingerprint(method: Method) -> BankFingerprint:
    """What a bank written by `method` records, and insists on when it is opened."""
    return BankFingerprint(
        method.name,
        adapter_fingerprint(method),
        method.backbone.fingerprint,
        method.backbone.tokenizer_fingerprint,
    )


def load_method(
    adapter: str,
    backbone: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
    quick: bool = False,
) -> Method:
    """The method named by `adapter` on its backbone; see `MemoryModel.from_pretrained`."""
    spec = backbone or DEFAULT_BACKBONE
    packaged = f"{adapter}-{spec}"
    known = methods()
    try:
        folder = find_adapter(packaged if packaged in packaged_adapters() else adapter)
    except UnknownNameError:
        folder = None
    if folder is not None and adapter in known and not (folder / "config.json").exists():
        folder = None  # a folder that happens to have a method's name
    if folder is not None:
        read_config(folder)
        return load_adapter(folder, load_backbone(spec, dtype, device, progress, quick), overrides)
    if adapter not in known:
        names = [*known, *packaged_adapters()]
        raise unknown("method or adapter", adapter, names)
    return untrained(adapter, load_backbone(spec, dtype, device, progress, quick), overrides)


def untrained(name: str, backbone: Backbone, overrides: Mapping[str, Any] | None = None) -> Method:
    """A method that works without training.

    Raises:
        InputError: it needs an adapter, and none ships for this backbone.
    """
    method = build_method(name, backbone, overrides)
    if method.network.state_dict():
        raise InputError(
            f"method '{name}' needs a trained adapter for {backbone.name}, and none ships with the "
            f"package; train one with: latentbank train --method {name} --backbone {backbone.name}"
        )
    return method
