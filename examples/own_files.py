"""Answers from a folder of your own files: notes, PDF, Word, mails, chats, subtitles, source code.

    python examples/own_files.py path/to/folder "Who repairs the boiler?"

Without arguments it writes a small folder first: a handbook, a mailbox, a chat, subtitles and a
program. PDF and Word files need `pip install 'latentbank[files]'`. It prints each answer with the
file, the headings and the page or time that it comes from.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latentbank import MemoryModel
from latentbank.documents.readers import read_documents

CREW = (
    "13/05/2024, 10:03 - Mara: The ferry leaves at seven.\n"
    "13/05/2024, 10:04 - Ada: I will bring the lamp.\n"
)
FILES = {
    "handbook.md": "# Handbook\n\n## Leave\n\n"
    + "Ill members of the crew call the office before nine. " * 80
    + "\n\n## Keys\n\nThe key of the boathouse hangs behind the clock.\n",
    "mails.mbox": "From x\nFrom: Irena <irena@example.org>\nSubject: Boiler\n"
    "Date: Wed, 01 May 2024 09:00:00 +0000\nMessage-ID: <m1>\n\nThe boiler is repaired by Janek.\n",
    "WhatsApp Chat with Crew.txt": CREW,
    "talk.srt": "1\n00:12:03,000 --> 00:12:06,000\nThe architect of the reactor was Ilse Marek.\n",
    "crane.py": 'class Crane:\n    """The crane of pier seven lifts forty tonnes."""\n',
}
QUESTIONS = (
    "Where does the key of the boathouse hang?",
    "Who repairs the boiler?",
    "When does the ferry leave?",
    "Who was the architect of the reactor?",
)


def main(folder: Path | None = None, questions: Sequence[str] = QUESTIONS) -> list[str]:
    """Writes a folder into a bank in memory and answers questions from it."""
    with tempfile.TemporaryDirectory() as made, MemoryModel.from_pretrained("strata") as model:
        if folder is None:
            folder = Path(made)
            for name, text in FILES.items():
                (folder / name).write_text(text, encoding="utf-8")
        found = read_documents([folder], on_bad=lambda error: print(f"skipped: {error}"))
        print(f"{model.write(found).stored} entries")
        answers = [model.ask(question) for question in questions]
        for question, answer in zip(questions, answers, strict=True):
            print(f"{question}\n  {answer.text}")
            for id, _ in answer.documents:
                entry = model.bank.get(id)
                if entry is not None:
                    said = (entry.metadata.get(name) for name in ("title", "heading", "place"))
                    place = ", ".join(filter(None, [Path(entry.source or "").name, *said]))
                    print(f"  from {place}")
    return [answer.text for answer in answers]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:]) if len(sys.argv) > 2 else main()
