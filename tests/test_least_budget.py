"""A refusal for the budget names one that works: it is followed here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.space import least_budget
from latentbank.errors import BudgetError, InputError
from memory_folder import memory_path  # noqa: F401

PRINT = BankFingerprint("strata", "a" * 30, "b" * 30, "t" * 30)
META = {"config": {f"field {i}": i for i in range(60)}}


def named(error: Exception) -> int:
    """The budget that a refusal names."""
    found = re.search(r"at least (?:about )?(\d+)", str(error))
    assert found is not None, error
    return int(found[1])


@pytest.mark.parametrize("budget", [1, 1000, 4096, 5000, 7000, 9000])
@pytest.mark.parametrize("meta", [{}, META])
def test_the_least_budget_that_a_new_bank_names_works(
    tmp_path: Path, budget: int, meta: dict[str, object]
) -> None:
    with pytest.raises(InputError, match=f"got {budget}") as refused:
        MemoryBank.create(tmp_path / "a", PRINT, budget=budget, meta=meta).close()
        pytest.skip("an empty bank fits")
    least = named(refused.value)
    assert least < 27_000
    with MemoryBank.create(tmp_path / "b", PRINT, budget=least, meta=meta) as bank:
        bank.append([Entry("a", "verbatim", os.urandom(200))])
        assert bank.file_bytes() <= least and len(bank) == 1


@pytest.mark.parametrize("size", [3_000, 20_000, 300_000, 3_000_000])
def test_the_least_budget_that_a_refused_write_names_works(tmp_path: Path, size: int) -> None:
    entry = Entry("a", "verbatim", os.urandom(size))
    with (
        MemoryBank.create(tmp_path / "a", PRINT, budget=11 * 1024) as bank,
        pytest.raises(BudgetError) as refused,
    ):
        bank.append([entry])
    least = named(refused.value)
    assert least < 4 * size + 20_000
    with MemoryBank.create(tmp_path / "b", PRINT, budget=least) as bank:
        bank.append([entry])
        assert bank.get("a") == entry
        assert bank.file_bytes() <= (bank.budget_bytes or 0)


@pytest.mark.parametrize("budget", [-1, -64_227_221_133, -(10**40), 2**63, 10**40])
def test_a_budget_that_no_file_can_have_is_refused_at_once(tmp_path: Path, budget: int) -> None:
    with pytest.raises(InputError, match="8 EiB"):
        MemoryBank.create(tmp_path / "a", PRINT, budget=budget)
    with MemoryBank.create(tmp_path / "b", PRINT) as bank:
        with pytest.raises(InputError, match="8 EiB"):
            bank.rebudget(budget)
        assert bank.budget_bytes is None


def test_the_least_budget_does_not_count_up_from_below_nothing() -> None:
    assert least_budget(4608, -64_227_221_133) == least_budget(4608, 0)
