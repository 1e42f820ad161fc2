"""Ready steps for a bank's ladder, made of the codecs: float to fewer bits, residual levels, mass.

Knows codecs and entries; nothing about banks or methods. A method joins these with steps of its
own, such as from text to its gist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from latentbank.bank.entry import Entry
from latentbank.bank.ladder import GIST, MASS, VERBATIM, Step, to_mass, trace
from latentbank.codec import array_codec
from latentbank.codec.residual import ResidualCodec

__all__ = ["array_step", "array_to_trace", "strata_levels", "text_step", "trace_steps"]


def strata_levels(residual_levels: int = 8) -> tuple[str, ...]:
    """The levels of a Strata bank: verbatim, gist, traceL … trace1, mass."""
    traces = [trace(number) for number in range(residual_levels, 0, -1)]
    return VERBATIM, GIST, *traces, MASS


def array_step(source: str, target: str, dim: int) -> Step:
    """From one array codec to another, such as "float16" to "int8", for rows of `dim` numbers."""
    before, after = array_codec(source), array_codec(target)

    def lower(entry: Entry) -> Entry:
        rows = before.decode(entry.payload, dim)
        return replace(entry, level=target, payload=after.encode(rows))

    return Step(source, target, lower)


def array_to_trace(source: str, codec: ResidualCodec) -> Step:
    """From an array codec's rows to all levels of a residual codec."""
    before = array_codec(source)
    target = trace(codec.levels)

    def lower(entry: Entry) -> Entry:
        rows = before.decode(entry.payload, codec.width)
        return replace(entry, level=target, payload=codec.encode(rows))

    return Step(source, target, lower)


def trace_steps(codec: ResidualCodec, tokens: int, to_histogram: bool = True) -> list[Step]:
    """traceL → … → trace1 by cutting bytes and, if `to_histogram`, trace1 → mass.

    Codes of the first level alone are counted: theirs is the codebook that a histogram is read
    with.
    """

    def cut(levels: int) -> Callable[[Entry], Entry]:
        def lower(entry: Entry) -> Entry:
            kept = codec.prefix(entry.payload, tokens, levels)
            return replace(entry, level=trace(levels), payload=kept)

        return lower

    steps = [
        Step(trace(number), trace(number - 1), cut(number - 1))
        for number in range(codec.levels, 1, -1)
    ]

    def count(entry: Entry) -> Entry:
        return to_mass(entry, np.ravel(codec.unpack(entry.payload, tokens)[0]).tolist())

    return [*steps, Step(trace(1), MASS, count)] if to_histogram else steps


def text_step(
    source: str,
    target: str,
    decode: Callable[[bytes], str],
    shorten: Callable[[str], str | None],
    encode: Callable[[str], bytes],
) -> Step:
    """From a text to a shorter one; `shorten` returns None where nothing is worth keeping."""

    def lower(entry: Entry) -> Entry | None:
        text = shorten(decode(entry.payload))
        return None if text is None else replace(entry, level=target, payload=encode(text))

    return Step(source, target, lower)
