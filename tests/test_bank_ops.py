"""Deleting without a trace, ledgers, copies, exports, merges, splits, comparing, repairing."""

import dataclasses
import json
import random
import sqlite3
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.export import export_bank, import_bank
from latentbank.bank.admin.join import diff_banks, merge_banks, sum_histograms
from latentbank.bank.admin.repair import repair_bank
from latentbank.bank.admin.split import split_bank
from latentbank.bank.space import LARGE_BUDGET, Space
from latentbank.bank.store.builder import PageBuilder
from latentbank.bank.store.pages import Page, Slot
from latentbank.bank.store.tables import PageTable
from latentbank.bank.store.tombstones import pack_tombstones, unpack_tombstones
from latentbank.bank.write import Write
from latentbank.cli import app
from latentbank.documents.conditions import conditions_of
from latentbank.errors import BankError, FingerprintError, InputError, UnknownNameError
from memory_folder import memory_path  # noqa: F401

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")


def hex_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=8).hexdigest()


def entry(number: int, size: int = 60, **more: object) -> Entry:
    payload = random.Random(number).randbytes(size)
    return Entry(hex_id(number), "codes", payload, **more)  # type: ignore[arg-type]


def full(number: int) -> Entry:
    """An entry with everything: source, time, metadata, key, some with an id of their own."""
    day = f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
    made = entry(
        number,
        source=f"wire {number % 7}",
        time=day,
        metadata={"tag": f"t{number % 5}", "n": number},
        key=random.Random(-number).randbytes(16),
    )
    return made if number % 3 else dataclasses.replace(made, id=f"document {number}")


def files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))


# ---------------------------------------------------------------------------------- deleting


def test_documents_are_chosen_by_source_time_and_metadata() -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        bank.append([full(n) for n in range(400)])
        bank.append([entry(1000)])

        def chosen(*where: str, **options: str) -> set[str]:
            return set(bank.select(conditions_of(where, **options)))

        every = [full(n) for n in range(400)]
        assert chosen(source="wire 3") == {e.id for e in every if e.source == "wire 3"}
        spring = {e.id for e in every if "2024-03" <= (e.time or "") < "2024-06"}
        assert chosen(since="2024-03", before="2024-06") == spring != set()
        assert chosen("tag=t2") == {e.id for e in every if e.metadata["tag"] == "t2"}
        assert chosen("n=7", "tag=t2") == chosen("n=7.0 and tag~T2") == {full(7).id}
        assert chosen("n=x") == chosen("none=0") == set()
        assert chosen("time=null") == {entry(1000).id}
        both = chosen(source="wire 3", before="2024-06")
        assert both == {e.id for e in every if e.source == "wire 3" and str(e.time) < "2024-06"}
        with pytest.raises(InputError, match="needs a condition"):
            chosen()


@pytest.mark.parametrize("budget", [None, 200_000, 2 * LARGE_BUDGET])
def test_deleting_leaves_a_bank_that_never_saw_the_documents(
    tmp_path: Path, budget: int | None
) -> None:
    path = tmp_path / "b"
    gone = [full(n) for n in range(0, 500, 4)]
    with MemoryBank.create(path, PRINT, budget=budget) as bank:
        for at in range(0, 500, 50):
            bank.append([full(n) for n in range(at, at + 50)], {"codebook": b"c" * 999})
        before = bank.root_hash()
        receipt = bank.delete([e.id for e in gone] + ["unknown"])
        assert set(receipt.deleted) == {e.id for e in gone} and not receipt.remains
        assert (receipt.before, receipt.after) == (before, bank.root_hash())
        assert receipt.before != receipt.after and receipt.time
        assert bank.verify().ok and len(bank) == 500 - len(gone)
        raw = files(path)
        for one in gone:
            assert one.payload not in raw and one.key not in raw
            if not one.id.startswith("document"):
                assert bytes.fromhex(one.id) not in raw
        assert full(1).payload in raw
        export_bank(bank, tmp_path / "one")
        again = bank.delete([e.id for e in gone])
        assert again.deleted == () and again.missing == tuple(e.id for e in gone)
        assert again.before == again.after
    with MemoryBank.create(tmp_path / "never", PRINT, budget=budget) as never:
        never.append([full(n) for n in range(500) if n % 4], {"codebook": b"c" * 999})
        export_bank(never, tmp_path / "two")
    for name in ("bank.json", "bank.safetensors"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        if budget is None:
            assert one == two
        else:  # the span is chosen from the first write
            assert one.replace(b"span", b"") == two.replace(b"span", b"") or name == "bank.json"


def test_a_deletion_larger_than_the_log_happens_at_once_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided in one transaction and carried out in several; a death between them is one
    that the next writer makes good and no reader notices."""
    path = tmp_path / "b"
    doomed = {hex_id(n) for n in range(0, 5000, 2)}

    class Died(Exception):
        pass

    bank = MemoryBank.create(path, PRINT, budget=LARGE_BUDGET)
    bank.append([entry(n, 100) for n in range(5000)])
    original, commits = Write.commit, []

    def dying(self: Write) -> None:
        original(self)
        commits.append(self.session.file_bytes())
        if len(commits) == 3:
            raise Died

    monkeypatch.setattr(Write, "commit", dying)
    with pytest.raises(Died):
        bank.delete(doomed, {"counters": b"after"})
    monkeypatch.undo()
    assert len(commits) == 3 and max(commits) <= LARGE_BUDGET
    copy = tmp_path / "copy"
    for tail in ("", "-wal"):
        copy.with_name("copy" + tail).write_bytes(path.with_name("b" + tail).read_bytes())
    with MemoryBank.open(copy, read_only=True) as reader:  # after the crash, before any repair
        assert {e.id for e in reader.entries()} == {hex_id(n) for n in range(1, 5000, 2)}
        assert len(reader) == 2500 and hex_id(0) not in reader
        assert reader.get_blob("counters") == b"after" and reader.verify().ok
    with MemoryBank.open(copy) as writer:
        writer.append([entry(9999)])
        assert len(writer) == 2501 and writer.verify().ok and not writer.session.tombstones
    assert entry(0, 100).payload not in files(copy)
    bank.append([entry(9999)])  # the process that was interrupted goes on as well
    assert len(bank) == 2501 and bank.verify().ok
    bank.close()


def test_a_deletion_rewrites_each_page_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        for at in range(0, 8000, 4000):
            bank.append([entry(n, 100) for n in range(at, at + 4000)])
        written = []
        put = PageTable.put
        monkeypatch.setattr(PageTable, "put", lambda self, page: written.append(put(self, page)))
        pages = len(list(bank.pages()))
        receipt = bank.delete(hex_id(n) for n in range(0, 8000, 4))
        assert len(receipt.deleted) == 2000 and len(written) == pages


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=40),
    equal=st.booleans(),
    key_bytes=st.integers(0, 9),
    ledger=st.booleans(),
    data=st.data(),
)
def test_a_cut_page_is_the_page_of_what_remains(
    lengths: list[int], equal: bool, key_bytes: int, ledger: bool, data: st.DataObject
) -> None:
    def page(positions: list[int]) -> Page | None:
        builder = PageBuilder(7, Slot("codes", key_bytes, 1), 8, Space(None))
        for n in positions:
            size = lengths[0] if equal else lengths[n]
            id = f"name {n}" if ledger and n % 3 else hex_id(n)
            more = {"time": f"20{n:02}", "metadata": {"n": n}} if ledger and n % 2 else {}
            made = Entry(id, "codes", bytes([n]) * size, key=bytes([n]) * key_bytes, **more)
            builder.add(made, 2 if ledger and n % 5 == 0 else 1, (n, 0))
        return builder.build() if positions else None

    everything = list(range(len(lengths)))
    gone = data.draw(st.frozensets(st.sampled_from(everything), min_size=1))
    whole = page(everything)
    assert whole is not None
    left = whole.without(gone)
    assert left == page([n for n in everything if n not in gone])
    if left is not None:
        left.check()


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.integers(1, 2**32 - 1),
        st.tuples(st.binary(min_size=8, max_size=8), st.frozensets(st.integers(0, 255))),
    )
)
def test_tombstones_round_trip(tombstones: dict[int, tuple[bytes, frozenset[int]]]) -> None:
    packed = pack_tombstones(tombstones)
    assert unpack_tombstones(packed) == tombstones and len(packed) == 44 * len(tombstones)
    with pytest.raises(BankError, match="pending deletions"):
        unpack_tombstones(packed + b"x")


# ---------------------------------------------------------------------------------- ledgers


def test_a_ledger_trades_provenance_for_bytes(tmp_path: Path) -> None:
    sizes = {}
    for ledger in ("full", "ids", "none"):
        path = tmp_path / ledger
        with MemoryBank.create(path, PRINT, ledger=ledger) as bank:
            first = bank.append([full(n) for n in range(300)])
            again = bank.append([full(n) for n in range(300)])
            names = [first.stored_id(full(n).id) for n in range(300)]
            assert sorted(bank.ids()) == sorted({*names, *again.stored_ids.values()})
            assert [bank.get(name).payload for name in names] == [  # type: ignore[union-attr]
                full(n).payload for n in range(300)
            ]
            if ledger == "none":
                assert again.stored == 300 and len(bank) == 600 and len(set(names)) == 300
                assert full(1).id not in bank
                bank.delete(again.stored_ids.values())
            else:
                assert again.duplicates == 300 and bank.count(full(3).id) == 2
            found = bank.get(names[4])
            assert found is not None and (found.source == "wire 4") == (ledger == "full")
            if ledger != "full":
                assert not found.metadata and found.time is None
                with pytest.raises(InputError, match="only be chosen by id"):
                    bank.select(conditions_of(source="wire 1"))
            assert len(bank.delete(names[:10]).deleted) == 10 and len(bank) == 290
            assert bank.verify().ok
            sizes[ledger] = bank.footprint().ledger
        with MemoryBank.open(path) as opened:
            assert opened.settings.ledger == ledger and names[20] in opened
    assert sizes["none"] < sizes["ids"] < sizes["full"]
    assert sizes["none"] == 290 * 4
    with pytest.raises(UnknownNameError, match="Did you mean 'none'"):
        MemoryBank.create(":memory:", PRINT, ledger="noen")


# ------------------------------------------------------------------------ copies and exports


WRITER = """
import sys
from latentbank.bank import Entry, MemoryBank
bank = MemoryBank.open(sys.argv[1], timeout_seconds=30)
number = 0
print("ready", flush=True)
while True:
    batch = [Entry(f"{number + n:016x}", "codes", bytes([n]) * 200) for n in range(10)]
    bank.append(batch, {"counter": str(number + 10).encode()}, fade=lambda e: None)
    number += 10
"""


@pytest.mark.parametrize("budget", [None, LARGE_BUDGET])
def test_a_snapshot_while_another_process_writes(tmp_path: Path, budget: int | None) -> None:
    path = tmp_path / "b"
    MemoryBank.create(path, PRINT, budget=budget).close()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen = []
        with MemoryBank.open(path, read_only=True, timeout_seconds=30) as bank:
            for number in range(4):
                deadline = time.monotonic() + 20
                least = max(200 * number + 100, *(one + 1 for one in seen), 0)  # the last was slow
                while int(bank.get_blob("counter") or b"0") < least:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                copy, steps = tmp_path / f"copy{number}", []
                bank.snapshot(copy, lambda done, total, steps=steps: steps.append((done, total)))
                assert steps[-1][0] == steps[-1][1] > 0
                with MemoryBank.open(copy) as taken:
                    counted = int(taken.get_blob("counter") or b"")
                    assert taken.verify().ok
                    newest = max(int(id, 16) for id in taken.ids())
                    assert newest + 1 == counted and len(taken) <= counted
                    seen.append(counted)
                    taken.append([entry(1)], fade=lambda e: None)  # a copy is a bank like any other
        assert seen == sorted(set(seen))
    finally:
        writer.kill()
        writer.wait()
    with pytest.raises(BankError, match="exists already"), MemoryBank.open(copy) as taken:
        taken.snapshot(tmp_path / "copy0")


@pytest.mark.parametrize("ledger", ["full", "ids", "none"])
def test_an_export_comes_back_the_same(tmp_path: Path, ledger: str) -> None:
    made = {}
    with MemoryBank.create(
        tmp_path / "b", PRINT, budget="2MiB", ledger=ledger, policy="age=1,hits=2", meta={"a": [1]}
    ) as bank:
        bank.append([full(n) for n in range(300)], {"codebook": b"w" * 100, "x/../y": b""})
        bank.append([full(3)])
        bank.note_hits(list(bank.ids())[:7])
        bank.append([Entry("empty", "text", b"", source="é")], fade=lambda e: None)
        export_bank(bank, tmp_path / "out")
        made = {e.id: (e, bank.count(e.id)) for e in bank.entries()}
    import_bank(tmp_path / "out", tmp_path / "again")
    with MemoryBank.open(tmp_path / "again", expect=PRINT) as again:
        assert again.settings.policy == "age=1,hits=2" and again.budget_bytes == 2 << 20
        assert again.meta() == {"a": [1]}
        assert again.blobs() == {"codebook": 100, "x/../y": 0}
        if ledger != "none":
            assert {e.id: (e, again.count(e.id)) for e in again.entries()} == made
        else:
            assert len(again) == len(made)
        assert again.verify().ok
        export_bank(again, tmp_path / "out2")
    if ledger != "none":
        for name in ("bank.json", "bank.safetensors"):
            one, two = ((tmp_path / folder / name).read_bytes() for folder in ("out", "out2"))
            assert one == two
    with (
        pytest.raises(InputError, match="holds an export already"),
        MemoryBank.open(tmp_path / "again") as again,
    ):
        export_bank(again, tmp_path / "out")


def test_an_import_refuses_what_is_no_export(tmp_path: Path) -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        bank.append([full(n) for n in range(20)])
        export_bank(bank, tmp_path / "out")
    text = (tmp_path / "out" / "bank.json").read_text()
    content = json.loads(text)
    wrong = [
        "{", "[]", text.replace('"version": 1', '"version": 7'),
        json.dumps({**content, "documents": content["documents"][:-1]}),
        json.dumps({**content, "documents": 3}),
        json.dumps({**content, "levels": []}),
        json.dumps({**content, "fingerprint": {"evil": 1}}),
        json.dumps({**content, "settings": {**content["settings"], "ledger": "../x"}}),
        json.dumps({**content, "settings": {**content["settings"], "policy": "x"}}),
    ]  # fmt: skip
    for bad in wrong:
        (tmp_path / "out" / "bank.json").write_text(bad)
        with pytest.raises((InputError, UnknownNameError)):
            import_bank(tmp_path / "out", tmp_path / "new")
        assert not (tmp_path / "new").exists()
    (tmp_path / "out" / "bank.json").write_text(text)
    tensors = (tmp_path / "out" / "bank.safetensors").read_bytes()
    for bad_bytes in (b"", tensors[:50], tensors[:-10]):
        (tmp_path / "out" / "bank.safetensors").write_bytes(bad_bytes)
        with pytest.raises(InputError):
            import_bank(tmp_path / "out", tmp_path / "new")
    (tmp_path / "out" / "bank.safetensors").write_bytes(tensors)
    with pytest.raises(InputError, match="cannot be read"):
        import_bank(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(InputError, match="budget_bytes must be at least"):
        import_bank(tmp_path / "out", tmp_path / "new", budget=3000)
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------ merge, split, diff


def bank_with(path: Path, numbers: range, **blobs: bytes) -> Path:
    with MemoryBank.create(path, PRINT) as bank:
        bank.append([full(n) for n in numbers], {"codebook": b"same", **blobs})
    return path


def test_merged_banks_unite_ids_and_add_up_masses(tmp_path: Path) -> None:
    one = bank_with(tmp_path / "a", range(0, 200), mass=b"\1\0\0\0\2\0\0\0")
    two = bank_with(tmp_path / "b", range(100, 300), mass=b"\5\0\0\0")
    with MemoryBank.open(one, read_only=True) as a, MemoryBank.open(two, read_only=True) as b:
        assert merge_banks([a, b], tmp_path / "c") == ((), ())
    with MemoryBank.open(tmp_path / "c") as c:
        assert {e.id: e for e in c.entries()} == {full(n).id: full(n) for n in range(300)}
        assert [c.count(full(n).id) for n in (50, 150, 250)] == [1, 2, 1]
        assert c.get_blob("mass") == b"\6\0\0\0\2\0\0\0" and c.get_blob("codebook") == b"same"
        assert c.verify().ok
        c.put_blob("codebook", b"other")
    with MemoryBank.open(one, read_only=True) as a, MemoryBank.open(tmp_path / "c") as c:
        with pytest.raises(BankError, match="learned on its own"):
            merge_banks([a, c], tmp_path / "d")
        assert not (tmp_path / "d").exists()
        other = dataclasses.replace(PRINT, adapter="adapter:2")
        with MemoryBank.create(tmp_path / "e", other) as e, pytest.raises(FingerprintError):
            merge_banks([a, e], tmp_path / "d")
        with pytest.raises(InputError, match="at least two"):
            merge_banks([a], tmp_path / "d")
    with MemoryBank.open(one, read_only=True) as a, MemoryBank.open(two, read_only=True) as b:
        with pytest.raises(BankError, match="budget"):
            merge_banks([a, b], tmp_path / "d", budget=50_000)
        forgotten, _ = merge_banks([a, b], tmp_path / "d", budget=50_000, fade=lambda e: None)
    with MemoryBank.open(tmp_path / "d") as d:
        assert len(d) + len(forgotten) == 300 and forgotten


def test_histograms_add_up() -> None:
    one, two = (np.array(counts, "<u4").tobytes() for counts in ([2, 0, 0, 4], [0, 3, 0, 0, 0, 1]))
    assert np.frombuffer(sum_histograms(one, two), "<u4").tolist() == [2, 3, 0, 4, 0, 1]
    assert sum_histograms(b"", one) == sum_histograms(one, b"") == one
    for damaged in (b"123", bytes(4 * (1 << 16) + 4)):
        with pytest.raises(BankError, match="histogram is damaged"):
            sum_histograms(one, damaged)
    with pytest.raises(BankError, match="full"):
        sum_histograms(b"\xff" * 4, b"\xff" * 4)


def test_a_merge_keeps_the_higher_level(tmp_path: Path) -> None:
    def cut(one: Entry) -> Entry | None:
        short = dataclasses.replace(one, level="cut", payload=one.payload[:5])
        return None if one.level == "cut" else short

    with (
        MemoryBank.create(tmp_path / "a", PRINT, budget=60_000, policy="age") as a,
        MemoryBank.create(tmp_path / "b", PRINT) as b,
    ):
        a.append([entry(n) for n in range(900)], fade=cut)
        low = next(e.id for e in a.entries() if e.level == "cut")
        number = next(n for n in range(900) if hex_id(n) == low)
        b.append([entry(number)])
        merge_banks([a, b], tmp_path / "c")
    with MemoryBank.open(tmp_path / "c") as c:
        assert c.get(low) == entry(number)


def test_a_split_bank_has_all_documents_once(tmp_path: Path) -> None:
    path = bank_with(tmp_path / "a", range(120))
    with MemoryBank.open(path) as bank:
        bank.append([entry(999)])
        trick = dataclasses.replace(entry(1000), source="../../etc/passwd")
        bank.append([trick])
    with MemoryBank.open(path, read_only=True) as bank:
        parts = split_bank(bank, tmp_path / "parts", "source")
        times = split_bank(bank, tmp_path / "times", "time", ["2024-09-01", "2024-04-01"])
        with pytest.raises(InputError, match="not empty"):
            split_bank(bank, tmp_path / "parts", "source")
        for by, at in (("time", ()), ("source", ("2024",)), ("size", ())):
            with pytest.raises(InputError, match="Split by"):
                split_bank(bank, tmp_path / "x", by, at)
    names = {f"source wire {n}" for n in range(7)} | {"no source", "source ../../etc/passwd"}
    assert set(parts.values()) == names
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == sorted([*parts, "parts.json"])
    assert set(times.values()) == {
        "until 2024-04-01", "from 2024-04-01", "from 2024-09-01", "no time"
    }  # fmt: skip
    for folder, made in (("parts", parts), ("times", times)):
        ids = []
        for name, group in made.items():
            with MemoryBank.open(tmp_path / folder / name, expect=PRINT) as part:
                ids += list(part.ids())
                assert part.get_blob("codebook") == b"same"
                if folder == "parts" and group.startswith("source"):
                    assert {f"source {e.source}" for e in part.entries()} == {group}
        assert sorted(ids) == sorted([*(full(n).id for n in range(120)), hex_id(999), hex_id(1000)])


def test_differences_are_named(tmp_path: Path) -> None:
    one = bank_with(tmp_path / "a", range(30))
    two = bank_with(tmp_path / "b", range(30))
    with MemoryBank.open(one) as a, MemoryBank.open(two) as b:
        assert diff_banks(a, b).same
        a.append([full(100), full(5)])
        b.append([full(200)], {"codebook": b"x"})
        b.delete([full(7).id, full(8).id])
        b.append([dataclasses.replace(full(7), source="s", payload=b"p", level="l", key=b"")])
        b.put_meta("m", 1)
        found = diff_banks(a, b)
        assert not found.same and found.fingerprint
        assert found.only_first == tuple(sorted([full(100).id, full(8).id]))
        assert found.only_second == (full(200).id,)
        assert found.changed == {
            full(5).id: ("count",),
            full(7).id: ("level", "payload", "key", "ledger"),
        }
        assert (found.blobs, found.meta) == (("codebook",), ("m",))


# -------------------------------------------------------------------------- compact, repair


@pytest.mark.parametrize("budget", [None, 2 * LARGE_BUDGET])
def test_compacting_gives_free_space_back(tmp_path: Path, budget: int | None) -> None:
    path = tmp_path / "b"
    with MemoryBank.create(path, PRINT, budget=budget) as bank:
        bank.append([entry(n, 100) for n in range(5000)])
        bank.delete(hex_id(n) for n in range(5000) if n % 5)
        kept = {e.id: e for e in bank.entries()}
        before = bank.footprint()
        assert before.free > 0
        assert bank.compact() > 0.5 * before.total
        after = bank.footprint()
        assert after.total < 0.4 * before.total and after.free == 0
        assert after.codes == before.codes == 100 * len(kept)
        assert {e.id: e for e in bank.entries()} == kept and bank.verify().ok
        assert all(bank.get(id) == kept[id] for id in list(kept)[::100])
        bank.append([entry(10**6)])
    with MemoryBank.open(path) as again:
        assert len(again) == len(kept) + 1
        if budget is not None:
            assert again.file_bytes() <= budget


def damaged(path: Path) -> Path:
    with MemoryBank.create(path, PRINT, policy="age") as bank:
        bank.append([full(n) for n in range(700)], {"codebook": b"w" * 3000, "other": b"o" * 500})
        bank.put_meta("a", 1)
    raw = bytearray(path.read_bytes())
    raw[raw.index(full(300).payload) + 3] ^= 4
    raw[raw.index(b"w" * 100)] ^= 1
    path.write_bytes(raw)
    return path


def test_long_operations_tell_how_far_they_are(tmp_path: Path) -> None:
    with MemoryBank.open(bank_with(tmp_path / "b", range(900))) as bank:
        for operation in (
            bank.verify,
            bank.compact,
            lambda progress: bank.rebudget("16MiB", progress=progress),
            lambda progress: bank.snapshot(tmp_path / "s", progress),
            lambda progress: export_bank(bank, tmp_path / "x", progress),
        ):
            told: list[tuple[int, int]] = []
            operation(lambda done, total, told=told: told.append((done, total)))
            assert told and told[-1][0] == told[-1][1] > 0
            assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_verify_finds_a_document_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "b"
    for ledger in ("ids", "none"):
        with MemoryBank.create(path, PRINT, ledger=ledger) as bank:
            bank.append([entry(n) for n in range(10)])
            page = next(bank.pages())
            bare = dataclasses.replace(page, seq=2, hash=b"")
            twin = dataclasses.replace(bare, hash=bare.checksum()).without(frozenset({0}))
            assert twin is not None
            bank.session.begin(write=True)
            bank.session.pages.put(twin)
            with bank.session.committing():
                bank.session.invalidate()
            assert any("repeats documents" in sentence for sentence in bank.verify().damage)
        path.unlink()


def test_repair_keeps_what_is_whole(tmp_path: Path) -> None:
    path = damaged(tmp_path / "b")
    with MemoryBank.open(path, read_only=True) as bank:
        lost = set(bank.verify().damaged_ids)
        assert full(300).id in lost
    report = repair_bank(path, tmp_path / "new")
    assert report.documents == 700 - len(lost) and report.damaged is None
    assert len(report.damage) == 2
    assert any("codebook" in line for line in report.damage)
    assert repair_bank(path).damaged == str(tmp_path / "b.damaged")
    for name in ("new", "b"):
        with MemoryBank.open(tmp_path / name, expect=PRINT) as bank:
            assert bank.verify().ok and bank.settings.policy == "age"
            expected = {full(n).id: full(n) for n in range(700) if full(n).id not in lost}
            assert {e.id: e for e in bank.entries()} == expected
            assert bank.blobs() == {"other": 500} and bank.meta() == {"a": 1}
    with pytest.raises(BankError, match=r"b.damaged exists already"):
        repair_bank(path)


def test_repair_finds_its_way_around_broken_tables(tmp_path: Path) -> None:
    """Whole kilobytes of noise, wherever they hit: what is found is right, or it says why not."""
    path = tmp_path / "b"
    entries = {n: full(n) for n in range(1500)}
    with MemoryBank.create(path, PRINT) as bank:
        for at in range(0, 1500, 100):
            bank.append([entries[n] for n in range(at, at + 100)])
    good = path.read_bytes()
    draw = random.Random(5)
    by_id = {e.id: e for e in entries.values()}
    kept = []
    for number in range(12):
        raw = bytearray(good)
        at = 1024 * draw.randrange(3, len(raw) // 1024)
        raw[at : at + 1024] = draw.randbytes(1024)
        path.write_bytes(raw)
        out = tmp_path / f"out{number}"
        try:
            repair_bank(path, out)
        except BankError:
            kept.append(0)
            continue
        with MemoryBank.open(out) as bank:
            assert bank.verify().ok
            assert all(by_id[e.id] == e for e in bank.entries())
            kept.append(len(bank))
    assert sorted(kept)[len(kept) // 4] > 1000  # most damage costs a page or two


# ----------------------------------------------------------------- errors of disk and format


def test_banks_of_another_format_are_refused(tmp_path: Path) -> None:
    path = bank_with(tmp_path / "a", range(5))
    for version, sentence in ((1, "older format 1"), (3, "format 3; .* Upgrade")):
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version={version}")
        connection.close()
        with pytest.raises(BankError, match=sentence):
            MemoryBank.open(path)


def test_read_only_media_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "disc"
    folder.mkdir()
    path = bank_with(folder / "a", range(50))
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        with MemoryBank.open(path, read_only=True) as bank:
            assert len(list(bank.entries())) == 50
            with pytest.raises(BankError, match="read-only"):
                bank.append([entry(1)])
            bank.note_hits([full(1).id])
    finally:
        folder.chmod(0o755)


# -------------------------------------------------------------------------------- commands


def run(*arguments: object, status: int = 0) -> dict[str, object]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_every_operation_is_a_command(tmp_path: Path) -> None:
    one = bank_with(tmp_path / "a", range(50))
    two = bank_with(tmp_path / "b", range(40, 80))
    assert run("snapshot", one, "--out", tmp_path / "s")["documents"] == 50
    assert run("export", one, "--out", tmp_path / "x")["documents"] == 50
    assert run("import", tmp_path / "x", "--out", tmp_path / "i")["documents"] == 50
    assert run("diff", one, tmp_path / "i")["same"] is True
    assert run("merge", one, two, "--out", tmp_path / "m")["documents"] == 80
    assert len(run("diff", one, tmp_path / "m", status=1)["only_second"]) == 30  # type: ignore[arg-type]
    assert len(run("split", one, "--out", tmp_path / "p")["parts"]) == 7  # type: ignore[arg-type]
    cut = run("split", one, "--by", "time", "--at", "2024-06-01", "--out", tmp_path / "t")
    assert len(cut["parts"]) == 2  # type: ignore[arg-type]
    with MemoryBank.open(tmp_path / "m") as bank:
        bank.delete([full(n).id for n in range(70)])
    assert run("compact", tmp_path / "m")["saved"] > 0  # type: ignore[operator]
    assert run("rebudget", one, "16MiB")["budget_bytes"] == 16 << 20
    assert run("inspect", one)["budget_bytes"] == 16 << 20
    assert run("rebudget", one, "none")["budget_bytes"] is None
    hurt = damaged(tmp_path / "d")
    assert run("verify", hurt, status=1)["ok"] is False
    fixed = run("repair", hurt)
    assert fixed["documents"] and fixed["damage"] and run("verify", hurt)["ok"] is True
    listed = run("inspect", one, "--documents")
    row = next(r for r in listed["list"] if r["id"] == full(1).id)  # type: ignore[attr-defined]
    assert {"level", "faded", "hits", "written", "source"} <= set(row)
    parts = listed["bytes"]
    assert isinstance(parts, dict) and sum(parts.values()) == 2 * parts["total"]
    for plain in (["diff", one, two], ["inspect", one, "-d"], ["compact", one],
                  ["snapshot", one, "-o", tmp_path / "s2"]):  # fmt: skip
        result = CliRunner().invoke(app, [*map(str, plain)])
        assert result.exit_code in (0, 1) and result.output.strip(), result.output
