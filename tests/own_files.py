"""Small files of every format, made by the libraries themselves."""

from __future__ import annotations

import io
import json
import mailbox
import zipfile
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any


def pdf(pages: Sequence[str], title: str = "", password: str = "", chapters: Any = ()) -> bytes:
    """A PDF with a page for each text; `chapters`: bookmarks as (title, page from 0)."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = writer._add_object(
        DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
    )
    for text in pages:
        page = writer.add_blank_page(612, 792)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        lines = [
            line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            for line in text.split("\n")
        ]
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET" if text else ""
        stream.set_data(content.encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    for name, number in chapters:
        writer.add_outline_item(title=name, page_number=number)
    if title:
        writer.add_metadata({"/Title": title, "/Author": "Mara Holt"})
        writer.add_metadata({"/ModDate": "D:20240501120000Z"})
    if password:
        writer.encrypt(password, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx(blocks: Sequence[tuple[str, str]], title: str = "", table: Any = ()) -> bytes:
    """A Word file of (style, text): "Title", "Heading 1", …, or "" for a paragraph."""
    from docx import Document

    document = Document()
    for style, text in blocks:
        document.add_paragraph(text, style or None)
    if table:
        made = document.add_table(0, len(table[0]))
        for row in table:
            cells = made.add_row().cells
            for cell, text in zip(cells, row, strict=True):
                cell.text = text
    document.core_properties.title = title
    document.core_properties.author = "Mara Holt"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def epub(chapters: Sequence[tuple[str, str]], title: str = "The Lamp") -> bytes:
    """A book of chapters (heading, text)."""
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    book = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title><dc:creator>Ada Park</dc:creator>"
        "<dc:date>2021-03-01</dc:date><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
        '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": book,
    }
    for number, (heading, text) in enumerate(chapters):
        body = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
        files[f"OEBPS/text/c {number}.xhtml"] = (
            f"<html><head><title>x</title></head><body><h1>{heading}</h1>{body}</body></html>"
        )
    return packed(files)


def packed(files: dict[str, str | bytes]) -> bytes:
    """A zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def mail(subject: str, text: str, id: str = "", html: str = "", attached: str = "") -> EmailMessage:
    """A mail from Mara to Ada."""
    message = EmailMessage()
    message["From"] = "Mara Holt <mara@example.org>"
    message["To"] = "Ada Park <ada@example.org>"
    message["Subject"] = subject
    message["Date"] = "Wed, 01 May 2024 23:30:00 -0500"
    if id:
        message["Message-ID"] = f"<{id}>"
    if text:
        message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html") if text else message.set_content(
            html, subtype="html"
        )
    if attached:
        message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename=attached)
    return message


def write_mailbox(path: Path, messages: Sequence[EmailMessage]) -> None:
    """A mailbox file, by the standard library."""
    box = mailbox.mbox(path)
    for message in messages:
        box.add(message)
    box.close()


WHATSAPP = (
    "13/05/2024, 09:58 - Messages and calls are end-to-end encrypted.\n"
    "13/05/2024, 10:03 - Mara: The ferry leaves at seven.\nBring the lamp.\n"
    "13/05/2024, 10:04 - Ada: I will.\n"
    "14/05/2024, 08:00 - Mara: We forgot the anchor.\n"
)
CHATGPT = [
    {
        "title": "Bread",
        "conversation_id": "c1",
        "current_node": "3",
        "mapping": {
            "0": {"message": None, "parent": None},
            "1": {
                "parent": "0",
                "message": {
                    "author": {"role": "user"},
                    "create_time": 1714608000.0,
                    "content": {"content_type": "text", "parts": ["How long does rye prove?"]},
                },
            },
            "2": {
                "parent": "1",
                "message": {
                    "author": {"role": "assistant"},
                    "create_time": 1714608001.0,
                    "content": {"content_type": "text", "parts": ["An old answer."]},
                },
            },
            "3": {
                "parent": "1",
                "message": {
                    "author": {"role": "assistant"},
                    "create_time": 1714608002.5,
                    "content": {"content_type": "text", "parts": ["Rye proves for five hours."]},
                },
            },
        },
    }
]
SRT = (
    "1\n00:00:01,000 --> 00:00:03,000\n<i>The reactor</i> was built\n\n"
    "2\n00:00:03,100 --> 00:00:05,000\nin Brno in 1957.\n\n"
    "3\n00:12:03,000 --> 00:12:06,500\nIts architect was Ilse Marek.\n"
)
VTT = (
    "WEBVTT\n\nNOTE made up\n\nintro\n00:01.000 --> 00:04.000 align:start\n"
    "<v Tomas>The harbour &amp; the pier freeze in January.\n"
)
PYTHON = '''"""Tools of the harbour."""

import math


class Crane:
    """Lifts things."""

    limit = 40

    @property
    def load(self):
        """The largest load in tonnes."""
        return self.limit


def tide(hour):
    """The height of the tide in metres."""
    return math.sin(hour)
'''
JAVASCRIPT = """export const wind = (x) => { return x * 2; };
class Buoy {
  ring(times) { return times; }
}
function drift(a) { return a; }
"""


def write_all(folder: Path) -> dict[str, str]:
    """Files of many kinds in a folder; returns a question for each and a word of its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    put: Callable[[str, bytes | str], int] = lambda name, data: (  # noqa: E731
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    )
    put("notes.txt", "The lighthouse keeper is Otto Brand.\n")
    put("handbook.md", "# Handbook\n\n## Holidays\n\nEverybody has 31 days of leave a year.\n")
    put(
        "page.html",
        "<html><head><title>Menu</title></head><body><h1>Menu</h1>"
        "<h2>Soup</h2><p>The soup of the day is lentil.</p></body></html>",
    )
    put("report.pdf", pdf(["The audit was led by Nora Finch."], "Audit 2024"))
    put(
        "contract.docx",
        docx([("Heading 1", "Rent"), ("", "The monthly rent of the boathouse is 870 euros.")]),
    )
    put("novel.epub", epub([("The Storm", "The ship in the storm was called Albatross.")]))
    put("letter.eml", mail("Boiler", "The boiler is repaired by Janek on Friday.", "m1").as_bytes())
    write_mailbox(
        folder / "archive.mbox",
        [
            mail("Parking", "Parking space 12 belongs to Irena.", "m2"),
            mail("Canteen", "The canteen closes at three.", "m3"),
        ],
    )
    put("WhatsApp Chat with Crew.txt", WHATSAPP)
    put("conversations.json", json.dumps(CHATGPT))
    put("talk.srt", SRT)
    put("clip.vtt", VTT)
    put("crane.py", PYTHON)
    put("buoy.js", JAVASCRIPT)
    put("more.zip", packed({"in/peak.txt": "The highest peak of the island is Mount Gorm."}))
    put("table.csv", "text\nThe price of the Kestrel valve is 4718 euros.\n")
    return {
        "Who is the lighthouse keeper?": "Otto Brand",
        "How many days of leave does everybody have?": "31",
        "What is the soup of the day?": "lentil",
        "Who led the audit?": "Nora Finch",
        "What is the monthly rent of the boathouse?": "870",
        "What was the ship in the storm called?": "Albatross",
        "Who repairs the boiler?": "Janek",
        "Who does parking space 12 belong to?": "Irena",
        "When does the ferry leave?": "seven",
        "How long does rye prove?": "five hours",
        "Who was the architect of the reactor?": "Ilse Marek",
        "When do the harbour and the pier freeze?": "January",
        "What is the highest peak of the island?": "Gorm",
        "What is the price of the Kestrel valve?": "4718",
    }
