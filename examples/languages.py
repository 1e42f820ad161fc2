"""Finds documents in any script: one bank, eight languages, one question in each.

    python examples/languages.py

It prints which document each question finds. The packaged model reads English only; give a model
that knows your language for answers (docs/guides/model.md).
"""

from __future__ import annotations

from latentbank import Document, MemoryModel

TEXTS = {
    "ar": ("تفتح المكتبة العامة أبوابها في التاسعة صباحا.", "متى تفتح مكتبة المدينة؟"),
    "de": ("Die Stadtbibliothek öffnet um neun Uhr.", "Wann macht die Bibliothek auf?"),
    "en": ("The public library opens at nine.", "When do libraries open?"),
    "fr": ("La bibliothèque municipale ouvre à neuf heures.", "Quand ouvrent les bibliothèques ?"),
    "hi": ("सार्वजनिक पुस्तकालय सुबह नौ बजे खुलता है।", "पुस्तकालय कब खुलते हैं?"),
    "ja": ("公立図書館は午前九時に開館します。", "図書館はいつ開館しますか？"),
    "ru": ("Городская библиотека открывается в девять часов.", "Когда открыты библиотеки?"),
    "zh": ("公共图书馆每天上午九点开门。", "图书馆什么时候开门？"),
}


def main() -> None:
    """Writes one text of each language and prints which one its question finds."""
    with MemoryModel.from_pretrained("rag") as model:
        model.write([Document(text, id=language) for language, (text, _) in TEXTS.items()])
        for language, (_, question) in TEXTS.items():
            found = model.ask(question).documents
            print(f"{language}  {question}  →  {found[0][0] if found else 'nothing'}")


if __name__ == "__main__":
    main()
