"""The model for lm-evaluation-harness on a tiny random backbone; skipped where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval.models.huggingface")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM

from latentbank.adapter import build_method
from latentbank.errors import InputError
from latentbank.integrations.lm_eval import MemoryLM
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, QUESTIONS

pytestmark = pytest.mark.filterwarnings("ignore")
CONTEXTS = [f"Question: {question}\nAnswer:" for question in QUESTIONS]


def harness(backbones: Any, method: str, **options: Any) -> MemoryLM:
    made = MemoryModel(build_method(method, backbones.fresh("llama"), {}, preset="tiny"))
    if method != "none":
        made.write(DOCUMENTS)
    return MemoryLM(model=made, batch_size=2, **options)


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)
    ]


def choices() -> list[Instance]:
    pairs = [(c, t) for c in CONTEXTS[:3] for t in (" Ada", " in 1924", " tea")]
    return requests("loglikelihood", pairs)


def test_it_is_registered() -> None:
    assert get_model("latentbank") is MemoryLM


def test_without_memory_it_is_hf_with_a_start_token(backbones: Any) -> None:
    made = harness(backbones, "none")
    backbone = made.memory_model.backbone
    theirs = HFLM(
        backbone.model, tokenizer=backbone.tokenizer, backend="causal", add_bos_token=True
    )
    starts = [(f"<s>{c}", t) for c, t in (r.args for r in choices())]
    expected = theirs.loglikelihood(requests("loglikelihood", starts), disable_tqdm=True)
    found = made.loglikelihood(choices(), disable_tqdm=True)
    assert [s for s, _ in found] == pytest.approx([s for s, _ in expected], abs=1e-3)
    assert [g for _, g in found] == [g for _, g in expected]
    until = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    ours = made.generate_until(requests("generate_until", [(c, until) for c in CONTEXTS]), True)
    assert ours == theirs.generate_until(
        requests("generate_until", [(f"<s>{c}", until) for c in CONTEXTS]), True
    )


def test_memory_is_read_and_switched_off(backbones: Any) -> None:
    made = harness(backbones, "strata")
    off = MemoryLM(model=made.memory_model, memory="False")
    read = made.loglikelihood(choices(), disable_tqdm=True)
    nothing = off.loglikelihood(choices(), disable_tqdm=True)
    assert all(abs(a - b) > 1e-4 for (a, _), (b, _) in zip(read, nothing, strict=True))
    single = MemoryLM(model=made.memory_model, batch_size=1)
    again = single.loglikelihood(choices(), disable_tqdm=True)
    assert [s for s, _ in again] == pytest.approx([s for s, _ in read], abs=1e-3)


def test_rolling_reads_nothing(backbones: Any) -> None:
    made = harness(backbones, "strata")
    texts = requests("loglikelihood_rolling", [(d.text,) for d in DOCUMENTS])
    off = MemoryLM(model=made.memory_model, memory=False, batch_size=2)
    assert made.loglikelihood_rolling(texts, True) == off.loglikelihood_rolling(texts, True)


def test_requests_with_and_without_a_question_come_back_in_order(backbones: Any) -> None:
    made = harness(backbones, "strata")
    mixed = requests("loglikelihood", [("", "Oslo"), (CONTEXTS[0], " Ada"), ("", "tea")])
    alone = [made.loglikelihood([r], disable_tqdm=True)[0] for r in mixed]
    found = made.loglikelihood(mixed, disable_tqdm=True)
    assert [s for s, _ in found] == pytest.approx([s for s, _ in alone], abs=1e-3)


def test_a_task_runs_through_the_harness(backbones: Any, tmp_path: Path) -> None:
    import json

    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    rows = [{"q": q, "a": i % 2} for i, q in enumerate(QUESTIONS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "tiny.yaml").write_text(
        "task: tiny_choice\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "Question: {{q}}\\nAnswer:"\ndoc_to_target: "{{a}}"\n'
        'doc_to_choice: ["no", "yes"]\nmetric_list: [{metric: acc}]\n'
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = simple_evaluate(
        harness(backbones, "strata"), tasks=["tiny_choice"], task_manager=manager, bootstrap_iters=0
    )
    assert 0 <= found["results"]["tiny_choice"]["acc,none"] <= 1


def test_bad_arguments_are_refused(backbones: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Name a bank"):
        MemoryLM()
    with pytest.raises(InputError, match=r"nowhere\.bank' does not exist"):
        MemoryLM(bank=str(tmp_path / "nowhere.bank"))
    with pytest.raises(InputError, match="backbone="):
        MemoryLM(pretrained="gpt2")
    made = harness(backbones, "none")
    sampled = requests("generate_until", [(CONTEXTS[0], {"do_sample": True, "temperature": 1.0})])
    with pytest.raises(InputError, match="greedily"):
        made.generate_until(sampled, True)


def test_the_module_passes_arguments_to_the_harness(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from latentbank.bench import lm_eval as bridge

    monkeypatch.setattr(sys, "argv", ["lm_eval", "--help"])
    with pytest.raises(SystemExit) as status:
        bridge.main()
    assert status.value.code == 0
    assert "lm-eval" in capsys.readouterr().out.lower()


def test_a_missing_bank_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from latentbank.bench import lm_eval as bridge

    arguments = [
        "--model",
        "latentbank",
        "--model_args",
        "bank=nowhere.bank",
        "--tasks",
        "arc_easy",
    ]
    monkeypatch.setattr(sys, "argv", ["lm_eval", "run", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as status:
        bridge.main()
    assert status.value.code == 2
    assert "error: The bank 'nowhere.bank' does not exist." in capsys.readouterr().err
