"""The server under wrong requests: made from its OpenAPI document, or by two tenants at random.

`schema`: schemathesis makes requests, right and wrong ones, for every endpoint. None may give 500
or hang. `--requests` are shared out among the operations; those without arguments need few of them,
so about two thirds are sent. `tenants`: two tenants do random things with banks of the same names;
a model of what each has tells every answer, and no secret of one may stand in a response to the
other. A tiny random model answers, in this process: nothing leaves it.

    python scripts/fuzz_server.py schema --requests 17000
    python scripts/fuzz_server.py tenants --steps 5000
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from starlette.testclient import TestClient

from latentbank.backbone.model import load_backbone
from latentbank.bench.record import DataInfo, Metric
from latentbank.server.app import create_app
from latentbank.server.settings import Limits, Settings, Tenant, hash_token
from measured import write_measured

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny import save_backbone

TOKENS = {"zoran": "token-of-zoran", "quimby": "token-of-quimby"}  # names that no answer holds
SLOW = 30.0  # seconds after which a request counts as a hang


def application(folder: Path, tenants: tuple[Tenant, ...]) -> Any:
    """The server's application over a tiny random model."""
    save_backbone("gpt2", folder / "gpt2")
    settings = Settings(
        data=str(folder / "banks"),
        backbone=str(folder / "gpt2"),
        dtype="float32",
        style="short",
        quality="fast",
        limits=Limits(answer_tokens=16, question_characters=400, request_seconds=20.0),
        tenants=tenants,
    )
    return create_app(settings, load_backbone(settings.backbone, dtype="float32"))


# ---- requests from the schema


def fuzz_schema(requests: int, seed: int, folder: Path) -> dict[str, Metric]:
    """Requests made by schemathesis, in turn for each operation."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import seed as hypothesis_seed
    from schemathesis.generation import GenerationMode

    app = application(folder, (Tenant("local"),))
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    slowest = 0.0
    with TestClient(app, raise_server_exceptions=False) as client:
        client.post("/v1/banks", json={"name": "facts"}).raise_for_status()
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())

        def send(case: Any, name: str) -> None:
            nonlocal slowest
            case.path_parameters = {
                key: "facts" if key in ("bank", "store") and len(str(value)) % 2 else value
                for key, value in (case.path_parameters or {}).items()
            }
            if isinstance(case.body, dict) and "model" in case.body and len(case.body) % 2:
                case.body["model"] = "facts"
            asked = case.as_transport_kwargs(base_url="http://testserver")
            asked.pop("cookies", None)
            if isinstance(asked.get("data"), bytes):
                asked["content"] = asked.pop("data")
            began = time.perf_counter()
            try:
                response = client.request(asked.pop("method"), asked.pop("url"), **asked)
            except (UnicodeError, ValueError):  # the client itself cannot send it
                return
            seconds = time.perf_counter() - began
            slowest = max(slowest, seconds)
            statuses[response.status_code] += 1
            if response.status_code >= 500 and response.status_code not in (503, 504):
                faults.append(f"{name}: {response.status_code} {response.text[:200]}")
            if seconds > SLOW:
                faults.append(f"{name}: {seconds:.0f} s")

        def named(label: str) -> Any:
            def check(case: Any) -> None:
                send(case, label)

            return check

        operations = [one.ok() for one in schema.get_all_operations()]
        each = -(-requests // (2 * len(operations)))
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                    wrapped = given(case=strategy)(named(operation.label))
                    wrapped = settings(
                        max_examples=each,
                        deadline=None,
                        database=None,
                        phases=[Phase.generate],
                        verbosity=Verbosity.quiet,
                        suppress_health_check=list(HealthCheck),
                    )(wrapped)
                    hypothesis_seed(seed)(wrapped)()
                except Exception as error:
                    if "Unsatisfiable" not in type(error).__name__ and "Skip" not in str(error):
                        print(f"{operation.label}, {mode}: {type(error).__name__}: {error}"[:300])
        alive = client.get("/healthz").status_code == 200
        models = client.get("/v1/models").status_code == 200
    for fault in faults[:20]:
        print(fault)
    print(dict(sorted(statuses.items())))
    return {
        "requests": Metric(sum(statuses.values()), "count"),
        "operations": Metric(len(operations), "count"),
        "errors 500 and hangs": Metric(len(faults), "count"),
        "slowest": Metric(slowest, "s"),
        "alive afterwards": Metric(int(alive and models), "count"),
        **{f"status {code}": Metric(n, "count") for code, n in sorted(statuses.items())},
    }


# ---- two tenants


class World:
    """What each tenant should have: bank → id → text."""

    def __init__(self) -> None:
        self.banks: dict[str, dict[str, dict[str, str]]] = {name: {} for name in TOKENS}


class Steps:
    """Random operations of two tenants, each checked against the model."""

    NAMES = ("notes", "work", "x")

    def __init__(self, client: TestClient, seed: int) -> None:
        self.client, self.draw, self.world = client, random.Random(seed), World()
        self.counts: Counter[str] = Counter()
        self.leaks: list[str] = []
        self.wrong: list[str] = []

    def call(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """A request; no word of the other tenant may stand in the response."""
        headers = {"Authorization": f"Bearer {TOKENS[who]}"}
        response = self.client.request(method, path, json=body, headers=headers)
        other = next(name for name in TOKENS if name != who)
        if other in response.text:
            self.leaks.append(f"{who} {method} {path}: {response.text[:200]}")
        if response.status_code >= 500:
            self.wrong.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
        return response

    def expect(self, response: Any, status: int) -> None:
        """Notes a response that the model does not foresee."""
        if response.status_code != status:
            asked = response.request
            self.wrong.append(
                f"{asked.method} {asked.url.path}: {response.status_code}, not {status}"
            )

    def step(self) -> None:
        """One operation of one tenant."""
        who = self.draw.choice(list(TOKENS))
        kind = self.draw.choices(
            ["make", "drop", "write", "read", "delete", "list", "ask", "search", "look", "lists"],
            [6, 2, 24, 14, 10, 12, 8, 10, 8, 6],
        )[0]
        self.counts[kind] += 1
        name = self.draw.choice(self.NAMES)
        getattr(self, f"_{kind}")(who, name, self.world.banks[who].get(name))

    def _make(self, who: str, name: str, bank: Any) -> None:
        response = self.call(who, "POST", "/v1/banks", {"name": name})
        self.expect(response, 201 if bank is None else 409)
        self.world.banks[who].setdefault(name, {})

    def _drop(self, who: str, name: str, bank: Any) -> None:
        response = self.call(who, "DELETE", f"/v1/banks/{name}")
        self.expect(response, 404 if bank is None else 200)
        self.world.banks[who].pop(name, None)

    def _write(self, who: str, name: str, bank: Any) -> None:
        id = f"d{self.draw.randrange(12)}"
        text = f"The {who}secret number {self.draw.randrange(10**6)} opens the vault {id}."
        body = {"id": id, "text": text, "source": f"{who}secret.txt"}
        response = self.call(who, "POST", f"/v1/banks/{name}/documents", body)
        if bank is None:
            self.expect(response, 404)
        else:
            self.expect(response, 200 if id in bank else 201)
            bank[id] = text

    def _read(self, who: str, name: str, bank: Any) -> None:
        id = f"d{self.draw.randrange(12)}"
        response = self.call(who, "GET", f"/v1/banks/{name}/documents/{id}")
        known = None if bank is None else bank.get(id)
        self.expect(response, 404 if known is None else 200)
        if response.status_code == 200 and response.json()["text"] != known:
            self.wrong.append(f"{who} {name}/{id}: another text")

    def _delete(self, who: str, name: str, bank: Any) -> None:
        id = f"d{self.draw.randrange(12)}"
        response = self.call(who, "DELETE", f"/v1/banks/{name}/documents/{id}")
        self.expect(response, 200 if bank is not None and id in bank else 404)
        if bank is not None:
            bank.pop(id, None)

    def _list(self, who: str, name: str, bank: Any) -> None:
        response = self.call(who, "GET", f"/v1/banks/{name}/documents")
        self.expect(response, 404 if bank is None else 200)
        if bank is not None and {one["id"] for one in response.json()["data"]} != set(bank):
            self.wrong.append(f"{who} {name}: other documents")

    def _ask(self, who: str, name: str, bank: Any) -> None:
        body = {"model": name, "prompt": "Which number opens the vault d3?", "max_tokens": 6}
        response = self.call(who, "POST", "/v1/completions", body)
        self.expect(response, 404 if bank is None else 200)
        if bank is not None and response.status_code == 200:
            cited = {one["id"] for one in response.json()["latentbank"]["citations"]}
            if not cited <= set(bank):
                self.wrong.append(f"{who} {name}: cites {cited - set(bank)}")

    def _search(self, who: str, name: str, bank: Any) -> None:
        body = {"query": "secret number vault d3 d4"}
        response = self.call(who, "POST", f"/v1/vector_stores/{name}/search", body)
        self.expect(response, 404 if bank is None else 200)
        if bank is not None and response.status_code == 200:
            for one in response.json()["data"]:
                if bank.get(one["file_id"]) != one["content"][0]["text"]:
                    self.wrong.append(f"{who} {name}: finds another text")

    def _look(self, who: str, name: str, bank: Any) -> None:
        path = self.draw.choice(["", "/events"])
        response = self.call(who, "GET", f"/v1/banks/{name}{path}")
        self.expect(response, 404 if bank is None else 200)

    def _lists(self, who: str, name: str, bank: Any) -> None:
        response = self.call(who, "GET", "/v1/banks")
        if [one["name"] for one in response.json()["data"]] != sorted(self.world.banks[who]):
            self.wrong.append(f"{who}: other banks")


def fuzz_tenants(steps: int, seed: int, folder: Path) -> dict[str, Metric]:
    """Random operations; see `Steps`."""
    tenants = tuple(Tenant(name, (hash_token(token),)) for name, token in TOKENS.items())
    began = time.perf_counter()
    with TestClient(application(folder, tenants), raise_server_exceptions=False) as client:
        world = Steps(client, seed)
        for _ in range(steps):
            world.step()
    for fault in [*world.leaks, *world.wrong][:20]:
        print(fault)
    print(json.dumps(dict(world.counts)))
    return {
        "steps": Metric(steps, "count"),
        "leaks": Metric(len(world.leaks), "count"),
        "answers that the model does not foresee": Metric(len(world.wrong), "count"),
        "seconds": Metric(time.perf_counter() - began, "s"),
    }


def main() -> None:
    """Fuzzes and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("schema", "tenants"))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="results/server")
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "schema":
            metrics = fuzz_schema(args.requests, args.seed, Path(folder))
        else:
            metrics = fuzz_tenants(args.steps, args.seed, Path(folder))
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:g} {metric.unit}")
    path = Path(args.out) / f"fuzz-{args.what}.json"
    data = DataInfo("generated", "")
    write_measured(path, f"server-fuzz-{args.what}", metrics, data, seed=args.seed)


if __name__ == "__main__":
    main()
