"""Users' own files: each becomes text with title, headings and time; damage is a sentence."""

from __future__ import annotations

import builtins
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

import own_files
from latentbank.documents.document import Document
from latentbank.documents.readers import Note, ReadOptions, read_documents
from tiny import Backbones
from tiny_cli import make_world, succeed


def read_on(path: Path, **options: Any) -> tuple[list[Document], list[str], list[Note]]:
    errors: list[str] = []
    notes: list[Note] = []
    found = read_documents(
        [path], lambda error: errors.append(str(error)), ReadOptions(**options), notes.append
    )
    return list(found), errors, notes


def put(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def one(path: Path, **options: Any) -> Document:
    """The only document of a file that reads without a remark."""
    documents, errors, notes = read_on(path, **options)
    assert (len(documents), errors, notes) == (1, [], []), (documents, errors, notes)
    return documents[0]


def paths(document: Document) -> list[str]:
    return [" › ".join(section.path) for section in document.outline]


def refused(path: Path) -> str:
    """The one sentence about a file that gives nothing."""
    documents, errors, _ = read_on(path)
    assert not documents and len(errors) == 1, (documents, errors)
    assert errors[0].startswith(str(path)) and errors[0].endswith((".", "'."))
    assert "Traceback" not in errors[0] and "\n" not in errors[0]
    return errors[0]


# ---- documents


def test_pdf(tmp_path: Path) -> None:
    pages = [
        "Intro\nThe audit was led by Nora, a trea-\nsurer of the\nclub.",
        "",
        "Costs\nIt cost 5.",
    ]
    data = own_files.pdf(pages, "Audit 2024", chapters=[("Intro", 0), ("Costs", 2)])
    documents, errors, notes = read_on(put(tmp_path, "a.pdf", data))
    [document] = documents
    assert not errors
    assert document.text.startswith(
        "Audit 2024\n\nIntro\nThe audit was led by Nora, a treasurer of"
    )
    assert document.metadata == {"title": "Audit 2024", "author": "Mara Holt"}
    assert document.time == "2024-05-01T12:00:00+00:00"
    assert [(" › ".join(s.path), s.place) for s in document.outline] == [
        ("Intro", "page 1"), ("Intro", "page 2"), ("Costs", "page 3"),
    ]  # fmt: skip
    assert [note.text for note in notes] == ["without text, perhaps scanned: page 2"]
    assert document.id == str(tmp_path / "a.pdf") and document.source == document.id


def test_word(tmp_path: Path) -> None:
    blocks = [("Title", "Lease"), ("Heading 1", "Rent"), ("", "It is 870 euros."),
              ("Heading 2", "Deposit"), ("", "Two months.")]  # fmt: skip
    table = (("Name", "Keys"), ("Ada", "3"))
    document = one(put(tmp_path, "a.docx", own_files.docx(blocks, "Boathouse", table)))
    assert document.text == (
        "Boathouse\n\nLease\n\nRent\n\nIt is 870 euros.\n\nDeposit\n\nTwo months.\n\n"
        "Name\tKeys\nAda\t3"
    )
    assert document.metadata == {"title": "Boathouse", "author": "Mara Holt"}
    assert document.time is None  # python-docx's template names a day in 2013
    assert paths(document) == ["Lease", "Rent", "Rent › Deposit"]
    assert document.text[document.outline[2].start :].startswith("Deposit")


def test_epub(tmp_path: Path) -> None:
    chapters = [
        ("The Storm", "The ship was called Albatross.\n\nIt sank."),
        ("Calm", "It was calm."),
    ]
    document = one(put(tmp_path, "a.epub", own_files.epub(chapters)))
    assert document.text == (
        "The Lamp\n\nThe Storm\n\nThe ship was called Albatross.\n\nIt sank.\n\nCalm\n\n"
        "It was calm."
    )
    assert document.metadata == {"title": "The Lamp", "author": "Ada Park", "language": "en"}
    assert document.time == "2021-03-01" and paths(document) == ["The Storm", "Calm"]


def test_html(tmp_path: Path) -> None:
    markup = (
        '<html><head><title>Our <b>menu</title><meta property="article:modified_time" '
        'content="2024-05-01"></head><body><h1>Menu</h1>x<svg><title>no</title></svg>'
        "<h2><a><div>Soup</div></a></h2>Lentil.<h2></h2></body></html>"
    )
    document = one(put(tmp_path, "a.html", markup))
    assert document.metadata["title"].startswith("Our") and document.time == "2024-05-01"  # type: ignore[union-attr]
    assert paths(document) == ["Menu", "Menu › Soup"]
    assert document.text[document.outline[1].start :] == "Soup\nLentil."


def test_markdown(tmp_path: Path) -> None:
    text = "---\ntitle: 'Keepers'\ndate: 2024-05-01\ntags: [a]\n---\n\n# One\n\nx\n\n# Two\n"
    document = one(put(tmp_path, "a.md", text))
    assert (document.text, document.time) == (text, "2024-05-01")
    assert document.metadata == {"title": "Keepers"} and paths(document) == ["One", "Two"]
    documents, errors, notes = read_on(put(tmp_path, "b.md", "---\ndate: soon\n---\n# Title\n"))
    assert documents[0].metadata == {"title": "Title"} and not errors
    assert [note.text for note in notes] == ["the date that it names, 'soon', cannot be read"]


# ---- mails


def test_a_mail(tmp_path: Path) -> None:
    mail = own_files.mail("Boiler", "Janek repairs it.", "m1@x", "<p>no</p>", "plan.pdf")
    documents, errors, notes = read_on(put(tmp_path, "a.eml", mail.as_bytes()))
    [document] = documents
    assert document.text == (
        "Boiler\n\nFrom: Mara Holt <mara@example.org>\nTo: Ada Park <ada@example.org>\n\n"
        "Janek repairs it."
    )
    assert (document.id, document.time) == ("m1@x", "2024-05-02T04:30:00+00:00")
    assert document.metadata["title"] == "Boiler"
    assert document.metadata["attachments"] == ["plan.pdf"]
    assert not errors and [note.text for note in notes] == ["the attachment plan.pdf is left out"]
    page = own_files.mail("Menu", "", html="<h1>Soup</h1><p>Lentil &amp; rice.</p>")
    document = one(put(tmp_path, "b.eml", page.as_bytes()))
    assert document.text.endswith("\n\nSoup\n\nLentil & rice.") and document.id.endswith("b.eml")


def test_a_mail_in_a_wrong_encoding(tmp_path: Path) -> None:
    head = b"From: a@b\nSubject: =?utf-8?q?K=C3=A4se?=\nContent-Type: text/plain; charset="
    for name, charset, body in (
        ("a.eml", b"nonsense", "Der Käse ist hier."),
        ("b.eml", b"us-ascii", "Der Käse ist hier."),
        ("c.eml", b"iso-8859-1", "Der Käse ist hier."),
    ):
        data = body.encode("latin-1" if name == "c.eml" else "utf-8")
        document = one(put(tmp_path, name, head + charset + b"\n\n" + data))
        assert document.metadata["title"] == "Käse" and document.text.endswith(body)


def test_a_mailbox(tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    first = own_files.mail("One", "From here on\n\nFrom the sea.", "m1")
    own_files.write_mailbox(path, [first, own_files.mail("Two", "2"), own_files.mail("Three", "3")])
    with path.open("ab") as file:
        file.write(b"\nFrom x\nnot a mail at all\n\nFrom y\nSubject: last\n\nThe end.\n")
    documents, errors, _ = read_on(path)
    assert [document.metadata["title"] for document in documents] == ["One", "Two", "Three", "last"]
    assert documents[0].text.endswith("From here on\n\nFrom the sea.")
    assert documents[0].id == "m1" and documents[1].source == str(path)
    assert errors == [
        f"{path}, mail 4 is not a mail: it has no From, To, Subject, Date or Message-ID."
    ]


# ---- chats


def test_whatsapp(tmp_path: Path) -> None:
    path = put(tmp_path, "WhatsApp Chat with Crew.txt", own_files.WHATSAPP)
    documents, errors, _ = read_on(path)
    assert not errors and [document.time for document in documents] == ["2024-05-13", "2024-05-14"]
    assert documents[0].text == (
        "Crew\n\nMara: The ferry leaves at seven.\nBring the lamp.\nAda: I will.\n"
    )
    assert documents[0].id == f"{path}:Crew:2024-05-13"
    assert [section.place for section in documents[0].outline] == ["10:03", "10:04"]


@pytest.mark.parametrize(
    ("lines", "options", "days"),
    [
        (
            ["[1/2/24, 9:00:01 PM] A: x", "[1/13/24, 9:00:01 AM] B: y"],
            {},
            ["2024-01-02", "2024-01-13"],
        ),
        (
            ["\u200e[01.02.24, 09:00:01] A: x", "[02.02.24, 09:00:01] B: y"],
            {},
            ["2024-02-01", "2024-02-02"],
        ),
        (
            ["1/2/24, 9:00 - A: x", "2/2/24, 9:00 - B: y", "1/3/24, 9:00 - A: z"],
            {},
            ["2024-02-01", "2024-02-02", "2024-03-01"],
        ),
        (["1/2/24, 9:00 - A: x", "1/2/24, 9:01 - B: y"], {"dayfirst": False}, ["2024-01-02"]),
        (["2024/02/01, 9:00 - A: x", "2024/02/01, 9:01 - B: y"], {}, ["2024-02-01"]),
    ],
)
def test_dates_of_a_chat(
    tmp_path: Path, lines: list[str], options: dict[str, Any], days: list[str]
) -> None:
    documents, errors, _ = read_on(put(tmp_path, "_chat.txt", "\n".join(lines)), **options)
    assert not errors and [document.time for document in documents] == days


def test_dates_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    sentence = refused(put(tmp_path, "_chat.txt", "1/2/24, 9:00 - A: x\n1/2/24, 9:01 - B: y\n"))
    assert "can be read in two ways, such as 1/2/24; say --dayfirst or --monthfirst" in sentence
    text = "1/2/24, 9:00 - A: one line only is a note, not a chat"
    assert one(put(tmp_path, "note.txt", text)).text == text


@pytest.mark.parametrize(
    ("name", "value", "title", "text"),
    [
        (
            "conversations.json",
            own_files.CHATGPT,
            "Bread",
            "user: How long does rye prove?\nassistant: Rye proves for five hours.\n",
        ),
        (
            "claude.json",
            [
                {
                    "uuid": "u",
                    "name": "Tea",
                    "chat_messages": [
                        {
                            "sender": "human",
                            "text": "Which tea?",
                            "created_at": "2024-05-02T10:00:00Z",
                        },
                        {
                            "sender": "assistant",
                            "content": [{"type": "text", "text": "Assam."}],
                            "created_at": "2024-05-02T10:00:05Z",
                        },
                    ],
                }
            ],
            "Tea",
            "human: Which tea?\nassistant: Assam.\n",
        ),
        (
            "2024-05-02.json",
            [
                {
                    "type": "message",
                    "ts": "1714644000.0001",
                    "user": "U1",
                    "text": "Pier 3 is shut.",
                    "user_profile": {"real_name": "Mara Holt"},
                },
                {"type": "message", "ts": "1714644060.0001", "user": "U2", "text": "Thanks."},
            ],
            "crane",
            "Mara Holt: Pier 3 is shut.\nU2: Thanks.\n",
        ),
        (
            "result.json",
            {
                "name": "Crew",
                "id": 7,
                "messages": [
                    {"type": "service", "text": "joined", "date": "2024-05-02T10:00:00"},
                    {
                        "type": "message",
                        "from": "Ada",
                        "date": "2024-05-02T10:01:00",
                        "text": ["Pay ", {"type": "bold", "text": "nine"}, " euros."],
                    },
                ],
            },
            "Crew",
            "Ada: Pay nine euros.\n",
        ),
        (
            "discord.json",
            {
                "guild": {"name": "Sea"},
                "channel": {"name": "boats"},
                "messages": [
                    {
                        "timestamp": "2024-05-02T10:00:00+00:00",
                        "content": "Ahoy",
                        "author": {"name": "ada"},
                    }
                ],
            },
            "Sea › boats",
            "ada: Ahoy\n",
        ),
        (
            "message_1.json",
            {
                "title": "K\u00c3\u00a4se",
                "messages": [
                    {"sender_name": "B", "timestamp_ms": 1714644060000, "content": "two"},
                    {
                        "sender_name": "A",
                        "timestamp_ms": 1714644000000,
                        "content": "caf\u00c3\u00a9",
                    },
                ],
            },
            "Käse",
            "A: café\nB: two\n",
        ),
        (
            "history.json",
            [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hello", "time": "2024-05-02"},
            ],
            "",
            "user: Hello\n",
        ),
    ],
)
def test_chats_of_programs(tmp_path: Path, name: str, value: Any, title: str, text: str) -> None:
    (tmp_path / "crane").mkdir()
    document = one(put(tmp_path / "crane", name, json.dumps(value)))
    assert document.text == (f"{title}\n\n{text}" if title else text)
    assert document.metadata.get("title", "") == title and document.time == "2024-05-02"
    assert str(document.id).startswith(str(tmp_path / "crane" / name))


# ---- subtitles, code, archives


def test_subtitles(tmp_path: Path) -> None:
    document = one(put(tmp_path, "a.srt", own_files.SRT))
    assert document.text == (
        "The reactor was built in Brno in 1957.\n\nIts architect was Ilse Marek."
    )
    assert [s.place for s in document.outline] == ["00:00:01", "00:00:03", "00:12:03"]
    document = one(put(tmp_path, "b.vtt", own_files.VTT))
    assert document.text == "Tomas: The harbour & the pier freeze in January."
    rolling = "".join(
        f"00:0{n}.000 --> 00:0{n}.900\n{one}\n{two}\n\n"
        for n, (one, two) in enumerate([("a b", ""), ("a b", "c d"), ("c d", "e f")])
    )
    assert one(put(tmp_path, "c.vtt", "WEBVTT\n\n" + rolling)).text == "a b c d e f"


def test_code(tmp_path: Path) -> None:
    document = one(put(tmp_path, "crane.py", own_files.PYTHON))
    assert document.text == own_files.PYTHON and document.metadata == {"title": "crane.py"}
    assert paths(document) == ["Crane", "Crane › load", "Crane", "", "tide", ""]
    start = document.outline[1].start
    assert document.text[start:].startswith("    @property\n    def load")
    document = one(put(tmp_path, "buoy.js", "// Größe\n" + own_files.JAVASCRIPT))
    named = [
        (path, document.text[s.start :][:12])
        for path, s in zip(paths(document), document.outline, strict=True)
        if path
    ]
    assert named[0] == ("wind", "export const") and ("Buoy › ring", "ring(times) ") in named
    assert named[-1] == ("drift", "function dri")


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        (
            "a.ts",
            "export interface Tide { h: number }\nclass A { f(): void {} }\n",
            ["Tide", "A", "A › f"],
        ),
        ("a.java", "class Pier {\n  int length() { return 3; }\n}\n", ["Pier", "Pier › length"]),
        (
            "a.c",
            "struct p { int x; };\nint *find(int a) { return 0; }\nstruct p q;\n",
            ["p", "find"],
        ),
        (
            "a.cpp",
            "namespace sea { class Ship { void sail() {} }; }\n",
            ["sea", "sea › Ship", "sea › Ship › sail"],
        ),
        (
            "a.go",
            "package x\ntype Tide struct { h int }\nfunc (t Tide) Rise() int { return 1 }\n",
            ["Tide", "Rise"],
        ),
        (
            "a.rs",
            "struct Crane;\nimpl Crane { fn lift(&self) {} }\nmod m { fn g() {} }\n",
            ["Crane", "Crane", "Crane › lift", "m", "m › g"],
        ),
    ],
)
def test_definitions(tmp_path: Path, name: str, text: str, names: list[str]) -> None:
    found = [path for path in paths(one(put(tmp_path, name, text))) if path]
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(names))


def test_code_that_cannot_be_parsed_is_read_as_text(tmp_path: Path) -> None:
    documents, errors, notes = read_on(put(tmp_path, "old.py", "print 'hello'\n"))
    assert documents[0].text == "print 'hello'\n" and not errors
    assert notes[0].text.startswith("read without definitions, line 1: ")


def test_a_zip_file_is_read_as_a_folder(tmp_path: Path) -> None:
    files = {
        "b/x.md": "# Title\n\nText",
        "a.txt": "first",
        "__MACOSX/a.txt": "no",
        "image.png": b"\x89PNG",
        "bad.docx": "not Word",
        "inner.txt.gz": gzip.compress(b"packed"),
    }
    path = put(tmp_path, "a.zip", own_files.packed(files))
    documents, errors, notes = read_on(path)
    assert [document.text for document in documents] == ["first", "# Title\n\nText", "packed"]
    assert documents[1].id == documents[1].source == f"{path}/b/x.md"
    assert len(errors) == 1 and errors[0].startswith(f"{path}/bad.docx is not a Word file (.docx)")
    assert [note.path for note in notes] == [f"{path}/__MACOSX/a.txt", f"{path}/image.png"]


# ---- bad input


def test_a_scan_has_no_text(tmp_path: Path) -> None:
    sentence = refused(put(tmp_path, "scan.pdf", own_files.pdf(["", ""])))
    assert "has no text on its 2 pages, as in a scan; run text recognition first" in sentence


def test_passwords(tmp_path: Path) -> None:
    locked = put(tmp_path, "a.pdf", own_files.pdf(["Secret"], password="sesame"))
    assert "is password-protected; save a copy without a password first" in refused(locked)
    office = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    name = "EncryptedPackage".encode("utf-16-le")
    assert "password-protected" in refused(put(tmp_path, "a.docx", office + name))
    assert "is an old Office file" in refused(put(tmp_path, "b.docx", office))
    data = bytearray(own_files.packed({"a.txt": "secret"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # flag: encrypted
        data[data.index(mark) + offset] |= 1
    assert "password-protected" in refused(put(tmp_path, "a.zip", bytes(data)))


def test_a_pdf_that_anyone_may_read(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    plain = put(tmp_path, "plain.pdf", own_files.pdf(["The pier is open."]))
    writer = PdfWriter(PdfReader(plain))
    writer.encrypt("", "owner", algorithm="AES-256")
    writer.write(tmp_path / "a.pdf")
    assert one(tmp_path / "a.pdf").text == "The pier is open."


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.epub", "a.zip"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, name: str, part: float) -> None:
    data = {
        "a.pdf": own_files.pdf(["x" * 200] * 4),
        "a.docx": own_files.docx([("", "word " * 50)]),
        "a.epub": own_files.epub([("A", "text " * 50)]),
        "a.zip": own_files.packed({"a.txt": "text " * 50}),
    }[name]
    path = put(tmp_path, name, data[: int(len(data) * part)])
    documents, errors, _ = read_on(path)
    if name == "a.pdf" and documents:  # pypdf rebuilds what it can
        return
    assert not documents and len(errors) == 1 and "damaged" in errors[0]


@pytest.mark.parametrize(
    "name",
    ["a.pdf", "a.docx", "a.epub", "a.zip", "a.eml", "a.mbox", "a.srt", "a.vtt", "a.py", "a.md"],
)
def test_empty_files(tmp_path: Path, name: str) -> None:
    assert "empty" in refused(put(tmp_path, name, b""))


def test_files_with_another_ending(tmp_path: Path) -> None:
    text = "Just a note, saved under the wrong name.\n"
    sentence = refused(put(tmp_path, "a.docx", text))
    assert "is not a Word file (.docx): its content is text; rename it to .txt" in sentence
    assert "is not a readable PDF" in refused(put(tmp_path, "a.pdf", text))
    assert "is not an EPUB book: its content is text" in refused(put(tmp_path, "a.epub", text))
    assert "its first line is not" in refused(put(tmp_path, "a.mbox", text))
    assert "is not a mail: it has no From" in refused(put(tmp_path, "a.eml", text))
    assert "holds no subtitle" in refused(put(tmp_path, "a.srt", text))
    other = own_files.packed({"a.txt": "x"})
    assert "is damaged: its part" in refused(put(tmp_path, "b.epub", other))
    assert "is damaged" in refused(put(tmp_path, "b.docx", other))
    assert "has no text" in refused(put(tmp_path, "c.docx", own_files.docx([])))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentbank.documents.readers.formats import packed

    monkeypatch.setattr(packed, "MAX_UNPACKED", 1 << 20)
    path = put(tmp_path, "a.zip", own_files.packed({"a.txt": b"x" * (2 << 20)}))
    assert "would unpack to more than 1 MiB; unpack it yourself first" in refused(path)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "here")
    os.symlink(tmp_path / "loop.txt", tmp_path / "loop.txt")
    os.symlink(tmp_path, tmp_path / "again")
    documents, errors, notes = read_on(tmp_path)
    assert [document.text for document in documents] == ["here"] and not errors
    assert [note.text for note in notes] == ["skipped, a link that leads nowhere"]
    assert "is a link to a file that is not there, or to itself" in refused(tmp_path / "loop.txt")


@pytest.mark.parametrize(
    ("name", "library", "said"),
    [
        ("a.pdf", "pypdf", "reading PDF needs pypdf: pip install 'latentbank[files]'"),
        ("a.docx", "docx", "reading Word files needs docx: pip install 'latentbank[files]'"),
    ],
)
def test_a_library_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, said: str
) -> None:
    hide(monkeypatch, library)
    assert said in refused(put(tmp_path, name, b"any"))


def test_code_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tree_sitter")
    documents, errors, notes = read_on(put(tmp_path, "a.js", own_files.JAVASCRIPT))
    assert len(documents) == 1 and not errors
    assert notes[0].text.endswith("tree_sitter is not installed: pip install 'latentbank[files]'")


def hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.split(".")[0] == library:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)


def test_one_bad_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    questions = own_files.write_all(tmp_path)
    put(tmp_path, "scan.pdf", own_files.pdf([""]))
    put(tmp_path, "broken.docx", b"PK\x03\x04 and then nonsense")
    put(tmp_path, "mixed.txt", b"caf\xc3\xa9 and tea " * 40 + b"caf\xe9")
    documents, errors, _ = read_on(tmp_path)
    assert len(errors) == 3 and len({document.source for document in documents}) == 16
    text = "\n".join(document.text for document in documents)
    assert all(word in text for word in questions.values())


def test_headings_are_found_and_shown(backbones: Backbones, tmp_path: Path) -> None:
    world = make_world(backbones.folder("llama"), backbones.root / "adapters")
    bank, folder = str(tmp_path / "a.bank"), tmp_path / "files"
    folder.mkdir()
    lines = {"Parking": "Space belongs to a gardener. ", "Sick leave": "Call the extension first. "}
    text = "".join(f"\n\n## {name}\n\n{line * 60}" for name, line in lines.items())
    put(folder, "handbook.md", f"# Handbook{text}\n")
    put(folder, "report.pdf", own_files.pdf(["The audit was short."], "Audit 2024"))
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    succeed("write", str(folder), "--bank", bank, "--option", "chunk_tokens=64", *chosen)
    asked = ("ask", "What about sick leave?", "--bank", bank)
    [document] = json.loads(succeed(*asked, "--json").stdout)["documents"]
    assert (document["title"], document["heading"]) == ("Handbook", "Handbook › Sick leave")
    assert document["id"] == str(folder / "handbook.md")
    assert "Handbook › Sick leave, confidence" in " ".join(succeed(*asked).stdout.split())
    listed = succeed("inspect", bank, "--documents").stdout
    assert "Audit 2024" in listed and "Sick leave" in listed and "Parking" in listed
    rows = json.loads(succeed("inspect", bank, "-d", "--where", "heading~parking", "--json").stdout)
    assert len(rows["list"]) > 1, "every chunk of the section has its heading"
    few = succeed("inspect", bank, "--limit", "2").stdout
    assert few.count("handbook.md") == 2 and f"2 of {rows['documents']} entries" in few


def test_a_large_file(tmp_path: Path) -> None:
    line = "The crane of pier seven lifts forty tonnes of grain an hour.\n"
    path = put(tmp_path, "big.txt", line * (100 * 2**20 // len(line)))
    assert len(one(path).text) == path.stat().st_size
