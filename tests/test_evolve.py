"""The search for expressions: cascade, islands, checkpoints, an endpoint, baselines, command."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from latentbank.adapter import build_method
from latentbank.backbone.endpoint.client import Client
from latentbank.bank.policy import DEFAULT_POLICY, Signals, make_policy
from latentbank.cli import app
from latentbank.documents.document import Document
from latentbank.errors import InputError, LatentbankError
from latentbank.evaluate.data import QADataset, Question, load_sample
from latentbank.evolve.baselines import cross_entropy, random_search
from latentbank.evolve.fusions import FusionObjective
from latentbank.evolve.objective import Cascade, Objective
from latentbank.evolve.policies import BLEND, PolicyObjective, Stream
from latentbank.evolve.population import Population, Program
from latentbank.evolve.proposer import Proposer
from latentbank.evolve.search import STATE, Search, SearchSettings
from latentbank.evolve.study import clustered_interval
from latentbank.functions.expression import Expression, parse
from tiny import Backbones

X = np.linspace(0, 2, 41)


class Curve(Objective):
    """An expression of x that comes near x² + 1 on a growing part of 0 … 2."""

    target, names, first = "curve", ("x",), "x"
    starts = ("x + 1",)
    terms: Mapping[str, float] = {"x": 1.0, "x * x": 0.5, "1": 0.5}

    def probe(self) -> Mapping[str, Any]:
        return {"x": X}

    def identity(self) -> dict[str, Any]:
        return {"target": "curve"}

    def figures(self, expression: Expression, share: float) -> dict[str, float]:
        x = X[: max(2, round(share * len(X)))]
        return {"score": 1 / (1 + float(np.abs(expression.bounded({"x": x}) - x * x - 1).mean()))}

    def outcomes(self, expression: Expression) -> list[float]:
        return [self.figures(expression, 1.0)["score"]]


def texts(search: Search) -> list[tuple[str, str, tuple[int, ...], str]]:
    return [(one.text, one.way, one.parents, one.rejected) for one in search.programs]


def test_a_search_comes_closer_than_it_began() -> None:
    search = Search(Curve(), SearchSettings(evaluations=400, seed=3))
    best = search.run()
    assert best.score > 0.9 > search.programs[0].score
    ancestors = search.lineage(best)
    assert ancestors[-1].number == best.number and not ancestors[0].parents
    assert all(p in {a.number for a in ancestors} for a in ancestors for p in a.parents)
    counts = search.counts()
    assert sum(n for name, n in counts.items() if name != "repeated") == 401
    assert counts["passed"] > 50 and counts["rejected_at_0"] > 0
    assert {one.way for one in search.programs} > {"first", "start", "crossover", "nudged"}


def test_the_same_seed_gives_the_same_lineage_also_after_a_kill(tmp_path: Path) -> None:
    whole = Search(Curve(), SearchSettings(evaluations=90, seed=1))
    whole.run()

    def killed(program: Program) -> None:
        if program.number == 47:
            raise KeyboardInterrupt

    settings = SearchSettings(evaluations=90, seed=1)
    first = Search(Curve(), settings, tmp_path, told=killed)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    again = Search(Curve(), settings, tmp_path)
    again.run()
    assert texts(again) == texts(whole)
    assert again.population.best == whole.population.best
    longer = Search(Curve(), SearchSettings(evaluations=120, seed=1), tmp_path)
    longer.run()
    assert texts(longer)[:91] == texts(whole) and len(longer.programs) == 121


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    Search(Curve(), SearchSettings(evaluations=5), tmp_path).run()
    with pytest.raises(InputError, match="other settings or data"):
        Search(Curve(), SearchSettings(evaluations=5, seed=2), tmp_path).run()
    (tmp_path / STATE).write_text("{")
    with pytest.raises(InputError, match="no checkpoint"):
        Search(Curve(), SearchSettings(evaluations=5), tmp_path).run()


def test_the_cascade_rejects_early_and_says_why() -> None:
    cascade = Cascade(Curve())
    cascade.start(parse("x", ("x",)))
    before = cascade.evaluations
    far = cascade.evaluate(parse("x - 50", ("x",)))
    assert far.stages == 0 and "of the data, least" in far.rejected
    assert cascade.evaluations == before + 1, "only the smallest share was looked at"
    assert "no finite number" in cascade.evaluate(parse("1 / x", ("x",))).rejected
    assert "same for everything" in cascade.evaluate(parse("x - x", ("x",))).rejected
    assert cascade.evaluations == before + 1
    near = cascade.evaluate(parse("x * x + 1", ("x",)))
    assert not near.rejected and near.stages == 3 and near.likeness == pytest.approx(1.0)


def test_the_best_of_an_island_migrate_to_the_next() -> None:
    population = Population(2, 40, 10, 0.1, 0.2, migrate_every=4, migrate_share=0.25)
    for number in range(4):
        figures = {"score": float(number)}
        population.add(Program(number, f"x + {number}", 0, (), "", 3, figures, "", (0, number)))
    assert [one.number for one in population.islands[1].members] == [3]
    assert population.best.number == 3
    draws = np.random.default_rng(0)
    parents = {population.parents(draws, 1)[0].number for _ in range(50)}
    assert 3 in parents and parents <= {0, 1, 2, 3}


def test_baselines_evaluate_as_often_as_they_may() -> None:
    by_chance = random_search(Curve(), 60, seed=0)
    by_weight = cross_entropy(Curve(), 200, seed=0)
    assert (by_chance.evaluations, by_weight.evaluations) == (60, 200)
    assert by_chance.best[0][1] >= Curve().figures(parse("x", ("x",)), 1.0)["score"]
    assert by_weight.best[0][1] > 0.85
    several = random_search(Curve(), 60, seed=0, keep=3).best
    assert several[0] == by_chance.best[0] and len({text for text, _ in several}) == 3
    assert several[0][1] >= several[1][1] >= several[2][1]


# ---- policies


def test_a_formula_is_a_policy_and_the_default_can_be_written_as_one() -> None:
    signals = Signals(np.arange(50), np.arange(50) % 7, np.linspace(0, 1, 50), np.ones(50, int))
    span = 20.0
    formula = make_policy(f"formula:{BLEND}").value(signals, span)
    blend = make_policy(DEFAULT_POLICY).value(signals, span)
    np.testing.assert_allclose(formula, blend, atol=1e-5)
    for text in ("formula:age **", "formula:price", "formula:"):
        with pytest.raises(LatentbankError):
            make_policy(text)


def stream_data(count: int) -> QADataset:
    documents = tuple(
        Document(f"The keeper of lighthouse number {i} is called Person{i} and paints boats.")
        for i in range(count)
    )
    questions = tuple(
        Question(f"q{i}", f"Who is the keeper of lighthouse number {i}?", (f"Person{i}",), i)
        for i in range(count)
    )
    return QADataset("lighthouses", documents, questions)


def test_a_policy_that_keeps_what_is_asked_for_answers_more(backbones: Backbones) -> None:
    overrides = {"retrieval": {"candidates": 1, "rerank": 0}}
    method = build_method("strata", backbones.fresh("llama"), overrides, preset="tiny")
    stream = Stream(budget=40, documents=60, streams=2, phases=3, asked=20, wanted=0.2)
    objective = PolicyObjective(method, stream_data(80), stream)
    names = objective.names
    asked = objective.outcomes(parse("sample + 4 * log1p(hits)", names))
    newest = objective.outcomes(parse("age", names))
    oldest = objective.outcomes(parse("-age", names))
    assert 90 < len(asked) <= 2 * 3 * 20 and len(newest) == len(asked)
    assert np.mean(asked) > np.mean(newest) and np.mean(asked) > np.mean(oldest)
    assert objective.outcomes(parse("age", names)) == newest
    figures = objective.figures(parse("age", names), 1.0)
    assert figures["score"] == pytest.approx(np.mean(newest))
    assert figures["new"] > figures["old"]
    half = objective.figures(parse("age", names), 0.5)["score"]
    assert half == pytest.approx(np.mean(objective.play("formula:age", 1)[0].answered))
    for wrong in (stream_data(8), stream_data(80)):
        with pytest.raises(InputError, match="need at least"):
            PolicyObjective(method, wrong, Stream(phases=30 if wrong.documents[8:] else 3))


def test_questions_ask_about_all_phases_and_only_about_wanted_documents(
    backbones: Backbones,
) -> None:
    overrides = {"retrieval": {"candidates": 1, "rerank": 0}}
    method = build_method("strata", backbones.fresh("llama"), overrides, preset="tiny")
    stream = Stream(budget=400, documents=60, streams=1, phases=4, asked=50, wanted=0.2)
    played = PolicyObjective(method, stream_data(60), stream).play("age")[0]
    assert len(set(played.owners)) <= 12
    last = played.ages[-40:]
    assert set(last) == {0, 1, 2, 3} and played.ages[0] == 0
    assert np.mean(played.answered) == 1.0, "with room for all of them each is answered"


def test_questions_about_one_document_are_drawn_together() -> None:
    differences = [1.0] * 10 + [0.0] * 10
    alone = clustered_interval(differences, [str(i) for i in range(20)])
    together = clustered_interval(differences, ["a"] * 10 + ["b"] * 10)
    assert alone.value == together.value == 0.5
    assert together.high - together.low > alone.high - alone.low
    assert 0.2 < alone.low < 0.4 and (together.low, together.high) == (0.0, 1.0)


def test_a_fusion_orders_texts_and_the_shipped_one_is_the_first() -> None:
    objective = FusionObjective(load_sample().take(60))
    shipped = objective.figures(parse(objective.first, objective.names), 1.0)
    backwards = objective.figures(parse("-score", objective.names), 1.0)
    assert shipped["score"] > 0.8 > backwards["score"]
    assert objective.outcomes(parse("score", objective.names)).count(1.0) > 0
    search = Search(objective, SearchSettings(evaluations=40))
    search.run()
    sizes = {parse(one.text, objective.names).size for one in search.programs}
    assert max(sizes) > 43, "the first has 43 nodes, and its children may be larger"


# ---- an endpoint


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    """A stub that answers with the next of a list; an int is a status."""
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = answers.pop(0) if answers else 500
            status = answer if isinstance(answer, int) else 200
            content = "" if isinstance(answer, int) else answer
            body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", answers
    server.shutdown()
    server.server_close()


def test_an_endpoint_proposes_and_nonsense_is_counted(endpoint: tuple[str, list[Any]]) -> None:
    url, answers = endpoint
    answers += ["Try this:\n```\nx * x + 1\n```", "import os", "x + 3", "", 500]
    proposer = Proposer(Client(url, "any", 5), patience=2)
    search = Search(Curve(), SearchSettings(evaluations=12), proposer=proposer)
    best = search.run()
    assert best.text == "x * x + 1" and best.way == "endpoint"
    assert proposer.counts["taken"] == 2 and proposer.counts["refused"] == 2
    assert proposer.counts["no answer"] == 3 and proposer.counts["not asked"] > 0
    assert "500" in proposer.told()
    assert len(search.programs) == 13, "the search made the others itself"


def test_an_endpoint_that_is_down_does_not_stop_a_search() -> None:
    proposer = Proposer(Client("http://127.0.0.1:9", "any", 1), tries=1, patience=1)
    Search(Curve(), SearchSettings(evaluations=5), proposer=proposer).run()
    assert proposer.counts["no answer"] == 1 and "127.0.0.1" in proposer.told()


# ---- the command


def test_the_command_searches_tests_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "fusion"
    words = ["evolve", "fusion", "--documents", "60", "--evaluations", "12", "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["name"] for row in found["rows"]] == ["default", "evolved", "random", "cem"]
    record = json.loads((out / "evolve.json").read_text())
    assert record["task"] == "evolve" and record["metrics"]["test_questions"]["value"] > 0
    assert json.loads((out / "lineage.jsonl").read_text().splitlines()[0])["way"] == "first"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and "over the default" in again.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evolve", "colour"], "colour"),
        (["evolve", "fusion", "--llm", "ftp://x", "--documents", "20"], "http"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert isinstance(result.exception, LatentbankError | SystemExit)
    assert said in str(result.exception) + result.output
