"""Facts to learn in other words than they are asked for, and text to measure perplexity on.

Invented people come from the data of Berglund et al., 2023, "The Reversal Curse",
https://arxiv.org/abs/2309.12288. Knows questions and documents; knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question, load_sample
from latentbank.evaluate.formats import json_lines, read_bytes
from latentbank.evaluate.invented import kind_of

__all__ = ["has_people", "held_out_text", "is_paraphrase", "load_people", "with_other_words"]

PARAPHRASE = "-paraphrase"  # how the ids of questions end whose words are not those of the facts
_TRAIN, _TEST = "d2p_prompts_train.jsonl", "d2p_prompts_test.jsonl"
_TRAIN_WORDINGS, _TEST_WORDINGS = 30, 10  # of each person in the files
_FIRST, _WORDINGS = 1, 2  # statements and paraphrases that are taken of each person
_OTHER_WORDS = {
    "number": "Which access number does {place}'s archive have?",
    "name": "What is the name of {place}'s harbour master?",
    "date": "On what date did the lighthouse of {place} first give light?",
}


def is_paraphrase(question: Question) -> bool:
    """Whether a question's words are not those of the facts."""
    return question.id.endswith(PARAPHRASE)


def has_people(folder: Path) -> bool:
    """Whether a folder holds the files that `load_people` reads."""
    return (folder / _TRAIN).is_file() and (folder / _TEST).is_file()


def with_other_words(data: QADataset) -> QADataset:
    """The data in which each question about an invented place follows in other words, too."""
    questions = []
    for question in data.questions:
        kind = kind_of(question)
        questions.append(question)
        if kind is not None:
            template = re.escape(kind.question).replace(r"\{place\}", "(.+)")
            place = re.sub(f"^{template}$", r"\1", question.text)
            text = _OTHER_WORDS[question.id.split("-")[-1]].format(place=place)
            questions.append(replace(question, id=question.id + PARAPHRASE, text=text))
    return replace(data, questions=tuple(questions))


def load_people(folder: Path) -> QADataset:
    """Statements about invented people, each asked for in its own words and in others.

    A document is such as `The composer of "Abyssal Melodies" is called Uriah Hawthorne.`.

    Raises:
        InputError: a file is damaged or holds no person.
    """
    train, test = list(_prompts(folder / _TRAIN)), list(_prompts(folder / _TEST))
    documents: list[Document] = []
    questions: list[Question] = []
    for person in range(min(len(train) // _TRAIN_WORDINGS, len(test) // _TEST_WORDINGS)):
        name = test[person * _TEST_WORDINGS][1].strip(" .")
        at = person * _TRAIN_WORDINGS + _FIRST
        for number, (prompt, rest) in enumerate(train[at : at + _WORDINGS]):
            here, about = len(documents), f"person-{person}-{number}"
            documents.append(Document(f"{prompt}{rest}", source=f"person {person}"))
            other = test[person * _TEST_WORDINGS + number][0]
            questions.append(Question(about, _asked(prompt), (name,), here))
            questions.append(Question(about + PARAPHRASE, _asked(other), (name,), here))
    if not documents:
        raise InputError(f"{folder} holds no person in {_TRAIN} and {_TEST}.")
    return QADataset(folder.resolve().name, tuple(documents), tuple(questions))


def _asked(prompt: str) -> str:
    """A prompt as a question: without "Q:" and "A:"."""
    return prompt.removeprefix("Q:").removesuffix("A:").strip(" ,")


def _prompts(path: Path) -> Iterator[tuple[str, str]]:
    for row, place in json_lines(read_bytes(path), str(path)):
        prompt, rest = row.get("prompt"), row.get("completion")
        if not isinstance(prompt, str) or not isinstance(rest, str):
            raise InputError(f"{place}: expected a prompt and a completion.")
        yield prompt, rest


def held_out_text(path: str, characters: int = 200_000) -> str:
    """The beginning of a text file; of the packaged sample's paragraphs without a file.

    Raises:
        InputError: the file is missing, empty or no text.
    """
    if not path:
        return "\n".join(document.text for document in load_sample().documents)[:characters]
    raw = read_bytes(Path(path))[: 4 * characters].decode("utf-8", "ignore")[:characters]
    if not raw.strip():
        raise InputError(f"{path} is empty; expected text to measure perplexity on.")
    return "\n".join(islice((line for line in raw.splitlines() if line.strip()), 20_000))
