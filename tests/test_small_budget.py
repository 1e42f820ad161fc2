"""Banks of a few kilobytes: a full one can always delete, and gives back what it does not need."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.errors import BudgetError, InputError

PRINT = BankFingerprint("strata", "a" * 30, "b" * 30, "t" * 30)


def shorter(entry: Entry) -> Entry | None:
    """Two thirds of a payload, two times; then nothing."""
    lower = {"whole": "long", "long": "short"}.get(entry.level)
    if lower is None:
        return None
    return Entry(entry.id, lower, entry.payload[: 2 * len(entry.payload) // 3], entry.time)


def full_bank(draw: random.Random, budget: int, settings: int) -> MemoryBank | None:
    """A bank that was written to until it was full; None if not even an empty one fits."""
    meta = {"config": {f"field {i}": i for i in range(settings)}}
    try:
        bank = MemoryBank.create(":memory:", PRINT, budget=budget, meta=meta)
    except InputError:
        return None
    size, ladder = draw.choice((10, 40, 150, 400, 900)), draw.random() < 0.5
    for number in range(draw.choice((8, 40))):
        payload = draw.randbytes(1 + draw.randrange(2 * size))
        time = "2024-01-01" if draw.random() < 0.5 else None
        level = "whole" if ladder else f"kind {draw.randrange(3)}"
        try:
            bank.append([Entry(f"{'x' * draw.randrange(40)}{number}", level, payload, time)],
                        fade=shorter)  # fmt: skip
        except BudgetError:
            continue  # this one is too large for the whole bank
    return bank


@settings(max_examples=80, deadline=None)
@given(st.integers(9_000, 30_000), st.integers(0, 60), st.integers(0, 2**32), st.integers(0, 900))
@example(10_405, 0, 119, 24)  # these four were refused once
@example(13_103, 57, 125, 448)
@example(15_075, 0, 260, 0)
@example(11_788, 34, 265, 0)
def test_a_deletion_is_always_possible(budget: int, settings: int, seed: int, state: int) -> None:
    draw = random.Random(seed)
    bank = full_bank(draw, budget, settings)
    if bank is None:
        return
    with bank:
        carried: dict[str, Any] = {"state": draw.randbytes(state)} if state else {}
        try:
            bank.put_state(carried)
        except BudgetError:
            carried = {}
        while ids := list(bank.ids()):
            doomed = draw.sample(ids, draw.choice((1, 1, 1, len(ids))))
            new = {name: draw.randbytes(len(data)) for name, data in carried.items()}
            assert set(bank.delete(doomed, state=new).deleted) == set(doomed)
            assert len(bank) == len(ids) - len(doomed)
            assert bank.file_bytes() <= budget // 2, "its journal has as much again"
        assert bank.verify().ok


def test_a_file_gives_back_as_many_pages_as_it_is_asked_for() -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        bank.append([Entry(str(i), f"kind {i}", bytes(5000)) for i in range(20)])
        bank.delete([str(i) for i in range(20)])
        session = bank.session
        with session.guard():
            session.begin(write=True)
            before, unused = session.size_bytes(), session.unused_pages()
            session.give_back(50)
            after, left = session.size_bytes(), session.unused_pages()
            session.rollback()
        assert unused > 50 and left == unused - 50
        assert after == before - 50 * session.settings.space.sqlite_page
