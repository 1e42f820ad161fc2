"""Training: it lowers the loss, survives a kill to the last bit, and knows its own folder.

And it keeps the best adapter, and gives every rank the same one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentbank.adapter import build_method, load_adapter
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.evaluation import Evaluation
from latentbank.method import Method
from latentbank.training import Progress, TrainConfig, Trainer, batches, planned_questions
from latentbank.training import trainer as training_loop
from latentbank.training.log import read_log, trim_log
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones

pytest.importorskip("accelerate")

DATA = QADataset(
    "tiny",
    DOCUMENTS,
    tuple(
        Question(f"q{i}", text, (said,), i)
        for i, (text, said) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ),
)
SHORT: dict[str, Any] = {
    "steps": 6, "documents_per_step": 2, "warmup": 2, "validate_every": 1000,
    "checkpoint_seconds": 1e9,
}  # fmt: skip
# the fewest parts that draw at random in training: dropout, segments, a queue, resets
METHODS: dict[str, dict[str, Any]] = {
    "strata": {"lora": {"rank": 2, "layer": 1, "dropout": 0.3}},
    "mbc": {
        "codebook": {"codes": 8, "reset_below": 0.9, "usage_decay": 0.5},
        "gradient_share": 0.5,
        "lora": {"rank": 2, "layer": 1, "dropout": 0.3, "targets": "kv"},
    },
}


def method(backbones: Backbones, name: str = "strata", **config: Any) -> Method:
    values = {**METHODS.get(name, {}), **config}
    return build_method(name, backbones.fresh("llama"), values, preset="tiny", seed=0)


def trainer(made: Method, folder: Path, data: QADataset = DATA, **config: Any) -> Trainer:
    return Trainer(made, data, None, TrainConfig(**{**SHORT, **config}), folder)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "last" / "adapter.safetensors"))


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    different = [k for k in one if not torch.equal(one[k], two[k])]
    assert not different


# ---- it learns


@pytest.mark.parametrize("name", ["strata", "mbc", "mac", "rag", "none"])
def test_a_short_run_lowers_the_loss(backbones: Backbones, tmp_path: Path, name: str) -> None:
    config = {"lora": {"rank": 4, "layer": 1}} if name in ("mac", "strata") else {}
    made = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    run = trainer(made, tmp_path, steps=40, documents_per_step=5, learning_rate=1e-2)
    before = {k: v.clone() for k, v in made.state().items()}
    run.run()
    losses = [row["loss"] for row in read_log(tmp_path)]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    moved = [k for k, v in made.state().items() if not torch.equal(v, before[k])]
    assert moved
    loaded = load_adapter(tmp_path / "last", backbones.fresh("llama"))
    assert_equal(loaded.state(), made.state())


def test_the_backbone_is_not_trained(backbones: Backbones, tmp_path: Path) -> None:
    made = method(backbones)
    ids = torch.arange(3, 20)[None]
    before = made.backbone.model(ids).logits.detach()
    trainer(made, tmp_path, learning_rate=1.0).run()
    assert torch.equal(made.backbone.model(ids).logits.detach(), before)


# ---- it resumes


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_and_resumed_run_ends_as_an_unstopped_one(
    backbones: Backbones, tmp_path: Path, name: str
) -> None:
    trainer(method(backbones, name), tmp_path / "whole").run()
    parts = tmp_path / "parts"
    for _ in range(20):  # each call is a fresh process's worth of objects
        torch.manual_seed(17)
        run = trainer(method(backbones, name), parts)
        if run.step == SHORT["steps"]:
            break
        run.run(max_seconds=0)
    assert run.step == SHORT["steps"]
    assert_equal(adapter(tmp_path / "whole"), adapter(parts))
    assert [row["step"] for row in read_log(parts)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_between_checkpoints_ends_as_an_unkilled_one(
    backbones: Backbones, tmp_path: Path, name: str
) -> None:
    trainer(method(backbones, name), tmp_path / "whole").run()
    parts = tmp_path / "parts"
    run = trainer(method(backbones, name), parts, checkpoint_seconds=0)

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(kill)  # step 3 is trained and not saved
    with (parts / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # and a line was being written
    again = trainer(method(backbones, name), parts)
    assert again.step == 2
    again.run()
    assert_equal(adapter(tmp_path / "whole"), adapter(parts))
    assert [row["step"] for row in read_log(parts)] == [1, 2, 3, 4, 5, 6]
    losses = [[row["loss"] for row in read_log(folder)] for folder in (tmp_path / "whole", parts)]
    assert losses[0] == losses[1]


def test_a_log_without_a_checkpoint_starts_anew(backbones: Backbones, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    trainer(method(backbones), tmp_path, steps=1).run()
    assert [row["step"] for row in read_log(tmp_path)] == [1]


def test_trimming_a_log_leaves_what_is_right_alone(tmp_path: Path) -> None:
    trim_log(tmp_path, 3)
    assert not list(tmp_path.iterdir())
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n')
    before = log.stat()
    trim_log(tmp_path, 2)
    assert log.stat() == before
    trim_log(tmp_path, 1)
    assert log.read_text() == '{"step": 1}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("moment", ["last.old", "last.new", "both"])
def test_a_kill_while_saving_loses_no_run(
    backbones: Backbones, tmp_path: Path, moment: str
) -> None:
    """Between the two renames of a checkpoint there is no `last`."""
    trainer(method(backbones), tmp_path).run(max_seconds=0)
    saved = adapter(tmp_path)
    if moment == "both":
        (tmp_path / "last.new").mkdir()  # half written: no trainer.json yet
    (tmp_path / "last").rename(tmp_path / ("last.old" if moment == "both" else moment))
    again = trainer(method(backbones), tmp_path)
    assert again.step == 1
    assert_equal(again.method.state(), saved)


def test_a_finished_run_does_nothing_more(backbones: Backbones, tmp_path: Path) -> None:
    trainer(method(backbones), tmp_path).run()
    before = adapter(tmp_path)
    trainer(method(backbones), tmp_path).run()
    assert_equal(adapter(tmp_path), before)
    assert len(read_log(tmp_path)) == SHORT["steps"]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"steps": 7}, "train"),
        ({"seed": 1}, "train"),
        ({"learning_rate": 0.5}, "train"),
        ({"documents_per_step": 1}, "train"),
    ],
)
def test_another_runs_folder_is_refused(
    backbones: Backbones, tmp_path: Path, config: dict[str, Any], word: str
) -> None:
    trainer(method(backbones), tmp_path).run(max_seconds=0)
    with pytest.raises(InputError, match=f"holds another run.*{word}"):
        trainer(method(backbones), tmp_path, **config)
    trainer(method(backbones), tmp_path, checkpoint_seconds=5, validate_every=3)  # changes nothing


def test_a_run_may_have_no_validation(backbones: Backbones, tmp_path: Path) -> None:
    config = TrainConfig(**{**SHORT, "steps": 2, "validate_every": 0})
    Trainer(method(backbones), DATA, DATA, config, tmp_path).run()
    assert [row["validation"] for row in read_log(tmp_path)] == [None, None]
    for wrong in ("validate_every", "validation_documents", "validation_questions"):
        with pytest.raises(InputError, match=wrong):
            TrainConfig(**{wrong: -1})


def test_another_method_or_other_data_in_the_folder_is_refused(
    backbones: Backbones, tmp_path: Path
) -> None:
    trainer(method(backbones), tmp_path).run(max_seconds=0)
    with pytest.raises(InputError, match=r"holds another run.*method"):
        trainer(method(backbones, "mbc"), tmp_path)
    with pytest.raises(InputError, match=r"holds another run.*config"):
        trainer(method(backbones, segments=3), tmp_path)
    with pytest.raises(InputError, match=r"holds another run.*data"):
        trainer(method(backbones), tmp_path, QADataset("less", DATA.documents, DATA.questions[:3]))


def test_nothing_to_train_is_told(backbones: Backbones, tmp_path: Path) -> None:
    made = build_method("none", backbones.fresh("llama"))
    with pytest.raises(InputError, match="no parameters to train"):
        trainer(made, tmp_path)
    with pytest.raises(InputError, match="no questions"):
        next(batches(QADataset("empty", DOCUMENTS, ()), TrainConfig()))


# ---- it keeps the best


def test_best_is_the_step_with_the_highest_validation_f1(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = method(backbones)
    scores = iter([0.1, 0.6, 0.2, 0.4])
    states = []

    def judge(*args: Any, **kwargs: Any) -> Evaluation:
        states.append({k: v.clone() for k, v in made.state().items()})
        one = (next(scores),)
        return Evaluation((), one, one, one, one, one)

    monkeypatch.setattr(training_loop, "evaluate", judge)
    monkeypatch.setattr(Evaluation, "summary", lambda self: {"f1": 100 * self.f1[0]})
    config = TrainConfig(**{**SHORT, "steps": 4, "validate_every": 1})
    Trainer(made, DATA, DATA, config, tmp_path).run()
    best = load_file(str(tmp_path / "best" / "adapter.safetensors"))
    assert_equal(best, states[1])
    card = json.loads((tmp_path / "best" / "config.json").read_text())["training"]
    assert card["step"] == 2
    assert card["validation"]["f1"] == pytest.approx(60)
    assert [row["validation"]["f1"] for row in read_log(tmp_path)] == pytest.approx(
        [10, 60, 20, 40]
    )


def test_validation_neither_changes_the_run_nor_the_methods_bank(
    backbones: Backbones, tmp_path: Path
) -> None:
    trainer(method(backbones), tmp_path / "plain").run()
    made = method(backbones)
    config = TrainConfig(**{**SHORT, "validate_every": 2, "validation_questions": 2})
    Trainer(made, DATA, DATA, config, tmp_path / "judged").run()
    assert_equal(adapter(tmp_path / "plain"), adapter(tmp_path / "judged"))
    judged = [row["step"] for row in read_log(tmp_path / "judged") if row["validation"]]
    assert judged == [2, 4, 6]
    assert (tmp_path / "judged" / "best" / "adapter.safetensors").exists()
    assert made.bank is None, "it had none before"


# ---- the steps themselves


def test_step_i_is_the_same_in_every_run() -> None:
    config = TrainConfig(steps=9, documents_per_step=2, seed=3)
    first = [batch for batch, _ in zip(batches(DATA, config), range(9), strict=False)]
    again = [batch for batch, _ in zip(batches(DATA, config), range(9), strict=False)]
    assert first == again
    assert [b.step for b in first] == list(range(9))
    other = [
        b for b, _ in zip(batches(DATA, TrainConfig(documents_per_step=2)), range(9), strict=False)
    ]
    assert [b.documents for b in other] != [b.documents for b in first]
    for batch in first:
        for owner, question in zip(batch.owner, batch.questions, strict=True):
            assert QUESTIONS.index(question) == DOCUMENTS.index(batch.documents[owner])


def test_a_step_draws_runs_of_neighbours() -> None:
    """Four runs of three of twelve documents, two a step, at another offset in each epoch."""
    documents = tuple(Document(f"text {i:02}") for i in range(12))
    asked = tuple(Question(f"q{i}", f"which {i:02}?", ("it",), i) for i in range(12))
    config = TrainConfig(documents_per_step=6, questions_per_document=1, neighbours=3)
    starts = set()
    stream = batches(QADataset("runs", documents, asked), config)
    for epoch in [[next(stream), next(stream)] for _ in range(12)]:
        places = [documents.index(d) for batch in epoch for d in batch.documents]
        assert sorted(places) == list(range(12))
        for at in range(0, 12, 3):
            run = places[at : at + 3]
            assert run == [(run[0] + i) % 12 for i in range(3)]
            starts.add(run[0] % 3)
    assert starts == {0, 1, 2}


def test_ranks_share_a_step_without_overlap() -> None:
    config = TrainConfig(documents_per_step=4)
    whole = next(batches(DATA, config))
    parts = [next(batches(DATA, config, rank, 2)) for rank in range(2)]
    together = [d for part in parts for d in part.documents]
    assert sorted(d.id for d in together) == sorted(d.id for d in whole.documents)


def test_an_epoch_meets_every_document_once() -> None:
    config = TrainConfig(documents_per_step=1)
    epoch = [batch.documents[0] for batch, _ in zip(batches(DATA, config), range(5), strict=False)]
    assert set(epoch) == set(DOCUMENTS)


def test_the_learning_rate_rises_then_falls_to_a_tenth() -> None:
    config = TrainConfig(steps=100, warmup=10)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert config.rate(100) == pytest.approx(0.1)
    assert TrainConfig(schedule="constant", warmup=0).rate(500) == 1.0


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="at least 1"):
        TrainConfig(steps=0)
    with pytest.raises(InputError, match="cosine, constant or decay"):
        TrainConfig(schedule="linear")


def test_a_loss_that_is_not_finite_stops_the_run(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = method(backbones)
    run = trainer(made, tmp_path)
    loss = made.loss

    def broken(batch: Any) -> Any:
        found = loss(batch)
        return type(found)(found.total * torch.nan)

    monkeypatch.setattr(made, "loss", broken)
    before = {k: v.clone() for k, v in made.state().items()}
    with pytest.raises(InputError, match="not finite at step 0"):
        run.run()
    trained = made.trainable().keys()
    assert all(torch.equal(made.state()[k], before[k]) for k in trained)


def test_replaced_codewords_lose_their_moments(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codebook = {"codes": 16, "learning": "gradient", "reset_below": 0.9, "usage_decay": 0.5}
    made: Any = method(backbones, "mbc", codebook=codebook)
    run = trainer(made, tmp_path, steps=5)
    replaced: list[int] = []
    update = made.codebook.update

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        rows: torch.Tensor = update(*args, **kwargs)
        replaced[:] = rows.tolist()
        return rows

    monkeypatch.setattr(made.codebook, "update", watched)
    stream = batches(DATA, run.config)
    seen = 0
    for _ in range(5):
        run._one_step(next(stream))
        moments = run.optimizer.state[made.codebook.weight]["exp_avg"]
        assert moments[replaced].abs().sum() == 0
        seen += len(replaced)
    assert seen > 0
    assert moments.abs().sum() > 0


def test_a_feature_cache_is_used_and_changes_little(backbones: Backbones, tmp_path: Path) -> None:
    trainer(method(backbones), tmp_path / "plain", steps=2).run()
    made = method(backbones)
    config = TrainConfig(**{**SHORT, "steps": 2})
    Trainer(
        made, DATA, None, config, tmp_path / "cached", feature_cache=tmp_path / "features"
    ).run()
    assert list((tmp_path / "features").glob("*.f16"))
    one, two = adapter(tmp_path / "plain"), adapter(tmp_path / "cached")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0.05, atol=0.01)


# ---- many devices

RANK = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from tiny import Backbones
from test_training import method, trainer
backbones = Backbones(Path(sys.argv[2]))
for name in ("strata", "mbc", "mac"):
    made = method(backbones, name)
    run = trainer(made, Path(sys.argv[3]) / name, documents_per_step=4, steps=4)
    assert run.accelerator.num_processes == 2
    run.run()
    rank = run.accelerator.process_index
    torch.save({k: v.clone() for k, v in made.state().items()}, f"{sys.argv[3]}/{name}{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_adapter(backbones: Backbones, tmp_path: Path) -> None:
    backbones.folder("llama")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", RANK, here, str(backbones.root), str(tmp_path)]
    common = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            arguments,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        logs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)[-3000:]
    for name in ("strata", "mbc", "mac"):
        one, two = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2))
        assert_equal(one, two)
        assert (tmp_path / name / "last" / "trainer.json").exists()


# ---- what a resumed run insists on


def test_a_run_resumes_though_settings_were_added_removed_or_regrouped(
    backbones: Backbones, tmp_path: Path
) -> None:
    trainer(method(backbones), tmp_path).run(max_seconds=0)
    state = tmp_path / "last" / "trainer.json"
    saved = json.loads(state.read_text())
    config = saved["settings"]["config"]
    config["gone_since"] = 3
    config["lora"] = 16  # was a plain value, is a group now
    del config["segments"]
    del saved["settings"]["train"]["clip"]
    state.write_text(json.dumps(saved))
    assert trainer(method(backbones), tmp_path).step == 1
    saved["settings"]["config"]["all_share"] = 0.9
    state.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"holds another run \(different config.all_share\)"):
        trainer(method(backbones), tmp_path)


def test_moments_are_kept_by_name(backbones: Backbones, tmp_path: Path) -> None:
    run = trainer(method(backbones), tmp_path)
    run.run(until=2)
    again = trainer(method(backbones), tmp_path)
    assert again.step == 2
    for name, parameter in again.method.trainable().items():
        own = run.optimizer.state.get(run.method.trainable()[name], {})
        kept = again.optimizer.state.get(parameter, {})
        assert kept.keys() == own.keys()
        assert all(torch.equal(kept[k], own[k]) for k in own)
    moments = tmp_path / "last" / "optimizer.safetensors"
    tensors = load_file(str(moments))
    assert any(name.startswith("lora.") for name in tensors)
    save_file({**tensors, "network.old#exp_avg": torch.zeros(2)}, str(moments))
    with pytest.raises(InputError, match=r"network.old, which the method does not train"):
        trainer(method(backbones), tmp_path)


def test_a_run_may_be_lengthened_while_its_rate_is_constant(
    backbones: Backbones, tmp_path: Path
) -> None:
    decay: dict[str, Any] = {"schedule": "decay", "steps": 6, "decay_share": 0.5}
    trainer(method(backbones), tmp_path, **decay).run(until=2)
    longer = trainer(method(backbones), tmp_path, **{**decay, "steps": 8})
    assert (longer.step, longer.presentations) == (2, 4)
    longer.run(until=6)
    with pytest.raises(InputError, match=r"train.steps"):
        trainer(method(backbones), tmp_path, **{**decay, "steps": 20})


def test_decay_is_constant_and_then_linear() -> None:
    config = TrainConfig(steps=100, warmup=10, schedule="decay", decay_share=0.2)
    assert config.rate(4) == pytest.approx(0.5)
    assert {config.rate(step) for step in range(10, 81)} == {1.0}
    assert config.rate(90) == pytest.approx(0.55)
    assert config.rate(100) == pytest.approx(0.1)
    with pytest.raises(InputError, match="decay_share"):
        TrainConfig(decay_share=0.0)


def test_distractors_follow_and_change_no_question() -> None:
    documents = tuple(Document(f"text {i:02} " + "x" * (i % 7)) for i in range(40))
    asked = tuple(Question(f"q{i}", f"which {i:02}?", ("it",), i // 2) for i in range(80))
    data = QADataset("many", documents, asked)
    plain = TrainConfig(documents_per_step=4, questions_per_document=0)
    more = TrainConfig(documents_per_step=4, questions_per_document=0, distractors=9)
    for one, two, _ in zip(batches(data, plain), batches(data, more), range(12), strict=False):
        assert two.documents[:4] == one.documents
        assert (one.questions, one.answers, one.owner) == (two.questions, two.answers, two.owner)
        assert len(one.questions) == 8, "all questions of four documents"
        assert len(set(two.documents)) == 13
    third = [next(batches(data, more, first=3)) for _ in range(2)]
    stream = batches(data, more)
    assert third == [[next(stream) for _ in range(4)][3]] * 2
    counted = planned_questions(data, plain)
    assert [next(counted) for _ in range(3)] == [8, 8, 8]
