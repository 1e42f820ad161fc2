"""Token ids of what the backbone reads and writes: questions, passages before them, answers.

Knows the question template and a model's own chat template; knows no memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone

__all__ = [
    "COMPLETION",
    "IN_SHORT",
    "PLAIN",
    "Template",
    "answer_ids",
    "answer_texts",
    "chat_template",
    "chat_text",
    "continued",
    "disarmed",
    "end_id_of",
    "passage_ids",
    "prompt_ids",
]

_COMPARED = 3  # last tokens of an answer that tell where it quotes
_PASSAGE, _QUESTION, _ANSWER = "<<passage>>", "<<question>>", "<<answer>>"
IN_SHORT = "Answer in a few words."


@dataclass(frozen=True)
class Template:
    """What stands around a passage and a question.

    Attributes:
        before: text before the passage, special tokens written out; "" for the start token alone.
        ask: the question's line, with `{}` in the place of the question.
        after: text behind it, up to the answer, special tokens written out.
        end: the text that ends an answer; "" for the end token of the model.
        one_line: an answer ends with its line.
    """

    before: str = ""
    ask: str = "Question: {}\nAnswer:"
    after: str = ""
    end: str = ""
    one_line: bool = False

    def cut(self, answer: str) -> str:
        """An answer without what a model writes behind it."""
        return answer.split("\n", 1)[0].rstrip() if self.one_line else answer


PLAIN = Template()
"""`passage ¶ Question: … Answer:`, which the adapters are trained with."""
COMPLETION = Template(end="\n", one_line=True)
"""The same for a model that was not trained to stop: it would ask the next question itself."""


def prompt_ids(
    backbone: Backbone,
    questions: Sequence[str],
    passages: Sequence[str] | None = None,
    template: Template = PLAIN,
    begun: bool = False,
) -> list[list[int]]:
    """Token ids of each question's prompt, with its passage where `passages` are given.

    With `begun` the memory holds the beginning, up to the passage: only what follows is given.
    """
    asked = backbone.encode([template.ask.format(q.strip()) for q in questions], start=False)
    after = _special(backbone, template.after)
    if begun:
        return [[*ask, *after] for ask in asked]
    heads = passage_ids(backbone, passages or [""] * len(questions), template)
    return [[*head, *ask, *after] for head, ask in zip(heads, asked, strict=True)]


def passage_ids(
    backbone: Backbone, passages: Sequence[str], template: Template = PLAIN
) -> list[list[int]]:
    """Token ids of passages as they come before a question, with what begins the prompt."""
    texts = [f"{passage}\n\n" if passage else "" for passage in passages]
    before = _special(backbone, template.before)
    first = before if before[:1] == [backbone.start_id] else [backbone.start_id, *before]
    return [[*first, *row] for row in backbone.encode(texts, start=False)]


def answer_ids(backbone: Backbone, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of the answers to learn, with the end token."""
    return [
        [*row, backbone.end_id] for row in backbone.encode([f" {a}" for a in answers], start=False)
    ]


def end_id_of(backbone: Backbone, template: Template) -> int:
    """The token that ends an answer; the model's own where the template's is not one token."""
    ids = _special(backbone, template.end)
    return ids[0] if len(ids) == 1 else backbone.end_id


def chat_template(backbone: Backbone) -> Template | None:
    """The prompt of a model's own chat format, for short answers; None where it has none.

    Raises:
        InputError: the model's template cannot be read, or takes no message of a user.
    """
    source = getattr(backbone.tokenizer, "chat_template", None)
    if not source:
        return None
    user = {"role": "user", "content": f"{_PASSAGE}{_QUESTION}\n{IN_SHORT}"}
    text = _rendered(backbone, source, [user], True)
    before, _, rest = text.partition(_PASSAGE)
    ask, _, after = rest.partition(_QUESTION)
    if ask or _QUESTION not in rest:
        raise InputError(
            f"The chat template of {backbone.name} changes what the user says; "
            "set prompt=plain to ask without it."
        )
    answered = _rendered(backbone, source, [user, {"role": "assistant", "content": _ANSWER}], False)
    end = answered.rpartition(_ANSWER)[2].strip()
    return Template(before, "{}", after, end)


def chat_text(
    backbone: Backbone, messages: Sequence[dict[str, str]]
) -> tuple[str, Template] | None:
    """(prompt of a conversation up to the answer, template whose `end` ends it).

    None for a model without a chat template. A template that knows no system message gets its text
    before the first message of the user.

    Raises:
        InputError: the model's template cannot be read or takes no such conversation.
    """
    source = getattr(backbone.tokenizer, "chat_template", None)
    if not source:
        return None
    rows = list(messages)
    try:
        text = _rendered(backbone, source, rows, True)
    except InputError:
        if rows[0]["role"] != "system" or len(rows) < 2:
            raise
        joined = f"{rows[0]['content']}\n\n{rows[1]['content']}"
        rows = [{"role": rows[1]["role"], "content": joined}, *rows[2:]]
        text = _rendered(backbone, source, rows, True)
    user = {"role": "user", "content": _QUESTION}
    said = {"role": "assistant", "content": _ANSWER}
    answered = _rendered(backbone, source, [user, said], False)
    return text, Template(end=answered.rpartition(_ANSWER)[2].strip())


_SIGN = re.compile(r"<(?=[|/]?[^\s<>]{1,40}>)|\[(?=/?(?:INST|SYS)\b)")


def disarmed(text: str) -> str:
    """A text in which nothing is read as a sign of a chat template: "<|im_end|>" → "< |im_end|>".

    For texts that a document, or another than the user, put into a conversation.
    """
    return _SIGN.sub(lambda sign: f"{sign[0]} ", text)


def _rendered(
    backbone: Backbone, source: Any, messages: Sequence[dict[str, str]], prompt: bool
) -> str:
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if not isinstance(source, str):  # several templates by name
        source = dict(source).get("default", "")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: ""  # a prompt does not depend on the day
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    tokens = {name: getattr(backbone.tokenizer, name, None) or "" for name in names}
    try:
        text: str = environment.from_string(source).render(
            messages=list(messages), add_generation_prompt=prompt, enable_thinking=False, **tokens
        )
    except TemplateError as error:
        raise InputError(
            f"The chat template of {backbone.name} cannot be used ({error}); "
            "set prompt=plain to ask without it."
        ) from error
    return text


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _special(backbone: Backbone, text: str) -> list[int]:
    return backbone.encode([text], start=False)[0] if text else []


def answer_texts(backbone: Backbone, rows: Sequence[Sequence[int]], end_id: int) -> list[str]:
    """Decodes rows of tokens up to the end token."""
    texts = []
    for row in rows:
        cut = row.index(end_id) if end_id in row else len(row)
        texts.append(backbone.tokenizer.decode(row[:cut], skip_special_tokens=True).strip())
    return texts


def continued(tokens: Sequence[int], text: Sequence[int]) -> Sequence[int]:
    """What follows in `text` where it first has the end of `tokens`, the longest end it has."""
    for size in range(min(_COMPARED, len(tokens)), 0, -1):
        end = list(tokens[-size:])
        for at in range(len(text) - size):
            if list(text[at : at + size]) == end:
                return text[at + size :]
    return []
