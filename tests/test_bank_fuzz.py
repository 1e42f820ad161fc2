"""Malicious banks: whatever the bytes, the answer is the truth, damage named, or one BankError."""

import dataclasses
import json
import random
import resource
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.rows import bank_rows
from latentbank.bank.store.facts import Facts
from latentbank.bank.store.file import open_bytes
from latentbank.bank.store.items import item_hash
from latentbank.bank.store.pages import COLUMNS, Page
from latentbank.bank.store.session import Session
from latentbank.bank.store.tombstones import pack_tombstones
from latentbank.documents.conditions import conditions_of
from latentbank.errors import BankError, InputError, LatentbankError
from long_record import keep

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")
TRICKS = [
    "'; DROP TABLE pages; --", "../../../etc/passwd", "/dev/zero", "a\0b", "\\..\\x", "%s%n%x",
    "file:///etc/passwd?mode=rw", "$(touch /tmp/x)", "🐍" * 20, "x" * 9_000, "-rf", "'\"`",
]  # fmt: skip
SECONDS = 20.0  # of processor time that no single case of the long run exceeds


def sample(budget: int | None = None) -> bytes:
    with MemoryBank.create(":memory:", PRINT, budget=budget, meta={"a": {"b": [1]}}) as bank:
        items = [
            Entry(f"{n:016x}", "codes", bytes([n]) * 12, "2024", "wire", {"n": n}, bytes([n]) * 8)
            for n in range(20)
        ]
        bank.append([*items, Entry("long id", "text", b"y" * 1500)], {"codebook": b"w" * 40})
        return bank.session.connection.serialize()


def look(data: bytes, writable: bool) -> str:
    """Everything that a user may do with a bank; the kind of ending."""
    try:
        bank = MemoryBank.from_bytes(data)
        if writable:
            bank.close()
            bank = MemoryBank(Session(open_bytes(data, "fuzzed"), ":memory:", False))
        with bank:
            whole = bank.verify().ok
            for action in actions(bank, writable):
                try:
                    action()
                except LatentbankError:
                    whole = False
        return "whole" if whole else "damaged"
    except BankError:
        return "refused"


def actions(bank: MemoryBank, writable: bool) -> list[Callable[[], Any]]:
    found: list[Callable[[], Any]] = [
        lambda: [bank.get(entry.id) for entry in bank.entries()],
        lambda: list(bank_rows(bank)),
        lambda: [bank.get_blob(name) for name in bank.blobs()],
        bank.get_state, bank.meta, bank.footprint, bank.root_hash, lambda: bank.count("long id"),
        lambda: bank.select(conditions_of(source="wire")), lambda: bank.fingerprint,
        lambda: len(bank),
    ]  # fmt: skip
    if writable:
        more = [Entry(f"{n:016x}", "codes", b"z" * 40, key=b"k" * 8) for n in range(90, 110)]
        found += [
            lambda: bank.note_hits(["long id", f"{3:016x}"]),
            lambda: bank.append(more, {"codebook": b"v"}, fade=lambda entry: None),
            lambda: bank.delete(["long id", f"{5:016x}", f"{95:016x}"]),
            bank.compact,
            lambda: bank.rebudget(30_000, fade=lambda entry: None),
        ]
    return found


def flip(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed at random: bits, runs, numbers in headers, pieces moved or cut off."""
    raw = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        at = draw.choice([draw.randrange(100), draw.randrange(len(raw)), draw.randrange(len(raw))])
        kind = draw.randrange(6)
        if kind == 0:
            raw[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            raw[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        elif kind == 2:
            number = draw.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16, len(raw)])
            raw[at : at + 4] = number.to_bytes(4, "big")[: len(raw) - at]
        elif kind == 3:
            size = draw.randrange(1, 200)
            raw[at : at + size] = draw.randbytes(len(raw[at : at + size]))
        elif kind == 4:
            start = draw.randrange(len(raw))
            piece = raw[start : start + draw.randrange(1, 600)]
            raw[at : at + len(piece)] = piece
        elif draw.random() < 0.1:
            del raw[max(100, at) :]
    return bytes(raw)


def crafted(data: bytes, draw: random.Random) -> bytes:
    """A sound SQLite file with sound checksums whose values no bank would write."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data)
    for _ in range(draw.choice([1, 1, 3])):
        draw.choice([_bad_page, _bad_page, _bad_item, _bad_facts, _bad_cell])(connection, draw)
    return connection.serialize()


NUMBERS = [0, -1, 1, 2, 255, 256, 257, 65, 2**31, 2**63 - 1, -(2**63)]


def _bytes(draw: random.Random) -> bytes:
    sizes = [0, 1, 4, 7, 8, 160, 168, 5000]
    return draw.choice([draw.randbytes(draw.choice(sizes)), b"\xff" * draw.choice(sizes)])


def _ledger(draw: random.Random, count: int) -> bytes:
    frame = zstandard.ZstdCompressor(level=1, write_content_size=False)
    bomb = b"[" * 100_000 if draw.random() < 0.5 else b'"' + b"a" * 3_000_000 + b'"'
    columns: dict[str, Any] = {
        draw.choice(["id", "time", "source", "metadata", "count", "evil"]): draw.choice(
            [
                [draw.choice(TRICKS)] * count, [{}] * count, [None] * (count + 1), {"a": 1}, None,
                [[1]] * count, [draw.choice(NUMBERS)] * count, [True] * count,
            ]
        )
    }  # fmt: skip
    text = draw.choice([bomb, json.dumps(columns).encode(), b"[]", b"null", b"\xff"])
    magicless = frame.compress(text)[4:]
    return draw.choice([b"\0" + text[:30_000], b"\2" + magicless, b"\1" + magicless, b""])


def _bad_page(connection: sqlite3.Connection, draw: random.Random) -> None:
    row = connection.execute(f"SELECT {COLUMNS} FROM pages ORDER BY random() LIMIT 1").fetchone()
    if row is None:
        return
    page = Page(*row)
    try:
        page.check_types()
        changes: dict[str, Any] = {
            "seq": draw.choice(NUMBERS),
            "level": draw.choice(TRICKS),
            "depth": draw.choice(NUMBERS),
            "count": draw.choice(NUMBERS),
            "ids": draw.choice([_bytes(draw), bytes(row[5] or b"")[:8] * int(row[3] or 0)]),
            "lengths": draw.choice([b"\0", b"\xff" * 9, b"\xff\xff\xff\xff\x7f", b"\x80", b""]),
            "payload": _bytes(draw),
            "keys": _bytes(draw),
            "ledger": _ledger(draw, 20),
        }
        name = draw.choice(list(changes))
        page = dataclasses.replace(page, **{name: changes[name]})
        page = dataclasses.replace(page, hash=page.checksum())
        values = tuple(getattr(page, column) for column in COLUMNS.split(", "))
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT OR REPLACE INTO pages ({COLUMNS}) VALUES ({marks})", values)
    except (TypeError, AttributeError, OverflowError, BankError):  # another change made it no page
        return


def _bad_item(connection: sqlite3.Connection, draw: random.Random) -> None:
    kind = draw.choice(["bank", "bank", "meta", "blob", "state"])
    name = draw.choice(
        ["budget_bytes", "ledger", "policy", "span", "fingerprint", "deleting", "pending", *TRICKS]
    )
    buried = {
        draw.choice([1, 2, 2**32 - 1]): (draw.randbytes(8), frozenset({0, draw.randrange(256)}))
    }
    seq, hash = connection.execute("SELECT seq, hash FROM pages LIMIT 1").fetchone() or (1, b"")
    if isinstance(hash, bytes) and len(hash) >= 8 and isinstance(seq, int) and 0 < seq < 2**32:
        buried[seq] = hash[:8], frozenset(range(draw.randrange(256)))
    data = draw.choice(
        [
            b"0", b"-5", b"1e999", b"NaN", b"true", b'"full"', b'"none"', b"[" * 9999, b"{}", b"",
            b'"age=1e308"', b'"' + b"x" * 9999 + b'"', b"99999999999999999999999", b"2000", b"1",
            pack_tombstones(buried), _bytes(draw), json.dumps(draw.choice(TRICKS)).encode(),
            json.dumps({"method": draw.choice(TRICKS), "adapter": 1}).encode(), b'"ids"', b"1e-300",
        ]
    )  # fmt: skip
    connection.execute(
        "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
        (kind, name, data, item_hash(kind, name, data)),
    )


def _bad_facts(connection: sqlite3.Connection, draw: random.Random) -> None:
    size = draw.choice([1, 20, 21, 256, 300])
    order = draw.choice([0, 5, 2**31 - 1])
    data = draw.choice([Facts.of([(order, 9)] * size).pack(), _bytes(draw)])
    low = draw.choice([None, -1e308, float("inf"), "text", b"blob", 3])
    last = draw.choice([*NUMBERS, None, "x", 1.5])
    seq = draw.choice([1, 2, 3, 77, 2**40])
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", (seq, low, last, data))


def _bad_cell(connection: sqlite3.Connection, draw: random.Random) -> None:
    table, column = draw.choice(
        [("pages", name) for name in COLUMNS.split(", ")[1:]]
        + [("facts", name) for name in ("low", "last", "data")]
        + [("items", name) for name in ("data", "hash")]
    )
    value = draw.choice([None, 1, -1.5, "text", b"bytes", 2**62, draw.choice(TRICKS), b""])
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE random() % 2", (value,))


def fuzz(cases: int, seed: int, seconds: float | None = None) -> dict[str, int]:
    bases = [sample(), sample(60_000), sample(1 << 20)]
    endings = {"whole": 0, "damaged": 0, "refused": 0}
    for case in range(cases):
        draw = random.Random(f"{seed}/{case}")
        base = draw.choice(bases)
        data = flip(base, draw) if draw.random() < 0.5 else crafted(base, draw)
        began = time.process_time()
        try:
            endings[look(data, draw.random() < 0.4)] += 1
        except Exception as error:
            raise AssertionError(f"case {seed}/{case}: {type(error).__name__}: {error}") from error
        busy = time.process_time() - began
        assert seconds is None or busy < seconds, f"case {seed}/{case} hangs"
    return endings


def test_hundreds_of_malicious_banks() -> None:
    endings = fuzz(250, seed=1)
    assert endings["damaged"] > 40 and endings["refused"] > 20, endings


def test_pages_without_a_count_do_not_stop_a_new_budget(tmp_path: Path) -> None:
    path = tmp_path / "damaged.bank"
    path.write_bytes(sample(60_000))
    for count in ("NULL", "'many'", "-3", str(1 << 60), "x'00'"):
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE pages SET count = {count}")
        connection.close()
        with MemoryBank.open(path, PRINT) as bank, suppress(BankError):
            bank.rebudget(90_000, fade=lambda entry: None)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_malicious_banks() -> None:
    began = time.monotonic()
    endings = fuzz(100_000, seed=2, seconds=SECONDS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 2 << 30
    seconds = round(time.monotonic() - began, 1)
    keep("fuzz", cases=sum(endings.values()), seconds=seconds, **endings, crashes=0, hangs=0)


def test_tricks_in_names_are_only_names() -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        entries = [
            Entry(trick, "codes", b"p", source=trick, metadata={trick: trick}) for trick in TRICKS
        ]
        bank.append(entries)
        assert {entry.id: entry for entry in bank.entries()} == {e.id: e for e in entries}
        for trick in TRICKS:
            bank.put_blob(trick, b"b")
            bank.put_meta(trick, trick)
            assert bank.get_blob(trick) == b"b" and bank.get_meta(trick) == trick
            assert trick in bank.select(conditions_of(source=trick))
        assert set(bank.delete(TRICKS).deleted) == set(TRICKS) and bank.verify().ok


def test_methods_refuse_payloads_that_they_never_wrote() -> None:
    """Any payload has a sound checksum if its author wants; methods check for themselves."""
    from latentbank.codec import array_codec
    from latentbank.parts.retrieval.sketch import split_sketch

    draw = np.random.default_rng(0)
    for size in range(0, 40):
        payload = draw.bytes(size)
        for decode in (
            lambda data: array_codec("float32").decode(data, 8),
            lambda data: array_codec("float16").decode(data, 8),
            split_sketch,
        ):
            try:
                decode(payload)
            except (BankError, InputError):
                continue
