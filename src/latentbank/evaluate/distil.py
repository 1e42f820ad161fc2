"""Context distillation: what a model says with a text in its prompt becomes training data.

The teacher is the frozen model with the passage in its chat prompt. It asks questions about the
text and answers them in a sentence, summarises and rewrites; questions of `cloze` keep answers
short. The student is the same model, which reads the passage as its method reads it, and learns to
say the same (Askell et al., 2021, https://arxiv.org/abs/2112.00861; on the level of sequences, Kim
and Rush, 2016, https://arxiv.org/abs/1606.07947). Knows texts and a backbone; knows no method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from latentbank.answering.chat.growing import Growing
from latentbank.answering.chat.messages import Message
from latentbank.answering.chat.prompting import Passage, build_prompt
from latentbank.answering.chat.reading import PromptReader
from latentbank.answering.chat.sentences import is_whole, normal_words, sentences_asked
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.cloze import corpus_dataset
from latentbank.evaluate.data import QADataset, Question

__all__ = ["REQUESTS", "Teacher", "distilled", "keep_distilled", "read_distilled"]

FILE = "distil.json"
ASK = "Write one question that this text answers."
SENTENCE = "Answer in one full sentence."
REQUESTS = (
    "Summarise this text in two sentences.",
    "Say in one sentence what this text is about.",
    "Rewrite this text in simpler words, in three sentences.",
)
_TOKENS = 96  # of the longest answer
_SHORT = 2  # cloze questions of each text, whose answers stay short
_QUESTION = re.compile(r"[^?]*\?")


class Teacher:
    """The frozen model with a text in its chat prompt."""

    def __init__(self, backbone: Backbone, tokens: int = _TOKENS) -> None:
        self._backbone, self._reader = backbone, PromptReader(backbone)
        most = max(1, backbone.geometry.max_positions // 4)
        self._decoding = DecodingConfig(max_new_tokens=min(tokens, most), whole_words=True)

    def says(self, text: str, request: str, sentences: int | None = None) -> str:
        """What the model answers to a request about a text: at most so many whole sentences."""
        tokens = self._decoding.max_new_tokens
        passages = [Passage("", text)]
        prompt = build_prompt(self._backbone, [Message("user", request)], passages, "", tokens)
        growing, said = Growing(sentences=sentences), ""
        for one, _ in self._reader.stream(prompt, self._decoding):
            said = growing.take(prompt.template.cut(one.text), one.finished)
            if growing.ended:
                return said
        return growing.close()

    def pairs(self, text: str) -> list[tuple[str, str]]:
        """(question or request, answer) about a text; what says nothing is left out."""
        asked = _QUESTION.match(self.says(text, ASK, 1).strip())
        found = []
        if asked is not None and len(normal_words(asked[0])) > 2:
            question = asked[0].strip()
            found.append((question, self.says(text, f"{question}\n{SENTENCE}", 1)))
        found += [(one, self.says(text, one, sentences_asked(one))) for one in REQUESTS]
        return [(request, said) for request, said in found if _says_something(said, request)]


def _says_something(said: str, request: str) -> bool:
    """Whether an answer is one: sentences, and not the request again."""
    first = said.split("\n")[0].strip()
    same = set(normal_words(said)) <= set(normal_words(request))
    return bool(first) and not same and (is_whole(first) or len(normal_words(said)) > 4)


def distilled(
    corpus: str | Path,
    backbone: Backbone,
    seed: int = 0,
    on_text: Callable[[int, int], None] | None = None,
) -> QADataset:
    """Training data of a file or a folder of texts, made by the model itself.

    `on_text` gets (texts done, texts in all).

    Raises:
        InputError: no text gives a question; a text that `read_documents` cannot read.
    """
    made = corpus_dataset(corpus, _SHORT, seed)
    documents, questions = made.documents, list(made.questions)
    teacher = Teacher(backbone)
    for place, document in enumerate(documents):
        if on_text is not None:
            on_text(place, len(documents))
        for number, (request, said) in enumerate(teacher.pairs(document.text)):
            questions.append(Question(f"{document.id}!{number}", request, (said,), place))
    questions.sort(key=lambda one: one.document)
    return QADataset(f"{made.name} distilled", documents, tuple(questions))


def read_distilled(folder: Path, about: str) -> QADataset | None:
    """The data that an earlier call kept in `folder` for the same model and seed; None if none."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["about"] != about:
            return None
        documents = tuple(
            Document(one["text"], one["id"], one["time"], one["source"])
            for one in values["documents"]
        )
        questions = tuple(
            Question(one["id"], one["text"], tuple(one["answers"]), one["document"])
            for one in values["questions"]
        )
        return QADataset(values["name"], documents, questions)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it to make it anew.") from error


def keep_distilled(folder: Path, about: str, data: QADataset) -> None:
    """Keeps data in `folder`, so that a run that is resumed trains on the same."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "about": about,
        "name": data.name,
        "documents": [
            {"text": one.text, "id": one.id, "time": one.time, "source": one.source}
            for one in data.documents
        ],
        "questions": [asdict(one) for one in data.questions],
    }
    scratch = folder / f"{FILE}.part"
    scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / FILE)
