"""Equal bytes: budgets, writing until a bank is full, and what long documents become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench_world import (
    HISTOGRAM,
    MAC,
    MBC,
    NONE,
    RAG,
    Oracle,
    bench,
    dataset,
    oracle,
    records,
    values,
)
from latentbank.bench.budget import (
    GRID,
    bounded_model,
    least_bytes,
    parse_budgets,
    write_fitting,
)
from latentbank.bench.plan import Row, build_row
from latentbank.capabilities import Telemetry
from latentbank.codec.quantizer import Codebook, CodebookConfig, ResidualMeter, usage_perplexity
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, UnknownNameError
from latentbank.evaluate.closed_book import load_questions
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.stream import chunked
from tiny import Backbones

__all__ = ["oracle"]


def test_budgets_are_read_and_sorted() -> None:
    assert parse_budgets("256, 64,float,64") == (64, 256, None)
    assert parse_budgets("grid") == (*GRID, None)
    for wrong in ("0", "-3", "many", "", "1.5"):
        with pytest.raises(UnknownNameError, match=r"Unknown budget.*Known: .*4096.*float"):
            parse_budgets(f"64,{wrong}")


def test_a_full_bank_makes_room_for_what_comes(backbones: Backbones, tmp_path: Path) -> None:
    data = dataset(tmp_path, 60)
    names = [d.id for d in data.documents]
    method = build_row(MAC, backbones.fresh("llama"))
    found = []
    for budget, batch in ((14_000, 7), (30_000, 16), (30_000, 64), (30_000, 1)):
        path = tmp_path / f"{budget}-{batch}.bank"
        with bounded_model(method, path, budget) as model:
            bank = model.bank
            steps: list[int] = []
            done, refused = write_fitting(model, data.documents, steps.append, batch)
            kept = [name for name in names if name in bank]
            assert names[-1] in kept and names[0] not in kept, "the oldest go first"
            assert 0 < len(kept) == len(bank) == done.stored - done.forgotten < 60
            assert (done.stored, refused, sum(steps)) == (60, 0, 60)
            assert bank.footprint().total <= budget
            again = build_row(MAC, backbones.fresh("llama"))
            again.bind(bank)
            assert len(again.slots.values) == len(method.slots.values) == 3 * len(kept)
            found.append(len(kept))
        assert path.stat().st_size <= budget
    assert found[0] < min(found[1:])


def test_a_document_too_large_for_the_bank_is_left_out(
    backbones: Backbones, tmp_path: Path
) -> None:
    method = build_row(RAG, backbones.fresh("llama"))
    noise = " ".join(str(n * n) for n in range(20_000))
    documents = [Document("One."), Document(noise), Document("Two.")]
    with bounded_model(method, tmp_path / "b", 20_000) as model:
        bank = model.bank
        model.method.config = replace(method.config, chunk_tokens=10**6)  # in one piece
        done, refused = write_fitting(model, documents)
        assert (done.stored, refused, len(bank)) == (2, 1, 2)
        assert list(bank.ids()) == [documents[0].id, documents[2].id]
        assert [bank.count(name) for name in bank.ids()] == [1, 1]


def test_a_bank_that_fails_otherwise_is_no_full_bank(backbones: Backbones, tmp_path: Path) -> None:
    method = build_row(RAG, backbones.fresh("llama"))
    model = bounded_model(method, ":memory:", None)
    model.close()
    with pytest.raises(BankError, match="closed"):
        write_fitting(model, dataset(tmp_path).documents)


def test_the_least_bank_counts_the_codebook(backbones: Backbones, tmp_path: Path) -> None:
    document = dataset(tmp_path).documents[0]
    backbone = backbones.fresh("llama")
    sizes = {row.name: least_bytes(build_row(row, backbone), document) for row in (NONE, RAG, MBC)}
    assert sizes["none"] == 0
    assert 0 < sizes["rag"] < sizes["mbc"]


def test_every_method_gets_the_same_bytes(backbones: Backbones, tmp_path: Path) -> None:
    lines = [NONE, RAG, MAC, MBC, HISTOGRAM]
    found = records(bench("online-qa", backbones, tmp_path, lines, 40, budgets=(480, 900, None)))
    assert len(found) == 15
    for record in found:
        per_document = record.config["budget_per_document"]
        if per_document is None:
            assert record.budget_bytes is None
            continue
        assert record.budget_bytes == 40 * per_document
        assert values(record)["bank_bytes"] <= record.budget_bytes
    kept = {(r.config["name"], r.config["budget_per_document"]): values(r) for r in found}
    counts = [kept["mac", b]["documents_kept"] for b in (480, 900, None)]
    assert 0 < counts[0] < counts[1] < counts[2] == 40
    assert kept["mbc", None]["documents_kept"] == kept["histogram", None]["documents_kept"] == 40
    health = kept["mbc", None]
    assert 1 <= health["codebook_perplexity"] <= 16
    assert 0 <= health["codebook_dead"] < 16
    assert health["codebook_residual"] > 0
    assert not any(name.startswith("codebook") for name in kept["rag", None])


def test_a_budget_too_small_for_one_row_is_a_record_for_all_an_error(
    backbones: Backbones, tmp_path: Path
) -> None:
    lines = [NONE, RAG]
    none, rag = records(bench("online-qa", backbones, tmp_path, lines, budgets=(8,)))
    assert not none.skipped
    assert "too small" in rag.skipped and "per document" in rag.skipped
    with pytest.raises(
        InputError,
        match=r"budget of 9 bytes.*least bank of rag takes [\d,]+ bytes, [\d,]+ per document",
    ):
        records(bench("online-qa", backbones, tmp_path, [RAG], budgets=(9,)))
    assert not list((tmp_path / "out").glob("*--9.json"))


def test_a_codebook_that_does_not_fit_beside_a_log_is_no_run_without_documents(
    backbones: Backbones, tmp_path: Path
) -> None:
    """1,048,576 bytes is where the log begins: less and more are enough for 590 kB of codewords."""
    overrides = {**MBC.overrides, "codebook": {"codes": 9216}}
    row = replace(MBC, name="large", overrides=overrides)
    budgets = (103_000, 120_000, 200_000)
    small, between, large = records(bench("online-qa", backbones, tmp_path, [row], budgets=budgets))
    assert "a write-ahead log, and large does not fit beside it" in between.skipped
    for record in (small, large):
        assert not record.skipped
        assert values(record)["documents_kept"] == 10


def test_an_unlimited_run_does_not_measure_the_least_bank(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentbank.bench.runner.least_bytes", None)
    records(bench("online-qa", backbones, tmp_path, [Row("rag", "rag")], 3))


def test_a_row_that_stores_nothing_is_run_once(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    found = records(bench("online-qa", backbones, tmp_path, [NONE], budgets=(8, 64)))
    assert oracle.calls == 2  # batches of 16 of 20 questions
    assert values(found[0]) == values(found[1])
    assert [r.budget_bytes for r in found] == [80, 640]


# ---- telemetry


def test_the_residual_is_the_share_of_variance_missed() -> None:
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 8, generator=draw) + 3
    words = latents.mean(0).expand_as(latents)
    meter = ResidualMeter()
    assert meter.value() is None
    for part in (slice(0, 10), slice(10, 64)):
        meter.add(latents[part], words[part])
    assert meter.value() == pytest.approx(1.0, rel=1e-4)
    perfect = ResidualMeter()
    perfect.add(latents, latents)
    assert perfect.value() == 0
    book = Codebook(8, CodebookConfig(codes=4))
    book.fit(latents)
    real = ResidualMeter()
    real.add(latents, book.decode(book.nearest(latents)))
    assert real.value() == pytest.approx(book.health(latents).residual, rel=1e-4)


def test_perplexity_of_counts() -> None:
    assert usage_perplexity(torch.tensor([5, 5, 0, 0])) == pytest.approx(2)
    assert usage_perplexity(torch.tensor([7, 0])) == pytest.approx(1)
    assert usage_perplexity(torch.zeros(3)) == 0


def test_telemetry_tells_of_the_bank_that_is_bound(backbones: Backbones, tmp_path: Path) -> None:
    method = build_row(MBC, backbones.fresh("llama"))
    documents = dataset(tmp_path).documents
    with bounded_model(method, ":memory:", None) as model:
        assert method.telemetry() == {"codebook_perplexity": 0.0, "codebook_dead": 16.0}
        method.write(documents)
        told = method.telemetry()
        assert set(told) == {"codebook_perplexity", "codebook_dead", "codebook_residual"}
        method.bind(model.bank)
        again = method.telemetry()
        assert "codebook_residual" not in again, "nothing was encoded since"
        assert again["codebook_perplexity"] == told["codebook_perplexity"]
    assert not isinstance(build_row(NONE, backbones.fresh("llama")), Telemetry)


# ---- long documents


def test_long_documents_become_chunks_and_keep_their_questions() -> None:
    text = "Aa aa aa. Bb bb bb. Cc cc cc."
    data = QADataset(
        "d",
        (Document("Short."), Document(text, id="long")),
        (
            Question("a", "?", ("Short",), 0),
            Question("b", "?", ("Cc",), 1),
            Question("c", "?", ("nowhere",), 1),
        ),
    )

    def bytes_of(texts: list[str]) -> list[int]:
        return [len(text.encode()) for text in texts]

    cut = chunked(data, bytes_of, 12)  # type: ignore[arg-type]
    assert [d.id for d in cut.documents] == [data.documents[0].id, "long/0", "long/1", "long/2"]
    assert [q.document for q in cut.questions] == [0, 3, 1]
    assert chunked(data, bytes_of, 100) is data  # type: ignore[arg-type]


# ---- closed-book questions


def test_three_layouts_of_closed_book_questions(tmp_path: Path) -> None:
    files = {
        "a.jsonl": '{"question": "who", "answer": ["Klee", "Paul Klee"]}\n{"question": "w", '
        '"answers": "x"}\n',
        "b.txt": "who\t['Klee', \"Paul's\"]\nwhere\t\"['Bern', 'Berne']\"\n",
        "c.json": '[{"qId": "1", "qText": "who", "answers": ["Klee"]},'
        ' {"question": "where", "answer": ["Bern"]}]',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        found = load_questions(tmp_path / name)
        assert found.name == name[0]
        assert not found.documents
        assert len(found.questions) == 2
        assert found.questions[0].answers[0] == "Klee"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"question": "who"}\n', "line 1: answers missing"),
        ("a.jsonl", '{"answer": "x"}\n', "line 1: question missing"),
        ("a.jsonl", '{"question": "who", "answer": ["x"]}\n{cut', "line 2: malformed"),
        ("a.jsonl", '{"question": "who", "answer": [""]}\n', "line 1: an answer is empty"),
        ("a.json", "[]", "no question was found"),
        ("a.json", "[3]", "row 0 is not a JSON object"),
        ("a.json", "[{]", "line 1: malformed"),
        ("a.txt", "who\n", "line 1: expected a question, a tab"),
        ("a.txt", "who\t['x']\nwho\tos.system('x')\n", "line 2: the answers are not a list"),
    ],
)
def test_bad_closed_book_files(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        load_questions(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
