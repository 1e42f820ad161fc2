"""Small collections: common English words weigh little, whatever the few texts hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from latentbank.parts.retrieval.background import background_share, pack_shares, stem_counts
from latentbank.parts.retrieval.lexical import LEAST_COLLECTION, LexicalIndex

LEAST_MATCH = 0.3  # of `RetrievalConfig`
NOTES = json.loads((Path(__file__).parent / "data" / "notes.json").read_text("utf-8"))


def notes(background: bool = True) -> LexicalIndex:
    words = LexicalIndex() if background else LexicalIndex(background=None)
    texts = [note["text"] for note in NOTES["notes"]]
    words.add([str(i) for i in range(len(texts))], texts)
    return words


def read(words: LexicalIndex, question: str) -> str | None:
    """The document that is read first, or None where nothing is read."""
    found = [name for name, _ in words.search(question, 4)]
    matches = words.matches(question, found)
    return found[0] if found and max(matches) >= LEAST_MATCH else None


def test_a_word_like_now_does_not_outweigh_a_name() -> None:
    words = LexicalIndex()
    words.add(["anna", "office"], ["Anna lives in Lisbon.", "The office is in Berlin now."])
    for question in ("Where does Anna live?", "Where does Anna live now?", "Anna now?"):
        assert read(words, question) == "anna", question


def test_a_synonym_of_one_word_does_not_hide_a_note() -> None:
    words = LexicalIndex()
    words.add(
        ["canteen", "water"], ["The canteen closes at 14:30.", "When the water is off, call."]
    )
    assert read(words, "When does the canteen shut?") == "canteen"


def test_questions_in_the_notes_own_words_find_them() -> None:
    words = notes()
    for i, note in enumerate(NOTES["notes"]):
        for question in note["questions"]:
            assert read(words, question) == str(i), question


def test_most_paraphrases_find_their_note_and_no_more_foreign_questions_do() -> None:
    words, before = notes(), notes(background=False)
    asked = [(str(i), q) for i, note in enumerate(NOTES["notes"]) for q in note["paraphrases"]]
    found = sum(read(words, question) == name for name, question in asked)
    assert found >= 0.7 * len(asked)
    assert found >= 1.5 * sum(read(before, question) == name for name, question in asked)
    foreign = [question for question in NOTES["foreign"] if read(words, question) is not None]
    assert len(foreign) <= len([q for q in NOTES["foreign"] if read(before, q) is not None])


def test_a_weight_blends_the_collection_with_the_background() -> None:
    """n texts of N hold a word; the 1000 - N others would hold it as English paragraphs do."""
    words = LexicalIndex()
    words.add(["a", "b"], ["zeppelin now", "now and again"])
    held = {"zeppelin": 1.0, "now": 2 + (LEAST_COLLECTION - 2) * background_share("now")}
    weights = {w: math.log(1 + (LEAST_COLLECTION - n + 0.5) / (n + 0.5)) for w, n in held.items()}
    assert background_share("zeppelin") == 0.0 < background_share("now")
    [share] = words.matches("zeppelin now", ["b"])
    assert share == pytest.approx(weights["now"] / sum(weights.values()))


def test_a_large_collection_is_ranked_as_without_a_background() -> None:
    ids = [str(i) for i in range(LEAST_COLLECTION)]
    texts = [f"note {i} says now that word{i % 50} is here" for i in range(LEAST_COLLECTION)]
    with_it, without = LexicalIndex(), LexicalIndex(background=None)
    for words in (with_it, without):
        words.add(ids, texts)
    for question in ("Where is word7 now?", "note 12", "unknown"):
        found = with_it.search(question, 8)
        assert found == without.search(question, 8)
        names = [name for name, _ in found]
        assert with_it.matches(question, names) == without.matches(question, names)


def test_the_table_keeps_what_is_common_and_words_of_one_stem_share_a_line() -> None:
    texts = ["cats run", "a cat ran", *["a dog"] * 998]
    assert pack_shares(stem_counts(texts), len(texts)) == "2 cat\n998 dog\n999 a\n"
    assert background_share("Living") == background_share("lives") > 0.01
    assert background_share("two words") == background_share("?") == background_share("") == 0.0
