"""Invented facts and the bits that a memory gives back of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench_world import MAC, NONE, RAG, bench, records, values
from latentbank.errors import InputError
from latentbank.evaluate.invented import KINDS, invented_facts, kind_of, load_invented
from tiny import Backbones


def test_facts_are_fixed_by_their_seed_and_about_different_places() -> None:
    facts = invented_facts(3_000, seed=1)
    assert facts.hash == invented_facts(3_000, seed=1).hash != invented_facts(3_000, seed=2).hash
    texts = [document.text for document in facts.documents]
    assert len({question.text for question in facts.questions}) == len(set(texts)) == 3_000
    for question in facts.questions:
        assert question.answers[0] in texts[question.document]
    assert invented_facts(10, seed=1).documents == facts.documents[:10], "a prefix of the stream"


def test_the_bits_are_those_of_the_distributions() -> None:
    assert KINDS["number"].bits == pytest.approx(math.log2(900_000))
    facts = invented_facts(6_000, seed=0)
    for name, kind in KINDS.items():
        seen = {q.answers[0] for q in facts.questions if kind_of(q) is kind}
        drawn = sum(kind_of(q) is kind for q in facts.questions)
        expected = kind.values * (1 - (1 - 1 / kind.values) ** drawn)  # distinct of so many draws
        assert len(seen) == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize("spec", ["invented:", "invented:x", "invented:1:2:3", "invented:0"])
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="invented"):
        load_invented(spec)


def test_capacity_counts_bits(backbones: Backbones, tmp_path: Path) -> None:
    run = bench("capacity", backbones, tmp_path, [NONE, RAG], options={"sizes": (6, 12)})
    run = replace(run, data=load_invented("invented:12"))
    found = {record.method: values(record) for record in records(run)}
    written = 4 * sum(kind.bits for kind in KINDS.values())
    for method in ("none", "rag"):
        assert found[method]["bits_written"] == pytest.approx(written)
        assert 0 <= found[method]["bits_recovered"] <= written
    assert "bits_per_100_bytes" not in found["none"], "a bank without bytes has no bits per byte"
    rag = found["rag"]
    expected = 100 * rag["bits_recovered"] / rag["bank_bytes"]
    assert rag["bits_per_100_bytes"] == pytest.approx(expected)


def test_capacity_needs_invented_facts(backbones: Backbones, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="capacity needs invented facts"):
        records(bench("capacity", backbones, tmp_path, [MAC]))
