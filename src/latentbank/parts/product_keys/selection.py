"""Which slots of a batch may change: TF-IDF against background accesses, and plainer rules.

Lin et al., 2025, "Continual Learning via Sparse Memory Finetuning",
https://arxiv.org/abs/2510.15103. Knows counts; knows no layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from latentbank.errors import InputError

__all__ = ["RULES", "Background", "choose_slots"]

RULES = ("tfidf", "tf", "all", "random")


def choose_slots(
    used: Tensor,
    counts: Tensor,
    background: Tensor,
    batches: int,
    most: int,
    rule: str = "tfidf",
    known: Tensor | None = None,
    room: int | None = None,
    seed: int = 0,
) -> Tensor:
    """The slots that may change, at most `most` of those accessed, in rising order.

    score(i) = c(i) / Σ c · log((|B| + 1) / (b(i) + 1)), with c the accesses in the batch and b(i)
    the number of the |B| background batches that accessed slot i. Equal scores go to more accesses.

    Args:
        used, counts: slots accessed in the batch [U] and how often [U].
        background: b [U] of these slots.
        batches: |B|.
        most: t; the rule "all" ignores it. Fewer are chosen where fewer were accessed.
        rule: one of `RULES`.
        known: bool [U], slots that were changed before.
        room: slots that may be changed for the first time; None: any number.

    Raises:
        InputError: an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"select must be one of {', '.join(RULES)}, got {rule!r}")
    share = counts.double() / counts.sum().clamp_min(1)
    if rule == "tfidf":
        share = share * torch.log((batches + 1) / (background.double() + 1)) + 1e-9 * share
    elif rule == "random":
        share = torch.rand(len(used), generator=torch.Generator().manual_seed(seed)).double()
    order = share.argsort(descending=True, stable=True)
    if room is not None:
        fresh = torch.ones(len(used), dtype=torch.bool) if known is None else ~known
        fresh = fresh[order]
        order = order[~fresh | (fresh.cumsum(0) <= room)]
    kept = order if rule == "all" else order[:most]
    return used[kept].sort().values


class Background:
    """How many of the last `most` background batches accessed each slot.

    `counts` [slots] int32 is changed in place, so that it can be a buffer of a module.
    """

    def __init__(self, counts: Tensor, batches: Tensor, most: int) -> None:
        self.counts, self.batches, self.most = counts, batches, most
        self._recent: deque[Tensor] = deque()

    def add(self, used: Tensor) -> None:
        """Counts a batch that accessed the distinct slots `used`; the oldest one goes."""
        self._recent.append(used.to("cpu", torch.int32))
        self.counts[used] += 1
        if len(self._recent) > self.most:
            self.counts[self._recent.popleft().to(used.device).long()] -= 1
        else:
            self.batches += 1

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the counts."""
        none = torch.zeros(0, dtype=torch.int32)
        sizes = torch.tensor([len(one) for one in self._recent], dtype=torch.int64)
        return {"background.slots": torch.cat([none, *self._recent]), "background.sizes": sizes}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave."""
        if "background.slots" in state:
            sizes = state["background.sizes"].tolist()
            self._recent = deque(torch.split(state["background.slots"], sizes) if sizes else ())
