"""Readers under fuzz: damage in one row never loses another one, and nothing but the package's
errors comes out.
"""

import csv
import functools
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import own_files
from latentbank.documents.document import Document
from latentbank.documents.readers import read_documents
from long_record import keep

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(FEW, max_examples=2500)

FORMATS = [
    "jsonl", "json", "csv", "tsv", "txt", "html", "parquet", "jsonl.gz", "README", "pdf", "docx",
    "epub", "zip", "eml", "mbox", "srt", "vtt", "md", "py", "js", "c",
]  # fmt: skip
DAMAGE = [
    b"\xff", b"caf\xe9", b"{", b"[1]", b'{"text": null}', b'{"text": "\\ud83d"}', b'{"id": 1}',
    b"null", b'{"text": "x", "time": "01/02/2024"}', b'{"text": "x", "metadata": 3}', b"\0", b"{}",
    b'{"text": ["x"]}', b"[" * 5000, b'{"text": "x", "id": {}}', b"\x80{}",
]  # fmt: skip
BAD_LINES = [
    b'x,"open', b'"a" b,x', b"\xff,x", b"a,b,c,d", b'"', b'"x\ny', b",", b"\0,1", b'9,"a"b"', b"x,",
]  # fmt: skip


def read(path: Path) -> tuple[list[Document], list[str]]:
    errors: list[str] = []
    found = list(read_documents([path], lambda error: errors.append(str(error))))
    return found, errors


def check_any_bytes(folder: Path, name: str, data: bytes) -> None:
    path = folder / (name if name == "README" else f"a.{name}")
    path.write_bytes(data)
    documents, errors = read(path)
    assert all(document.text.strip() for document in documents)
    assert all(str(path) in error for error in errors)


WHOLE = {
    "pdf": own_files.pdf(["One page.", "Another page."], "Title", chapters=[("One", 0)]),
    "docx": own_files.docx([("Heading 1", "Rent"), ("", "870 euros.")], "T", (("a", "b"),)),
    "epub": own_files.epub([("Storm", "The ship."), ("Calm", "The sea.")]),
    "zip": own_files.packed({"a.txt": "text", "b.md": "# A\n\nb", "c.json": "[]"}),
    "eml": own_files.mail("Boiler", "text", "m1", "<p>text</p>", "plan.pdf").as_bytes(),
    "srt": own_files.SRT.encode(),
    "vtt": own_files.VTT.encode(),
    "py": own_files.PYTHON.encode(),
    "js": own_files.JAVASCRIPT.encode(),
    "txt": own_files.WHATSAPP.encode(),
    "json": json.dumps(own_files.CHATGPT).encode(),
}
damages = st.lists(st.tuples(st.floats(0, 0.999), st.integers(-1, 255)), min_size=1, max_size=6)


def check_damaged_file(folder: Path, name: str, damage: list[tuple[float, int]]) -> None:
    """A file with some bytes that are others (0 to 255), or cut off there (-1)."""
    data = bytearray(WHOLE[name])
    for place, byte in damage:
        at = int(place * len(data))
        if byte < 0:
            del data[at:]
        elif data:
            data[at] = byte
    check_any_bytes(folder, name, bytes(data))


def check_damaged_lines(folder: Path, rows: list[bytes | int]) -> None:
    """A line is a good row (a number) or damage."""
    lines = [b'{"id": "n%d", "text": "row"}' % row if isinstance(row, int) else row for row in rows]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, errors = read(folder / "a.jsonl")
    kept = [d.id for d in documents]
    assert kept == [f"n{row}" for row in rows if isinstance(row, int)]
    assert len(errors) == sum(not isinstance(row, int) for row in rows)


def check_damaged_records(folder: Path, rows: list[bytes | int], tail: str) -> None:
    lines = [b'n%d,"a ""row"", quoted"' % row if isinstance(row, int) else row for row in rows]
    (folder / "a.csv").write_bytes(b"id,text\n" + b"\n".join(lines) + tail.encode())
    documents, _ = read(folder / "a.csv")
    kept = [d.id for d in documents if d.text == 'a "row", quoted']
    assert kept == [f"n{row}" for row in rows if isinstance(row, int)]


rows_of = st.lists(st.one_of(st.integers(0, 99), st.sampled_from(DAMAGE)), max_size=12)
records_of = st.lists(st.one_of(st.integers(0, 99), st.sampled_from(BAD_LINES)), max_size=12)
SIGNS = [
    b"text", b"\n", b"\r", b",", b"<p>", b"PAR1", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b",
    b"%PDF-1.7\n", b"PK\x03\x04", b"From x\n", b"Subject: a\n", b"\n\n", b"# head\n", b"---\n",
    b"00:00:01,000 --> 00:00:02,000\n", b"WEBVTT\n\n", b"def f():\n", b"class A {\n", b"}\n",
    b"1/2/24, 9:00 - A: x\n", b"Content-Type: multipart/mixed; boundary=b\n", b"--b\n",
    b'{"messages": [{"role": "user", "content": "x"}]}', b"<h1>",
]  # fmt: skip
some_bytes = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([*DAMAGE, *BAD_LINES, *SIGNS]), max_size=8).map(b"".join),
)


@FEW
@given(st.sampled_from(FORMATS), some_bytes)
def test_any_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    check_any_bytes(tmp_path, name, data)


@FEW
@given(st.sampled_from(sorted(WHOLE)), damages)
def test_damaged_files(tmp_path: Path, name: str, damage: list[tuple[float, int]]) -> None:
    check_damaged_file(tmp_path, name, damage)


@FEW
@given(rows_of)
def test_damaged_lines(tmp_path: Path, rows: list[bytes | int]) -> None:
    check_damaged_lines(tmp_path, rows)


@FEW
@given(records_of, st.sampled_from(["", "\n", "\r\n"]))
def test_damaged_records(tmp_path: Path, rows: list[bytes | int], tail: str) -> None:
    check_damaged_records(tmp_path, rows, tail)


@pytest.mark.long
def test_ten_thousand_files(tmp_path: Path) -> None:
    read_files = 0

    def counted(check: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(check)
        def counting(*values: Any, **named: Any) -> None:
            nonlocal read_files
            check(*values, **named)
            read_files += 1

        return counting

    ends = st.sampled_from(["", "\n"])
    columns = st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"])
    MANY(given(st.sampled_from(FORMATS), some_bytes)(counted(check_any_bytes)))(tmp_path)
    MANY(given(st.sampled_from(sorted(WHOLE)), damages)(counted(check_damaged_file)))(tmp_path)
    MANY(given(rows_of)(counted(check_damaged_lines)))(tmp_path)
    MANY(given(records_of, ends)(counted(check_damaged_records)))(tmp_path)
    MANY(given(tables, *columns)(counted(check_table)))(tmp_path)
    assert read_files >= 12_300, "fewer only where hypothesis has tried everything"
    keep("reader-fuzz", files=read_files, failures=0)


# ---- what was written comes back

# Without what no document may hold, and without white space that a cell's reader takes off.
cells = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
).filter(lambda text: bool(text.strip()))
tables = st.lists(
    st.tuples(cells, st.one_of(cells, cells.map(lambda text: f'{text}\n"{text}",;|\t'))), max_size=8
)


delimiters, ends = st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"])


def check_table(folder: Path, table: list[tuple[str, str]], delimiter: str, end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(["topic", "text"])
    writer.writerows(table)
    (folder / "a.csv").write_bytes(text.getvalue().encode())
    documents, errors = read(folder / "a.csv")
    assert [(d.metadata["topic"], d.text) for d in documents] == table
    assert not errors


@FEW
@given(tables, delimiters, ends)
def test_tables(tmp_path: Path, table: list[tuple[str, str]], delimiter: str, end: str) -> None:
    check_table(tmp_path, table, delimiter, end)


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(["text", "id", "time", "source", "metadata", "k"])


@FEW
@given(st.lists(st.dictionaries(names, values)))
def test_any_json_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    documents, errors = read(path)
    assert len(documents) + len(errors) == len(rows)
    for document in documents:
        json.dumps(dict(document.metadata), allow_nan=False).encode()


cells_of = {
    "text": st.one_of(st.none(), st.text(max_size=8)),
    "price": st.one_of(st.none(), st.decimals(-99, 99, places=2)),
    "day": st.one_of(st.none(), st.dates()),
    "moment": st.one_of(st.none(), st.datetimes()),
    "blob": st.one_of(st.none(), st.binary(max_size=4)),
    "tags": st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=3)),
    "time": st.one_of(st.none(), st.datetimes()),
}


@FEW
@given(st.lists(st.fixed_dictionaries(cells_of), min_size=1, max_size=6))
def test_any_parquet_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    kinds = [("text", pa.string()), ("price", pa.decimal128(6, 2)), ("day", pa.date32()),
             ("moment", pa.timestamp("us")), ("blob", pa.binary()), ("tags", pa.list_(pa.string())),
             ("time", pa.timestamp("us"))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), path)
    documents, errors = read(path)
    good = [row for row in rows if row["text"] and row["text"].strip()]
    assert [document.text for document in documents] == [row["text"] for row in good]
    assert len(errors) == len(rows) - len(good)
    for document, row in zip(documents, good, strict=True):
        price = row["price"]
        assert document.metadata.get("price") == (None if price is None else str(price))
        assert price is None or Decimal(str(document.metadata["price"])) == price
