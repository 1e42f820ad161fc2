"""How fast this machine answers: strata beside llama.cpp, cold processes, a file, a busy neighbour.

The systems are asked in turn, question by question, so that other load slows them alike; the record
has medians and ratios. llama.cpp takes part where the package llama-cpp-python is installed, with
the same SmolLM2 (the GGUF file as it ships), the passage that the same retrieval finds, and as many
tokens as strata's answer has. Run: make bench-speed
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from latentbank.cli.common import share_processor

share_processor()
os.environ.pop("OMP_NUM_THREADS", None)  # child processes find out for themselves

import torch  # noqa: E402 - after its threads are told how to wait

from latentbank.backbone.loading import packaged_gguf  # noqa: E402
from latentbank.bench.record import Metric  # noqa: E402
from latentbank.evaluate.data import QADataset, load_dataset, load_sample  # noqa: E402
from latentbank.model import MemoryModel  # noqa: E402
from measured import write_measured  # noqa: E402

HERE = Path(__file__).resolve().parent
PROMPT, KEPT = "llama.cpp, passage in the prompt", "llama.cpp, prefix kept"
Times = dict[str, list[tuple[float, float]]]
"""System → (seconds to the first token, to the whole answer) of each question."""


class Llama:
    """llama.cpp in a child process; `plain` where only weights as they are in the file run."""

    def __init__(self, threads: int) -> None:
        for self.plain in (False, True):
            self._child = self._start(threads)
            try:
                self.ask("It is ten.", "What time is it?", False, 2)
                return
            except (BrokenPipeError, ValueError):
                self._child.wait()
        raise SystemExit("llama.cpp ends at once on this machine")

    def _start(self, threads: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "speed_llama.py"), "--threads", str(threads)]
        command += ["--model", str(packaged_gguf("smollm2-135m"))]
        command += ["--plain"] if self.plain else []
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, passage: str, question: str, kept: bool, tokens: int) -> dict[str, Any]:
        """See `speed_llama.answer`."""
        asked = {"passage": passage, "question": question, "kept": kept, "tokens": tokens}
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found

    def close(self) -> None:
        """Ends the child."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def opened(data: QADataset, engine: str) -> MemoryModel:
    """Strata as it ships, with the documents of `data`."""
    model = MemoryModel.from_pretrained("strata", quick=True, engine=engine)
    model.write(data.documents)
    return model


def forget(model: MemoryModel) -> None:
    """What a process that has just opened the bank does not have."""
    method: Any = model.method
    method.reader.hot.clear()
    method.texts._recent.clear()
    method.retriever._reranker.passages.clear()
    method.retriever._words_of.cache_clear()


def streamed(model: MemoryModel, question: str, quality: str) -> tuple[float, float, str]:
    """(seconds to the first token, to the whole answer, the answer)."""
    began = time.perf_counter()
    stream, first = model.stream(question, quality=quality), 0.0
    for _ in stream:
        first = first or time.perf_counter() - began
    assert stream.answer is not None
    whole = time.perf_counter() - began
    return first or whole, whole, stream.answer.text


def contest(data: QADataset, count: int, threads: int) -> tuple[Times, dict[str, Any]]:
    """All systems in turn; and what must be known beside the times."""
    models = {"torch": opened(data, "torch")}
    engine = models["torch"]
    if importlib.util.find_spec("openvino") is not None:
        models["auto"] = engine = opened(data, "auto")
    llama = Llama(threads) if importlib.util.find_spec("llama_cpp") is not None else None
    questions = [q.text for q in data.sample_questions(count + 1, 0).questions]
    times: Times = {}
    for place, question in enumerate(questions):
        row: dict[str, tuple[float, float]] = {}
        answer = ""
        for quality in ("best", "fast"):
            forget(engine)
            *row[f"strata {quality}, cold"], _ = streamed(engine, question, quality)
            *row[f"strata {quality}, cached"], answer = streamed(engine, question, quality)
        if len(models) > 1:
            streamed(models["torch"], question, "best")
            *row["strata best on PyTorch, cached"], _ = streamed(models["torch"], question, "best")
        if llama is not None:
            retriever: Any = engine.method.retriever  # type: ignore[attr-defined]
            began = time.perf_counter()
            ranking = retriever.rank([question], 1)[0]
            passage = engine.text(ranking[0][0]) if ranking else ""
            found = time.perf_counter() - began
            tokens = 1 + max(1, engine.backbone.count_tokens([f" {answer}"])[0])
            for name, kept in ((PROMPT, False), (KEPT, True)):
                took = llama.ask(passage, question, kept, tokens)
                row[name] = found + took["first"], found + took["whole"]
        if place:  # the first question warms everything up
            for name, pair in row.items():
                times.setdefault(name, []).append((pair[0], pair[1]))
    known = {"engine": getattr(engine.backbone.engine, "name", "torch")}
    if llama is not None:
        known["llama_weights"] = "as in the file" if llama.plain else "repacked"
        llama.close()
    for model in models.values():
        model.close()
    return times, known


def contest_metrics(times: Times) -> dict[str, Metric]:
    """Medians in ms, and the median of the ratios to each system of llama.cpp."""
    metrics = {}
    for name, pairs in times.items():
        for at, part in enumerate(("first token", "whole answer")):
            metrics[f"{name}: {part}"] = Metric(
                1000 * statistics.median(p[at] for p in pairs), "ms"
            )
            for other in (PROMPT, KEPT):
                if other in times and name != other:
                    ratios = [a[at] / b[at] for a, b in zip(pairs, times[other], strict=True)]
                    key = f"{name} over {other}: {part}"
                    metrics[key] = Metric(statistics.median(ratios), "ratio")
    return metrics


def file_metrics(data: QADataset, count: int, before: Path | None) -> dict[str, Metric]:
    """Questions a second of `latentbank ask --file`, starting it included.

    Beside it stands the same command of an earlier version, from the checkout `before`, or else
    PyTorch with the quality "best". The questions come in no order. Each version makes its own
    bank.
    """
    asked = [q.text for q in data.sample_questions(count, 1).questions]
    random.Random(0).shuffle(asked)
    here = HERE.parent
    runs: list[tuple[str, Path, list[str]]] = [("as it ships", here, [])]
    if before is None:
        runs.append(("PyTorch, best", here, ["--engine", "torch", "--quality", "best"]))
    else:
        runs.append(("before", before.resolve(), []))
    metrics: dict[str, Metric] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts, questions = Path(folder) / "texts.jsonl", Path(folder) / "questions.jsonl"
        texts.write_text(_lines({"id": d.id, "text": d.text} for d in data.documents))
        questions.write_text(_lines({"question": text} for text in asked))
        for name, root, options in runs:
            command = [sys.executable, "-c", "from latentbank.cli import main; main()"]
            places = {"cwd": root, "env": {**os.environ, "PYTHONPATH": str(root / "src")}}
            bank = str(Path(folder) / f"{name}.bank")
            for part in (["write", str(texts)], ["ask", "--file", str(questions), *options]):
                began = time.perf_counter()
                subprocess.run(
                    [*command, *part, "--bank", bank], check=True, capture_output=True, **places
                )
                took = time.perf_counter() - began
            metrics[f"file of questions, {name}"] = Metric(len(asked) / took, "questions/s")
    first, second = (metrics[f"file of questions, {name}"].value for name, _, _ in runs)
    metrics["file of questions, speed-up"] = Metric(first / second, "ratio")
    return metrics


def _lines(rows: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# A child begins with the peak of the process that started it, so a small one has to start it.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def process_metrics(times: int) -> dict[str, Metric]:
    """A whole `latentbank ask` in a new process, and importing the package."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        note, bank = Path(folder) / "note.txt", str(Path(folder) / "note.bank")
        note.write_text("The meeting moved to Thursday at ten in room 4.")
        command = [sys.executable, "-m", "latentbank"]
        subprocess.run([*command, "write", str(note), "--bank", bank], check=True)
        for turn in range(times + 1):
            began, before = time.perf_counter(), os.times()
            child = subprocess.Popen(
                [*command, "ask", "When is the meeting?", "--bank", bank, "--stream"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert child.stdout is not None
            child.stdout.read(1)
            first = time.perf_counter() - began
            child.stdout.read()
            child.wait()
            after = os.times()
            if turn:  # the first one compiles the engine's graphs
                used = after.children_user - before.children_user
                used += after.children_system - before.children_system
                found.setdefault("cold process, first token: s", []).append(first)
                found.setdefault("cold process, processor time: s", []).append(used)
        asked = [*command, "ask", "When is the meeting?", "--bank", bank]
        peak = subprocess.run(
            [sys.executable, "-c", _PEAK, *asked], check=True, capture_output=True
        )
        found["cold process, peak resident: MiB"] = [float(peak.stdout.split()[-1])]
    code = "import time; t = time.perf_counter(); import latentbank; print(time.perf_counter() - t)"
    for _ in range(times):
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        found.setdefault("import latentbank: s", []).append(float(run.stdout))
    names = {name: name.rpartition(": ") for name in found}
    return {names[n][0]: Metric(statistics.median(v), names[n][2]) for n, v in found.items()}


def neighbour_metrics(count: int) -> dict[str, Metric]:
    """How much slower cached answers come beside a process that keeps one core busy."""
    command = [sys.executable, __file__, "--alone", str(count)]

    def seconds() -> float:
        run = subprocess.run(command, check=True, capture_output=True)
        return float(run.stdout.split()[-1])

    alone = seconds()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        beside = seconds()
    finally:
        busy.kill()
        busy.wait()
    return {"beside a busy process": Metric(beside / alone, "ratio")}


def alone(count: int) -> None:
    """Prints the median seconds of cached answers of this process."""
    data = load_sample()
    with opened(data, "auto") as model:
        for question in (asked := [q.text for q in data.sample_questions(count, 0).questions]):
            model.ask(question)
        took = [streamed(model, question, "fast")[1] for question in asked]
    print(statistics.median(took))


def main() -> None:
    """Runs the parts and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/speed/contest.json"))
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file-questions", type=int, default=200)
    parser.add_argument("--before", type=Path, help="an earlier checkout, for the file")
    parser.add_argument("--data", default="", help="for the file of questions; else the sample")
    parser.add_argument("--split", default="test-online")
    parts = ("contest", "process", "neighbour", "file")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--alone", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options.alone)
        return
    torch.set_num_threads(options.threads)
    sample = load_sample()
    metrics: dict[str, Metric] = {}
    known: dict[str, Any] = {"threads": options.threads, "questions": options.questions}
    runs: dict[str, Callable[[], dict[str, Metric]]] = {
        "process": lambda: process_metrics(5),
        "neighbour": lambda: neighbour_metrics(6),
        "file": lambda: file_metrics(
            load_dataset(options.data, options.split) if options.data else sample,
            options.file_questions,
            options.before,
        ),
    }
    for part in options.parts:
        if part == "contest":
            times, beside = contest(sample, options.questions, options.threads)
            found, known = contest_metrics(times), known | beside
        else:
            found = runs[part]()
        for name, metric in found.items():
            print(f"{name:<78}{metric.value:9.2f} {metric.unit}", flush=True)
        metrics |= found
    write_measured(options.out, "speed", metrics, sample, method="strata", config=known)


if __name__ == "__main__":
    main()
