"""A model for lm-evaluation-harness (0.4): runs its tasks on a language model with a memory.

Needs `pip install 'latentbank[lm-eval]'`. The harness knows the model only after this module is
imported, so start the harness through it. The arguments are the harness's own:

    python -m latentbank.integrations.lm_eval --model latentbank --model_args bank=B --tasks …

How it differs from the harness's own model `hf`:

- The question in the prompt selects the memory, once, before the first token. It is the text after
  the last "Question:" or "Q:", else the last line; see `question_of`. Few-shot examples and scored
  continuations select nothing.
- Every text starts with the backbone's start token; `hf` leaves that to the tokenizer.
- Memory takes positions, so long prompts are cut earlier, at the left.
- Perplexity tasks (rolling) have no question and read nothing.
- Decoding is greedy; a request for sampling is an error.

The model argument `memory=False` is the control: the same weights, and nothing is read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from latentbank.errors import InputError, LatentbankError
from latentbank.integrations.lm_eval_requests import Requests, selects
from latentbank.model import MemoryModel

AUTO_BATCH = 8


@register_model("latentbank")
class MemoryLM(HFLM):  # type: ignore[misc]
    """HFLM whose forward passes go through a `MemoryModel`.

    Model arguments: `bank` (a file), `adapter` and `backbone` (those of the bank if not given),
    `memory`, `dtype`, `device`, `batch_size`, and HFLM's own, such as `max_length`.
    """

    def __init__(
        self,
        bank: str | None = None,
        adapter: str | None = None,
        backbone: str | None = None,
        memory: bool | str = True,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
        model: MemoryModel | None = None,
        **options: Any,
    ) -> None:
        """Opens the bank read-only. An open `model` replaces the other arguments.

        Raises:
            InputError: neither a bank nor an adapter is named, or the bank does not exist.
            BankError, AdapterError, FingerprintError: as `MemoryModel.from_pretrained`.
        """
        if "pretrained" in options:
            raise InputError("Name the model as backbone=…, not as pretrained=….")
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.memory_model = model or _open(bank, adapter, backbone, dtype, place)
        self.requests = Requests(self.memory_model, str(memory).lower() not in ("false", "0", "no"))
        size = AUTO_BATCH if str(batch_size).startswith("auto") else int(batch_size or 1)
        loaded = self.memory_model.backbone
        super().__init__(
            loaded.model, backend="causal", tokenizer=loaded.tokenizer, batch_size=size, **options
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, is greedy) of each (texts, context ids, continuation ids)."""
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)

        def context(i: int) -> str | None:
            texts = requests[i][0]
            return None if texts is None else texts[0]

        order = sorted(
            range(len(requests)),
            key=lambda i: (selects(context(i)), -len(requests[i][1]) - len(requests[i][2])),
        )
        for part in self._batches(order, [selects(context(i)) for i in order], disable_tqdm):
            scored = self.requests.loglikelihoods(
                [context(i) for i in part],
                [requests[i][1] for i in part],
                [requests[i][2] for i in part],
            )
            for i, result in zip(part, scored, strict=True):
                results[i] = result
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], result)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each request's context, up to its stop texts."""
        continuations = [""] * len(requests)
        settings = [_decoding(request.args[1], self.max_gen_toks) for request in requests]
        keys = [
            (selects(request.args[0]), *setting)
            for request, setting in zip(requests, settings, strict=True)
        ]
        order = sorted(range(len(requests)), key=lambda i: (keys[i], -len(requests[i].args[0])))
        for part in self._batches(order, [keys[i] for i in order], disable_tqdm):
            until, limit = settings[part[0]]
            texts = self.requests.continuations([requests[i].args[0] for i in part], until, limit)
            for i, text in zip(part, texts, strict=True):
                continuations[i] = text
                self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return continuations

    def _batches(self, order: Sequence[int], keys: Sequence[Any], quiet: bool) -> Any:
        """Indices in batches whose keys are equal, with a progress bar."""
        size, parts = max(1, int(self.batch_size)), list[list[int]]()
        for at, (i, key) in enumerate(zip(order, keys, strict=True)):
            if at and key == keys[at - 1] and len(parts[-1]) < size:
                parts[-1].append(i)
            else:
                parts.append([i])
        return tqdm(parts, disable=quiet or self.rank != 0, desc="latentbank")


def _open(
    bank: str | None, adapter: str | None, backbone: str | None, dtype: str, device: str
) -> MemoryModel:
    if bank is None and adapter is None:
        raise InputError("Name a bank: --model_args bank=FILE (and adapter=… if it names none).")
    if bank is not None and not Path(bank).is_file():
        raise InputError(f"The bank '{bank}' does not exist.")
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    if bank is not None:
        options["read_only"] = True
    if backbone is not None:
        options["backbone"] = backbone
    if adapter is None:
        return MemoryModel.open(str(bank), **options)
    return MemoryModel.from_pretrained(adapter, bank=bank, **options)


def _decoding(settings: dict[str, Any], default: int) -> tuple[tuple[str, ...], int]:
    """(stop texts, maximum of new tokens) of a request. Raises InputError for sampling."""
    given = normalize_gen_kwargs(settings, default)
    if given.get("do_sample"):
        raise InputError(
            "latentbank decodes greedily; use a task or --gen_kwargs without sampling."
        )
    until = given.get("until") or []
    return tuple(until), int(given["max_gen_toks"])


def main() -> None:
    """Runs the harness's own command line, which then knows this model.

    A wrong bank or adapter ends in one sentence and exit status 2.
    """
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except LatentbankError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
