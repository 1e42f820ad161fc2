"""A harness's requests on tiny models: scores as the model gives them, memory by the question."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.errors import InputError
from latentbank.integrations.lm_eval_requests import Requests, question_of, selects
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, QUESTIONS

CONTEXTS = [f"Question: {question}\nAnswer:" for question in QUESTIONS[:3]]
TAILS = [" Ada Lovelace", " 1924", " 17 kinds"]


@pytest.mark.parametrize(
    ("context", "question"),
    [
        ("Question: Who?\nAnswer:", "Who?"),
        ("Q: one?\nA: yes\n\nQ: two?\nA:", "two?"),
        ("Question: Which\nof these?\nA. x\nB. y\nAnswer:", "Which of these?"),
        ("Q: Which?\n(A) x\n(B) y\nA:", "Which?"),
        ("question: lower case?\nanswer:", "lower case?"),
        ("Question: Is A: a letter?\nAnswer:", "Is A: a letter?"),
        ("<|im_start|>user\nQuestion: Who?\n<|im_end|>", "Who?"),
        ("A story.\n\nThe harbour of Oslo froze in\n", "The harbour of Oslo froze in"),
        ("Mind the Q: it is no question\nlast line", "last line"),
        ("  \n", ""),
        ("", ""),
    ],
)
def test_the_last_question_of_a_prompt_selects(context: str, question: str) -> None:
    assert question_of(context) == question
    assert selects(context) == bool(question)


def model(backbones: Any, method: str, name: str = "llama", **config: Any) -> MemoryModel:
    made = MemoryModel(build_method(method, backbones.fresh(name), config, preset="tiny"))
    if method != "none":
        made.write(DOCUMENTS)
    return made


def ids(made: MemoryModel, texts: list[str]) -> list[list[int]]:
    return made.backbone.encode(texts, start=False)


def plain(made: MemoryModel, context: str, tail: str) -> tuple[float, bool]:
    """The same from the model's own forward pass, start token first."""
    backbone = made.backbone
    (head,), (rest,) = backbone.encode([context]), ids(made, [tail])
    logits = backbone.model(torch.tensor([[*head, *rest]])).logits[0].log_softmax(-1)
    scores = logits[len(head) - 1 : -1]
    wanted = torch.tensor(rest)
    return float(scores.gather(1, wanted[:, None]).sum()), bool((scores.argmax(1) == wanted).all())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_without_memory_scores_are_the_models_own(backbones: Any, name: str) -> None:
    made = model(backbones, "none", name)
    found = Requests(made).loglikelihoods(CONTEXTS, ids(made, CONTEXTS), ids(made, TAILS))
    for (score, greedy), context, tail in zip(found, CONTEXTS, TAILS, strict=True):
        expected = plain(made, context, tail)
        assert score == pytest.approx(expected[0], abs=1e-3)
        assert greedy == expected[1]


@pytest.mark.parametrize("method", ["strata", "mac", "rag"])
def test_memory_changes_scores_and_a_batch_does_not(backbones: Any, method: str) -> None:
    made = model(backbones, method)
    heads, tails = ids(made, CONTEXTS), ids(made, TAILS)
    read = Requests(made).loglikelihoods(CONTEXTS, heads, tails)
    single = [
        Requests(made).loglikelihoods([c], [h], [t])[0]
        for c, h, t in zip(CONTEXTS, heads, tails, strict=True)
    ]
    assert [s for s, _ in read] == pytest.approx([s for s, _ in single], abs=1e-3)
    nothing = Requests(made, memory=False).loglikelihoods(CONTEXTS, heads, tails)
    assert all(abs(a - b) > 1e-3 for (a, _), (b, _) in zip(read, nothing, strict=True))
    assert made.backbone.memory is None


def test_a_passage_stands_before_the_context(backbones: Any) -> None:
    made = model(backbones, "rag")
    context = CONTEXTS[0]
    passage = made.method.read([QUESTIONS[0]]).passages
    assert passage is not None and "1843" in passage[0]
    found = Requests(made).loglikelihoods([context], ids(made, [context]), ids(made, [TAILS[0]]))
    expected = plain(made, f"{passage[0]}\n\n{context}", TAILS[0])
    assert found[0][0] == pytest.approx(expected[0], abs=1e-3)


def test_a_request_without_context_reads_nothing(backbones: Any) -> None:
    made = model(backbones, "strata")
    start = made.backbone.start_id
    (tail,) = ids(made, ["Oslo"])
    read = Requests(made).loglikelihoods([None], [[start]], [tail])
    unread = Requests(made, memory=False).loglikelihoods([None], [[start]], [tail])
    assert read == unread
    assert read[0][0] == pytest.approx(plain(model(backbones, "none"), "", "Oslo")[0], abs=1e-3)
    with pytest.raises(InputError, match="must not mix"):
        Requests(made).loglikelihoods([None, CONTEXTS[0]], [[start], [start]], [tail, tail])


def test_a_start_token_is_not_doubled(backbones: Any) -> None:
    made = model(backbones, "none")
    (head,), (tail,) = ids(made, [CONTEXTS[0]]), ids(made, [TAILS[0]])
    with_start = [made.backbone.start_id, *head]
    ask = Requests(made).loglikelihoods
    assert ask([CONTEXTS[0]], [with_start], [tail]) == ask([CONTEXTS[0]], [head], [tail])


def test_the_greedy_choice_is_told(backbones: Any) -> None:
    made = model(backbones, "strata")
    context = CONTEXTS[0]
    (text,) = Requests(made).continuations([context], (), 4)
    (head,) = ids(made, [context])
    (tail,) = ids(made, [text])
    ((_, greedy),) = Requests(made).loglikelihoods([context], [head], [tail])
    assert greedy == (made.backbone.tokenizer.decode(tail) == text)


def test_continuations_stop_and_do_not_depend_on_the_batch(backbones: Any) -> None:
    made = model(backbones, "strata")
    asked = Requests(made)
    texts = asked.continuations(CONTEXTS, (), 12)
    assert texts == [asked.continuations([c], (), 12)[0] for c in CONTEXTS]
    stop = texts[0][3:5]
    cut = asked.continuations(CONTEXTS, (stop,), 12)
    assert cut == [text.split(stop)[0] for text in texts]
    assert asked.continuations(CONTEXTS, (), 1) != texts


def test_long_prompts_are_cut_at_the_left(backbones: Any) -> None:
    made = model(backbones, "none")
    limit = made.backbone.geometry.max_positions
    long = "x" * 2 * limit
    (head,), (tail,) = ids(made, [f"{long}{CONTEXTS[0]}"]), ids(made, [TAILS[0]])
    assert len(head) > limit
    ((score, _),) = Requests(made).loglikelihoods([CONTEXTS[0]], [head], [tail])
    kept = [*head, *tail][-limit:]
    logits = made.backbone.model(torch.tensor([kept])).logits[0].log_softmax(-1)
    expected = logits[-1 - len(tail) : -1].gather(1, torch.tensor(tail)[:, None]).sum()
    assert score == pytest.approx(float(expected), abs=1e-2)
    assert Requests(made).continuations([long], (), 3)
    with pytest.raises(InputError, match=r"do not fit into the 512"):
        Requests(made).continuations([long], (), limit)
    with pytest.raises(InputError, match="at least one token"):
        Requests(made).loglikelihoods([None], [[1]], [[]])
