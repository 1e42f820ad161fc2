"""The bank: what is acknowledged stays, what is damaged is named, what is refused is explained."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.bank import BankFingerprint, Entry, Footprint, MemoryBank
from latentbank.errors import BankError, FingerprintError, InputError
from memory_folder import memory_path, new_folder  # noqa: F401

PRINT = BankFingerprint("mbc", "adapter:1", "smollm2-135m:ab12", "smollm2-135m:cd34")


def hex_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=8).hexdigest()


def entry(number: int, level: str = "codes", size: int = 14, **more: object) -> Entry:
    payload = blake2b(str(number).encode(), digest_size=size).digest()
    return Entry(hex_id(number), level, payload, **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.bank"


@pytest.fixture
def bank(path: Path) -> Iterator[MemoryBank]:
    with MemoryBank.create(path, PRINT) as created:
        yield created


# --------------------------------------------------------------------- writing and reading


def test_entries_come_back_after_reopening(bank: MemoryBank, path: Path) -> None:
    entries = [
        entry(1),
        Entry("my id #3", "codes", b"x", "2024-05-01", "wire", {"tags": ["a"], "n": 1}),
        Entry(hex_id(3).upper(), "text", b"", key=b"k" * 16),
        Entry("0123456789abcde", "text", b"y" * 50_000, source="é"),
        entry(4, key=b"q" * 16),
    ]
    report = bank.append(entries, blobs={"codebook": b"c" * 5000})
    assert (report.stored, report.duplicates) == (5, 0)
    assert report.bytes == sum(len(item.payload) + len(item.key) for item in entries)
    bank.close()
    with MemoryBank.open(path, expect=PRINT, read_only=True) as again:
        assert len(again) == 5
        assert {item.id: item for item in again.entries()} == {item.id: item for item in entries}
        assert all(again.get(item.id) == item and item.id in again for item in entries)
        assert [item.id for item in again.entries()] == list(again.ids())
        assert again.get("nobody") is None
        assert "nobody" not in again
        assert again.blobs() == {"codebook": 5000}
        assert again.get_blob("codebook") == b"c" * 5000


def test_what_was_read_is_forgotten_when_the_bank_changes(bank: MemoryBank, path: Path) -> None:
    bank.append([entry(number) for number in range(400)])
    ids = [hex_id(number) for number in (3, 399, 77, 3)]
    with MemoryBank.open(path, read_only=True) as other:
        for one in (bank, other):
            assert one.get_all([*ids, "gone"]) == [*map(bank.get, ids), None]
        bank.delete([hex_id(77)])
        for one in (bank, other):
            found = one.get_all(ids)
            assert found[2] is None and [each.id for each in found if each] == [
                ids[at] for at in (0, 1, 3)
            ]


def test_writing_order_is_kept_within_a_level(bank: MemoryBank) -> None:
    for first in range(0, 1000, 10):
        level = "codes" if first % 20 else "text"
        bank.append([entry(number, level) for number in range(first, first + 10)])
    for level, odd in (("codes", 1), ("text", 0)):
        expected = [hex_id(n) for n in range(1000) if n // 10 % 2 == odd]
        pages = list(bank.pages(level))
        assert [id for page in pages for id in page.document_ids] == expected
        assert [p for page in pages for p in page.payloads] == [
            item.payload for item in bank.entries() if item.level == level
        ]
        assert all(page.count <= 256 for page in pages)
        keys = np.concatenate([page.id_keys for page in pages])
        assert [f"{key:016x}" for key in keys.tolist()] == expected


def test_duplicates_are_counted_and_not_stored(bank: MemoryBank, path: Path) -> None:
    bank.append([entry(1), entry(2), entry(1), Entry("long", "codes", b"p")])
    before = bank.get(hex_id(1))
    report = bank.append([Entry(hex_id(1), "text", b"another payload"), entry(3)])
    assert (report.stored, report.duplicates, report.bytes) == (1, 1, 14)
    bank.append([Entry("long", "codes", b"p"), entry(3), entry(3)])
    bank.close()
    with MemoryBank.open(path) as again:
        assert len(again) == 4
        assert again.get(hex_id(1)) == before
        ids = [hex_id(1), hex_id(2), "long", hex_id(3), hex_id(4)]
        assert [again.count(id) for id in ids] == [3, 1, 2, 3, 0]


def test_an_id_that_hashes_like_another_is_refused(bank: MemoryBank) -> None:
    twin = blake2b(b"some name", digest_size=8).hexdigest()
    bank.append([Entry(twin, "codes", b"a")])
    with pytest.raises(BankError, match="'some name' has the same 8-byte hash"):
        bank.append([Entry("some name", "codes", b"b")])
    assert bank.get("some name") is None
    assert "some name" not in bank
    assert bank.delete(["some name"]).missing == ("some name",)
    with pytest.raises(BankError, match="same 8-byte hash"):
        bank.append([Entry("new", "a", b""), Entry(hashed("new"), "a", b"")])
    assert len(bank) == 1


def hashed(id: str) -> str:
    return blake2b(id.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Entry("", "codes", b""), "non-empty"),
        (Entry("a", "", b""), "level"),
        (Entry("a", "codes", b"", metadata={"k": object()}), "not JSON"),
        (Entry("a", "codes", b"", metadata={"k": float("nan")}), "not JSON"),
        (Entry("a", "codes", b"", metadata={"k": "x" * 70_000}), "may take 65536 bytes"),
        (Entry("a\ud800", "codes", b""), "not JSON"),
        (Entry("a", "codes", b"", key=b"k" * 40_000), "key"),
    ],
)
def test_a_wrong_entry_stores_nothing_of_its_call(
    bank: MemoryBank, wrong: Entry, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        bank.append([entry(1), wrong], blobs={"counters": b"1"})
    assert len(bank) == 0
    assert bank.blobs() == {}


def test_blobs_and_codes_are_stored_together_or_not_at_all(bank: MemoryBank) -> None:
    bank.append([entry(1)], blobs={"counters": b"one"})
    with pytest.raises(InputError, match="must have a name and be bytes"):
        bank.append([entry(2)], blobs={"counters": b"two", "bad": "text"})  # type: ignore[dict-item]
    assert bank.get_blob("counters") == b"one"
    assert list(bank.ids()) == [hex_id(1)]
    assert bank.get_blob("nothing") is None
    assert bank.delete_blob("counters")
    assert bank.blobs() == {}


def test_metadata_is_json(bank: MemoryBank, path: Path) -> None:
    bank.put_meta("settings", {"k": [1, None, "é"]})
    with pytest.raises(InputError, match="JSON"):
        bank.put_meta("bad", {1, 2})
    bank.close()
    with MemoryBank.open(path) as again:
        assert again.meta() == {"settings": {"k": [1, None, "é"]}}
        assert again.get_meta("none", 5) == 5


def test_deleting_leaves_no_bytes_behind(bank: MemoryBank, path: Path) -> None:
    secret = Entry("secret-id", "text", b"the secret payload", source="secret source")
    bank.append([entry(number) for number in range(600)] + [secret])
    bank.append([entry(601, "text", 40)])
    doomed = [hex_id(number) for number in range(100, 400)]
    receipt = bank.delete([*doomed, "secret-id", "unknown"], blobs={"counters": b"-301"})
    assert len(receipt.deleted) == 301 and receipt.missing == ("unknown",) and receipt.exact
    raw = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"the secret payload" not in raw
    assert bytes.fromhex(hex_id(150)) not in raw
    assert entry(150).payload not in raw
    assert entry(50).payload in raw
    assert len(bank) == 301
    bank.close()
    with MemoryBank.open(path) as again:
        kept = [hex_id(n) for n in range(600) if not 100 <= n < 400] + [hex_id(601)]
        assert sorted(again.ids()) == sorted(kept)
        assert again.get(hex_id(450)) == entry(450)
        assert again.get_blob("counters") == b"-301"
        assert again.append([entry(150)]).stored == 1
        assert again.verify().ok


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "delete", "reopen"]),
        st.lists(st.integers(0, 60), max_size=12),
        st.sampled_from(["codes", "text"]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(actions=ACTIONS)
def test_a_bank_behaves_like_a_dict(actions: list[tuple[str, list[int], str]]) -> None:
    def make(number: int, level: str) -> Entry:
        id = hex_id(number) if number % 3 else f"doc#{number}"
        meta = {"n": number} if number % 4 == 0 else {}
        return Entry(id, level, bytes([number]) * (number % 5 * 900), metadata=meta)

    model: dict[str, tuple[Entry, int]] = {}
    with new_folder() as folder:
        bank = MemoryBank.create(folder / "b", PRINT)
        for action, numbers, level in actions:
            items = [make(number, level) for number in numbers]
            if action == "append":
                bank.append(items)
                for item in items:
                    first, count = model.get(item.id, (item, 0))
                    model[item.id] = first, count + 1
            elif action == "delete":
                present = {item.id for item in items} & model.keys()
                assert len(bank.delete(item.id for item in items).deleted) == len(present)
                model = {id: kept for id, kept in model.items() if id not in present}
            else:
                bank.close()
                bank = MemoryBank.open(folder / "b", expect=PRINT)
        with bank:
            assert len(bank) == len(model)
            assert {i.id: (i, bank.count(i.id)) for i in bank.entries()} == model
            assert bank.verify().ok


# ----------------------------------------------------------------------- size and reporting


def test_the_footprint_sums_to_the_file(bank: MemoryBank, path: Path) -> None:
    bank.append(
        [entry(number, source="s", key=b"k" * 16) for number in range(3000)],
        blobs={"codebook": os.urandom(20_000)},
    )
    found = bank.footprint()
    assert (found.codes, found.codebook, found.keys) == (3000 * 14, 20_000, 3000 * 16)
    assert found.ledger > 3000 * 8
    parts = found.codes + found.codebook + found.keys + found.ledger + found.overhead
    assert parts + found.index == found.total == path.stat().st_size
    bank.close()
    assert path.stat().st_size == found.total
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(InputError, match="sum to 5"):
        Footprint(1, 1, 1, 1, 1, total=6)


def test_small_documents_cost_little_more_than_their_codes(bank: MemoryBank) -> None:
    for first in range(0, 6400, 64):
        bank.append([entry(number) for number in range(first, first + 64)])
    assert (bank.footprint().total - 14 * 6400) / 6400 < 12


def test_a_budget_refuses_what_does_not_fit(path: Path) -> None:
    with MemoryBank.create(path, PRINT, budget_bytes=100_000) as bank:
        assert bank.budget_bytes == 100_000
        stored = 0
        with pytest.raises(BankError, match="more than the budget of 100000 allows"):
            while True:
                bank.append([entry(number, size=64) for number in range(stored, stored + 50)])
                stored += 50
        assert len(bank) == stored > 500  # the journal has its share
        with pytest.raises(BankError, match="budget"):
            bank.put_blob("codebook", bytes(100_000))
        assert bank.footprint().total <= 100_000
        assert bank.verify().ok
    assert path.stat().st_size <= 100_000
    with pytest.raises(InputError, match="at least"):
        MemoryBank.create(path.with_name("tiny"), PRINT, budget_bytes=100)
    assert not path.with_name("tiny").exists()


def test_a_bank_in_memory() -> None:
    with MemoryBank.create(":memory:", PRINT, meta={"a": 1}) as bank:
        bank.append([entry(1)], blobs={"b": b"1"})
        assert bank.get(hex_id(1)) == entry(1)
        assert bank.footprint().codes == 14
        assert bank.verify().ok
        assert bank.fingerprint == PRINT
        assert bank.get_meta("a") == 1


# --------------------------------------------------------------------------- what is refused


def test_another_fingerprint_is_refused_with_both_names(bank: MemoryBank, path: Path) -> None:
    bank.close()
    other = BankFingerprint("mbc", "adapter:2", PRINT.backbone, PRINT.tokenizer)
    with pytest.raises(FingerprintError) as caught:
        MemoryBank.open(path, expect=other)
    assert "'adapter:1'" in str(caught.value)
    assert "'adapter:2'" in str(caught.value)
    with MemoryBank.open(path) as again:
        assert again.fingerprint == PRINT


def test_what_is_not_a_bank_is_refused(bank: MemoryBank, path: Path, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="exists already"):
        MemoryBank.create(path, PRINT)
    with pytest.raises(BankError, match="does not exist"):
        MemoryBank.create(tmp_path / "no" / "bank", PRINT)
    bank.close()
    with pytest.raises(BankError, match="closed"):
        bank.append([entry(1)])
    with pytest.raises(BankError, match="no bank at"):
        MemoryBank.open(tmp_path / "nothing")
    for name, data in {
        "empty": b"",
        "text": b"hello" * 100,
        "short": path.read_bytes()[:60],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BankError, match=r"not a.* bank|damaged"):
            MemoryBank.open(tmp_path / name)
    with pytest.raises(BankError):
        MemoryBank.open(tmp_path)
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(BankError, match="another program"):
        MemoryBank.open(tmp_path / "other")


def altered(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


def test_newer_and_tampered_banks_are_refused(bank: MemoryBank, path: Path) -> None:
    bank.close()
    altered(path, "CREATE TRIGGER t AFTER INSERT ON pages BEGIN DELETE FROM pages; END")
    with pytest.raises(BankError, match="tables are not those of a bank"):
        MemoryBank.open(path)
    altered(path, "DROP TRIGGER t", "PRAGMA user_version=99")
    with pytest.raises(BankError, match=r"format 99; .* Upgrade"):
        MemoryBank.open(path)


def test_a_read_only_bank_refuses_writes(bank: MemoryBank, path: Path) -> None:
    bank.append([entry(1)])
    bank.close()
    before = path.read_bytes()
    with MemoryBank.open(path, read_only=True) as again:
        for write in (
            lambda: again.append([entry(2)]),
            lambda: again.delete([hex_id(1)]),
            lambda: again.put_blob("a", b""),
        ):
            with pytest.raises(BankError, match="opened read-only"):
                write()
        assert again.footprint().total == len(before)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_bank_as_it_was(bank: MemoryBank) -> None:
    bank.append([entry(number) for number in range(100)], blobs={"counters": b"100"})
    connection = bank.session.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 20}")
    with pytest.raises(BankError, match="disk full"):
        bank.append([entry(n, size=64) for n in range(1000, 9000)], blobs={"counters": b"8100"})
    assert len(bank) == len(list(bank.ids())) == 100
    assert bank.get_blob("counters") == b"100"
    assert bank.append([entry(200)]).stored == 1
    assert bank.verify().ok


def test_a_locked_bank_says_so_and_readers_go_on(bank: MemoryBank, path: Path) -> None:
    bank.append([entry(1)])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with MemoryBank.open(path, timeout_seconds=0.05) as second:
        with pytest.raises(BankError, match="another process is writing"):
            second.append([entry(2)])
        assert second.get(hex_id(1)) == entry(1)
        writer.execute("ROLLBACK")
        writer.close()
        assert second.append([entry(2)]).stored == 1
        assert bank.get(hex_id(2)) == entry(2)  # the first one sees what the second one wrote
        assert bank.append([entry(2), entry(3)]).duplicates == 1
        assert second.count(hex_id(2)) == 2
        assert len(second) == 3


def test_threads_share_a_bank(bank: MemoryBank) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 50):
            bank.append([entry(number)])
            assert bank.get(hex_id(number)) == entry(number)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bank) == 150
    assert bank.verify().ok


# -------------------------------------------------------------------------- damage and crashes


def test_a_flipped_bit_is_named(bank: MemoryBank, path: Path) -> None:
    bank.append([entry(number) for number in range(600)], blobs={"codebook": b"w" * 3000})
    assert bank.verify().ok
    bank.close()
    raw = bytearray(path.read_bytes())
    at = raw.index(entry(300).payload)
    raw[at + 3] ^= 4
    raw[raw.index(b"w" * 100)] ^= 1
    path.write_bytes(raw)
    with MemoryBank.open(path) as again:
        report = again.verify()
        assert not report.ok
        assert report.documents == 600 - 256
        assert report.damaged_ids == tuple(hex_id(number) for number in range(256, 512))
        page, blob = report.damage
        assert "Page 2" in page
        assert hex_id(300) in page
        assert "blob 'codebook'" in blob
        assert again.get(hex_id(10)) == entry(10)
        with pytest.raises(BankError, match="Page 2 of the bank is damaged"):
            again.get(hex_id(300))
        with pytest.raises(BankError, match="checksum of blob 'codebook'"):
            again.get_blob("codebook")


def test_any_flipped_byte_gives_the_truth_or_a_bank_error(bank: MemoryBank, path: Path) -> None:
    entries = [entry(n, time="2024", metadata={"n": n}) for n in range(60)]
    bank.append(entries, blobs={"codebook": b"w" * 300})
    bank.close()
    good = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for at in [*range(100), *random.integers(100, len(good), 200).tolist()]:
        raw = bytearray(good)
        raw[at] ^= 1 << int(random.integers(8))
        path.write_bytes(raw)
        try:
            with MemoryBank.open(path) as again:
                found, sound = list(again.entries()), again.verify().ok
                again.get_blob("codebook")
        except BankError:
            refused += 1
            continue
        assert found == entries or not sound
    assert refused > 70


def test_a_schema_that_is_no_text_is_a_bank_error(bank: MemoryBank, path: Path) -> None:
    bank.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE items", b"CREATE\xffTABLE items"))
    with pytest.raises(BankError, match="damaged"):
        MemoryBank.open(path)


WRITER = """
import sys
from hashlib import blake2b
from latentbank.bank import Entry, MemoryBank

bank = MemoryBank.open(sys.argv[1])
number = int(sys.argv[2])
while True:
    batch = [
        Entry(blake2b(str(n).encode(), digest_size=8).hexdigest(), "codes", bytes([n % 251]) * 300)
        for n in range(number, number + 20)
    ]
    bank.append(batch, blobs={"counters": str(number + 20).encode()})
    number += 20
    if number % 100 == 0:
        bank.delete([batch[0].id])
    print(number, flush=True)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_killed_writer_loses_nothing_acknowledged(
    bank: MemoryBank, path: Path, sign: signal.Signals
) -> None:
    bank.close()
    random = np.random.default_rng(sign)
    number = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())
        timer = threading.Timer(float(random.uniform(0, 0.3)), writer.send_signal, [sign])
        timer.start()
        for line in writer.stdout:
            acknowledged = int(line) if line.endswith(b"\n") else acknowledged
        writer.wait(30)
        timer.join()
        assert acknowledged > number
        with MemoryBank.open(path) as again:
            reached = int(again.get_blob("counters") or b"0")
            assert reached in (acknowledged, acknowledged + 20)
            expected = {n for n in range(reached) if n % 100 != 80}
            undecided = {n for n in range(acknowledged, reached) if n % 100 == 80}
            found = {item.id: item.payload for item in again.entries()}
            certain = {hex_id(n): bytes([n % 251]) * 300 for n in expected}
            assert found.items() >= certain.items()
            assert found.keys() - certain.keys() <= {hex_id(n) for n in undecided}
            again.delete(hex_id(n) for n in undecided)
            assert again.verify().ok
            assert json.dumps(again.meta()) == "{}"
        number = reached


def test_a_new_bank_is_seen_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentbank.bank.store import opening

    path, written = tmp_path / "new.bank", opening._write_first_rows

    def killed(*arguments: object) -> None:
        assert not path.exists(), "nobody sees a file without settings"
        written(*arguments)  # type: ignore[arg-type]
        assert not path.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "_write_first_rows", killed)
    for budget in (None, 60_000, 1 << 20):
        with pytest.raises(KeyboardInterrupt):
            MemoryBank.create(path, PRINT, budget=budget)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with MemoryBank.create(path, PRINT, budget=60_000) as bank:
        assert bank.settings.budget_bytes == 60_000 and bank.fingerprint == PRINT
