"""A server under load: questions and writes at once, `kill -9` in between, batches; a record each.

`load`: clients that ask (80 %) and write (20 %) without pause; the first token's time beside that
of one client alone, and every acknowledged write looked for afterwards. `kill`: the same while the
server is killed and started again. `batch`: questions one at a time, then 16 at once. Traffic goes
to a server that this script starts on this machine, and ends by itself.

    python scripts/load_server.py load --clients 64 --seconds 600
    python scripts/load_server.py kill --clients 16 --kills 50
    python scripts/load_server.py batch
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from latentbank.bank import MemoryBank
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset, load_sample
from measured import write_measured

BANK = "load"
START = "from latentbank.cli import main; main()"


class Server:
    """`latentbank serve` in a process of its own, on one port."""

    def __init__(self, folder: Path, limits: dict[str, Any]) -> None:
        self.folder, self.limits = folder, limits
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        values = {f"LATENTBANK_SERVE_LIMITS_{k.upper()}": str(v) for k, v in self.limits.items()}
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "serve", "--port", str(self.port),
             "--data", str(self.folder / "banks")],
            env={**os.environ, **values}, stdout=log, stderr=log,
        )  # fmt: skip
        end = time.monotonic() + 600  # the machine may be busy
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/healthz", timeout=2).status_code == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        said = (self.folder / "server.log").read_text()[-2000:]
        self.kill()
        raise SystemExit(f"the server does not start: {said}")

    def kill(self) -> None:
        """Ends it at once, as a failure of power would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ends it as an operator does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(90)

    @property
    def bank(self) -> Path:
        """The bank's file."""
        return self.folder / "banks" / "local" / f"{BANK}.bank"


class Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.first: list[float] = []
        self.writes: list[float] = []
        self.statuses: dict[int, int] = {}
        self.broken = 0
        self.kept: list[str] = []  # ids of acknowledged writes

    def status(self, code: int) -> None:
        """Counts a response."""
        with self.lock:
            self.statuses[code] = self.statuses.get(code, 0) + 1


def ask(client: httpx.Client, question: str, load: Load, seconds: list[float]) -> int:
    """Asks with a stream; notes the time of the first text. Returns the status."""
    body = {
        "model": BANK,
        "stream": True,
        "style": "short",
        "quality": "fast",
        "messages": [{"role": "user", "content": question}],
    }
    began, first = time.perf_counter(), None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if '"content": "' in line and '"content": ""' not in line and first is None:
                first = time.perf_counter() - began
            if line.startswith('data: {"error"'):
                load.status(500)
        load.status(response.status_code)
        if response.status_code == 200:
            with load.lock:
                seconds.append(time.perf_counter() - began if first is None else first)
        elif response.status_code == 429:
            time.sleep(float(response.headers.get("retry-after", 1)))
        return response.status_code


def write(client: httpx.Client, name: str, load: Load, draw: random.Random) -> None:
    """Writes a document of its own; notes it once it is acknowledged."""
    text = f"The key of the locker {name} is {draw.randrange(10**9)}."
    began = time.perf_counter()
    response = client.post(f"/v1/banks/{BANK}/documents", json={"id": name, "text": text})
    load.status(response.status_code)
    if response.status_code in (200, 201):
        with load.lock:
            load.writes.append(time.perf_counter() - began)
            load.kept.append(name)
    elif response.status_code == 429:
        time.sleep(1)


def clients(server: Server, args: Any, load: Load, data: QADataset, until: Any) -> list[Any]:
    """Threads that ask and write until `until` is set."""
    questions = [one.text for one in data.questions]

    def run(number: int) -> None:
        draw, count = random.Random(args.seed * 1000 + number), 0
        with httpx.Client(base_url=server.address, timeout=120) as client:
            while not until.is_set():
                try:
                    if draw.random() < args.writes:
                        count += 1
                        write(client, f"c{number}-{count}", load, draw)
                    else:
                        ask(client, draw.choice(questions), load, load.first)
                except httpx.HTTPError:
                    with load.lock:
                        load.broken += 1
                    time.sleep(0.2)

    return [threading.Thread(target=run, args=(n,), daemon=True) for n in range(args.clients)]


def prepare(server: Server, data: QADataset, documents: int) -> None:
    """Makes the bank with the data's documents."""
    with httpx.Client(base_url=server.address, timeout=600) as client:
        client.post("/v1/banks", json={"name": BANK, "budget": "256MiB"}).raise_for_status()
        rows = [{"id": d.id, "text": d.text} for d in data.documents[:documents]]
        for at in range(0, len(rows), 64):
            body = {"documents": rows[at : at + 64]}
            client.post(f"/v1/banks/{BANK}/documents/batch", json=body).raise_for_status()


def alone(server: Server, data: QADataset, count: int) -> list[float]:
    """Seconds to the first text of one client; the first question opens the bank."""
    load, seconds = Load(), list[float]()
    with httpx.Client(base_url=server.address, timeout=120) as client:
        for one in data.questions[: count + 1]:
            ask(client, one.text, load, seconds)
    return seconds[1:]


def missing(server: Server, load: Load) -> tuple[int, int]:
    """(acknowledged writes that the bank lacks, damages of the bank), read from its file."""
    with MemoryBank.open(server.bank, read_only=True) as bank:
        held = set(bank.ids())
        damage = len(bank.verify().damage)
    return sum(name not in held for name in load.kept), damage


def measure_load(args: Any, folder: Path, data: QADataset) -> dict[str, Metric]:
    """The load of many clients beside one."""
    server = Server(folder, {})
    server.start()
    try:
        prepare(server, data, args.documents)
        single = alone(server, data, args.single)
        median = statistics.median(single)
    finally:
        server.stop()
    # what would begin later than a share of the limit is refused
    server.limits = {"first_token_seconds": round(args.admit * median, 3)}
    server.start()
    try:
        alone(server, data, 8)  # opens the bank and learns the pace
        load, until = Load(), threading.Event()
        threads = clients(server, args, load, data, until)
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(args.seconds)
        until.set()
        for thread in threads:
            thread.join(150)
        seconds = time.perf_counter() - began
    finally:
        server.stop()
    lost, damage = missing(server, load)
    ordered = sorted(load.first)
    p95 = ordered[int(0.95 * (len(ordered) - 1))] if ordered else float("inf")
    wrong = sum(n for code, n in load.statuses.items() if code not in (200, 201, 429))
    return {
        "clients": Metric(args.clients, "count"),
        "seconds": Metric(seconds, "s"),
        "first token, one client, median": Metric(median, "s"),
        "first token, p50": Metric(statistics.median(ordered), "s"),
        "first token, p95": Metric(p95, "s"),
        "p95 beside one client's median": Metric(p95 / median, "times"),
        "answers": Metric(len(load.first), "count"),
        "writes acknowledged": Metric(len(load.kept), "count"),
        "write, median": Metric(statistics.median(load.writes or [0.0]), "s"),
        "refused with 429": Metric(load.statuses.get(429, 0), "count"),
        "other errors": Metric(wrong + load.broken, "count"),
        "acknowledged writes lost": Metric(lost, "count"),
        "damages": Metric(damage, "count"),
    }


def measure_kill(args: Any, folder: Path, data: QADataset) -> dict[str, Metric]:
    """`kill -9` under load, again and again."""
    server = Server(folder, {})
    server.start()
    prepare(server, data, args.documents)
    load, until, draw = Load(), threading.Event(), random.Random(args.seed)
    threads = clients(server, args, load, data, until)
    for thread in threads:
        thread.start()
    damages = 0
    for _ in range(args.kills):
        before, end = len(load.kept), time.monotonic() + 60
        while len(load.kept) < before + 3 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(draw.random() * args.pause)
        server.kill()
        damages += missing(server, load)[1]
        server.start()
    until.set()
    for thread in threads:
        thread.join(150)
    server.stop()
    lost, damage = missing(server, load)
    return {
        "kills": Metric(args.kills, "count"),
        "clients": Metric(args.clients, "count"),
        "writes acknowledged": Metric(len(load.kept), "count"),
        "answers": Metric(len(load.first), "count"),
        "acknowledged writes lost": Metric(lost, "count"),
        "damages": Metric(damages + damage, "count"),
    }


def at_once(server: Server, questions: Sequence[str], clients: int) -> float:
    """Answers in a second while `clients` ask the questions, each of them once."""
    load, waiting = Load(), list(questions)

    def client() -> None:
        with httpx.Client(base_url=server.address, timeout=300) as one:
            while True:
                with load.lock:
                    if not waiting:
                        return
                    question = waiting.pop()
                ask(one, question, load, load.first)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load.statuses == {200: len(questions)}, load.statuses
    return len(questions) / (time.perf_counter() - began)


def measure_batch(args: Any, folder: Path, data: QADataset) -> dict[str, Metric]:
    """Questions one at a time beside many at once: of documents read before, and of others."""
    server = Server(folder, {"first_token_seconds": 600, "request_seconds": 600})  # no refusal
    server.start()
    prepare(server, data, args.documents)
    questions = [one.text for one in data.questions[8 : 8 + args.questions]]
    cold, hot = {}, {1: list[float](), args.clients: list[float]()}
    try:
        for clients in hot:
            server.stop()  # no document is remembered
            server.start()
            alone(server, data, 4)
            cold[clients] = at_once(server, questions, clients)
        for _ in range(args.rounds):
            for clients, found in hot.items():
                found.append(at_once(server, questions, clients))
        metrics = httpx.get(f"{server.address}/metrics").text
    finally:
        server.stop()
    print("\n".join(line for line in metrics.splitlines() if "latentbank_batches" in line))
    one, many = (statistics.median(found) for found in hot.values())
    return {
        "clients": Metric(args.clients, "count"),
        "questions": Metric(len(questions), "count"),
        "one at a time": Metric(one, "1/s"),
        "at once": Metric(many, "1/s"),
        "at once beside one at a time": Metric(many / one, "times"),
        "documents not read before: one at a time": Metric(cold[1], "1/s"),
        "documents not read before: at once": Metric(cold[args.clients], "1/s"),
        "documents not read before: at once beside one at a time": Metric(
            cold[args.clients] / cold[1], "times"
        ),
    }


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("load", "kill", "batch"))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--pause", type=float, default=2.0, help="Longest wait before a kill.")
    parser.add_argument("--writes", type=float, default=0.2, help="Share of writes.")
    parser.add_argument("--documents", type=int, default=150)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="Of `batch`; medians count.")
    parser.add_argument("--single", type=int, default=20, help="Questions of the single client.")
    parser.add_argument("--admit", type=float, default=3.0, help="Limit in single medians.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="results/server")
    args = parser.parse_args()
    data = load_sample()
    work = {"load": measure_load, "kill": measure_kill, "batch": measure_batch}[args.what]
    with tempfile.TemporaryDirectory() as folder:
        metrics = work(args, Path(folder), data)
    for name, metric in metrics.items():
        print(f"{name}: {json.dumps(metric.value)} {metric.unit}", flush=True)
    write_measured(
        Path(args.out) / f"{args.what}.json", f"server-{args.what}", metrics, data, seed=args.seed
    )


if __name__ == "__main__":
    main()
