"""Documents: content ids, readers of every kind, one clear sentence per bad input, chunking."""

import io
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.documents.document import (
    Document,
    chunk,
    content_id,
    read_documents,
    read_hf_dataset,
)
from latentbank.errors import InputError

TOKEN = re.compile(r"\s?\w{1,6}|[^\w\s]|\s")


def count_tokens(texts: Sequence[str]) -> list[int]:
    """A stand-in for a subword tokenizer: words of up to six letters, with a space before."""
    return [len(TOKEN.findall(text)) for text in texts]


def visible(text: str) -> str:
    return "".join(text.split())


def read(*paths: object) -> list[Document]:
    return list(read_documents([str(path) for path in paths]))


# ------------------------------------------------------------------------------- documents


def test_the_id_is_the_hash_of_the_normalised_text() -> None:
    document = Document("Caf\u00e9\nis open")
    assert re.fullmatch("[0-9a-f]{16}", document.id)
    assert document.id == content_id("  Cafe\u0301\r\nis open\n")
    assert document.id != content_id("Cafe\nis open")
    assert content_id("abc") == "d8bb14d833d59559"  # BLAKE2b-64 of b"abc"
    assert Document("abc", id="mine").id == "mine"


def test_documents_are_frozen_values() -> None:
    first, second = Document("a", metadata={"k": [1]}), Document("a", metadata={"k": [1]})
    assert first == second
    assert len({first, second}) == 1
    with pytest.raises(FrozenInstanceError):
        first.text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": " \n"}, "empty"),
        ({"text": 3}, "must be a string, got int"),
        ({"text": "a\ud800"}, "surrogate at character 1"),
        ({"text": "a", "id": ""}, "1 to 1024 bytes"),
        ({"text": "a", "time": 5}, "time must be a string"),
        ({"text": "a", "metadata": {"k": {1}}}, "must be JSON"),
        ({"text": "a", "metadata": {1: 2}}, "string keys"),
    ],
)
def test_wrong_documents_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Document(**arguments)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- readers


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
    pq.write_table(pa.table({"body": ["one"]}), path)
    with pytest.raises(InputError, match="row 1: the row has no text; its fields are: body"):
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
        ("a.txt", b"ok\ncaf\xe9 au lait", r"a\.txt, line 2: byte 0xe9 at offset 6 is not UTF-8"),
        ("a.md", "hé".encode("utf-16"), r"a\.md.*UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}', r"line 2: byte 0xe9 at offset 27"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', r"a\.jsonl, line 2: not a JSON row"),
        ("a.jsonl", b'{"text": "a"}\n{"body": 1}', r"line 2: the row has no text.*: body"),
        ("a.jsonl", b'{"text": ["a"]}', r"line 1: .* must be a string, got list"),
        ("a.jsonl", b'{"text": "  "}', r"line 1: .*empty"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"line 1: .*surrogate"),
        ("a.jsonl", b"[1]", r"line 1: expected a JSON object"),
        ("a.jsonl", b"[" * 100_000, r"line 1: not a JSON row"),
        ("a.jsonl", b'{"text": "a", "metadata": 3}', r"line 1: metadata must be an object"),
        ("a.csv", b"body\nhello\n", r"a\.csv, line 2: the row has no text"),
        ("a.csv", b'text\n"a" b\n', r"a\.csv, line 2: not CSV"),
        ("a.csv", b"text\na,b\n", r"a\.csv, line 2: the row has more fields"),
        ("a.pdf", b"%PDF", r"suffix \.pdf; readable are \.csv"),
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
    expected = ["one", "two", "three", "five", "six", "seven", "eight"]
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

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"a\.txt cannot be read: Permission denied"):
        read(tmp_path / "a.txt")


# -------------------------------------------------------------------------------- chunking

pieces = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["A sentence. ", "\n\n", "word ", "longword" * 30, " \n \n", "!?", "你好。世界"]
    ),
)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(pieces, max_size=40).map("".join), limit=st.integers(1, 40))
def test_chunks_fit_and_keep_everything(text: str, limit: int) -> None:
    if not text.strip():
        return
    document = Document(text, time="t", source="s", metadata={"k": 1})
    chunks = chunk(document, count_tokens, limit)
    assert max(count_tokens([part.text for part in chunks])) <= limit
    assert visible("".join(part.text for part in chunks)) == visible(text)
    assert all((p.time, p.source, p.metadata) == ("t", "s", {"k": 1}) for p in chunks)
    expected = [f"{document.id}#{i}" for i in range(len(chunks))]
    assert [part.id for part in chunks] == ([document.id] if len(chunks) == 1 else expected)


def test_a_document_that_fits_is_unchanged() -> None:
    document = Document("Short. Text.\n\nTwo paragraphs.")
    assert chunk(document, count_tokens, 100) == [document]


def test_chunks_end_at_the_best_boundary() -> None:
    one, two = "one two three four five.", "six seven eight."
    assert [part.text for part in chunk(Document(f"{one}\n\n{two}"), count_tokens, 7)] == [one, two]
    parts = [part.text for part in chunk(Document(f"{one} {two} {one}"), count_tokens, 7)]
    assert parts == [one, two, one]
    words = chunk(Document("alpha beta gamma delta " * 50), count_tokens, 8)
    assert {word for part in words for word in part.text.split()} == {
        "alpha",
        "beta",
        "gamma",
        "delta",
    }


def test_chunks_are_well_filled() -> None:
    text = " ".join(f"Sentence number {i} has about ten small words in it." for i in range(2000))
    chunks = chunk(Document(text), count_tokens, 128)
    total = count_tokens([text])[0]
    assert len(chunks) < 1.25 * total / 128


@pytest.mark.parametrize(
    "text",
    [
        "word and " * 555_555,
        "x" * 5_000_000,
        "." * 5_000_000,
        "No. Yes! " * 555_555,
        "a" + " " * 5_000_000 + "b",
    ],
    ids=["words", "one word", "dots", "sentences", "spaces"],
)
def test_five_megabytes_in_one_line(text: str) -> None:
    counted = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal counted
        counted += sum(map(len, texts))
        return count_tokens(texts)

    started = time.monotonic()
    chunks = chunk(Document(text), count, 256)
    assert counted < 5 * len(text)  # linear: every character is counted a few times
    assert time.monotonic() - started < 60
    assert visible("".join(part.text for part in chunks)) == visible(text)


def test_impossible_chunk_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"):
        chunk(Document("abc"), count_tokens, 0)
    with pytest.raises(InputError, match="too small: the single character 'a' takes 2 tokens"):
        chunk(Document("abc"), lambda texts: [2 * len(text) for text in texts], 1)
    with pytest.raises(InputError, match="one count per string"):
        chunk(Document("abc"), lambda texts: [], 1)
