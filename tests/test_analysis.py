"""Words of any script: pairs, stems, function words, and the right text in twelve languages."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

from latentbank.parts.retrieval.analysis import WORD, analysed, content_words, language_of
from latentbank.parts.retrieval.lexical import LexicalIndex
from latentbank.parts.retrieval.sketch import SketchIndex, sketches
from latentbank.parts.retrieval.versions import short_words

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from measure_languages import load, right_first

ENGLISH = "The head of Zürich's café (since 1907) is Lena Brandt: a naïve read_file, v2."


def test_english_stays_as_it_is() -> None:
    assert analysed(ENGLISH) == ENGLISH
    assert content_words("Who is the head of the café?") == ["head", "café"]
    assert content_words("Who is it?") == ["who", "is", "it"]


def test_the_right_text_comes_first_in_twelve_languages() -> None:
    pairs = load()
    assert len(pairs) == 12 and all(len(given) == 100 for given in pairs.values())
    for small in (False, True):
        assert min(right_first(pairs, small).values()) >= 80


@pytest.mark.parametrize(
    "text, question",
    [
        ("東京の図書館は九時に開きます。", "図書館はいつ開きますか？"),
        ("Die Grundschule öffnet um acht.", "Wann öffnet die Schule?"),
        ("L’école ouvre à huit heures.", "Quand ouvre l'école ?"),
        ("Библиотека открывается в девять.", "Во сколько открыты библиотеки?"),
        ("def parseConfig(path): reads the settings", "What does parse config read?"),
        ("class HTTPServer listens on a port", "Which port does the server use?"),
        ("ｆｕｌｌｗｉｄｔｈ letters", "fullwidth"),
        ("Straße in Köln", "Strasse"),
        (unicodedata.normalize("NFD", "Die Brücke über die Elbe"), "Brücke"),
        ("مُحَمَّد يعمل في المكتبة", "محمد"),
    ],
)
def test_texts_are_found(text: str, question: str) -> None:
    for index in (LexicalIndex(), LexicalIndex(background=None)):
        index.add(["other", "text"], ["Nothing of this 在 是 der die das.", text])
        assert index.search(question, 1)[0][0] == "text"
    sketched = SketchIndex()
    sketched.add(["text"], sketches([text]))
    assert sketched.search([question], 1)[0][0][0] == "text"


def test_function_words_are_not_asked() -> None:
    assert content_words("Wann ist die Eröffnung?")[0] == "eröffnung"
    assert content_words("图书馆什么时候开放？") == ["图书", "书馆", "开放"]
    assert "언제" not in content_words("도서관은 언제 문을 엽니까?")
    assert "die" in content_words("Who plays in the film Die Hard?"), (
        "an English question keeps the word"
    )
    assert content_words("什么") == ["什么"], "where nothing else is asked"


@pytest.mark.parametrize(
    "request_",
    [
        "Summarise what you know about Holm in two sentences.",
        "Please describe Holm in a few words.",
        "Could you tell me everything about Holm?",
        "Give me a summary of Holm",
    ],
)
def test_a_request_asks_for_what_it_is_about(request_: str) -> None:
    assert content_words(request_) == ["holm"]
    assert content_words("Summarise!") == ["summarise"]
    assert "summarise" in content_words("Who had to summarise the trial?")


def test_languages_by_their_function_words() -> None:
    assert language_of("Wo wohnt Anna?") == "german"
    assert language_of("¿Dónde vive Ana y con quién?") == "spanish"
    assert language_of("Qui a écrit ce livre et quand ?") == "french"
    assert language_of("Where does Anna live?") == language_of("") == "english"


def test_versions_in_a_script_without_spaces_have_words() -> None:
    one, two = short_words("办公室主任是李明。"), short_words("办公室主任是王芳。")
    assert len(one) > 5 and len(set(one) & set(two)) >= 5


def test_marks_are_letters() -> None:
    words = WORD.findall(analysed("स्कूल खुलता है"))
    assert len([word for word in words if not word.startswith("\ue000")]) == 3
