"""A small MAC model reads a long text once, remembers a needle in it, and shows its surprise.

    python examples/titans_needle.py examples/titans-mac [--tokens 1500] [--plot surprise.svg]

The folder is one that `scripts/bench_titans.py --checkpoints FOLDER` has saved. The text is
made of the packaged sample. With --plot the surprise of each token is drawn (needs matplotlib).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from latentbank.evaluate.data import load_sample
from latentbank.evaluate.long_context import VALUE_TOKENS, Haystack, needle_sample
from latentbank.parts.memory_lm import MemoryLM
from latentbank.parts.neural_memory import NeuralMemory


def main() -> None:
    """Reads, asks, prints; and draws where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--kind", default="number", help="passkey, number or word")
    parser.add_argument("--depth", type=float, default=0.3, help="where the needle is, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", help="file for a plot of the surprise")
    options = parser.parse_args()

    model = MemoryLM.from_pretrained(options.checkpoint)
    hay = Haystack.of([d.text for d in load_sample().documents], model.config.vocab_size)
    draw = np.random.default_rng(options.seed)
    text, value = needle_sample(hay, options.kind, options.tokens, options.depth, draw)
    ids = torch.from_numpy(text)[None]

    surprise: list[list[float]] = []
    watched = [m for m in model.modules() if isinstance(m, NeuralMemory)]
    handle = watched[0].register_forward_hook(
        lambda module, given, read: surprise.append(read.surprise[0].tolist())
    )
    stream = model.read(ids[:, :-1])  # the text is read once, in pieces; the state does not grow
    handle.remove()
    said = model.generate(
        ids[:, -1:], past_key_values=stream, max_new_tokens=VALUE_TOKENS, do_sample=False,
        pad_token_id=0,
    )[0, 1:]  # fmt: skip

    words = hay.vocabulary
    values = [one for piece in surprise for one in piece]
    top = sorted(range(len(values)), key=lambda i: -values[i])[:10]
    print(f"text      {options.tokens:,} tokens, state {stream.nbytes:,} bytes")
    print(f"asked     {words.decode(text[-3:])}")
    print(f"answered  {words.decode(said.tolist())}")
    print(f"right     {words.decode(value)}")
    print("most surprising tokens:")
    for i in sorted(top):
        around = words.decode(text[max(0, i - 4) : i + 1])
        print(f"  {i:>7}  {values[i]:.3f}  … {around}")
    if options.plot:
        draw_surprise(values, options.plot)


def draw_surprise(values: list[float], path: str) -> None:
    """A line of the surprise over the tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, linewidth=0.6)
    axes.set_xlabel("token")
    axes.set_ylabel("surprise")
    figure.savefig(path)
    print(f"plot      {path}")


if __name__ == "__main__":
    main()
