"""A child process that answers with llama.cpp: one JSON request a line, one JSON reply a line.

A process of its own, since a build of llama.cpp may end it: `--plain` leaves the weights as the
file has them, for a build whose repacked weights crash. Times are taken around llama.cpp alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any


def loaded(path: str, threads: int, plain: bool) -> Any:
    """The model of a GGUF file."""
    import llama_cpp

    if plain:
        low = llama_cpp.llama_cpp
        usual = low.llama_model_default_params

        def parameters() -> Any:
            made = usual()
            made.use_extra_bufts = False
            return made

        low.llama_model_default_params = parameters
        llama_cpp.llama_model_default_params = parameters
    options = {"n_ctx": 2048, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
    return llama_cpp.Llama(path, **options)


def answer(model: Any, passage: str, question: str, kept: bool, tokens: int) -> dict[str, Any]:
    """Seconds to the first token and to the last of `tokens`, greedy.

    With `kept` the passage is in the model's memory before the time begins.
    """
    before = model.tokenize(f"{passage}\n\n".encode(), add_bos=True)
    asked = model.tokenize(f"Question: {question}\nAnswer:".encode(), add_bos=False)
    model.reset()
    if kept:
        model.eval(before)
    began = time.perf_counter()
    model.eval(asked if kept else [*before, *asked])
    found = [model.sample(temp=0.0)]
    first = time.perf_counter() - began
    while len(found) < tokens:
        model.eval(found[-1:])
        found.append(model.sample(temp=0.0))
    whole = time.perf_counter() - began
    text = model.detokenize(found).decode(errors="replace")
    return {"first": first, "whole": whole, "text": text, "prompt": len(before) + len(asked)}


def main() -> None:
    """Answers until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    model = loaded(options.model, options.threads, options.plain)
    for line in sys.stdin:
        print(json.dumps(answer(model, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
