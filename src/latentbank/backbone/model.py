"""The frozen causal LM: geometry, states at a layer, memory inside attention, answer loss.

A memory enters as keys and values of the layers from `layer` upward. Knows no method and no bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentbank.backbone.engines import chosen_engine, make_engine
from latentbank.backbone.kv import GrowingCache, KVMemory, StackedCache, stage_cache_class
from latentbank.backbone.layers import Decoder, plain_weights, weight_sample
from latentbank.backbone.loading import cache_folder, load_pretrained, parse_device, parse_dtype
from latentbank.backbone.processor import Exclusive
from latentbank.backbone.quick import QuickLlama, RaggedRun
from latentbank.backbone.text_run import TextRun
from latentbank.errors import InputError

IGNORED = -100


@dataclass(frozen=True)
class AnswerLogits:
    """Logits at the answers' tokens.

    `logits` [N, V] are float32 and predict `tokens` [N], the answers' tokens row by row. `places`
    [B, T] bool marks their positions in the rows.
    """

    logits: Tensor
    tokens: Tensor
    places: Tensor


class Backbone:
    """A frozen causal LM that takes a memory at any layer.

    The model's weights never get gradients and never change. `memory` is what `with_memory`
    attached, else None. `quick` is True for a `QuickLlama`, which does not need transformers.
    `engine` runs the layers where no gradients flow; None: PyTorch does. `updates` names the
    low-rank weights that the projections have, `active_update` those that are attached.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model: Any = model
        self.quick = isinstance(model, QuickLlama)
        self.tokenizer, self.name = tokenizer, name
        model.train(False)
        model.requires_grad_(False)
        self.body: Any = self.model.base_model
        self.decoder = Decoder(self.body, self.model.config.get_text_config(decoder=True))
        self.geometry = self.decoder.geometry
        self._stages: dict[tuple[int, int], Any] = {}
        self._start_states: dict[int, Tensor] = {}
        self.memory: KVMemory | None = None
        self.rows = torch.zeros(0, dtype=torch.long)  # of the texts that run now
        self.engine: Any = None
        self._changed = False  # inside `reference`
        self.updates: list[str] = []
        self.active_update: str | None = None
        self._exclusive = Exclusive()

    def exclusive(self) -> Exclusive:
        """A context manager for one thread at a time: a memory is attached to the backbone."""
        return self._exclusive

    # ---- what it is

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def fingerprint(self) -> str:
        """`name:hash` of the geometry and a sample of every weight; independent of the dtype."""
        if not hasattr(self, "_fingerprint"):
            digest = hashlib.blake2b(digest_size=8)
            digest.update(repr(self.geometry).encode())
            known = self.model.samples if self.quick else {}
            for name, weight in sorted(plain_weights(self.model)):
                sample = known[name] if name in known else weight_sample(weight)
                digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
            self._fingerprint = f"{self.name}:{digest.hexdigest()}"
        return self._fingerprint

    @property
    def tokenizer_fingerprint(self) -> str:
        """`class:hash` of the vocabulary."""
        if not hasattr(self, "_tokenizer_fingerprint"):
            tokens = sorted(self.tokenizer.get_vocab().items())
            lines = "".join(f"{token}\0{index}\n" for token, index in tokens)
            digest = hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()
            kind = getattr(self.tokenizer, "kind", type(self.tokenizer).__name__)
            self._tokenizer_fingerprint = f"{kind}:{digest}"
        return self._tokenizer_fingerprint

    @property
    def start_id(self) -> int:
        """The token before every text: begin of sequence, or end of sequence where there is none.

        Models put an attention sink on the first token. A constant token keeps the sink off the
        content.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        token = self.tokenizer.eos_token_id
        return int(token) if token is not None else 0

    def encode(self, texts: Sequence[str], start: bool = True) -> list[list[int]]:
        """Token ids of each text, with the start token before them unless `start` is False."""
        if not texts:
            return []
        ids = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [[self.start_id, *row] for row in ids] if start else [list(row) for row in ids]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, without the start token."""
        return [len(row) for row in self.encode(texts, start=False)]

    def pad(self, rows: Sequence[Sequence[int]], left: bool = False) -> tuple[Tensor, Tensor]:
        """(ids [B, T], mask [B, T] bool) of ragged rows."""
        width = max(1, max(len(row) for row in rows))
        ids = torch.full((len(rows), width), self.end_id, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            where = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, where] = torch.tensor(row, dtype=torch.long)
            mask[i, where] = True
        return ids.to(self.device), mask.to(self.device)

    # ---- running layers

    def stage(self, first: int, last: int) -> Any:
        """Layers first … last-1 as a module that shares the model's weights; made once."""
        key = (first, last)
        if key not in self._stages:
            self._stages[key] = self.decoder.stage(first, last)
        return self._stages[key]

    @property
    def engine_runs(self) -> bool:
        """Whether the engine computes now: not where gradients flow or a layer is changed."""
        return self.engine is not None and not torch.is_grad_enabled()

    @property
    def changed(self) -> bool:
        """Whether something is attached that may hold one row for each text of the batch."""
        return self._changed

    @contextmanager
    def reference(self) -> Iterator[None]:
        """PyTorch computes inside the block: what it attaches is unknown to an engine."""
        before, self.engine, self._changed = (self.engine, self._changed), None, True
        try:
            yield
        finally:
            self.engine, self._changed = before

    def new_cache(self, first: int, last: int) -> Any:
        """An empty cache for the layers first … last-1; it decides whether the engine runs them."""
        if self.engine_runs:
            return self.engine.new_cache(first, last)
        return GrowingCache(first) if self.quick else stage_cache_class()(first)

    def run(
        self, first: int, last: int, hidden: Tensor, positions: Tensor, mask: Any, cache: Any
    ) -> Tensor:
        """Hidden states [B, T, D] after layers first … last-1.

        `positions` [B, T]; `mask` as `attention_masks` makes it; `cache` is extended.
        """
        if first == last:
            return hidden
        if isinstance(cache, StackedCache):
            self.engine.take_updates(self.updates)
            found: Tensor = self.engine.run(
                first, last, hidden, positions, mask, cache, self.active_update
            )
            return found
        hidden = hidden.to(self.dtype)
        output = self.stage(first, last)(
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = output.last_hidden_state
        return states

    def attention_masks(
        self,
        q_positions: Tensor,
        k_positions: Tensor,
        visible: Tensor,
        bias: Tensor | None = None,
    ) -> Any:
        """Additive float masks [B, 1, Q, K] for one stage, one per kind of layer.

        `q_positions` [B, Q]; `k_positions` [B, K], -1 for a key without position (never outside a
        window); `visible` [B, Q, K] bool; `bias` [B, K] is added to the scores.
        """
        dtype = torch.float32 if self.engine_runs else self.dtype
        return self.decoder.attention_masks(q_positions, k_positions, visible, bias, dtype)

    @torch.no_grad()
    def states(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Residual-stream states [B, T, D] that enter layer `layer`, of right- or left-padded text.

        Never carries a gradient. Layer 0 gives the token embeddings.
        """
        return TextRun(self, layer, None, mask.shape[0]).feed(ids, mask)

    def start_state(self, layer: int) -> Tensor:
        """The start token's state [1, D] that enters `layer`, float32 on the CPU.

        It is the same for every text, so no entry stores it. Computed once for each layer.
        """
        if layer not in self._start_states:
            ids, mask = self.pad([[self.start_id]])
            self._start_states[layer] = self.states(ids, mask, layer)[0].float().cpu()
        return self._start_states[layer]

    def fill(
        self, states: Tensor, mask: Tensor, layer: int, bias: Tensor | None = None
    ) -> KVMemory:
        """Runs states [B, M, D] (mask [B, M] bool, right-padded) through the layers from `layer`.

        They take the positions 0 … M-1 and see each other causally. Their keys and values are the
        memory. `bias` [B, M] is the log mass of each slot. Gradients flow.
        """
        positions = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        causal = positions[:, :, None] >= positions[:, None, :]
        lowest = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
        own_bias = lowest if bias is None else lowest + bias
        cache = self.new_cache(layer, self.geometry.layers)
        masks = self.attention_masks(positions, positions, causal & mask[:, None, :], bias)
        self.run(layer, self.geometry.layers, states, positions, masks, cache)
        keys, values = cache.pairs()
        return KVMemory(
            keys=keys,
            values=values,
            bias=own_bias,
            start=mask.sum(1),
            layer=layer,
            positions=positions,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits [..., V] of final states [..., D]."""
        if self.engine_runs:
            found: Tensor = self.engine.logits(hidden)
            return found
        scores: Tensor = self.model.get_output_embeddings()(hidden.to(self.dtype))
        cap = getattr(self.decoder.config, "final_logit_softcapping", None)
        return torch.tanh(scores / cap) * cap if cap else scores

    # ---- memory

    @contextmanager
    def with_memory(self, memory: KVMemory | None) -> Iterator[Backbone]:
        """Attaches a memory for the length of the block; its batch rows must match the text's."""
        before, self.memory = self.memory, memory
        try:
            yield self
        finally:
            self.memory = before

    def session(self, batch: int, split: int = 0, ragged: bool = False) -> TextRun | RaggedRun:
        """A run of `batch` texts over the attached memory; feed it token by token or in blocks.

        Without a memory, `split` is the layer from which the run can be repeated over one. With
        `ragged` several texts run without padding where the model can; rounding then differs.

        Raises:
            InputError: the memory has another number of rows.
        """
        memory = self.memory
        if memory is not None and memory.bias.shape[0] != batch:
            raise InputError(
                f"the attached memory has {memory.bias.shape[0]} rows, the text {batch}; "
                "read the memory with the same questions"
            )
        bare = self.quick and self.engine is None and not (self._changed or torch.is_grad_enabled())
        kind = RaggedRun if ragged and batch > 1 and bare and self.device.type == "cpu" else TextRun
        return kind(self, self.geometry.layers, memory, batch, split)

    def finish(self, states: Tensor, mask: Tensor, layer: int) -> Tensor:
        """Final states [B, T, D] of right-padded text whose states [B, T, D] enter `layer`.

        The text sees no attached memory of keys and values; transports work as always.
        """
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        causal = positions[:, :, None] >= positions[:, None, :]
        masks = self.attention_masks(positions, positions, causal & mask[:, None, :])
        return self.run(layer, self.geometry.layers, states, positions, masks, None)

    def answer_logits(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> AnswerLogits:
        """Logits at the answers' tokens with the attached memory; rows [B] of token ids.

        `answers` hold the token ids to predict, with the end token. The vocabulary head runs at
        these positions only. Gradients flow to the memory and to attached low-rank weights.
        """
        rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
        ids, mask = self.pad(rows)
        hidden = self.session(len(rows)).feed(ids, mask)
        targets = torch.full_like(ids, IGNORED)
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            targets[i, len(prompt) - 1 : len(prompt) - 1 + len(answer)] = torch.tensor(answer)
        chosen = targets != IGNORED
        return AnswerLogits(self.logits(hidden[chosen]).float(), targets[chosen], chosen)

    def answer_loss(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """(summed negative log-likelihood [B], answer tokens [B]); see `answer_logits`."""
        read = self.answer_logits(prompts, answers)
        loss = nn.functional.cross_entropy(read.logits, read.tokens, reduction="none")
        by_place = torch.zeros(read.places.shape, device=loss.device)
        return by_place.masked_scatter(read.places, loss).sum(1), read.places.sum(1)


def load_backbone(
    spec: str,
    dtype: str = "auto",
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
    quick: bool = False,
    engine: str = "torch",
) -> Backbone:
    """Loads a frozen backbone.

    `spec` is `smollm2-135m` (packaged), a folder, a `.gguf` file or a hub id. `dtype` `auto` takes
    float32 or bfloat16, whichever a short cached measurement finds faster. With `quick` a Llama on
    disk is loaded as a `QuickLlama`, which saves several seconds. It can read and write a bank; use
    the other form for training.

    `engine`: what computes without gradients. `torch`, `openvino` (needs `quick`) or `auto`; see
    `chosen_engine`. An engine rounds weights to 8 bits, so answers may differ from PyTorch's in a
    few cases.

    Raises:
        UnknownNameError: no such engine.
        InputError: the model cannot be found or is not a decoder-only LM; no such device; the
            engine is not installed.
    """
    where, chosen = parse_device(device), chosen_engine(engine, device)
    as_saved = chosen != "torch" and quick and dtype == "auto"  # an engine has its own weights
    wanted = None if as_saved else parse_dtype(dtype)
    half = wanted == torch.float16  # its range is smaller than that of the fingerprint's bfloat16
    model, tokenizer = load_pretrained(spec, torch.float32 if half else wanted, progress, quick)
    backbone = Backbone(model, tokenizer, spec if "/" not in spec else spec.split("/")[-1])
    if half:
        _ = backbone.fingerprint
        for weight in model.parameters():  # buffers, such as frequencies, stay float32
            weight.data = weight.data.to(wanted)
    model.to(where)
    backbone.engine = make_engine(
        chosen, model, cache_folder() / "engines", backbone.fingerprint, asked=engine == chosen
    )
    return backbone
