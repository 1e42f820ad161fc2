"""Documents for a question, in the order of their times, and their keys and values from layer 0.

Reading from layer 0 gives what the prompt would give, and documents that were read lately are read
from a cache. Knows methods that retrieve, and prompts; knows no sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latentbank.answering.chat.messages import Asked, Message, names
from latentbank.answering.chat.prompting import Fitted, Passage, Prompt, build_prompt
from latentbank.backbone.generate import DecodingConfig, Generation, PromptRun
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.capabilities import Retrieving
from latentbank.documents.identity import content_hash
from latentbank.parts.state_reader import StateReader

__all__ = ["Found", "PromptReader", "find_passages", "is_short", "passage_of"]

HOT_BYTES = 256 << 20  # of keys and values of prompts that were read lately
_SHORT = 48  # words
_NAMES = 4  # in documents that were found, by which others are
_LEAST_SHARE = 0.05  # of the best document's weight; below it another is not read


@dataclass(frozen=True)
class Found:
    """Passages [N] in the order of their times.

    `weights` [N] in [0, 1] say how well each fits the question, `support` how well the best does.
    """

    passages: tuple[Passage, ...] = ()
    weights: tuple[float, ...] = ()
    support: float = 0.0


def find_passages(method: Retrieving, asked: Asked, count: int) -> Found:
    """At most `count` documents for a question, the oldest first; none where none fits it."""
    retriever, bank = method.retriever, method.require_bank()
    ranking = retriever.rank([asked.query], count)[0]
    ids = [id for id, _ in ranking]
    if not ids:
        return Found()
    both = retriever.matches([asked.query, asked.question], [ids, ids])
    matches = [max(pair) for pair in zip(*both, strict=True)]
    support = max(matches)
    if support < retriever.config.least_match:
        return Found(support=support)
    top = max(ranking[0][1], 1e-9)
    weights = {
        id: fit * min(1.0, max(score, 0.0) / top) ** 2
        for (id, score), fit in zip(ranking, matches, strict=True)
    }
    least = _LEAST_SHARE * max(weights.values())
    kept = {id: weight for id, weight in weights.items() if weight >= least}
    for id in _linked(method, asked, list(kept), count - len(kept)):
        kept[id] = support / 2
    order = sorted(kept, key=bank.age)
    passages = tuple(passage_of(method, bank, id) for id in order)
    return Found(passages, tuple(kept[id] for id in order), support)


def _linked(method: Retrieving, asked: Asked, ids: Sequence[str], count: int) -> list[str]:
    """Documents about the names in short documents that were found: the second of two facts.

    "Mary took the football." leads to "Mary went to the garden."
    """
    texts = [method.text(id) for id in ids]
    if count < 1 or not all(is_short(text) for text in texts):
        return []
    known = set(names(asked.query))
    linked = [name for text in texts for name in names(text, begins=True) if name not in known]
    found: list[str] = []
    for name in list(dict.fromkeys(linked))[:_NAMES]:
        ranking = method.retriever.rank([name], count + len(ids))[0]
        found += [id for id, _ in ranking if id not in ids and id not in found]
    found = [id for id in found if is_short(method.text(id))]
    newest = sorted(found, key=method.require_bank().age, reverse=True)
    return newest[:count]


def is_short(text: str) -> bool:
    """Whether a text is a fact or two: several such are read together like one text."""
    return len(text.split(None, _SHORT)) <= _SHORT


def passage_of(method: Retrieving, bank: MemoryBank, id: str) -> Passage:
    """The text of an entry under its title and time."""
    entry, text = bank.get(id), method.text(id)
    title = None if entry is None else entry.metadata.get("title")
    parts = [str(title)] if title and not text.startswith(str(title)) else []
    if entry is not None and entry.time:
        parts.append(entry.time)
    return Passage(id, text, f"({', '.join(parts)})" if parts else "")


class PromptReader:
    """Runs prompts; keeps the keys and values of their documents within `HOT_BYTES`."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._reader = StateReader(backbone, 0, None, HOT_BYTES)
        self._read: dict[str, tuple[str, ...]] = {}  # key of the cache → entries

    def keep(self, bank: MemoryBank) -> None:
        """Forgets what was read of entries that are no longer in the bank."""
        gone = [key for key, ids in self._read.items() if not all(id in bank for id in ids)]
        self._reader.hot.drop(gone)
        for key in gone:
            del self._read[key]

    def clear(self) -> None:
        """Forgets everything that was read."""
        self._reader.hot.clear()
        self._read.clear()

    def prompt(
        self,
        messages: Sequence[Message],
        passages: Sequence[Passage],
        instruction: str,
        answer_tokens: int,
    ) -> Prompt:
        """The prompt of a conversation; see `build_prompt`."""
        return build_prompt(self._backbone, messages, passages, instruction, answer_tokens)

    def stream(self, prompt: Fitted, decoding: DecodingConfig) -> Iterator[tuple[Generation, int]]:
        """(answer so far, its tokens) after each pass; the whole answer alone with beams."""
        assert isinstance(prompt, Prompt)
        backbone = self._backbone
        quotable = backbone.encode([f" {' '.join(one.text for one in prompt.passages)}"], False)
        memory, tokens = None, prompt.ids
        if prompt.passages:
            key, tokens = self._key(prompt), prompt.tail
            states = backbone.states(*backbone.pad([prompt.head]), 0)[0].float().cpu()
            memory = self._reader.memory([[key]], lambda _: states)
        with backbone.with_memory(memory):
            run = PromptRun(backbone, [tokens], decoding, end_id=prompt.end_id)
            if decoding.beams > 1:
                yield run.answers()[0], decoding.max_new_tokens
                return
            yield from run.stream(0, quotable)

    def _key(self, prompt: Prompt) -> str:
        key = content_hash(",".join(map(str, prompt.head)))
        self._read[key] = tuple(one.entry for one in prompt.passages)
        return key
