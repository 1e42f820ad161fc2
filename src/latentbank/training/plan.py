"""The plan of a run: which documents and questions each step shows.

Step i is the same in every run with the same seed, so that a run can resume at i. Knows data and
seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.parts.batch import Batch
from latentbank.training.config import TrainConfig

_POOL = 32  # steps whose documents are sorted by length together
_EPOCH, _QUESTIONS, _DISTRACTORS = 0, 1, 2  # streams of random numbers


def batches(
    data: QADataset, config: TrainConfig, rank: int = 0, world: int = 1, first: int = 0
) -> Iterator[Batch]:
    """Endless batches from step `first` on; `rank` of `world` devices gets its share of each.

    A step holds `documents_per_step` documents with up to `questions_per_document` questions each,
    then the distractors. An epoch shows every document once; an incomplete last step is dropped.

    Raises:
        InputError: the data has no questions.
    """
    of_document = data.questions_by_document()
    by_length = sorted(range(len(data.documents)), key=lambda i: len(data.documents[i].text))
    place = {document: at for at, document in enumerate(by_length)}
    for step, planned in _planned(data, config, first):
        chosen = planned[rank::world]
        questions = _questions(of_document, chosen, config, step)
        draw = np.random.default_rng([config.seed, _DISTRACTORS, step, rank])
        others = _distractors(by_length, place, chosen, config.distractors // world, draw)
        yield Batch(
            documents=tuple(data.documents[i] for i in [*chosen, *others]),
            questions=tuple(data.questions[q].text for _, q in questions),
            answers=tuple(data.questions[q].answers[0] for _, q in questions),
            owner=tuple(at for at, _ in questions),
            step=step,
        )


def planned_questions(data: QADataset, config: TrainConfig) -> Iterator[int]:
    """The number of questions of each step, endlessly, from step 0 on."""
    of_document = data.questions_by_document()
    most = config.questions_per_document or len(data.questions)
    for _, planned in _planned(data, config, 0):
        yield sum(min(most, len(of_document[i])) for i in planned)


def _planned(data: QADataset, config: TrainConfig, first: int) -> Iterator[tuple[int, list[int]]]:
    """(step, its documents with questions) from step `first` on."""
    usable = [i for i, questions in enumerate(data.questions_by_document()) if questions]
    if not usable:
        raise InputError(f"the data {data.name} has no questions to train on")
    per_step = min(config.documents_per_step, len(usable))
    run = min(config.neighbours, per_step)
    per_epoch = max(1, len(usable) // run // (per_step // run))
    step = first
    plan: list[list[int]] = []
    while True:
        epoch, within = divmod(step, per_epoch)
        if within == 0 or not plan:
            plan = _epoch_plan(data, usable, per_step // run, run, config.seed, epoch)
        yield step, plan[within]
        step += 1


def _epoch_plan(
    data: QADataset, usable: Sequence[int], runs: int, run: int, seed: int, epoch: int
) -> list[list[int]]:
    """The documents of each step of an epoch: `runs` runs of `run` neighbours.

    The runs of a step are of like length, since padding costs as much as text.
    """
    draw = np.random.default_rng([seed, epoch])
    turned = np.roll(usable, draw.integers(run)) if run > 1 else np.asarray(usable)
    whole = turned[: len(turned) // run * run].reshape(-1, run)
    order = whole[draw.permutation(len(whole))].tolist()
    lengths = [len(document.text) for document in data.documents]
    plan: list[list[int]] = []
    for at in range(0, len(order), _POOL * runs):
        pool = sorted(order[at : at + _POOL * runs], key=lambda part: sum(lengths[i] for i in part))
        steps = [pool[i : i + runs] for i in range(0, len(pool), runs)]
        for i in draw.permutation(len(steps)):
            if len(steps[i]) == runs:
                plan.append([document for part in steps[i] for document in part])
    return plan


def _questions(
    of_document: Sequence[Sequence[int]], chosen: Sequence[int], config: TrainConfig, step: int
) -> list[tuple[int, int]]:
    """(place of the document in the step, question) pairs, grouped by document."""
    draw = np.random.default_rng([config.seed, _QUESTIONS, step])
    most = config.questions_per_document or None
    return [
        (at, int(q))
        for at, document in enumerate(chosen)
        for q in draw.permutation(of_document[document])[:most]
    ]


def _distractors(
    by_length: Sequence[int],
    place: dict[int, int],
    chosen: Sequence[int],
    count: int,
    draw: np.random.Generator,
) -> list[int]:
    """`count` documents outside of `chosen`.

    Half of them follow a chosen one in the data; they mostly come from the same article. The rest
    are about as long as the chosen ones, so that padding stays small.
    """
    if not count:
        return []
    taken = set(chosen)
    near = [i + offset for offset in range(1, 4) for i in chosen if i + offset < len(by_length)]
    near = [i for i in dict.fromkeys(near) if i not in taken]
    kept = [near[i] for i in draw.permutation(len(near))[: count // 2]]
    taken.update(kept)
    middle = int(np.median([place[i] for i in chosen]))
    reach = 4 * (count + len(taken))
    window = [i for i in by_length[max(0, middle - reach) : middle + reach] if i not in taken]
    kept += [window[i] for i in draw.permutation(len(window))[: count - len(kept)]]
    return kept
