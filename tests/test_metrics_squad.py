"""EM and F1 against SQuAD 1.1's evaluation script, and the papers' prefix metric against both.

`official_*` restate evaluate-v1.1.py (Rajpurkar et al. 2016) as it is published.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbank.evaluate.metrics import exact_match, f1, normalize_answer, prefix_match


def official_normalize(text: str) -> str:
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def official_f1(prediction: str, reference: str) -> float:
    ours, theirs = official_normalize(prediction).split(), official_normalize(reference).split()
    same = sum((Counter(ours) & Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def official_em(prediction: str, reference: str) -> float:
    return float(official_normalize(prediction) == official_normalize(reference))


def official_max(
    score: Callable[[str, str], float], prediction: str, references: list[str]
) -> float:
    return max(score(prediction, reference) for reference in references)


CASES = [  # prediction, references, EM, F1
    # articles
    ("a cat", ["the cat"], 1, 1),
    ("an", ["the"], 1, None),  # no token left on either side: see below
    ("The The", ["The The"], 1, None),
    ("Anthem", ["them"], 0, 0),
    ("vitamin A", ["vitamin"], 1, 1),  # the letter A is an article to the script
    # punctuation: deleted, not replaced by a space
    ("well-known", ["well known"], 0, 0),
    ("well-known", ["wellknown"], 1, 1),
    ("$1,000.50", ["100050"], 1, 1),
    ("rock 'n' roll", ["rock n roll"], 1, 1),
    ("the-man", ["man"], 0, 0),  # "theman": the hyphen goes before the article is looked for
    ("it's", ["its"], 1, 1),
    ("...", ["Paris"], 0, 0),
    # unicode: only ASCII punctuation is deleted, accents stay, any white space splits
    ("\u201cParis\u201d", ["Paris"], 0, 0),
    ("1914\u20131918", ["1914-1918"], 0, 0),
    ("caf\u00e9", ["cafe"], 0, 0),
    ("cafe\u0301", ["caf\u00e9"], 0, 0),  # no normalisation of combining marks
    ("\u00c9COLE", ["\u00e9cole"], 1, 1),
    ("New\u00a0York", ["New York"], 1, 1),
    ("\u0130stanbul", ["istanbul"], 0, 0),  # lower-case of İ is i with a dot above
    ("\u00df", ["SS"], 0, 0),  # lower(), not casefold()
    # tokens
    ("in 1998", ["1998"], 0, 2 / 3),
    ("Denver Broncos of Denver", ["Denver Broncos"], 0, 2 / 3),
    ("broncos denver", ["Denver Broncos"], 0, 1),  # F1 ignores the order
    # several references: the best one, for EM and F1 apart
    ("York", ["New York City", "New York", "York County"], 0, 2 / 3),
    ("1066 AD", ["in the year 1066", "1066 AD."], 1, 1),
    ("Saint Bernadette", ["Saint Bernadette Soubirous", "St. Bernadette"], 0, 0.8),
]


@pytest.mark.parametrize(("prediction", "references", "em", "score"), CASES)
def test_hand_made_cases_score_as_in_the_official_script(
    prediction: str, references: list[str], em: float, score: float | None
) -> None:
    assert exact_match(prediction, references) == em
    assert official_max(official_em, prediction, references) == em
    if score is not None:
        assert f1(prediction, references) == pytest.approx(score)
        assert official_max(official_f1, prediction, references) == pytest.approx(score)


alphabet = st.sampled_from([*"aAnthe ThE-.,'$19\u00e9\u0130\u00df\u2013\u00a0\n\u3000", "cat"])
texts = st.lists(alphabet, max_size=8).map("".join)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_any_text_scores_as_in_the_official_script(prediction: str, references: list[str]) -> None:
    assert normalize_answer(prediction) == official_normalize(prediction)
    assert exact_match(prediction, references) == official_max(official_em, prediction, references)
    theirs = official_max(official_f1, prediction, references)
    if not normalize_answer(prediction) and "" in map(normalize_answer, references):
        assert (f1(prediction, references), theirs) == (1.0, 0.0)  # the one difference
    else:
        assert f1(prediction, references) == pytest.approx(theirs)


def test_nothing_against_nothing_follows_squad_2() -> None:
    """SQuAD 1.1's F1 is 0 where no token is left on either side although EM is 1; SQuAD 2's is 1.

    SQuAD 1.1 has no such reference, so no score on it changes; unanswerable questions need it.
    """
    for prediction, reference in (("", ""), ("the", "a"), ("!", "")):
        assert exact_match(prediction, [reference]) == official_em(prediction, reference) == 1.0
        assert f1(prediction, [reference]) == 1.0
        assert official_f1(prediction, reference) == 0.0
    assert f1("Paris", [""]) == f1("", ["Paris"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "references", "prefix", "strict"),
    [
        # credited by the papers' metric, wrong
        ("1998", ["1"], 1, 0),
        ("10 million", ["1"], 1, 0),
        ("Noah", ["No"], 1, 0),
        ("France and Germany", ["France"], 1, 0),
        ("Denver, which lost", ["Denver Broncos", "Denver"], 1, 0),
        # refused by it, right
        ("the Rhine", ["Rhine"], 0, 1),
        ("rhine", ["Rhine"], 0, 1),
        ("The Denver Broncos", ["The Denver Broncos", "Broncos"], 0, 1),  # only the shortest counts
        ("$5", ["5"], 0, 1),
        # both agree
        ("Rhine", ["Rhine"], 1, 1),
        ("Danube", ["Rhine"], 0, 0),
        ("", ["Rhine"], 0, 0),
    ],
)
def test_the_prefix_metric_differs_in_both_directions(
    prediction: str, references: list[str], prefix: float, strict: float
) -> None:
    assert prefix_match(prediction, references) == prefix
    assert exact_match(prediction, references) == strict
    assert official_max(official_em, prediction, references) == strict
