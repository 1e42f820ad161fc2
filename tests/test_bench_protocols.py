"""What each protocol of the bench measures, shown with an oracle that answers from the bank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench_world import (
    CEILING,
    HISTOGRAM,
    MAC,
    MBC,
    NONE,
    RAG,
    SHORT,
    Oracle,
    bench,
    dataset,
    oracle,
    records,
    rows,
    values,
    write_rows,
)
from latentbank.bench.session import Settings
from latentbank.bench.task import TASKS
from latentbank.bench.tasks.noise import Noise, NoiseConfig
from latentbank.bench.tasks.scale import COPIES, _memory
from latentbank.bench.tasks.updates import build_updates, coarse_type
from latentbank.errors import InputError, UnknownNameError
from latentbank.evaluate.data import load_dataset
from tiny import Backbones

__all__ = ["oracle"]


def test_the_protocols_are_there() -> None:
    assert set(TASKS.names()) == {
        "abstain", "capacity", "delete", "duplicates", "forgetting", "frontier-learning",
        "kb-qa", "noise", "online-qa", "retention", "scale", "updates",
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="online-qa, retention"):
        TASKS.get("online")


def test_online_qa(backbones: Backbones, tmp_path: Path, oracle: Oracle) -> None:
    (record,) = records(bench("online-qa", backbones, tmp_path))
    found = values(record)
    assert found["exact_match"] == found["f1"] == found["gold_selected"] == 100
    assert (found["questions"], found["documents"], found["documents_kept"]) == (20, 10, 10)
    parts = ("codes", "codebook", "state", "keys", "ledger", "index", "overhead")
    assert sum(found[f"footprint_{name}"] for name in parts) == found["bank_bytes"] > 0
    assert found["bytes_per_document"] == found["bank_bytes"] / 10
    assert record.metrics["exact_match"].low is not None


def test_answers_kept_are_those_that_a_full_bank_still_holds(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    free, full = records(bench("online-qa", backbones, tmp_path, count=60, budgets=(None, 230)))
    assert values(free)["answer_kept"] == 100
    kept = values(full)
    assert kept["documents_kept"] < 60
    assert 0 < kept["answer_kept"] < 100
    assert kept["exact_match"] <= kept["answer_kept"]  # the oracle reads what is left


def test_a_bank_of_states_keeps_no_answers(backbones: Backbones, tmp_path: Path) -> None:
    (record,) = records(bench("online-qa", backbones, tmp_path, (MAC,)))
    assert "answer_kept" not in values(record)


def test_retention_follows_the_first_documents(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    (record,) = records(bench("retention", backbones, tmp_path, options={"first": 4, "every": 4}))
    curve = record.series["f1"]
    assert curve.x == (4, 8, 10)
    assert curve.y == (100, 100, 100)
    assert values(record)["retention_area_f1"] == pytest.approx(100)
    assert values(record)["backward_transfer_f1"] == 0
    assert values(record)["questions"] == 8


def test_retention_needs_more_documents_than_it_asks_about(
    backbones: Backbones, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"more than the 200 documents.*the data has 10"):
        records(bench("retention", backbones, tmp_path))


def test_noise_is_mixed_in_and_never_asked_about(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    (record,) = records(bench("noise", backbones, tmp_path, options={"levels": [0, 40, 100]}))
    assert record.series["f1"].x == (0, 40, 100)
    assert record.series["f1"].y == (100, 100, 100)
    assert record.series["documents_kept"].y == (5, 7, 10)
    assert values(record)["questions"] == 10


def test_the_noisy_stream_keeps_the_order_and_the_seed(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    task = Noise(data, Settings(seed=3), NoiseConfig())
    found = task.stream(100)
    assert [d for d in found if d in data.documents[:5]] == list(data.documents[:5])
    assert sorted(d.id for d in found) == sorted(d.id for d in data.documents)
    assert found == Noise(data, Settings(seed=3), NoiseConfig()).stream(100)
    assert found != Noise(data, Settings(seed=4), NoiseConfig()).stream(100)


def test_noise_of_its_own_leaves_all_documents_to_ask_about(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "noise.jsonl", [{"document": f"Noise number {i}."} for i in range(12)]
    )
    task = Noise(dataset(tmp_path), Settings(), NoiseConfig(noise=str(path)))
    assert task.documents == 10
    assert len(task.stream(100)) == 20
    assert task.extra_hash
    with pytest.raises(InputError, match="needs 20 unrelated documents"):
        Noise(dataset(tmp_path), Settings(), NoiseConfig((0, 200), str(path)))


def test_duplicates_are_counted_and_stored_once(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    (record,) = records(bench("duplicates", backbones, tmp_path, options={"copies": [1, 3]}))
    assert record.series["documents_kept"].y == (10, 10)
    assert record.series["f1"].y == (100, 100)
    assert "bank_growth" in record.metrics


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("1843", "year"), ("2061", "year"), ("76", "number"), ("$62.5 million", "number"),
     ("12 %", "number"), ("Ada Lovelace", "name"), ("Bank of England", "name"), ("tea", ""),
     ("the clover", ""), ("", "")],
)  # fmt: skip
def test_coarse_types(answer: str, kind: str) -> None:
    assert coarse_type(answer) == kind


def test_updates_put_another_answer_of_the_same_kind_in_place(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    found = build_updates(data, seed=0)
    assert len(found) == 10
    for update in found:
        old, new = update.old[0], update.question.answers[0]
        before, now = data.documents[update.index].text, update.document.text
        assert coarse_type(old) == coarse_type(new)
        assert old in before and old not in now
        assert new in now and new not in before
        assert update.document.id != data.documents[update.index].id
    assert found == build_updates(data, seed=0)
    assert found != build_updates(data, seed=1)


def test_the_newer_answer_counts(backbones: Backbones, tmp_path: Path, oracle: Oracle) -> None:
    (record,) = records(bench("updates", backbones, tmp_path))
    found = values(record)
    assert found["exact_match"] == 100
    assert found["old_exact_match"] == 0
    assert found["exact_match_clean"] == found["exact_match_of_clean"] == 100
    assert found["documents"] == 20
    assert record.config["updates"] == 10


def test_the_old_answer_is_an_error(
    backbones: Backbones, tmp_path: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench_world.reversed", iter, raising=False)  # the first stored counts
    (record,) = records(bench("updates", backbones, tmp_path))
    found = values(record)
    assert found["exact_match"] == found["exact_match_of_clean"] == 0
    assert found["old_exact_match"] == found["exact_match_clean"] == 100


def test_data_without_a_typed_answer_cannot_be_updated(
    backbones: Backbones, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "tea", "question": "?", "answer": "tea"}])
    wrong = replace(bench("updates", backbones, tmp_path), data=load_dataset(path))
    with pytest.raises(InputError, match="No document of a can be updated"):
        records(wrong)


def test_deleted_documents_fall_to_closed_book(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    (record,) = records(bench("delete", backbones, tmp_path))
    found = values(record)
    assert found["f1"] == found["f1_before_deletion"] == 100
    assert found["f1_deleted"] == found["f1_closed_book"] == 0
    assert found["leak_f1"] == 0
    assert (found["deleted_documents"], found["documents_kept"]) == (5, 5)
    assert found["answers_from_deleted"] == 0
    assert record.config["claims_exact_delete"] is True


def test_a_method_that_cannot_delete_says_so(backbones: Backbones, tmp_path: Path) -> None:
    record, mbc = records(bench("delete", backbones, tmp_path, [HISTOGRAM, MBC]))
    assert "cannot delete a document" in record.skipped
    assert not record.metrics
    assert not mbc.skipped
    assert mbc.config["untrained"] is True


def test_forgetting_asks_before_and_after(backbones: Backbones, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "quiz.jsonl", [{"question": "who painted", "answer": ["Klee"]} for _ in range(3)]
    )
    record, ceiling = records(
        bench(
            "forgetting", backbones, tmp_path, [RAG, CEILING], options={"closed_book": [str(path)]}
        )
    )
    found = values(record)
    assert {"f1_backbone_quiz", "f1_before_quiz", "f1_after_quiz"} <= found.keys()
    assert found["forgetting_f1_quiz"] == pytest.approx(
        found["f1_before_quiz"] - found["f1_after_quiz"]
    )
    assert found["f1_backbone_quiz"] == found["f1_before_quiz"], "an empty bank says nothing"
    assert "closed-book questions have none" in ceiling.skipped


def test_forgetting_reads_the_bank_once_it_is_written(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    """The questions are those of the stream, so that only a bank that is read can answer them."""
    asked = [question for row in rows(4) for question in row["questions"]]
    path = write_rows(tmp_path / "quiz.jsonl", asked)
    options = {"closed_book": [str(path)]}
    (record,) = records(bench("forgetting", backbones, tmp_path, [RAG], options=options))
    found = values(record)
    assert (found["f1_before_quiz"], found["f1_after_quiz"]) == (0, 100)


def test_forgetting_needs_questions(backbones: Backbones, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--closed-book"):
        records(bench("forgetting", backbones, tmp_path))
    with pytest.raises(InputError, match="no gold document to give"):
        records(bench("forgetting", backbones, tmp_path, settings=replace(SHORT, gold=True)))


def test_confidence_tells_written_from_unwritten(
    backbones: Backbones, tmp_path: Path, oracle: Oracle
) -> None:
    (record,) = records(bench("abstain", backbones, tmp_path))
    found = values(record)
    assert found["documents_kept"] == 5
    assert found["accuracy_at_1_percent_false"] == 100
    assert (found["questions"], found["unanswerable_questions"]) == (10, 10)
    risk = record.series["risk"]
    assert risk.y[0] == 0 and risk.y[-1] == pytest.approx(50)


def test_scale_goes_on_with_resampled_entries(backbones: Backbones, tmp_path: Path) -> None:
    sizes = {"sizes": [5, 20, 300], "asked": 4}
    made = records(bench("scale", backbones, tmp_path, [RAG, MAC, NONE], options=sizes))
    for record in made[:2]:
        curve = record.series["bank_bytes"]
        assert curve.x == (5, 20, 300)
        assert curve.y[0] < curve.y[-1]
        assert values(record)["documents_kept"] == 300
        assert record.config["resampled_above"] == 10
        assert record.series["write_documents_per_second"].x == (5, 20)
        assert record.series["append_entries_per_second"].x == (20, 300)
        assert "read_milliseconds" in record.metrics
    assert made[2].config["largest"] == 5
    assert "no entries" in made[2].config["stopped"]


def test_scale_stops_before_the_disk_or_the_memory_is_full(
    backbones: Backbones, tmp_path: Path
) -> None:
    for options, words in (
        ({"bank_bytes": 20_000}, "more than bank_bytes=20,000"),
        ({"memory_share": 1e-9}, "of memory"),
    ):
        sizes = {"sizes": [10, 10_000], "asked": 2, **options}
        (record,) = records(bench("scale", backbones, tmp_path, [MAC], options=sizes, again=True))
        assert words in record.config["stopped"]
        assert record.config["largest"] == 10


def test_the_memory_of_a_larger_bank_is_told_from_two_sizes() -> None:
    model, asking, each = 500, 100, 2  # what is loaded, what a question takes, what a document does
    peaks = {n: float(model + asking + each * n) for n in (100, 1000)}
    assert _memory(10_000, peaks, 77) == model + asking + each * 10_000
    assert _memory(1000, {100: peaks[100]}, 50) == peaks[100] + COPIES * 50 / 100 * 900
    assert _memory(1000, {10: 900.0, 100: 800.0}, 50) == 800, "less memory is no slope"
    assert _memory(1000, {}, 50) == 0


def test_scale_takes_no_budget(backbones: Backbones, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave --budget out"):
        records(bench("scale", backbones, tmp_path, budgets=(64,)))
