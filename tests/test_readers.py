"""Readers: every format, one clear sentence per bad input, nothing else lost."""

import gzip
import io
import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from latentbank.documents.document import Document
from latentbank.documents.readers import Note, ReadOptions, read_documents, read_hf_dataset
from latentbank.errors import InputError


def read(*paths: object, **options: Any) -> list[Document]:
    return list(read_documents([str(path) for path in paths], options=ReadOptions(**options)))


def read_on(path: Path, **options: Any) -> tuple[list[Document], list[str], list[Note]]:
    """Documents, sentences and notes of a path; nothing may be raised."""
    errors: list[str] = []
    notes: list[Note] = []
    found = read_documents(
        [path], lambda error: errors.append(str(error)), ReadOptions(**options), notes.append
    )
    return list(found), errors, notes


def test_text_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "z.txt").write_text("last")
    (tmp_path / "b" / "a.md").write_bytes(b"\xef\xbb\xbf# Title\n\nText")
    (tmp_path / "b" / "rows.JSONL").write_text('{"text": "row"}\n')
    (tmp_path / "b" / "image.png").write_bytes(b"\x89PNG\0")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / ".git" / "config.txt").write_text("no")
    documents = read(tmp_path)
    assert [document.text for document in documents] == ["# Title\n\nText", "row", "last"]
    assert documents[2].source == str(tmp_path / "z.txt")


def test_jsonl_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": "one", "id": 7, "time": "2024-05-01", "source": "wire", "lang": "en", "n": 3},
        {"text": "two", "metadata": {"a": [1]}, "id": None},
    ]
    path.write_text("\n".join([json.dumps(rows[0]), "", json.dumps(rows[1])]))
    first, second = read(path)
    assert first == Document("one", "7", "2024-05-01", "wire", {"lang": "en", "n": 3})
    assert second == Document("two", None, None, str(path), {"a": [1]})


def test_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    long = "x" * 200_000
    path.write_text(f'id,text,time,topic\n1,"two\nlines, one field",2024,a\n,{long},,\n')
    first, second = read(path)
    assert first == Document("two\nlines, one field", "1", "2024", str(path), {"topic": "a"})
    assert second == Document(long, None, None, str(path))


def test_parquet_rows(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["one", "two"], "id": ["a", None], "n": [1, 2]}), path)
    assert read(path) == [
        Document("one", "a", None, str(path), {"n": 1}),
        Document("two", None, None, str(path), {"n": 2}),
    ]
    path.write_bytes(b"PAR1 and then nonsense")
    with pytest.raises(InputError, match=r"rows\.parquet is not a readable parquet file"):
        read(path)
    pq.write_table(pa.table({"story": ["one"]}), path)
    with pytest.raises(InputError, match="row 1: the row has no text; its fields are: story"):
        read(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'{"text": "row", "id": "r"}\n\nplain line\n{"text": '
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    documents = read_documents(["-"])
    assert next(documents) == Document("row", "r")
    assert next(documents) == Document("plain line")
    with pytest.raises(InputError, match="standard input, line 4: not a JSON row"):
        next(documents)


def test_hugging_face_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"body": ["one", "two"], "text": ["x", "y"], "id": ["a", "b"]}
    datasets.DatasetDict({"val": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "d")
    name = str(tmp_path / "d")
    found = list(read_hf_dataset(name, split="val", text_column="body"))
    assert found[1] == Document("two", "b", metadata={"text": "y"})
    with pytest.raises(InputError, match="no split 'train'"):
        list(read_hf_dataset(name, text_column="body"))
    with pytest.raises(InputError, match="no column 'story'; its columns are body, text, id"):
        list(read_hf_dataset(name, split="val", text_column="story"))


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.txt", b"", r"a\.txt: .*empty"),
        ("a.txt", b"ok\nbin\0ary", r"a\.txt: the file is binary .* offset 6"),
        ("a.txt", "ok é\nà ".encode() + b"caf\xe9", r"line 2: byte 0xe9 at offset 12 is not UTF-8"),
        ("a.md", "hé".encode("utf-16")[:-1], r"a\.md: the file is not valid UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}', r"line 2: byte 0xe9 at offset 27"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', r"a\.jsonl, line 2: not a JSON row"),
        ("a.jsonl", b'{"text": "a"}\n{"story": 1}', r"line 2: the row has no text.*: story"),
        ("a.jsonl", b'{"text": ["a"]}', r"line 1: .* must be a string, got list"),
        ("a.jsonl", b'{"text": "  "}', r"line 1: .*empty"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"line 1: .*surrogate"),
        ("a.jsonl", b"[1]", r"line 1: expected a JSON object"),
        ("a.jsonl", b"[" * 100_000, r"line 1: not a JSON row"),
        ("a.jsonl", b'{"text": "a", "metadata": 3}', r"line 1: metadata must be an object"),
        ("a.csv", b"story\nhello\n", r"a\.csv, line 1: the row has no text; .*--text-column"),
        ("a.csv", b"text,id\n,7\n", r"a\.csv, line 2: the row has no text; its fields are: id"),
        ("a.jsonl", b'{"id": 1, "Body": null}', r"line 1: the row has no text; its field 'Body'"),
        ("a.csv", b'text\n"a" b\n', r"a\.csv, line 2: not CSV"),
        ("a.csv", b"text\na,b\n", r"a\.csv, line 2: the row has more fields"),
        ("a.exe", b"MZ", r"suffix \.exe; readable are \.csv"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=sentence) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_missing_paths_are_found_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    documents = read_documents([tmp_path / "a.txt", tmp_path / "nowhere.txt"])
    with pytest.raises(InputError, match=r"nowhere\.txt does not exist"):
        next(documents)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file to read"):
        read(tmp_path / "empty")
    with pytest.raises(InputError, match="expects a list"):
        next(read_documents("a.txt"))


def test_reading_goes_on_behind_what_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n\xff\n{"text"\n[1]\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_bytes(b"bin\0ary")
    (tmp_path / "c.csv").write_text("text\nthree\nfour,4\nfive\n")
    (tmp_path / "d.csv").write_text('text\nsix\n"a" b\nlost\n')
    stream = io.TextIOWrapper(io.BytesIO(b"seven\n{}\n\xff\neight\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    errors: list[InputError] = []
    found = read_documents([tmp_path / "none.txt", tmp_path, "-"], errors.append)
    expected = ["one", "two", "three", "five", "six", "lost", "seven", "eight"]
    assert [document.text for document in found] == expected
    places = [
        "none.txt", "a.jsonl, line 2", "a.jsonl, line 3", "a.jsonl, line 4", "b.txt",
        "c.csv, line 3", "d.csv, line 3", "standard input, line 2", "standard input, line 3",
    ]  # fmt: skip
    assert len(errors) == len(places)
    for place, error in zip(places, errors, strict=True):
        assert place in str(error)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("fine")

    def refuse(self: Path, *_: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.txt cannot be read: Permission denied"):
        read(tmp_path / "a.txt")


# ------------------------------------------------------------------------------ whole files


def test_a_file_is_its_own_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    Path("notes/a.md").write_text("The bus leaves at nine.")
    (before,) = read("notes")
    Path("notes/a.md").write_text("The bus leaves at ten.")
    (after,) = read("./notes/a.md")
    assert before.id == after.id == "notes/a.md"
    assert before.version != after.version


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(name, "w") as file:
        file.write("coffee")
    (document,) = read(tmp_path)
    assert document.source is not None and document.source.endswith("caf\ufffd.txt")


def test_html_becomes_text(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!DOCTYPE html><html><head><title>Ferries &amp; boats</title><style>p {}</style>"
        "<script>if (a < b) { alert('no') }</script></head><body><!-- no --><h1>Times</h1>"
        "<p>The <b>first</b>\n   ferry leaves\n at 6.<br>The last at 22.</p>"
        "<table><tr><th>Day</th><td>Sunday</td></tr><tr><th>Fare</th><td>4&nbsp;&euro;</td></tr>"
        "</table><ul><li>one<li>two</ul><pre>a\n  b</pre></body></html>"
    )
    (document,) = read(path)
    assert document.text == (
        "Ferries & boats\n\nTimes\n\nThe first ferry leaves at 6.\nThe last at 22.\n\n"
        "Day\tSunday\nFare\t4\u00a0€\none\ntwo\na\n  b"
    )


def test_html_says_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    page = '<meta charset="{}"><p>Привет, мир</p>'
    path.write_bytes(page.format("windows-1251").encode("cp1251"))
    documents, errors, notes = read_on(path)
    assert [d.text for d in documents] == ["Привет, мир"] and not errors
    assert str(notes[0]) == f"{path}: read as Windows-1251"
    path.write_bytes(page.format("ascii").encode())  # says what it is not
    assert read(path)[0].text == "Привет, мир"


@pytest.mark.parametrize("markup", ["<![foo", "<![if x]>a", "<!", "<a <b", "</", "&#x110000;", "<"])
def test_broken_html_is_read_or_refused(tmp_path: Path, markup: str) -> None:
    (tmp_path / "page.html").write_text(f"<p>text {markup}")
    documents, errors, _ = read_on(tmp_path / "page.html")
    assert len(documents) + len(errors) == 1


@pytest.mark.parametrize(
    ("codec", "label", "text"),
    [
        ("cp1252", "Windows-1252", "The naïve café serves “crème brûlée” – for 4 €."),
        ("cp1252", "Windows-1252", "Le château est très beau, l'été à Orléans est déjà là."),
        ("cp1252", "Windows-1252", "Müller grüßt aus Köln"),
        ("cp1252", "Windows-1252", "café"),
        ("cp1250", "Windows-1250", "Zażółć gęślą jaźń, powiedział wczoraj mój przyjaciel"),
        ("cp1251", "Windows-1251", "Привет, как дела сегодня у вас в городе"),
        ("cp932", "Shift JIS", "これは日本語のテキストです。東京"),
        ("gb18030", "GB 18030", "这是中文文本，北京"),
        ("utf-16", "UTF-16", "The naïve café"),
        ("utf-32", "UTF-32", "The naïve café"),
        ("utf-16-le", "UTF-16", "The naïve café"),
        ("utf-32-be", "UTF-32", "The naïve café"),
    ],
)
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_encodings_are_told_and_said(
    tmp_path: Path, codec: str, label: str, text: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes((text if suffix == "txt" else f'id,text\n1,"{text}"\n').encode(codec))
    documents, errors, notes = read_on(path)
    assert [document.text for document in documents] == [text] and not errors
    assert [str(note) for note in notes] == [f"{path}: read as {label}"]


def test_an_encoding_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Привет".encode("koi8-r"))
    assert read(tmp_path / "a.txt", encoding="koi8-r")[0].text == "Привет"
    with pytest.raises(InputError, match="name of an encoding such as utf-8 or cp1252, got 'utf9'"):
        read(tmp_path / "a.txt", encoding="utf9")
    with pytest.raises(InputError, match="got 'hex'"):
        read(tmp_path / "a.txt", encoding="hex")


def test_an_encoding_is_told_behind_a_megabyte_of_ascii(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    plain = b"plain words " * 100 + b"\n"
    path.write_bytes(b"text\n" + plain * 1000 + "café au lait\n".encode("cp1252"))
    documents, errors, _ = read_on(path)
    assert len(documents) == 1001 and documents[-1].text == "café au lait" and not errors


# -------------------------------------------------------------------------- delimited text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    path = tmp_path / "a.csv"
    rows = [
        ["ID", "Text", "Topic"],
        ["1", f'"Peas, beans; or | corn{delimiter} {end}and ""salt"""', "food"],
        ["2", "A plain text without signs", "none"],
    ]
    path.write_bytes((mark + end.join(delimiter.join(row) for row in rows)).encode())
    first, second = read(path)
    assert first.text == f'Peas, beans; or | corn{delimiter} {end}and "salt"'
    assert (first.id, first.metadata) == ("1", {"Topic": "food"})
    assert second == Document("A plain text without signs", "2", None, str(path), {"Topic": "none"})


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("text", ","),
        ("id;text", ";"),
        ("id\ttext\ttime", "\t"),
        ("text,id", ","),
        ('"id";"text"', ";"),
    ],
)
def test_a_delimiter_is_told_by_the_header(tmp_path: Path, header: str, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n")
    assert read(tmp_path / "a.csv") == []
    values = {"id": "7", "text": "Yes", "time": "2024"}
    names = header.replace('"', "").split(delimiter)
    row = delimiter.join(values[name] for name in names)
    (tmp_path / "a.csv").write_text(f"{header}\n{row}\n")
    (document,) = read(tmp_path / "a.csv")
    assert document.text == "Yes"
    assert document.id == ("7" if "id" in names else Document("Yes").id)


@pytest.mark.parametrize("name", ["Text", "TEXT", "content", "Page_Content", "body", " text "])
def test_names_of_the_text(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,{name}\n1,hello\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, name: "hello"}))
    assert read(tmp_path) == [
        Document("hello", "1", source=str(tmp_path / "a.csv")),
        Document("hello", "1", source=str(tmp_path / "a.jsonl")),
    ]


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("nr;Inhalt;Datum;Quelle\n7;Der Bus kommt;31/12/2023;Zeitung\n")
    columns = {
        "text_column": "inhalt", "id_column": "nr", "time_column": "datum",
        "source_column": "quelle",
    }  # fmt: skip
    assert read(path, **columns) == [Document("Der Bus kommt", "7", "2023-12-31", "Zeitung")]
    with pytest.raises(InputError, match="no column 'Nummer' for the id; the columns are: Datum"):
        read(path, text_column="Inhalt", id_column="Nummer")
    with pytest.raises(InputError, match="the row has no Text; its fields are: Datum"):
        read(path, text_column="Text")


def test_an_open_quotation_mark_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,one\n2,"two\n3,three\n4,"four"\n5,"fi"ve\n6,six\n7,"seven\n8,x\n')
    documents, errors, _ = read_on(path)
    assert [document.id for document in documents] == ["1", "3", "4", "6", "8"]
    assert [error.split(": ")[0] for error in errors] == [f"{path}, line {n}" for n in (3, 6, 8)]


# ------------------------------------------------------------------------- values and times


def test_a_bad_row_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows: list[dict[str, object]] = [
        {"id": 1, "text": "one"},
        {"id": 2, "text": "half an emoji \ud83d"},
        {"id": 3, "text": None},
        {"id": 4, "text": "four", "k": "\ude00"},
        {"id": 5, "text": "five", "big": "x" * 100_000},
        {"id": 6, "text": "six", "time": "01/02/2024"},
        {"id": 7, "text": "seven", "time": 1714608000},
        {"id": True, "text": "eight"},
        {"id": 9, "text": "nine", "nan": float("nan"), "inf": float("inf")},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    documents, errors, _ = read_on(path)
    assert [document.id for document in documents] == ["1", "7", "9"]
    assert documents[2].metadata == {"inf": "inf"}
    expected = ["surrogate", "no text", "surrogate", "61440 bytes", "day or the month", "a string"]
    for line, (what, error) in zip(
        (2, 3, 4, 5, 6, 8), zip(expected, errors, strict=True), strict=True
    ):
        assert error.startswith(f"{path}, line {line}: ") and what in error
    assert [d.id for d in read_on(path, dayfirst=True)[0]] == ["1", "6", "7", "9"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_times_are_instants(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    times = ["1969-07-20", "1714608000", "2024-05-01T23:30:00-05:00", "1:56 pm on 8 May 2023"]
    if name == "a.csv":
        path.write_text("text,time\n" + "".join(f"t{i},{time}\n" for i, time in enumerate(times)))
    else:
        rows = [{"text": f"t{i}", "time": time} for i, time in enumerate(times)]
        path.write_text("\n".join(map(json.dumps, rows)))
    assert [document.time for document in read(path)] == [
        "1969-07-20", "2024-05-02T00:00:00+00:00", "2024-05-02T04:30:00+00:00",
        "2023-05-08T13:56+00:00",
    ]  # fmt: skip


def test_parquet_values(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    day = date(2024, 5, 1)
    columns = {
        "Content": pa.array(["one", None, "three"]),
        "time": pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC)] * 3),
        "price": pa.array([Decimal("1.50")] * 3),
        "day": pa.array([day, None, day]),
        "took": pa.array([timedelta(seconds=90)] * 3),
        "image": pa.array([b"\x89PNG\xff"] * 3),
        "name": pa.array([b"Ada"] * 3),
        "tags": pa.array([["a", "b"], [], None]),
        "size": pa.array([{"w": Decimal("2"), "h": None}] * 3),
        "far": pa.array([2**60] * 3, pa.timestamp("us")),
        "nan": pa.array([float("nan")] * 3),
    }
    pq.write_table(pa.table(columns), path)
    documents, errors, notes = read_on(path)
    assert [document.text for document in documents] == ["one", "three"]
    assert len(errors) == 1 and errors[0].startswith(f"{path}, row 2: the row has no text")
    assert documents[0].time == "2024-05-01T12:00:00+00:00"
    assert documents[0].metadata == {
        "price": "1.50", "day": "2024-05-01", "took": "0:01:30", "name": "Ada", "tags": ["a", "b"],
        "size": {"w": "2"},
    }  # fmt: skip
    assert {note.text for note in notes} == {
        "column 'image' is binary and left out", "column 'far' is binary and left out"
    }  # fmt: skip


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value, texts in (
        ([{"text": "one"}, "two", {"body": "three"}], ["one", "two", "three"]),
        ({"text": "alone", "tags": [{"a": 1}]}, ["alone"]),
        ({"version": 2, "data": [{"text": "inner"}]}, ["inner"]),
    ):
        path.write_text(json.dumps(value))
        assert [document.text for document in read(path)] == texts
    path.write_text('{"text": "line one"}\n{"text": "line two"}\n')
    assert [document.text for document in read(path)] == ["line one", "line two"]
    path.write_text('[{"text": "one"}, 7, {"text": null}, {"text": "four"}]')
    documents, errors, _ = read_on(path)
    assert [document.text for document in documents] == ["one", "four"]
    assert [error.split(":")[0] for error in errors] == [f"{path}, item 2", f"{path}, item 3"]
    path.write_text('{"text": "x",\n oops}')
    with pytest.raises(InputError, match="line 2: not JSON"):
        read(path)


# --------------------------------------------------------------------- folders and packing


def test_packed_files(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["from parquet"]}), table)
    for name, data in (
        ("a.txt.gz", b"from text"),
        ("b.csv.gz", b"text\nfrom csv\n"),
        ("c.jsonl.gz", b'{"text": "from jsonl"}\n'),
        ("d.parquet.gz", table.getvalue()),
    ):
        (tmp_path / name).write_bytes(gzip.compress(data))
    (tmp_path / "e.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(os.urandom(99_999))[:-9_999])
    documents, errors, _ = read_on(tmp_path)
    texts = ["from text", "from csv", "from jsonl", "from parquet"]
    assert [document.text for document in documents] == texts
    assert any("e.txt.gz cannot be read" in error for error in errors)
    assert any("f.jsonl.gz is not a readable gzip file" in error for error in errors)


def test_a_folder_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name, data in (
        ("README", b"Read me."), ("a.rst", b"Title\n=====\n"), ("sub/b.tsv", b"text\tid\nx\t1\n"),
        ("c.png", b"\x89PNG"), ("program", b"\x7fELF\0\0"), ("nothing", b""), (".hid.txt", b"no"),
        (".git/x.txt", b"no"), ("d.tar.gz", b"no"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.txt")
    documents, errors, notes = read_on(tmp_path)
    assert [document.text for document in documents] == ["Read me.", "Title\n=====\n", "x"]
    assert not errors
    assert {(Path(note.path).name, note.text) for note in notes} == {
        (".git", "skipped, a hidden folder"),
        (".hid.txt", "skipped, a hidden file"),
        ("c.png", "skipped, the suffix .png is not read"),
        ("d.tar.gz", "skipped, the suffix .gz is not read"),
        ("nothing", "skipped, an empty file"),
        ("pipe.txt", "skipped, not a regular file"),
        ("program", "skipped, a binary file without suffix"),
    }


def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("not asked for")
    with pytest.raises(InputError, match="A path is empty; is a variable unset"):
        read("")
    assert [document.text for document in read(".")] == ["not asked for"]
    with pytest.raises(InputError, match="does not exist"):
        read("a\0b")


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    assert read(f"/dev/fd/{reading}")[0].text == "through a pipe"
    os.close(reading)
