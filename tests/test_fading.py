"""Fading: a full bank lowers what is worth least, step by step, and never outgrows its budget."""

import dataclasses
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.rows import bank_rows
from latentbank.bank.ladder import Ladder, Step
from latentbank.bank.policy import Signals, make_policy
from latentbank.bank.space import LARGE_BUDGET, Space
from latentbank.bank.store.facts import Facts, key_redundancy
from latentbank.bank.write import Write
from latentbank.errors import BankError, BudgetError, InputError, UnknownNameError
from memory_folder import memory_path, new_folder  # noqa: F401

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")
SMALL, LARGE = 64 * 1024, LARGE_BUDGET
MANY_LEVELS = [  # writes after which one page of `halve` goes to 60 levels at once
    *((61, 17), (144, 76), (139, 400), (109, 85)),
    *((82, 156), (124, 0), (66, 321), (16, 788)),
]
LARGE_ENTRIES = [  # of about a page each in a tiny bank: nearly each has a level of its own
    *((136, 866), (97, 194), (72, 717), (47, 708), (95, 491)),
    *((37, 336), (95, 866), (38, 294), (21, 900)),
]


def hex_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=8).hexdigest()


def entry(number: int, size: int = 120, level: str = "codes", **more: object) -> Entry:
    payload = random.Random(number).randbytes(size)
    return Entry(hex_id(number), level, payload, **more)  # type: ignore[arg-type]


def forget(_: Entry) -> None:
    return None


def halve(one: Entry) -> Entry | None:
    """Each level keeps half of the bytes; under 30 nothing is kept."""
    if len(one.payload) < 30:
        return None
    half = one.payload[: len(one.payload) // 2]
    return dataclasses.replace(one, level=f"bytes{len(half)}", payload=half)


# ------------------------------------------------------------------------------- the budget


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize("budget", [40_960, long(SMALL), 300_000, LARGE, long("1.5MiB")])
def test_a_stream_never_outgrows_the_budget(tmp_path: Path, budget: int | str) -> None:
    path = tmp_path / "b"
    sizes, kept = [], {}
    with MemoryBank.create(path, PRINT, budget=budget) as bank:
        limit = bank.budget_bytes
        assert limit is not None
        batch = max(1, limit // 4000)
        for first in range(0, 60 * batch, batch):
            items = [entry(n, 60 + n % 90) for n in range(first, first + batch)]
            report = bank.append(items, fade=forget)
            kept |= {item.id: item for item in items}
            for id in report.forgotten:
                del kept[id]
            assert bank.file_bytes() <= limit
            sizes.append(bank.footprint().total)
        assert len(bank) == len(kept) < 60 * batch
        assert {item.id: item for item in bank.entries()} == kept
        assert bank.verify().ok
        assert hex_id(60 * batch - 1) in bank and hex_id(0) not in bank  # the oldest went first
        codes = bank.footprint().codes
    assert path.stat().st_size == sizes[-1] == max(sizes) <= limit
    assert codes > (0.2 if limit < LARGE_BUDGET else 0.5) * limit
    with MemoryBank.open(path) as again:
        assert {item.id for item in again.entries()} == set(kept)
        again.append([entry(10**6)], fade=forget)
        assert again.file_bytes() <= limit


SAMPLER = """
import os, sys, time
path = sys.argv[1]
most = 0
print("ready", flush=True)
end = time.monotonic() + 280
while time.monotonic() < end and not os.path.exists(path + ".stop"):
    total = 0
    for tail in ("", "-wal", "-shm", "-journal"):
        try:
            total += os.stat(path + tail).st_size
        except OSError:
            pass
    most = max(most, total)
print(most, flush=True)
"""


@pytest.mark.parametrize(
    ("budget", "rounds"), [(SMALL, 20), (LARGE, 12), long(SMALL, 100), long(LARGE, 100)]
)
def test_no_moment_of_a_write_exceeds_the_budget(tmp_path: Path, budget: int, rounds: int) -> None:
    """Another process looks at the sizes of all files, over and over, while this one writes."""
    path = tmp_path / "b"
    sampler = subprocess.Popen(
        [sys.executable, "-c", SAMPLER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert sampler.stdout is not None
    sampler.stdout.readline()
    draw = random.Random(budget)
    with MemoryBank.create(path, PRINT, budget=budget) as bank:
        number = 0
        for turn in range(rounds):
            step = draw.choice([1, 3, 40, budget // 300]) if turn else budget // 300
            size = draw.choice([0, 20, 200, 700]) if turn else 200
            items = [entry(n, size) for n in range(number, number + step)]
            blobs = {"codebook": draw.randbytes(2000)} if draw.random() < 0.2 else {}
            bank.append(items, blobs, fade=halve)
            number += step
            if draw.random() < 0.2:
                bank.delete(draw.sample(list(bank.ids()), k=min(20, len(bank))))
            if draw.random() < 0.2:
                bank.note_hits(draw.sample(list(bank.ids()), k=min(20, len(bank))))
        assert bank.verify().ok
    path.with_name("b.stop").touch()
    most = int(sampler.stdout.readline())
    sampler.wait(30)
    assert budget // 4 < most <= budget


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 900)), min_size=1, max_size=12))
def test_the_log_of_a_write_is_not_larger_than_reckoned(writes: list[tuple[int, int]]) -> None:
    """What `Space.cost` promises is what SQLite keeps, whatever the shapes of the writes."""
    with new_folder() as folder:
        path = folder / "b"
        bank = MemoryBank.create(path, PRINT, budget=LARGE)
        number = 0
        for count, size in writes:
            bank.append([entry(n, size) for n in range(number, number + count)], fade=forget)
            number += count
            log = path.with_name("b-wal").stat().st_size
            assert log <= min(bank.session.log_bytes, bank.settings.space.reserve)
        bank.close()


@settings(max_examples=10, deadline=None)
@given(
    st.integers(40_000, LARGE_BUDGET - 1),
    st.sampled_from(["age", "sample", "size=1", "sample=1,size=1"]),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 150), st.integers(0, 900)), min_size=4, max_size=12),
)
@example(687_062, "age", True, MANY_LEVELS)
@example(728_557, "size=1", True, [(34, 897), (39, 39), (21, 716), (139, 699), (101, 857)])
@example(70_213, "sample=1,size=1", True, LARGE_ENTRIES)
def test_the_journal_of_a_write_is_not_larger_than_reckoned(
    budget: int, policy: str, shorten: bool, writes: list[tuple[int, int]]
) -> None:
    """What `Space.cost` promises holds for a small bank, too, before each commit."""
    seen: list[tuple[int, int]] = []
    commit = Write.commit

    def look(work: Write) -> None:
        work.trim()
        journal = Path(work.session.name + "-journal")
        size = journal.stat().st_size if journal.exists() else 0
        if work.session.settings.space.limits_log:
            seen.append((size, size + work.session.size_bytes()))
        commit(work)

    with new_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Write, "commit", look)
        with MemoryBank.create(folder / "b", PRINT, budget=budget, policy=policy) as bank:
            number = 0
            while number < budget // 100:
                for count, size in writes:
                    new = [entry(n, size + n % 200) for n in range(number, number + count)]
                    bank.append(new, fade=halve if shorten else forget)
                    number += count
            reserve = bank.settings.space.reserve
    assert seen and max(journal for journal, _ in seen) <= reserve
    assert max(total for _, total in seen) <= budget


def test_the_size_is_the_same_after_more_of_the_stream(tmp_path: Path) -> None:
    sizes = []
    for rounds in (12, 40):
        path = tmp_path / str(rounds)
        with MemoryBank.create(path, PRINT, budget=SMALL) as bank:
            for first in range(0, rounds * 50, 50):
                bank.append([entry(n) for n in range(first, first + 50)], fade=forget)
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1]


def test_a_document_larger_than_the_budget_is_refused_and_nothing_fades(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank:
        bank.append([entry(n) for n in range(50)])
        before = bank.root_hash()
        with pytest.raises(BankError, match="budget of 65536"):
            bank.append([entry(99, 70_000)])
        assert bank.root_hash() == before
        with pytest.raises(BankError, match="budget of 65536"):
            bank.append([entry(99, 70_000)], fade=forget)
        assert len(bank) == 50 and bank.root_hash() == before


@pytest.mark.parametrize(("budget", "count"), [(SMALL, 1000), (LARGE, 8000), long(LARGE, 20_000)])
def test_one_call_may_bring_more_than_the_bank_holds(
    tmp_path: Path, budget: int, count: int
) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=budget) as bank:
        report = bank.append([entry(n) for n in range(count)], fade=forget)
        assert report.stored == count
        assert len(bank) == count - len(report.forgotten) > 50
        assert set(bank.ids()) == {hex_id(n) for n in range(count)} - set(report.forgotten)
        assert bank.file_bytes() <= budget


def test_duplicates_in_a_full_bank_are_counted(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank:
        bank.append([entry(n) for n in range(1000)], fade=forget)
        there = list(bank.ids())[-5:]
        again = [e for e in bank.entries() if e.id in there]
        report = bank.append(again, fade=forget)
        assert report.duplicates == 5 and report.stored == 0
        assert [bank.count(id) for id in there] == [2] * 5


def test_a_fade_that_misbehaves_stops_the_write_and_not_the_bank(tmp_path: Path) -> None:
    def wrong_id(one: Entry) -> Entry:
        return dataclasses.replace(one, id="another", payload=b"")

    def broken(_: Entry) -> Entry:
        raise ValueError("no")

    def larger(one: Entry) -> Entry:
        return dataclasses.replace(one, level="x", payload=one.payload + b"!")

    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank:
        bank.append([entry(n) for n in range(1000)], fade=forget)
        for fade, error in ((wrong_id, InputError), (broken, ValueError)):
            before = bank.root_hash()
            with pytest.raises(error):
                bank.append([entry(2000, 9000)], fade=fade)
            assert bank.root_hash() == before and bank.verify().ok
        report = bank.append([entry(n) for n in range(2000, 2500)], fade=larger)
        assert report.forgotten and not report.faded  # what does not get smaller is let go


# ------------------------------------------------------------------------------ the ladder


@pytest.mark.parametrize("shape", [(300_000, 4_000, 100), long((LARGE, 12_000, 200))])
def test_documents_sink_level_by_level_and_the_newest_are_whole(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    budget, count, batch = shape
    with MemoryBank.create(tmp_path / "b", PRINT, budget=budget, policy="age") as bank:
        for first in range(0, count, batch):
            report = bank.append([entry(n, 240) for n in range(first, first + batch)], fade=halve)
        assert report.faded and report.forgotten
        levels: dict[str, list[int]] = {}
        order = {hex_id(n): n for n in range(count)}
        for one in bank.entries():
            levels.setdefault(one.level, []).append(order[one.id])
            assert one.payload == random.Random(order[one.id]).randbytes(240)[: len(one.payload)]
        assert set(levels) == {"codes", "bytes120", "bytes60", "bytes30", "bytes15"}
        middle = [
            float(np.median(levels[f"bytes{n}"] if n else levels["codes"]))
            for n in (15, 30, 60, 120, 0)
        ]
        assert all(older < newer for older, newer in pairwise(middle))
        assert set(range(count - batch, count)) <= set(levels["codes"])


@pytest.mark.parametrize("shape", [(300_000, 3_200, 50), long((LARGE, 12_000, 200))])
def test_what_fades_without_loss_does_so_first(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Every document is recoded before the first is cut; a reopened, merged or older bank too."""

    def half(one: Entry) -> Entry:
        return dataclasses.replace(one, level="packed", payload=one.payload[:120])

    def cut(one: Entry) -> Entry:
        return dataclasses.replace(one, level="cut", payload=one.payload[:20])

    steps = [Step("whole", "packed", half, lossless=True), Step("packed", "cut", cut)]
    ladder = Ladder(["whole", "packed", "cut"], steps)
    assert ladder.lossless == ("whole",)
    path = tmp_path / "b"
    budget, count, batch = shape
    with MemoryBank.create(path, PRINT, budget=budget, lossless=ladder.lossless) as bank:
        levels: Counter[str] = Counter()
        for first in range(0, count, batch):
            new = [entry(n, 240) for n in range(first, first + batch)]
            bank.append([dataclasses.replace(one, level="whole") for one in new], fade=ladder.fade)
            levels = Counter(one.level for one in bank.entries())
            assert levels["cut"] == 0 or levels["whole"] <= 3 * batch  # of the last writes
        assert levels["cut"] > count / 12 and levels["packed"] > count / 12
    for again in (path, tmp_path / "copy"):
        with MemoryBank.open(path, PRINT) as bank, MemoryBank.open(again, PRINT) as opened:
            assert opened.settings.lossless == ("whole",)
            if again == path:
                bank.snapshot(tmp_path / "copy")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM items WHERE kind = 'bank' AND name = 'lossless'")
    connection.close()
    with MemoryBank.open(path, PRINT) as bank:
        assert bank.settings.lossless == () and bank.verify().ok


def test_a_ladder_refuses_what_leads_nowhere() -> None:
    ladder = Ladder(["a", "b"])
    with pytest.raises(InputError, match="no level of the ladder a → b"):
        ladder.register(Step("a", "c", forget))
    with pytest.raises(InputError, match="leads down"):
        ladder.register(Step("b", "a", forget))
    with pytest.raises(InputError, match="once"):
        Ladder(["a", "a"])
    ladder.register(Step("a", "b", lambda one: dataclasses.replace(one, level="c")))
    with pytest.raises(InputError, match="gave an entry of level 'c'"):
        ladder.fade(Entry("x", "a", b""))
    assert ladder.fade(Entry("x", "unknown", b"")) is None
    assert [ladder.depth(name) for name in "ab"] == [0, 1]
    skipping = Ladder(["a", "b", "c"])
    skipping.register(Step("a", "c", lambda one: dataclasses.replace(one, level="c")))
    skipping.register(Step("a", "b", forget))
    lower = skipping.fade(Entry("x", "a", b""))
    assert lower is not None and lower.level == "c"


# ------------------------------------------------------------------------------ the policies


def signals(order: list[int] | None = None, **columns: list[float]) -> Signals:
    size = len(order or next(iter(columns.values())))
    hits, redundancy = (columns.get(name, [0] * size) for name in ("hits", "redundancy"))
    sizes = columns.get("bytes", [1] * size)
    return Signals(
        np.array(order or [0] * size, np.uint32),
        np.array(hits, np.uint16),
        np.array(redundancy, np.float64),
        np.array(sizes, np.int64),
    )


def ranked(policy: str, known: Signals, stored: bool = False) -> list[int]:
    return np.argsort(make_policy(policy, stored).value(known, 10), kind="stable").tolist()


def test_each_policy_ranks_by_its_criterion() -> None:
    assert ranked("age", signals([5, 1, 9])) == [1, 0, 2]
    assert ranked("hits", signals(hits=[2, 0, 7])) == [1, 0, 2]
    assert ranked("redundancy", signals(redundancy=[0.4, 0, 1])) == [2, 0, 1]
    assert ranked("size", signals(bytes=[100, 50, 400])) == [2, 0, 1]
    assert ranked("hits", signals([7, 3], hits=[1, 1])) == [1, 0]  # age decides
    blend = make_policy("age=1, hits=4").value(signals([0, 100], hits=[15, 0]), 100)
    assert blend[0] > blend[1]
    assert len(make_policy("blend").value(signals([1]), 1)) == 1
    even = make_policy("sample").value(signals(list(range(1000))), 1)
    assert even.min() >= 0 and np.histogram(even % 1, 10)[0].min() >= 98
    with pytest.raises(UnknownNameError, match="Did you mean 'hits'"):
        make_policy("hitz")
    for wrong in ("hits=x", "hits=-1", "hits=nan"):
        with pytest.raises(InputError, match="weight"):
            make_policy(wrong)


def test_a_policy_that_is_retired_is_read_and_not_given() -> None:
    """Older banks name `surprise`; their documents keep the order of the other policies."""
    known = signals([5, 1, 9], hits=[9, 0, 0])
    old = "age=1,hits=1,surprise=0.5,redundancy=0.5"
    assert ranked(old, known, stored=True) == ranked("blend", known)
    values = (make_policy(text, stored=True).value(known, 10) for text in (old, "blend"))
    np.testing.assert_allclose(*values)
    assert ranked("surprise", known, stored=True) == [1, 0, 2]
    with pytest.raises(UnknownNameError):
        make_policy("surprise")


def filled(bank: MemoryBank, count: int, first: int = 0) -> None:
    for at in range(first, first + count, 50):
        bank.append([entry(n) for n in range(at, at + 50)], fade=forget)


def test_a_sample_is_kept_of_the_whole_stream(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL, policy="sample") as bank:
        filled(bank, 1200)
        left = [n for n in range(1200) if hex_id(n) in bank]
        quarters = np.bincount(np.array(left) // 300)
        assert len(left) > 100 and quarters[:3].min() > 0.6 * quarters[:3].max()
        filled(bank, 1200, first=1200)
        stays = [n for n in left if hex_id(n) in bank]
        assert 0.35 * len(left) < len(stays) < 0.65 * len(left)


def test_where_documents_leave_here_and_there_pages_stay_full(
    tmp_path: Path,
) -> None:
    path = tmp_path / "b"
    with MemoryBank.create(path, PRINT, budget=SMALL, policy="sample") as bank:
        filled(bank, 3000)
        least = 0.7 * bank.settings.space.page_bytes
        assert bank.verify().ok
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT avg(length(payload)) FROM pages").fetchone()[0] > least


def test_large_documents_leave_first_where_the_policy_says_so(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL, policy="size") as bank:
        for at in range(0, 1000, 50):
            bank.append([entry(n, 60 + n % 200) for n in range(at, at + 50)], fade=forget)
        sizes = np.array([len(one.payload) for one in bank.entries()])
        assert len(sizes) > 300 and np.mean(sizes <= 160) > 0.9


def test_a_small_bank_has_no_index_and_one_with_it_is_read(tmp_path: Path) -> None:
    def tables(path: Path) -> set[str]:
        with closing(sqlite3.connect(path)) as file:
            return {name for (name,) in file.execute("SELECT name FROM sqlite_master")}

    for budget, found in ((SMALL, False), (LARGE, True), (None, True)):
        path = tmp_path / str(budget)
        with MemoryBank.create(path, PRINT, budget=budget) as bank:
            filled(bank, 100)
        assert ("low" in tables(path)) is found
    with closing(sqlite3.connect(tmp_path / str(SMALL))) as file:  # as older versions made them
        file.execute("CREATE INDEX low ON facts(low)")
    with MemoryBank.open(tmp_path / str(SMALL)) as bank:
        filled(bank, 1000, first=100)
        assert bank.verify().ok and hex_id(1099) in bank


def test_what_helps_to_answer_stays(tmp_path: Path) -> None:
    path = tmp_path / "b"
    loved = [hex_id(n) for n in range(0, 100, 10)]
    with MemoryBank.create(path, PRINT, budget=SMALL, policy="age=1,hits=20") as bank:
        filled(bank, 100)
        for _ in range(4):
            bank.note_hits(loved)
        filled(bank, 1000, first=100)
        left = set(bank.ids())
        assert set(loved) <= left
        assert not {hex_id(n) for n in range(100) if n % 10} & left
    with MemoryBank.open(path) as bank:  # hits are kept in the file
        filled(bank, 600, first=2000)
        assert set(loved) <= set(bank.ids())


def test_what_repeats_an_earlier_document_fades_first(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "r", PRINT, budget=SMALL, policy="redundancy") as bank:
        draw = random.Random(0)
        twin = bytes(draw.choices(range(256), k=32))
        for at in range(0, 1000, 20):
            keys = [twin if n % 2 else bytes(draw.choices(range(256), k=32)) for n in range(20)]
            items = [entry(at + n, key=key) for n, key in enumerate(keys)]
            bank.append(items, fade=forget)
        left = [one.key for one in bank.entries()]
        assert sum(key == twin for key in left) < 0.4 * len(left)


def test_hits_cost_no_write_and_touch_no_read_only_bank(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with MemoryBank.create(path, PRINT, budget=SMALL) as bank:
        filled(bank, 50)
        size = path.stat().st_size
        changed = path.stat().st_mtime_ns
        for _ in range(100):
            bank.note_hits([hex_id(1), "unknown"])
        assert (path.stat().st_mtime_ns, path.stat().st_size) == (changed, size)
        bank.append([entry(1000)], fade=forget)
        hits = {row.entry.id: row.fact[1] for row in bank_rows(bank)}
        assert hits[hex_id(1)] == 100 and hits[hex_id(2)] == 0
    before = path.read_bytes()
    with MemoryBank.open(path, read_only=True) as bank:
        bank.note_hits([hex_id(1)] * 2000)
        bank.note_hits(hex_id(n) for n in range(2000))
    assert path.read_bytes() == before


def test_hits_are_written_when_many_wait(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with MemoryBank.create(path, PRINT, budget=LARGE) as bank, MemoryBank.open(path) as other:
        bank.append([entry(n) for n in range(600)])
        bank.note_hits(hex_id(n) for n in range(600))
        assert {row.fact[1] for row in bank_rows(other)} == {1}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, top) for top in (2**31 - 1, 70_000)]),
        min_size=1,
        max_size=256,
    )
)
def test_facts_round_trip(rows: list[tuple[int, int]]) -> None:
    made = Facts.of(rows)
    back = Facts.unpack(made.pack(), len(rows), 1)
    assert back.rows() == [(order, min(hits, 65535)) for order, hits in rows]
    packed = bytearray(made.pack())
    packed[-1] ^= 1
    with pytest.raises(BankError, match="facts of page 7"):
        Facts.unpack(bytes(packed), len(rows), 7)
    with pytest.raises(BankError):
        Facts.unpack(made.pack(), len(rows) + 1, 7)


def test_redundancy_is_the_nearest_earlier_key() -> None:
    keys = np.array([[100, 0] * 4, [0, 100] * 4, [99, 0] * 4, [70, 70] * 4], np.int8)
    found = key_redundancy(keys.tobytes(), 4).tolist()
    assert found == [0, 0, 1, round(254 * 2**-0.5) / 254]
    assert key_redundancy(b"abcd", 4).tolist() == [0] * 4  # too short to compare


# ----------------------------------------------------------------------------- other budgets


def test_rebudget_up_and_down_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with MemoryBank.create(path, PRINT, budget="2MiB") as bank, MemoryBank.open(path) as other:
        bank.append([entry(n, 200) for n in range(5_500)])
        with pytest.raises(BudgetError, match="nothing was changed"):
            bank.rebudget("1MiB")
        assert len(bank) == 5_500 and bank.budget_bytes == 2 << 20
        report = bank.rebudget("1MiB", fade=halve)
        assert report.faded and bank.file_bytes() <= 1 << 20 and bank.verify().ok
        assert path.stat().st_size <= 1 << 20
        assert other.budget_bytes == 1 << 20
        assert len(other) == len(bank)
        other.append([entry(10**5 + n) for n in range(500)], fade=halve)
        assert bank.file_bytes() <= 1 << 20
        bank.rebudget("3MiB")
        bank.append([entry(10**6 + n, 200) for n in range(4_000)])
        assert other.verify().ok and len(other) > 4_500
        bank.rebudget(None)
        bank.append([entry(10**7 + n, 900) for n in range(2_500)])
        assert bank.file_bytes() > 3 << 20


def test_rebudget_over_the_kind_of_log_says_what_to_do(tmp_path: Path) -> None:
    with (
        MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank,
        pytest.raises(InputError, match="export it and import it"),
    ):
        bank.rebudget("4MiB")


def test_a_budget_is_a_size() -> None:
    for wrong in ("8 apples", "", True, 1.5):
        with pytest.raises(InputError, match="size"):
            MemoryBank.create(":memory:", PRINT, budget=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not both"):
        MemoryBank.create(":memory:", PRINT, budget=1 << 20, budget_bytes=1 << 20)
    assert Space(None).part_bytes is None


BUDGETS = (60_000, 100_000, 400_000, LARGE)


@pytest.mark.parametrize(
    ("budget", "rounds"), [*((b, 20) for b in BUDGETS), *(long(b, 200) for b in BUDGETS)]
)
def test_no_mixture_of_writes_and_deletions_is_refused(
    tmp_path: Path, budget: int, rounds: int
) -> None:
    """New documents beside ones that are there, blobs, hits, deletions of one or of half of all."""
    path, draw, number = tmp_path / "b", random.Random(budget), 0
    bank = MemoryBank.create(path, PRINT, budget=budget)
    for _ in range(rounds):
        count = draw.choice([1, 2, 30, budget // 1500])
        items = [entry(n, 40 + n % 200) for n in range(number, number + count)]
        there = list(bank.entries())
        again = draw.sample(there, min(len(there), draw.choice([0, 0, 1, 40])))
        bank.append([*items, *again], {"reached": str(number).encode()}, fade=halve)
        number += count
        bank.note_hits(item.id for item in items)
        ids = list(bank.ids())
        bank.delete(draw.sample(ids, draw.choice([0, 1, 1, min(20, len(ids)), len(ids) // 2])))
        assert bank.file_bytes() <= budget
        if draw.random() < 0.1:
            bank.close()
            bank = MemoryBank.open(path)
    assert bank.verify().ok
    bank.close()
